"""Encoders: UTF-8 in, tokens out, and the same tokens whichever one works.

tiktoken says what is right. gigatoken is some ten times as fast and splits text by hand-written code instead of the
pattern, so it is used only for the patterns below, after its tokens were held against tiktoken's on `VECTORS`.
Documents on which the two are known to part are tiktoken's (`Gigatoken`).
"""

import logging
import re
import unicodedata
from collections.abc import Sequence
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from sharder.imports import SAMPLES
from sharder.pieces import encode_text
from trainwright.tokens.bundle import CL100K_PATTERN, GPT2_PATTERN, GPT4_PATTERN, VOCABULARY, Bundle

Found = npt.NDArray[Any]
"""Tokens of any unsigned type, without the separator."""

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
_ASCII = bytes(range(128))

log = logging.getLogger(__name__)


class Encoder(Protocol):
    """What turns documents, as UTF-8, into tokens."""

    name: str

    def encode(self, documents: Sequence[bytes]) -> list[Found]:
        """Return the tokens of each document, without the separator."""
        ...


class Bytes:
    """Every byte is its own token."""

    name = "bytes"

    def encode(self, documents: Sequence[bytes]) -> list[Found]:
        """Return the tokens of each document."""
        return [np.frombuffer(data, dtype=np.uint8) for data in documents]


class Tiktoken:
    """The encoder that every vocabulary has."""

    def __init__(self, bundle: Bundle) -> None:
        self.name = f"tiktoken-{version('tiktoken')}"
        self._bundle = bundle

    def encode(self, documents: Sequence[bytes]) -> list[Found]:
        """Return the tokens of each document."""
        return [encode_text(self._bundle, data.decode()) for data in documents]


class Gigatoken:
    """The fast encoder.

    It cuts numbers into three digits at most. Where the pattern says two, a NUL is put behind every second digit that
    another one follows: by itself it is one token, which is then taken out.
    """

    def __init__(self, bundle: Bundle, folder: Path, exact: Encoder) -> None:
        from gigatoken.gigatoken_rs import BPETokenizer

        self.name = f"gigatoken-{version('gigatoken')}"
        self._fast = BPETokenizer.from_tiktoken(str(folder / VOCABULARY), SCHEMES[bundle.pattern], {})
        self._exact = exact
        self._mark = bundle.ranks[_MARK] if bundle.pattern == GPT4_PATTERN else None

    def encode(self, documents: Sequence[bytes]) -> list[Found]:
        """Return the tokens of each document."""
        marked = documents if self._mark is None else mark_digits(documents)
        return [self._encode(*pair) for pair in zip(documents, marked, strict=True)]

    def _encode(self, data: bytes, marked: bytes) -> Found:
        if len(data) > LONG_BYTES and _LONG_SPACE.search(data.decode()):
            # tiktoken refuses such documents whole, and they are encoded in pieces.
            return self._exact.encode([data])[0]
        if self._mark is None:
            return self._fast.encode(data)
        if _MARK in data or not (data.isascii() or _has_ascii_numbers_only(data)):
            return self._exact.encode([data])[0]
        tokens = self._fast.encode(marked)
        return tokens if len(marked) == len(data) else tokens[tokens != self._mark]


def mark_digits(documents: Sequence[bytes]) -> Sequence[bytes]:
    """Return each document with a NUL behind every second digit (of ASCII) of a run that goes on.

    All documents at once, because most are short, and numpy takes longer to begin than to work.
    """
    characters = np.frombuffer(b"\n".join(documents), dtype=np.uint8)
    # What lies below "0" wraps to large numbers.
    digits = (characters - np.uint8(ord("0"))) < 10
    threes = np.flatnonzero(digits[2:] & digits[1:-1] & digits[:-2])
    if not len(threes):
        return documents
    begins = np.diff(threes, prepend=-2) != 1
    since = threes - np.maximum.accumulate(np.where(begins, threes, 0))
    places = threes[since % 2 == 0] + 2
    joined = np.insert(characters, places, 0).tobytes()
    ends = np.cumsum([len(data) + 1 for data in documents]) - 1
    ends += np.searchsorted(places, ends)
    starts = [0, *(ends[:-1] + 1).tolist()]
    return [joined[start:end] for start, end in zip(starts, ends.tolist(), strict=True)]


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
        return Bytes(), "a byte is a token"
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
    if differing(candidate, exact, [text.encode() for text in VECTORS]):
        return exact, f"{candidate.name} gives other tokens for this vocabulary"
    return candidate, f"gives tiktoken's tokens on {len(VECTORS)} texts"


def differing(one: Encoder, other: Encoder, documents: Sequence[bytes]) -> list[int]:
    """Return the indices of the documents for which two encoders give different tokens."""
    pairs = zip(one.encode(documents), other.encode(documents), strict=True)
    return [index for index, (left, right) in enumerate(pairs) if not np.array_equal(left, right)]
