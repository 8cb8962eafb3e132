"""Makes text from files fit to be shown: no control characters, nothing that UTF-8 cannot hold."""

import re

_UNPRINTABLE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff\u202a-\u202e\u2066-\u2069]")


def printable(text: str) -> str:
    """Return text with line ends made one kind, and every character that no page may hold shown as U+FFFD.

    Model output may hold anything: escape sequences for terminals, and marks that reorder what a reader sees.
    """
    return _UNPRINTABLE.sub("\N{REPLACEMENT CHARACTER}", text.replace("\r\n", "\n").replace("\r", "\n"))


def one_line(text: str) -> str:
    """Return printable text with its line ends and tabs as spaces."""
    return re.sub(r"[\n\t\u2028\u2029]", " ", printable(text)).strip()
