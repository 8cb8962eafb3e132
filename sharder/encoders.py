"""Encoders: UTF-8 in, tokens out, and the same tokens whichever one works.

tiktoken says what is right. gigatoken is some ten times as fast and splits text by hand-written code instead of the
pattern, so it is used only for the patterns below, after its tokens were held against tiktoken's on `VECTORS`.
Documents on which the two are known to part are tiktoken's (`Gigatoken`).
"""

import logging
import re
import unicodedata
from collections.abc import Iterable, Sequence
from functools import cache
from importlib.metadata import version
from itertools import groupby
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from sharder.imports import SAMPLES
from sharder.pieces import encode_text
from trainwright.tokens.bundle import CL100K_PATTERN, GPT2_PATTERN, GPT4_PATTERN, VOCABULARY, Bundle

Found = npt.NDArray[Any]
"""Tokens of any unsigned type."""

SCHEMES = {GPT2_PATTERN: "gpt2", CL100K_PATTERN: "gpt4", GPT4_PATTERN: "gpt4"}
"""Pattern -> gigatoken's name for the splitting that is the same, but for digits (`Gigatoken`)."""
VECTORS = (
    *SAMPLES,
    "",
    "\n",
    " \n  \r\n\t x  ",
    "In 1999, 12345678 of 1 000 000 paid $1,234.50; 7+77+777=861.\n\n\n",
    "don't DON'T you'LL we\u2019ll 'sS '\u017f \u212a's naïve\u00a0\u2003x\u3000",
    "m\u00b2 \u00bd \u0661\u0662\u0663 \uff11\uff12\uff13 \u2460\u2461 \u4e00\u4e8c x\x00y 12\x003 1\u0301",
    "\u200d\ufeff\U0001f468\u200d\U0001f469\u200d\U0001f467 \ud55c\uad6d\uc5b4 \u0e44\u0e17\u0e22 \u0939\u093f",
    "    def f(a, b):\n        return a[0]**2 + b != '...'\n\n\n    # ----\t\t\n ",
)
"""Texts on which a fast encoder must give tiktoken's tokens before it is used."""
LONG_BYTES = 20_000
_LONG_SPACE = re.compile(rf"\s{{{LONG_BYTES}}}")
_MARK = b"\x00"
_SEPARATOR = b"\x00\x01"
"""Stands for the separator where gigatoken reads several documents at once, none of which has a NUL."""
_ASCII = bytes(range(128))

log = logging.getLogger(__name__)


class Encoder(Protocol):
    """What turns documents, as UTF-8, into tokens."""

    name: str

    def encode(self, documents: Sequence[bytes]) -> Found:
        """Return the tokens of all documents, one after the other, the separator before each."""
        ...


class Bytes:
    """Every byte is its own token."""

    name = "bytes"

    def __init__(self, bundle: Bundle) -> None:
        self._separator = np.array([bundle.separator], dtype=np.uint16)

    def encode(self, documents: Sequence[bytes]) -> Found:
        """Return the tokens of all documents."""
        return _after_separators(self._separator, [np.frombuffer(data, dtype=np.uint8) for data in documents])


class Tiktoken:
    """The encoder that every vocabulary has."""

    def __init__(self, bundle: Bundle) -> None:
        self.name = f"tiktoken-{version('tiktoken')}"
        self._bundle = bundle
        self._separator = np.array([bundle.separator], dtype=np.uint32)

    def encode(self, documents: Sequence[bytes]) -> Found:
        """Return the tokens of all documents."""
        return _after_separators(self._separator, [encode_text(self._bundle, data.decode()) for data in documents])


def _after_separators(separator: Found, documents: Sequence[Found]) -> Found:
    # Of no documents there are no tokens, but they have a type.
    return np.concatenate([separator[:0], *(part for tokens in documents for part in (separator, tokens))])


