"""The tokenizer bundle: byte-exact, found out when damaged, and deaf to special tokens spelled out in a text."""

from collections.abc import Callable
from dataclasses import replace
import json
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st
import numpy as np
import pytest

from trainwright.spec.exits import UserError
from trainwright.tokens.bundle import (
    CHAT_SPECIALS,
    GPT2_PATTERN,
    GPT4_PATTERN,
    Bundle,
    bytes_bundle,
    parse_vocabulary,
    vocabulary_text,
)


def tiny_bpe() -> Bundle:
    """Return a vocabulary made by hand: the bytes, and a few merges in the order in which they apply."""
    merges = [b"th", b"the", b" t", b" the", b"in", b"ing", b"\n\n", b"12", b"\xc3\xa9", b"\xf0\x9f"]
    ranks = {bytes([byte]): byte for byte in range(256)}
    ranks.update({token: 256 + index for index, token in enumerate(merges)})
    specials = {name: len(ranks) + index for index, name in enumerate(CHAT_SPECIALS)}
    return Bundle("bpe", GPT4_PATTERN, ranks, specials, {"source": "by hand"})


BUNDLES = {"bytes": bytes_bundle, "bpe": tiny_bpe}
TEXTS = st.text() | st.text("the ing12\u00e9\U0001f600\n<|bos|>", max_size=60)


@pytest.fixture(params=BUNDLES)
def bundle(request: pytest.FixtureRequest) -> Bundle:
    return BUNDLES[request.param]()


@pytest.mark.parametrize("make", BUNDLES.values(), ids=BUNDLES)
@given(text=TEXTS)
def test_decoding_gives_every_text_back(make: Callable[[], Bundle], text: str) -> None:
    made = make()
    tokens = made.encode(text)
    assert made.decode(tokens.tolist()) == text
    assert int(made.token_bytes[tokens].sum()) == len(text.encode())
    assert not set(tokens.tolist()) & set(made.special_tokens.values())


def test_merges_apply_in_the_order_of_their_ranks() -> None:
    made = tiny_bpe()
    assert [made.ranks[piece] for piece in (b"the", b" the", b"ing")] == made.encode("the theing").tolist()
    assert made.encode("12345").tolist() == [made.ranks[b"12"], *b"345"]


def test_one_byte_is_one_token_of_the_bytes_tokenizer() -> None:
    made = bytes_bundle()
    assert made.encode("a\u00e9").tolist() == [0x61, 0xC3, 0xA9]
    assert (made.vocab_size, made.separator) == (265, 256)


def test_special_tokens_in_a_text_are_ordinary_text(bundle: Bundle) -> None:
    text = "".join(bundle.special_tokens) + "<|endoftext|>"
    tokens = bundle.encode(text)
    assert bundle.decode(tokens.tolist()) == text
    assert max(tokens.tolist()) < min(bundle.special_tokens.values())


def test_a_document_starts_with_the_separator_and_nothing_else(bundle: Bundle) -> None:
    assert bundle.separator == bundle.special_tokens["<|bos|>"]
    assert bundle.encode_document("the end").tolist() == [bundle.separator, *bundle.encode("the end").tolist()]
    assert bundle.encode_document("").tolist() == [bundle.separator]
    assert bundle.token_bytes[bundle.separator] == 0
    assert bundle.encode_document("x").dtype == np.uint16


def test_half_a_character_is_encoded_as_a_replacement_and_never_fails(bundle: Bundle) -> None:
    assert bundle.decode(bundle.encode("a\ud800b").tolist()) in ("a?b", "a\ufffdb")
    assert bundle.decode([0xC3]) == "\ufffd"


def test_a_bundle_comes_back_whole(bundle: Bundle, tmp_path: Path) -> None:
    bundle.save(tmp_path)
    loaded = Bundle.load(tmp_path)
    assert loaded == bundle
    assert loaded.hash == bundle.hash
    assert loaded.encode("the thing 12\u00e9").tolist() == bundle.encode("the thing 12\u00e9").tolist()
    assert list(loaded.special_tokens) == list(bundle.special_tokens)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bundle.json", "manifest.json", "vocabulary.tiktoken"]


def test_saving_twice_gives_the_same_bytes(bundle: Bundle, tmp_path: Path) -> None:
    contents = []
    for _ in range(2):
        bundle.save(tmp_path)
        contents.append({path.name: path.read_bytes() for path in tmp_path.iterdir()})
    assert contents[0] == contents[1]


