"""Documents that the split patterns cannot take whole: they give up on runs of about a million spaces.

tiktoken then refuses the document and rustbpe panics, so training reads every long document in pieces, and encoding
falls back to them. Pieces decode to the same text; only the tokens at the cuts differ.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from trainwright.tokens.bundle import Bundle

PIECE_CHARACTERS = 100_000


def pieces(text: str) -> Iterator[str]:
    """Yield a text in pieces of at most `PIECE_CHARACTERS`."""
    for start in range(0, len(text), PIECE_CHARACTERS):
        yield text[start : start + PIECE_CHARACTERS]


def encode_text(bundle: Bundle, text: str) -> npt.NDArray[Any]:
    """Return tiktoken's tokens of a document, without the separator."""
    encode = bundle.encoding.encode_to_numpy
    try:
        return encode(text, disallowed_special=())
    except ValueError:
        return np.concatenate([encode(piece, disallowed_special=()) for piece in pieces(text)])
