"""Token shards: what is written comes back, what is damaged is refused by name, windows ignore shard borders."""

from dataclasses import replace
import json
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st
import numpy as np
import numpy.typing as npt
import pytest

from trainwright.spec.exits import UserError
from trainwright.tokens.shards import (
    IGNORED,
    MAX_SHARD_TOKENS,
    ShardEntry,
    TokenCorpus,
    TokenManifest,
    read_layout,
    read_tokens,
    token_dtype,
    verify_shards,
    write_shard,
)

Array = npt.NDArray[np.uint16] | npt.NDArray[np.uint32]


def tokens_of(count: int, vocab_size: int = 300, seed: int = 0) -> Array:
    return np.random.default_rng(seed).integers(0, vocab_size, count).astype(token_dtype(vocab_size))


def corpus_of(folder: Path, lengths: tuple[int, ...], vocab_size: int = 300, *, complete: bool = True) -> Array:
    """Write a corpus of shards of these lengths and return all its tokens."""
    pieces = [tokens_of(length, vocab_size, seed) for seed, length in enumerate(lengths)]
    entries = tuple(
        write_shard(folder / f"train_{index:05d}.bin", [piece], vocab_size, 1) for index, piece in enumerate(pieces)
    )
    TokenManifest("t" * 64, vocab_size, 256, "x" * 64, complete, entries).write(folder)
    return np.concatenate(pieces)


@pytest.mark.parametrize(
    ("vocab_size", "magic", "version", "width"),
    [(50_257, 20240520, 1, 2), (65_536, 20240520, 1, 2), (65_537, 20240801, 7, 4), (128_256, 20240801, 7, 4)],
)
def test_both_widths_come_back_and_have_the_layout_that_others_read(
    tmp_path: Path, vocab_size: int, magic: int, version: int, width: int
) -> None:
    path = tmp_path / "train_00000.bin"
    tokens = np.array([0, 1, 255, 256, vocab_size - 1], dtype=token_dtype(vocab_size))
    entry = write_shard(path, [tokens[:2], tokens[2:]], vocab_size, 3)
    raw = path.read_bytes()
    assert np.frombuffer(raw[:1024], "<i4").tolist() == [magic, version, 5] + [0] * 253
    assert np.frombuffer(raw[1024:], f"<u{width}").tolist() == tokens.tolist()
    assert read_tokens(path).tolist() == tokens.tolist()
    assert (entry.num_tokens, entry.num_documents, entry.bytes) == (5, 3, 1024 + 5 * width)
    layout = read_layout(path)
    assert (layout.header_bytes, layout.token_bytes, layout.num_tokens) == (1024, width, 5)


@settings(max_examples=40)
@given(st.lists(st.lists(st.integers(0, 65_535), max_size=30), max_size=5))
def test_any_pieces_come_back_as_one(tmp_path_factory: pytest.TempPathFactory, pieces: list[list[int]]) -> None:
    path = tmp_path_factory.getbasetemp() / "pieces.bin"
    write_shard(path, [np.array(piece, dtype=np.uint16) for piece in pieces], 65_536, 0)
    assert read_tokens(path).tolist() == [token for piece in pieces for token in piece]


def test_a_file_without_header_is_uint16(tmp_path: Path) -> None:
    path = tmp_path / "x.bin"
    tokens = tokens_of(700)
    path.write_bytes(tokens.tobytes())
    assert read_layout(path).header_bytes == 0
    assert np.array_equal(read_tokens(path), tokens)


