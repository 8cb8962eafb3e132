import base64
import json
import os
from pathlib import Path
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
import pytest

from made_corpus import made_documents
from sharder.imports import SAMPLES, read_tiktoken_file, read_tokenizer_json
from trainwright.spec.exits import UserError
from trainwright.tokens.bundle import CHAT_SPECIALS, GPT2_PATTERN, Bundle, vocabulary_text

LLAMA3_PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
    r"|\s+(?!\S)|\s+"
)


def trained(form: str) -> Any:
    """Return a tokenizer trained by Hugging Face's own library, split as GPT-2 or as Llama 3 does."""
    try:
        from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
    except ImportError:
        if os.environ.get("TRAINWRIGHT_REQUIRE_ENGINES") == "1":
            raise
        pytest.skip("Hugging Face's tokenizers is not installed")
    tokenizer = Tokenizer(models.BPE())
    own_regex = pre_tokenizers.ByteLevel(add_prefix_space=False)
    split = pre_tokenizers.Split(Regex(LLAMA3_PATTERN), "isolated")
    plain = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.pre_tokenizer = own_regex if form == "gpt2" else pre_tokenizers.Sequence([split, plain])
    tokenizer.decoder = decoders.ByteLevel()
    specials = ["<pad>", "<bos>", "<eos>"] if form == "gpt2" else []
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=700, special_tokens=specials, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(made_documents(300), trainer)
    if form != "gpt2":
        tokenizer.add_special_tokens(["<|begin_of_text|>", "<|end_of_text|>"])
    return tokenizer


@pytest.fixture(scope="module", params=["gpt2", "llama3"])
def both(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Bundle]:
    tokenizer = trained(request.param)
    path = tmp_path_factory.mktemp("tokenizer") / "tokenizer.json"
    tokenizer.save(str(path))
    return tokenizer, read_tokenizer_json(path)


@given(text=st.text(max_size=200))
def test_an_imported_tokenizer_encodes_as_its_own_library_does(both: tuple[Any, Bundle], text: str) -> None:
    theirs, ours = both
    # Words that spell a special token are text to us and a token to their library.
    if not any(name in text for name in ours.special_tokens):
        assert ours.encode(text).tolist() == theirs.encode(text, add_special_tokens=False).ids


def test_it_encodes_whole_documents_alike_and_starts_them_with_their_first_token(both: tuple[Any, Bundle]) -> None:
    theirs, ours = both
    for text in [*made_documents(100, seed=5), *SAMPLES[:2]]:
        assert ours.encode(text).tolist() == theirs.encode(text, add_special_tokens=False).ids
    assert ours.separator == theirs.token_to_id("<bos>" if theirs.token_to_id("<bos>") else "<|begin_of_text|>")
    assert ours.vocab_size == theirs.get_vocab_size()
    assert ours.kind == "bpe"


def edited(tmp_path: Path, edit: dict[str, Any]) -> Path:
    """Write a good tokenizer.json with some of its parts replaced."""
    tree = json.loads(trained("gpt2").to_str())
    for key, value in edit.items():
        *parents, last = key.split(".")
        here = tree
        for parent in parents:
            here = here[parent]
        here[last] = value
    path = tmp_path / "tokenizer.json"
    path.write_text(json.dumps(tree))
    return path


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        ({"model.type": "WordPiece"}, "its model is WordPiece"),
        ({"normalizer": {"type": "NFC"}}, "it normalizes text (NFC)"),
        ({"pre_tokenizer.add_prefix_space": True}, "add_prefix_space"),
        ({"pre_tokenizer": {"type": "Whitespace"}}, "it is not byte-level"),
        ({"pre_tokenizer": None}, "it is not byte-level"),
        ({"pre_tokenizer.use_regex": False}, "splits text in a way that is not read"),
        ({"model.byte_fallback": True}, "byte_fallback=True"),
        ({"model.continuing_subword_prefix": "##"}, "continuing_subword_prefix=##"),
        ({"added_tokens": []}, "no merge makes its token"),
        ({"model.merges": []}, "no merge makes its token"),
        ({"model.vocab": {"a": 1}}, "byte 0 has no token"),
    ],
)
def test_what_would_encode_otherwise_is_refused_in_a_sentence(
    tmp_path: Path, edit: dict[str, Any], message: str
) -> None:
    path = edited(tmp_path, edit)
    with pytest.raises(UserError) as error:
        read_tokenizer_json(path)
    assert message in str(error.value)
    assert str(path) in str(error.value)


def test_merges_in_another_order_than_their_numbers_are_refused(tmp_path: Path) -> None:
    merges = json.loads(trained("gpt2").to_str())["model"]["merges"]
    path = edited(tmp_path, {"model.merges": [*merges[1:], merges[0]]})
    with pytest.raises(UserError, match="does not make a token in the order of token numbers"):
        read_tokenizer_json(path)


@pytest.mark.parametrize("text", ["", "{", "[]", "3", '{"model": 3}', '{"model": {"vocab": []}}', "[" * 100_000])
def test_any_other_json_is_refused_by_name(tmp_path: Path, text: str) -> None:
    (tmp_path / "x.json").write_text(text)
    with pytest.raises(UserError, match=r"x\.json"):
        read_tokenizer_json(tmp_path / "x.json")


def test_a_tiktoken_file_becomes_a_bundle_with_the_special_tokens_of_its_kind(tmp_path: Path) -> None:
    path = tmp_path / "x.tiktoken"
    path.write_bytes(vocabulary_text({bytes([byte]): byte for byte in range(256)} | {b"ab": 256}))
    bpe, gpt2 = (read_tiktoken_file(path, kind, GPT2_PATTERN) for kind in ("bpe", "gpt2"))
    assert list(bpe.special_tokens) == list(CHAT_SPECIALS)
    assert (bpe.separator, bpe.vocab_size) == (257, 266)
    assert dict(gpt2.special_tokens) == {"<|endoftext|>": 257}
    assert bpe.encode("abc").tolist() == [256, ord("c")]


def test_a_tiktoken_file_without_all_bytes_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.tiktoken"
    path.write_bytes(base64.b64encode(b"a") + b" 0\n")
    with pytest.raises(UserError, match="byte 0 has no token"):
        read_tiktoken_file(path, "bpe", GPT2_PATTERN)
