"""Documents that the split patterns cannot take whole: they give up on runs of about a million spaces.

tiktoken then refuses the document and rustbpe panics, so training reads every long document in pieces, and encoding
falls back to them. Pieces decode to the same text; only the tokens at the cuts differ.
"""

from collections.abc import Iterator

import numpy as np

from trainwright.tokens.bundle import Bundle
from trainwright.tokens.shards import Tokens

PIECE_CHARACTERS = 100_000


def pieces(text: str) -> Iterator[str]:
    """Yield a text in pieces of at most `PIECE_CHARACTERS`."""
    for start in range(0, len(text), PIECE_CHARACTERS):
        yield text[start : start + PIECE_CHARACTERS]


def encode_document(bundle: Bundle, text: str) -> Tokens:
    """Return the separator and the tokens of a document."""
    try:
        return bundle.encode_document(text)
    except ValueError:
        return np.concatenate([bundle.encode_document(""), *(bundle.encode(piece) for piece in pieces(text))])