def header(magic: int, version: int, count: int) -> bytes:
    values = np.zeros(256, dtype="<i4")
    values[:3] = magic, version, count
    return values.tobytes()


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (header(20240520, 1, 5) + bytes(8), "1032 bytes, but its header's 5 tokens need 1034"),
        (header(20240520, 1, 5) + bytes(12), "1036 bytes, but its header's 5 tokens need 1034"),
        (header(20240520, 1, -1), "1024 bytes, but its header's -1 tokens need 1022"),
        (header(20240520, 1, 2**31 - 1), "but its header's 2147483647 tokens need"),
        (header(20240801, 7, 5) + bytes(10), "1034 bytes, but its header's 5 tokens need 1044"),
        (header(20240520, 2, 5) + bytes(10), "header version 2 is not known; expected 1"),
        (header(20240801, 1, 5) + bytes(20), "header version 1 is not known; expected 7"),
        (header(20240520, 1, 5)[:600], "600 bytes, but its header's 5 tokens need 1034"),
        (b"\0\1\2", "neither a known header nor a whole number of uint16 tokens"),
        (b"", "neither a known header nor a whole number of uint16 tokens"),
    ],
)
def test_a_file_whose_size_and_header_disagree_is_refused(tmp_path: Path, data: bytes, why: str) -> None:
    path = tmp_path / "x.bin"
    path.write_bytes(data)
    with pytest.raises(UserError) as caught:
        read_layout(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert why in str(caught.value)


def test_a_token_outside_the_vocabulary_is_refused_and_nothing_is_written(tmp_path: Path) -> None:
    path = tmp_path / "x.bin"
    with pytest.raises(UserError, match="token 300 is outside the vocabulary of 300"):
        write_shard(path, [np.array([1, 300], dtype=np.uint16)], 300, 1)
    assert list(tmp_path.iterdir()) == []


def test_more_tokens_than_the_header_counts_are_refused(tmp_path: Path) -> None:
    piece = np.broadcast_to(np.uint16(1), (MAX_SHARD_TOKENS // 2 + 1,))
    with pytest.raises(UserError, match=r"do not fit one shard; lower data\.documents_per_shard"):
        write_shard(tmp_path / "x.bin", [piece, piece], 300, 1)


@settings(max_examples=40)
@given(st.lists(st.integers(1, 90), min_size=1, max_size=5).filter(lambda one: sum(one) > 1), st.integers(1, 40))
def test_windows_are_those_of_the_concatenated_shards(
    tmp_path_factory: pytest.TempPathFactory, lengths: list[int], seq_len: int
) -> None:
    folder = tmp_path_factory.mktemp("corpus")
    tokens = corpus_of(folder, tuple(lengths)).astype(np.int64)
    corpus = TokenCorpus(folder)
    samples = np.arange(-(-(len(tokens) - 1) // seq_len), dtype=np.int64)[::-1]
    inputs, targets = corpus.pairs(samples, seq_len)
    assert inputs.shape == targets.shape == (len(samples), seq_len)
    for row, sample in enumerate(samples):
        window = tokens[sample * seq_len : (sample + 1) * seq_len + 1]
        filled = len(window) - 1
        assert filled >= 1
        assert np.array_equal(inputs[row, :filled], window[:-1])
        assert np.array_equal(targets[row, :filled], window[1:])
        # Padding: a target that counts nothing, and an input that every vocabulary has.
        assert (targets[row, filled:] == IGNORED).all()
        assert (inputs[row, filled:] == 0).all()
    assert (targets != IGNORED).sum() == len(tokens) - 1


def test_the_last_window_is_padded_and_counted_so(tmp_path: Path) -> None:
    tokens = corpus_of(tmp_path, (6, 5))
    inputs, targets = TokenCorpus(tmp_path).pairs(np.array([0, 2]), 4)
    assert inputs[0].tolist() == tokens[:4].tolist()
    assert targets[0].tolist() == tokens[1:5].tolist()
    assert targets[1].tolist() == [*tokens[9:11].tolist(), IGNORED, IGNORED]


def test_read_returns_any_span(tmp_path: Path) -> None:
    tokens = corpus_of(tmp_path, (5, 1, 7, 3), 100_000)
    corpus = TokenCorpus(tmp_path)
    assert corpus.shard_tokens == (5, 1, 7, 3)
    for start in range(16):
        for stop in range(start + 1, 17):
            assert corpus.read(start, stop).tolist() == tokens[start:stop].tolist()


def test_more_shards_than_may_be_open_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trainwright.tokens.shards.MAX_OPEN_SHARDS", 2)
    tokens = corpus_of(tmp_path, (4,) * 8)
    corpus = TokenCorpus(tmp_path)
    for _ in range(2):
        assert corpus.read(0, 32).tolist() == tokens.tolist()


def test_the_manifest_comes_back_and_adds_up(tmp_path: Path) -> None:
    corpus_of(tmp_path, (6, 5))
    manifest = TokenManifest.read(tmp_path)
    assert (manifest.num_tokens, manifest.num_documents, manifest.vocab_size) == (11, 2, 300)
    manifest.write(tmp_path)
    assert TokenManifest.read(tmp_path) == manifest
    assert json.loads((tmp_path / "manifest.json").read_text())["num_tokens"] == 11


def test_the_identity_follows_what_decides_the_samples_and_nothing_else(tmp_path: Path) -> None:
    corpus_of(tmp_path, (6, 5))
    manifest = TokenManifest.read(tmp_path)
    same = replace(manifest, text_sha256="y", complete=False, vocab_size=400)
    assert same.identity == manifest.identity
    others = [
        replace(manifest, tokenizer_hash="u"),
        replace(manifest, separator=1),
        replace(manifest, shards=manifest.shards[::-1]),
        replace(manifest, shards=manifest.shards[:1]),
    ]
    assert len({manifest.identity, *(other.identity for other in others)}) == 5


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"shards": [{"path": "x"}]}', '{"shards": 3}'])
def test_a_broken_manifest_is_refused_by_name(tmp_path: Path, text: str) -> None:
    (tmp_path / "manifest.json").write_text(text)
    with pytest.raises(UserError, match=r"manifest\.json"):
        TokenManifest.read(tmp_path)


def test_a_folder_without_manifest_says_which_stage_makes_it(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="there are no token shards here, run the tokenizer stage"):
        TokenCorpus(tmp_path)


def test_a_corpus_that_is_not_complete_or_has_no_sample_is_refused(tmp_path: Path) -> None:
    corpus_of(tmp_path / "begun", (6, 5), complete=False)
    with pytest.raises(UserError, match="is not complete; run the tokenizer stage"):
        TokenCorpus(tmp_path / "begun")
    corpus_of(tmp_path / "single", (1,))
    with pytest.raises(UserError, match="holds no sample"):
        TokenCorpus(tmp_path / "single")


def test_a_shard_that_is_cut_or_missing_is_refused_on_opening(tmp_path: Path) -> None:
    corpus_of(tmp_path, (6, 5))
    path = tmp_path / "train_00001.bin"
    path.write_bytes(path.read_bytes()[:-2])
    with pytest.raises(UserError, match=r"train_00001\.bin: 1032 bytes, but its manifest says 1034; restore the files"):
        TokenCorpus(tmp_path)
    path.unlink()
    with pytest.raises(UserError, match=r"train_00001\.bin: missing; restore the files, or run boot --redo tokenizer"):
        TokenCorpus(tmp_path)


@pytest.mark.parametrize("at", [0, 9, 1024, 1033])
def test_a_flipped_bit_is_found_and_named(tmp_path: Path, at: int) -> None:
    corpus_of(tmp_path, (6, 5))
    entries = TokenManifest.read(tmp_path).shards
    verify_shards(tmp_path, entries, hashes=True)
    path = tmp_path / "train_00001.bin"
    data = bytearray(path.read_bytes())
    data[at] ^= 4
    path.write_bytes(data)
    verify_shards(tmp_path, entries, hashes=False)
    with pytest.raises(UserError, match=r"train_00001\.bin: its sha256") as caught:
        verify_shards(tmp_path, entries, hashes=True)
    assert "train_00000" not in str(caught.value)


def test_every_damaged_shard_is_named_at_once(tmp_path: Path) -> None:
    corpus_of(tmp_path, (6, 5, 4))
    for index in (0, 2):
        (tmp_path / f"train_{index:05d}.bin").unlink()
    with pytest.raises(UserError, match=r"train_00000\.bin: missing; .*train_00002\.bin: missing; restore"):
        TokenCorpus(tmp_path)


def test_a_manifest_that_miscounts_is_refused_on_reading(tmp_path: Path) -> None:
    corpus_of(tmp_path, (6, 5))
    manifest = TokenManifest.read(tmp_path)
    first, second = manifest.shards
    replace(manifest, shards=(replace(first, num_tokens=7), second)).write(tmp_path)
    with pytest.raises(UserError, match=r"train_00000\.bin: holds 6 tokens, but its manifest says otherwise"):
        TokenCorpus(tmp_path).read(0, 3)


def test_a_shard_that_shrinks_under_the_run_is_reported(tmp_path: Path) -> None:
    corpus_of(tmp_path, (600,))
    corpus = TokenCorpus(tmp_path)
    corpus.read(0, 10)
    with (tmp_path / "train_00000.bin").open("r+b") as file:
        file.truncate(1100)
    with pytest.raises(UserError, match=r"train_00000\.bin: changed under the run"):
        corpus.read(500, 510)


def test_a_token_that_the_vocabulary_lacks_is_refused_on_reading(tmp_path: Path) -> None:
    entry = write_shard(tmp_path / "train_00000.bin", [np.array([5, 299, 7], dtype=np.uint16)], 300, 1)
    TokenManifest("t", 299, 0, "x", complete=True, shards=(entry,)).write(tmp_path)
    corpus = TokenCorpus(tmp_path)
    with pytest.raises(UserError, match="token 299 is outside 299"):
        corpus.pairs(np.array([0]), 2)


def test_an_entry_says_how_to_verify_its_file() -> None:
    entry = ShardEntry("a.bin", 1034, "ab", 5, 1)
    assert (entry.file.path, entry.file.bytes, entry.file.sha256) == ("a.bin", 1034, "ab")


def test_a_shard_that_is_rewritten_under_the_run_is_reported(tmp_path: Path) -> None:
    corpus_of(tmp_path, (600,))
    corpus = TokenCorpus(tmp_path)
    corpus.read(0, 10)
    with (tmp_path / "train_00000.bin").open("r+b") as file:
        file.seek(1024)
        file.write(bytes(4))
    with pytest.raises(UserError, match=r"train_00000\.bin: changed under the run"):
        corpus.read(500, 510)
