"""Shell text, built word by word through one quoting function."""

import shlex
from collections.abc import Iterable


def command_line(words: Iterable[str]) -> str:
    """Return words as one shell command; each word arrives as it is."""
    return " ".join(shlex.quote(word) for word in words)


def expanding_line(words: Iterable[str]) -> str:
    """Return words as one shell command in which `$name` of the rendered script stands for its value.

    Only for words of which we know every letter: a backtick, a quote or a backslash in one is a mistake of ours.
    """
    found = list(words)
    assert not any(set(word) & set('"\\`') for word in found), found
    return " ".join(f'"{word}"' if "$" in word else shlex.quote(word) for word in found)
