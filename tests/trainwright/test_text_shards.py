from trainwright.spec.paths import Split
import pytest
from collections import Counter
import gzip
import json
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st
import zstandard

from trainwright.spec.exits import UserError
from trainwright.spec.paths import MANIFEST
from trainwright.store import text_shards
from trainwright.spec.data import Compression
from trainwright.store.text_shards import (
    ENDING_OF,
    BadLineError,
    Drops,
    ShardFile,
    TextManifest,
    TextShardWriter,
    describe_file,
    json_line,
    json_text,
    read_documents,
    read_lines,
)

texts = st.text(st.characters(exclude_categories=("Cs",)), min_size=1).filter(str.strip)


def begun(split: Split = "train") -> TextManifest:
    return TextManifest(split, "fraction", 42, {"data.source.kind": "jsonl"})


def write(folder: Path, documents: list[str], per_shard: int = 3, manifest: TextManifest | None = None) -> TextManifest:
    with TextShardWriter(folder, manifest or begun(), per_shard, Drops(empty=2)) as writer:
        for text in documents:
            writer.add(text, len(text.encode()))
        writer.commit_rest()
        return writer.complete()


def read(folder: Path) -> list[str]:
    manifest = TextManifest.read(folder)
    return [text for shard in manifest.shards for text in read_documents(folder / shard.path)]


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@settings(deadline=None, max_examples=60)
@given(documents=st.lists(texts, min_size=1, max_size=12), per_shard=st.integers(1, 5))
def test_documents_come_back_whole_and_in_order(
    tmp_path_factory: pytest.TempPathFactory, documents: list[str], per_shard: int
) -> None:
    folder = tmp_path_factory.mktemp("shards")
    manifest = write(folder, documents, per_shard)
    assert read(folder) == documents
    assert TextManifest.read(folder) == manifest
    assert manifest.num_documents == len(documents)
    assert manifest.text_bytes == sum(len(text.encode()) for text in documents)
    assert manifest.num_bytes == sum((folder / shard.path).stat().st_size for shard in manifest.shards)
    assert [shard.num_documents for shard in manifest.shards[:-1]] == [per_shard] * (len(manifest.shards) - 1)


@settings(deadline=None, max_examples=40)
@given(documents=st.lists(texts, min_size=1, max_size=12), stopped_at=st.integers(0, 11))
def test_a_writer_that_stopped_anywhere_goes_on_to_the_same_bytes(
    tmp_path_factory: pytest.TempPathFactory, documents: list[str], stopped_at: int
) -> None:
    whole, cut = tmp_path_factory.mktemp("whole"), tmp_path_factory.mktemp("cut")
    write(whole, documents)
    with TextShardWriter(cut, begun(), 3, Drops()) as writer:
        for text in documents[:stopped_at]:
            writer.add(text, len(text.encode()))
    write(cut, documents, manifest=TextManifest.read(cut))
    assert contents(cut) == contents(whole)


def test_the_manifest_follows_each_shard_and_complete_comes_last(tmp_path: Path) -> None:
    with TextShardWriter(tmp_path, begun(), 2, Drops()) as writer:
        states = []
        for text in "abcde":
            writer.add(text, 1)
            found = TextManifest.read(tmp_path)
            states.append((len(found.shards), found.complete))
        writer.commit_rest()
        assert not TextManifest.read(tmp_path).complete
        writer.complete()
    assert states == [(0, False), (1, False), (1, False), (2, False), (2, False)]
    assert TextManifest.read(tmp_path).complete


def test_a_failed_writer_leaves_no_temporary_file(tmp_path: Path) -> None:
    def fail() -> None:
        with TextShardWriter(tmp_path, begun(), 3, Drops()) as writer:
            writer.add("a", 1)
            assert len(list(tmp_path.iterdir())) == 2
            raise RuntimeError("the source failed")

    with pytest.raises(RuntimeError, match="source"):
        fail()
    assert [path.name for path in tmp_path.iterdir()] == [MANIFEST]


def test_a_source_that_gives_fewer_documents_than_before_is_refused(tmp_path: Path) -> None:
    manifest = write(tmp_path, list("abcdef"))
    with pytest.raises(UserError, match="2 documents fewer than its shards hold"):
        write(tmp_path, list("abcd"), manifest=manifest)


