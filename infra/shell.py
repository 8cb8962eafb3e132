"""Shell text, built word by word through one quoting function."""

import shlex
from collections.abc import Iterable


def command_line(words: Iterable[str]) -> str:
    """Return words as one shell command; each word arrives as it is."""
    return " ".join(shlex.quote(word) for word in words)
