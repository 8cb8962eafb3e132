from hypothesis import given
from hypothesis import strategies as st
import pytest

from sharder import pieces as module
from sharder.pieces import encode_text, pieces
from sharder.tokenizer import with_chat_specials
from trainwright.tokens.bundle import GPT2_PATTERN, GPT4_PATTERN

RANKS = {bytes([byte]): byte for byte in range(256)} | {b"  ": 256, b"    ": 257}
HARD = {"spaces": " " * 2_000_000 + "a", "line ends": "\n" * 2_000_000 + "x", "letters": "a" * 2_000_000}


@given(st.text(max_size=50))
def test_pieces_make_the_text(text: str) -> None:
    assert "".join(pieces(text)) == text


def test_pieces_are_bounded() -> None:
    assert [len(piece) for piece in pieces("é" * (2 * module.PIECE_CHARACTERS + 1))] == [100_000, 100_000, 1]


@pytest.mark.parametrize("pattern", [GPT2_PATTERN, GPT4_PATTERN])
@pytest.mark.parametrize("name", HARD)
def test_a_document_that_the_pattern_cannot_take_is_encoded_all_the_same(pattern: str, name: str) -> None:
    bundle = with_chat_specials("bpe", pattern, RANKS, {})
    tokens = encode_text(bundle, HARD[name])
    assert bundle.encoding.decode(tokens.tolist()) == HARD[name]


def test_ordinary_documents_are_encoded_whole() -> None:
    bundle = with_chat_specials("bpe", GPT4_PATTERN, RANKS, {})
    assert encode_text(bundle, "a    b").tolist() == bundle.encode("a    b").tolist()