def test_the_identity_is_the_text_not_how_it_was_asked_for(tmp_path: Path) -> None:
    one = write(tmp_path / "one", ["a", "b"])
    other = write(tmp_path / "two", ["a", "b"], manifest=TextManifest("train", "separate", None, {"x": 1}))
    assert one.sha256 == other.sha256
    assert write(tmp_path / "three", ["a", "c"]).sha256 != one.sha256


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "not valid JSON"),
        ("[]", "expected a JSON object"),
        ("{}", "not a manifest of text shards"),
        ('{"format": "text shards 9", "split": "train"}', "not a manifest of text shards"),
        ('{"shards": [{"path": "x"}]}', "not a manifest of text shards"),
    ],
)
def test_a_broken_manifest_is_refused_by_name(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / MANIFEST).write_text(text)
    with pytest.raises(UserError, match=message) as error:
        TextManifest.read(tmp_path)
    assert str(tmp_path / MANIFEST) in str(error.value)


def test_a_manifest_of_another_version_is_refused(tmp_path: Path) -> None:
    write(tmp_path, ["a"])
    value = json.loads((tmp_path / MANIFEST).read_text())
    (tmp_path / MANIFEST).write_text(json.dumps({**value, "format": "text shards 9"}))
    with pytest.raises(UserError, match="its format is text shards 9"):
        TextManifest.read(tmp_path)


def test_a_missing_manifest_names_the_stage_to_run(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="run the shard stage"):
        TextManifest.read(tmp_path)


@pytest.mark.parametrize("damage", ["cut", "flipped", "missing"])
def test_damaged_shards_are_refused_by_name(tmp_path: Path, damage: str) -> None:
    manifest = write(tmp_path, list("abcdef"))
    path = tmp_path / manifest.shards[1].path
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    if damage == "missing":
        path.unlink()
    else:
        path.write_bytes(data if damage == "flipped" else data[:-1])
    with pytest.raises(UserError, match=r"train_00001\.jsonl\.zst"):
        manifest.verify(tmp_path, hashes=True)


def test_a_listed_path_outside_the_folder_is_refused(tmp_path: Path) -> None:
    manifest = write(tmp_path, ["a"])
    (tmp_path / MANIFEST).write_text((tmp_path / MANIFEST).read_text().replace("train_00000", "../train_00000"))
    with pytest.raises(UserError, match="lies outside"):
        TextManifest.read(tmp_path).verify(tmp_path, hashes=False)
    assert manifest.complete


# --- reading ---------------------------------------------------------------------------------------------------------

JSON_LINES = b'{"text": "one\\ntwo"}\n{"content": "three", "id": 4}\n{"text": "  "}\n'
PLAIN_LINES = "one\r\n\ntwo \u2028 still two\n".encode()
FORMS = {
    ".jsonl": (JSON_LINES, ["one\ntwo", "three"]),
    ".jsonl.gz": (gzip.compress(JSON_LINES), ["one\ntwo", "three"]),
    ".jsonl.zst": (zstandard.compress(JSON_LINES[:9]) + zstandard.compress(JSON_LINES[9:]), ["one\ntwo", "three"]),
    ".txt": (PLAIN_LINES, ["one", "two \u2028 still two"]),
    ".txt.gz": (gzip.compress(PLAIN_LINES), ["one", "two \u2028 still two"]),
    ".txt.zst": (zstandard.compress(PLAIN_LINES), ["one", "two \u2028 still two"]),
}


@pytest.mark.parametrize("ending", FORMS)
def test_every_form_is_read_and_empty_lines_are_counted(tmp_path: Path, ending: str) -> None:
    data, expected = FORMS[ending]
    path = tmp_path / f"train_0000{ending}"
    path.write_bytes(data)
    drops = Counter()
    assert list(read_documents(path, drops)) == expected
    assert drops == {"empty": 1}
    entry = describe_file(path, "train_0000", Counter())
    assert (entry.num_documents, entry.bytes) == (2, len(data))
    assert entry.text_bytes == sum(len(text.encode()) for text in expected)


@pytest.mark.parametrize("ending", [".jsonl.gz", ".jsonl.zst"])
@pytest.mark.parametrize("left_out", [1, 5, 9, 40])
def test_a_compressed_file_cut_anywhere_is_refused_by_name(tmp_path: Path, ending: str, left_out: int) -> None:
    lines = b"".join(b'{"text": "%d"}\n' % number for number in range(1000))
    data = (
        gzip.compress(lines) if ending.endswith("gz") else zstandard.ZstdCompressor(write_checksum=True).compress(lines)
    )
    path = tmp_path / f"x{ending}"
    path.write_bytes(data[:-left_out])
    with pytest.raises(UserError, match="cut short"):
        list(read_documents(path))


