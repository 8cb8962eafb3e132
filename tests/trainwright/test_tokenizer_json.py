"""What is written for Hugging Face's libraries encodes there as it does here."""

import json
from pathlib import Path
from typing import Any
import warnings

from hypothesis import example, given
from hypothesis import strategies as st
import pytest
import rustbpe

from trainwright.tokens.bundle import CHAT_SPECIALS, CL100K_PATTERN, GPT2_PATTERN, GPT4_PATTERN, Bundle, bytes_bundle
from trainwright.tokens.tokenizer_json import merged_pairs, tokenizer_tree, write_tokenizer_json

TEXTS = [path.read_text(encoding="utf-8") for path in sorted(Path(__file__).parent.glob("test_*.py"))]


def trained(pattern: str) -> Bundle:
    trainer = rustbpe.Tokenizer()
    trainer.train_from_iterator(iter(TEXTS), 700, pattern=pattern)
    ranks = {bytes(token): rank for token, rank in trainer.get_mergeable_ranks()}
    specials = {name: len(ranks) + index for index, name in enumerate(CHAT_SPECIALS)}
    return Bundle("bpe", pattern, ranks, specials)


BUNDLES = {
    "gpt2": lambda: trained(GPT2_PATTERN),
    "gpt4": lambda: trained(GPT4_PATTERN),
    "cl100k": lambda: trained(CL100K_PATTERN),
    "bytes": bytes_bundle,
}


@pytest.fixture(scope="module", params=sorted(BUNDLES))
def both(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Bundle, Any, Path]:
    from tokenizers import Tokenizer

    bundle: Bundle = BUNDLES[request.param]()
    folder = tmp_path_factory.mktemp("tokenizer")
    write_tokenizer_json(folder, bundle, 128)
    return bundle, Tokenizer.from_file(str(folder / "tokenizer.json")), folder


CHARACTERS = st.characters(exclude_categories=["Cs"]) | st.sampled_from(list(" \n\r\t'12345ab\u00a0\u2028é"))


@given(text=st.text(CHARACTERS, max_size=100))
@example("a\nb\n\n  c \r\n\n")
@example("12345678 it's IT'S   \n")
@example("trailing   ")
@example("def tokens(self):\n    return self._tokens[1:]  # naïve 中文 🙂🏽\n")
def test_every_text_has_the_same_tokens_and_comes_back(both: tuple[Bundle, Any, Path], text: str) -> None:
    bundle, theirs, _ = both
    if not any(name in text for name in bundle.special_tokens):
        ids = theirs.encode(text, add_special_tokens=False).ids
        assert ids == bundle.encode(text).tolist()
        assert theirs.decode(ids) == text


def test_whole_files_have_the_same_tokens(both: tuple[Bundle, Any, Path]) -> None:
    bundle, theirs, _ = both
    for text in TEXTS[:6]:
        plain = text.replace("<|", "<")
        assert theirs.encode(plain, add_special_tokens=False).ids == bundle.encode(plain).tolist()


def test_a_text_begins_as_a_document_does(both: tuple[Bundle, Any, Path]) -> None:
    bundle, theirs, _ = both
    assert theirs.encode("a text").ids == bundle.encode_document("a text").tolist()
    assert theirs.get_vocab_size() == bundle.vocab_size
    assert {name: theirs.token_to_id(name) for name in bundle.special_tokens} == dict(bundle.special_tokens)


def test_transformers_reads_the_folder(both: tuple[Bundle, Any, Path]) -> None:
    bundle, _, folder = both
    with warnings.catch_warnings():
        # What the library says about itself is not about the folder.
        warnings.simplefilter("ignore")
        from transformers import AutoTokenizer

        theirs = AutoTokenizer.from_pretrained(folder)
    first = next(iter(bundle.special_tokens))
    assert (theirs.bos_token, theirs.eos_token, theirs.model_max_length) == (first, first, 128)
    assert theirs("a text").input_ids == bundle.encode_document("a text").tolist()


def test_special_tokens_keep_numbers_that_leave_a_gap() -> None:
    from tokenizers import Tokenizer

    ranks = {bytes([byte]): byte for byte in range(256)}
    bundle = Bundle("bpe", GPT4_PATTERN, ranks, {"<|bos|>": 300, "<|end|>": 290})
    theirs = Tokenizer.from_str(json.dumps(tokenizer_tree(bundle)))
    assert theirs.encode("a<|end|>").ids == [300, 97, 290]


def test_each_token_is_made_of_the_pair_that_merging_makes() -> None:
    ranks = {bytes([byte]): byte for byte in range(256)} | {b"ab": 256, b"bc": 257, b"abc": 258, b"xyz": 259}
    # xyz is never made of two tokens: tiktoken takes it only when it is a whole piece.
    assert merged_pairs(ranks) == [(b"a", b"b"), (b"b", b"c"), (b"ab", b"c")]