def test_the_hash_follows_what_decides_the_tokens(bundle: Bundle) -> None:
    merged = {**bundle.ranks, b"zz": bundle.vocab_size}
    others = [
        replace(bundle, pattern=GPT2_PATTERN),
        replace(bundle, ranks=merged),
        replace(bundle, special_tokens={"<|x|>": 1000}),
        replace(bundle, special_tokens=dict(reversed(bundle.special_tokens.items()))),
    ]
    assert len({bundle.hash, *(other.hash for other in others)}) == 5
    assert replace(bundle, made={"source": "elsewhere"}).hash == bundle.hash


@pytest.mark.parametrize("name", ["vocabulary.tiktoken", "bundle.json"])
@pytest.mark.parametrize("damage", ["flip", "cut", "remove"])
def test_a_damaged_bundle_is_refused_by_file_name(bundle: Bundle, tmp_path: Path, name: str, damage: str) -> None:
    bundle.save(tmp_path)
    path = tmp_path / name
    data = path.read_bytes()
    if damage == "remove":
        path.unlink()
    else:
        path.write_bytes(data[:-1] if damage == "cut" else bytes([data[0] ^ 1]) + data[1:])
    with pytest.raises(UserError) as caught:
        Bundle.load(tmp_path)
    assert str(caught.value).startswith(f"{path}: ")
    assert "restore the bundle, or delete its folder to make it again" in str(caught.value)


def test_a_manifest_of_another_bundle_is_refused(tmp_path: Path) -> None:
    tiny_bpe().save(tmp_path)
    path = tmp_path / "manifest.json"
    manifest = json.loads(path.read_text())
    path.write_text(json.dumps({**manifest, "hash": bytes_bundle().hash}))
    with pytest.raises(UserError, match="its contents do not have the hash that its manifest names"):
        Bundle.load(tmp_path)


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"hash": "x", "files": 3}', '{"hash": "x", "files": [{}]}'])
def test_a_broken_manifest_is_one_sentence(tmp_path: Path, text: str) -> None:
    bytes_bundle().save(tmp_path)
    (tmp_path / "manifest.json").write_text(text)
    with pytest.raises(UserError, match=str(tmp_path)):
        Bundle.load(tmp_path)


def test_a_folder_without_manifest_is_no_bundle(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no tokenizer bundle here \(no manifest\.json\)"):
        Bundle.load(tmp_path)


def test_a_vocabulary_is_tiktokens_text_format() -> None:
    assert vocabulary_text({b"b": 1, b"a": 0}) == b"YQ== 0\nYg== 1\n"
    ranks = dict(tiny_bpe().ranks)
    assert parse_vocabulary(vocabulary_text(ranks), "v") == ranks


BYTES = b"".join(vocabulary_text({bytes([byte]): byte}) for byte in range(256))


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        (BYTES + b"YWI=\n", "v:257: expected base64 and a rank, as tiktoken writes them"),
        (BYTES + b"YWI= x\n", "v:257: expected base64 and a rank, as tiktoken writes them"),
        (BYTES + b"Y*I= 256\n", "v:257: expected base64 and a rank, as tiktoken writes them"),
        (BYTES + b"YWI= 7\n", "v: two tokens share a rank; this vocabulary cannot encode every text"),
        (BYTES[7:], "v: byte 0 has no token; this vocabulary cannot encode every text"),
        (b"", "v: byte 0 has no token; this vocabulary cannot encode every text"),
        (BYTES + b"YWI= 99999999999\n", "v: has 257 tokens, but ranks up to 99999999999; count them from 0"),
        (BYTES + b"YWI= -1\n", "v: has 257 tokens, but ranks up to 255; count them from 0"),
    ],
)
def test_a_wrong_vocabulary_is_refused_by_line(data: bytes, sentence: str) -> None:
    with pytest.raises(UserError) as caught:
        parse_vocabulary(data, "v")
    assert str(caught.value) == sentence


@given(st.binary(max_size=80))
def test_any_bytes_are_a_vocabulary_or_one_of_our_errors(data: bytes) -> None:
    for text in (data, BYTES + data):
        try:
            assert len(parse_vocabulary(text, "v")) >= 256
        except UserError as error:
            if not str(error).startswith("v:"):
                pytest.fail(f"names no file: {error}")