@pytest.mark.parametrize("ending", [".jsonl.gz", ".jsonl.zst"])
def test_a_compressed_file_with_a_flipped_bit_is_refused_by_name(tmp_path: Path, ending: str) -> None:
    lines = b"".join(b'{"text": "%d"}\n' % number for number in range(1000))
    good = (
        gzip.compress(lines) if ending.endswith("gz") else zstandard.ZstdCompressor(write_checksum=True).compress(lines)
    )
    for position in range(30, len(good) - 8, len(good) // 12):
        data = bytearray(good)
        data[position] ^= 4
        path = tmp_path / f"x{ending}"
        path.write_bytes(data)
        with pytest.raises(UserError, match=f"x{ending}"):
            list(read_documents(path))


@pytest.mark.parametrize("ending", [".txt.gz", ".txt.zst"])
def test_a_file_that_is_not_what_its_ending_says_is_refused(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"x{ending}"
    path.write_text("plain words\n" * 100)
    with pytest.raises(UserError, match="not what its ending says"):
        list(read_documents(path))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b'{"text": "ok"}\n{"text": "\xff"}\n', ":2: not UTF-8"),
        (b'{"text": "\\ud800"}\n', ":1: not UTF-8"),
        (b'{"text": "ok"}\n\n[1]\n', ":2: not JSON"),
        (b"[1]\n", ":1: not a JSON object"),
        (b'{"text": 3}\n', ":1: no text"),
        (b"[" * 100_000, ":1: not JSON"),
    ],
)
def test_a_shard_with_a_bad_line_is_refused_by_file_and_line(tmp_path: Path, data: bytes, message: str) -> None:
    path = tmp_path / "x.jsonl"
    path.write_bytes(data)
    with pytest.raises(UserError, match=message):
        list(read_documents(path))


def test_a_line_without_end_is_refused_before_it_fills_the_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(text_shards, "MAX_LINE_BYTES", 1 << 20)
    bomb = tmp_path / "bomb.txt.zst"
    bomb.write_bytes(zstandard.compress(bytes(200 << 20)))
    assert bomb.stat().st_size < 1 << 20
    with pytest.raises(UserError, match=r"bomb\.txt\.zst:1: longer than 1 MiB"):
        list(read_lines(bomb))


def test_the_key_of_the_text_may_be_named() -> None:
    assert json_text(b'{"text": "a", "body": "b"}', "body") == "b"
    with pytest.raises(BadLineError, match="no text"):
        json_text(b'{"text": "a"}', "body")


@given(st.text(st.characters(exclude_categories=("Cs",))))
def test_a_line_is_what_a_json_encoder_writes(text: str) -> None:
    assert json_line(text.encode()) == b'{"text":' + json.dumps(text, ensure_ascii=False).encode() + b"}\n"


@pytest.mark.parametrize("compression", ["zstd", "gzip", "none"])
def test_shards_put_one_after_the_other_read_as_one(tmp_path: Path, compression: Compression) -> None:
    for number, documents in enumerate((["one", "two\n"], ["three"])):
        shard = ShardFile(tmp_path / f"{number}{ENDING_OF[compression]}", compression)
        for text in documents:
            shard.add_line(json_line(text.encode()), len(text))
        shard.commit()
    whole = tmp_path / f"whole{ENDING_OF[compression]}"
    whole.write_bytes(b"".join(path.read_bytes() for path in sorted(tmp_path.glob("?.*"))))
    assert list(read_documents(whole)) == ["one", "two\n", "three"]


def test_documents_may_be_passed_over_by_count(tmp_path: Path) -> None:
    documents = list("abcdefgh")
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    write(whole, documents)
    with TextShardWriter(cut, begun(), 3, Drops()) as writer:
        for text in documents[:4]:
            writer.add(text, 1)
    with TextShardWriter(cut, TextManifest.read(cut), 3, Drops(empty=2)) as writer:
        assert writer.to_pass == 3
        writer.pass_over(2)
        for text in documents[2:]:
            writer.add(text, 1)
        writer.commit_rest()
        writer.complete()
    assert contents(cut) == contents(whole)


def test_every_character_is_written_as_a_json_encoder_does() -> None:
    text = "".join(chr(code) for code in (*range(0x3000), 0xD7FF, 0xE000, 0xFFFF, 0x1F642, 0x10FFFF))
    assert json_line(text.encode()) == b'{"text":' + json.dumps(text, ensure_ascii=False).encode() + b"}\n"