class Gigatoken:
    """The fast encoder.

    It reads all documents in one call, `_SEPARATOR` before each, since a call costs as much as a short document. It
    cuts numbers into three digits at most: where the pattern says two, a NUL is put behind every second digit that
    another one follows; by itself it is one token, which is then taken out.
    """

    def __init__(self, bundle: Bundle, folder: Path, exact: Encoder) -> None:
        from gigatoken.gigatoken_rs import BPETokenizer

        self.name = f"gigatoken-{version('gigatoken')}"
        separator = {_SEPARATOR.decode(): bundle.separator}
        self._fast = BPETokenizer.from_tiktoken(str(folder / VOCABULARY), SCHEMES[bundle.pattern], separator)
        self._exact = exact
        self._mark = bundle.ranks[_MARK] if bundle.pattern == GPT4_PATTERN else None

    def encode(self, documents: Sequence[bytes]) -> Found:
        """Return the tokens of all documents."""
        parts = [
            self._together(group) if reads else self._exact.encode(list(group))
            for reads, group in groupby(documents, self._reads)
        ]
        return parts[0] if len(parts) == 1 else np.concatenate([np.empty(0, dtype=np.uint32), *parts])

    def _together(self, documents: Iterable[bytes]) -> Found:
        text = b"".join(part for data in documents for part in (_SEPARATOR, data))
        marked = text if self._mark is None else mark_digits(text)
        tokens: Found = self._fast.encode(marked)
        return tokens if marked is text else tokens[tokens != self._mark]

    def _reads(self, data: bytes) -> bool:
        """Return whether a document's tokens are known to be tiktoken's."""
        if _MARK in data:
            return False
        if len(data) > LONG_BYTES and _LONG_SPACE.search(data.decode()):
            # tiktoken refuses such documents whole, and they are encoded in pieces.
            return False
        return self._mark is None or data.isascii() or _has_ascii_numbers_only(data)


def mark_digits(text: bytes) -> bytes:
    """Return a text with a NUL behind every second digit (of ASCII) of a run that goes on."""
    characters = np.frombuffer(text, dtype=np.uint8)
    # What lies below "0" wraps to large numbers.
    digits = (characters - np.uint8(ord("0"))) < 10
    threes = np.flatnonzero(digits[2:] & digits[1:-1] & digits[:-2])
    if not len(threes):
        return text
    begins = np.diff(threes, prepend=-2) != 1
    since = threes - np.maximum.accumulate(np.where(begins, threes, 0))
    return np.insert(characters, threes[since % 2 == 0] + 2, 0).tobytes()


def _has_ascii_numbers_only(data: bytes) -> bool:
    # What is left of UTF-8 without ASCII is UTF-8, and little.
    return not any(map(_may_be_number, set(data.translate(None, _ASCII).decode())))


@cache
def _may_be_number(character: str) -> bool:
    """Return whether a regular expression of any age may count a character, not of ASCII, as a number."""
    kind = unicodedata.category(character)
    # What this Python does not know yet may be a number in a newer Unicode.
    return kind[0] == "N" or kind == "Cn"


def choose_encoder(bundle: Bundle, folder: Path, *, fast: bool = True) -> tuple[Encoder, str]:
    """Return the fastest encoder that is exact for a bundle, which lies in `folder`, and why it is this one."""
    if bundle.kind == "bytes":
        return Bytes(bundle), "a byte is a token"
    exact = Tiktoken(bundle)
    return _fastest(bundle, folder, exact) if fast else (exact, "data.encoder=tiktoken")


def _fastest(bundle: Bundle, folder: Path, exact: Encoder) -> tuple[Encoder, str]:
    if bundle.pattern not in SCHEMES:
        return exact, "no faster one splits text by this vocabulary's pattern"
    try:
        candidate = Gigatoken(bundle, folder, exact)
    except ImportError:
        return exact, "gigatoken is not installed"
    except (ValueError, OSError, RuntimeError) as error:
        return exact, f"gigatoken does not read this vocabulary: {str(error).splitlines()[0]}"
    if not agree(candidate, exact, [text.encode() for text in VECTORS]):
        return exact, f"{candidate.name} gives other tokens for this vocabulary"
    return candidate, f"gives tiktoken's tokens on {len(VECTORS)} texts"


def agree(one: Encoder, other: Encoder, documents: Sequence[bytes]) -> bool:
    """Return whether two encoders give the same tokens, for all documents at once and for each alone."""
    batches = [documents, *([data] for data in documents)]
    return all(np.array_equal(one.encode(batch), other.encode(batch)) for batch in batches)
