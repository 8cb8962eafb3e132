import gzip
import json
from pathlib import Path

import pytest

from made_corpus import digest, facts, jsonl, places, sharder, write_jsonl
from sharder.adopt import adopt, candidates, describe, foreign_manifest, has_files
from sharder.shard import run
from trainwright.spec.exits import UserError
from trainwright.store.files import sha256_file
from trainwright.store.text_shards import TextManifest

REUSE = "data.reuse_shards=true"


def placed(root: Path) -> dict[str, Path]:
    """Place shards by hand, as the older tools write them."""
    folders = {split: root / "datasets" / split / "made" for split in ("train", "val")}
    for folder in folders.values():
        folder.mkdir(parents=True)
    (folders["train"] / "train_0000.txt.gz").write_bytes(gzip.compress(b"one\ntwo\n\n"))
    write_jsonl(folders["train"] / "train_0001.jsonl", ["three\nlines\nlong"])
    (folders["val"] / "val_0000.txt").write_text("four\n")
    return folders


@pytest.mark.parametrize("shard", ["true", "false"])
def test_files_placed_by_hand_are_adopted_with_counts_and_hashes(tmp_path: Path, shard: str) -> None:
    folders = placed(tmp_path)
    asked = places(tmp_path, REUSE, f"data.shard={shard}")
    assert run(asked)["state"] == "adopted"
    manifest = TextManifest.read(folders["train"])
    assert [(entry.path, entry.num_documents) for entry in manifest.shards] == [
        ("train_0000.txt.gz", 2),
        ("train_0001.jsonl", 1),
    ]
    assert manifest.shards[0].sha256 == sha256_file(folders["train"] / "train_0000.txt.gz")
    assert (manifest.mode, manifest.complete, manifest.drops) == ("adopted", True, {"empty": 1})
    before = digest(tmp_path / "datasets")
    assert run(asked)["state"] == "already"
    assert digest(tmp_path / "datasets") == before


@pytest.mark.parametrize("shard", ["true", "false"])
def test_files_placed_by_hand_are_refused_unless_asked_for(tmp_path: Path, shard: str) -> None:
    placed(tmp_path)
    with pytest.raises(UserError, match=r"no manifest of ours lists; set data\.reuse_shards=true"):
        run(places(tmp_path, f"data.shard={shard}"))


def test_adopted_shards_stay_adopted(tmp_path: Path) -> None:
    placed(tmp_path)
    run(places(tmp_path, REUSE))
    with pytest.raises(UserError, match=r"adopted; set data\.reuse_shards=true to go on"):
        run(places(tmp_path))


def test_a_manifest_of_an_older_tool_is_set_aside(tmp_path: Path) -> None:
    folders = placed(tmp_path)
    old = json.dumps({"dataset": "x", "total_shards": 1, "shards": [{"path": "/w/train_0000.txt", "lines": 2}]})
    (folders["train"] / "manifest.json").write_text(old)
    assert foreign_manifest(folders["train"])
    with pytest.raises(UserError, match=r"set data\.reuse_shards=true"):
        run(places(tmp_path))
    assert run(places(tmp_path, REUSE))["train_documents"] == 3
    assert (folders["train"] / "manifest.json.old-1").read_text() == old
    assert run(places(tmp_path, REUSE))["state"] == "already"


def test_foreign_files_are_refused_by_name(tmp_path: Path) -> None:
    folders = placed(tmp_path)
    (folders["train"] / "notes.md").write_text("x")
    with pytest.raises(UserError, match=r"notes\.md is no text shard"):
        run(places(tmp_path, REUSE))
    assert not (folders["train"] / "manifest.json").exists()


@pytest.mark.parametrize("content", ["", " \n\n"])
def test_empty_files_are_refused_by_name(tmp_path: Path, content: str) -> None:
    folders = placed(tmp_path)
    (folders["train"] / "train_0002.txt").write_text(content)
    with pytest.raises(UserError, match=r"train_0002\.txt: holds no document"):
        run(places(tmp_path, REUSE))


def test_files_full_of_zeros_are_refused_by_name(tmp_path: Path) -> None:
    folders = placed(tmp_path)
    (folders["train"] / "train_0002.txt").write_bytes(b"begun and then kill" + bytes(5000))
    with pytest.raises(
        UserError, match=r"train_0002\.txt: document 1 holds NUL bytes, as a file does whose writer was"
    ):
        run(places(tmp_path, REUSE))
    assert not (folders["train"] / "manifest.json").exists()


def test_the_command_adopts_without_an_experiment(tmp_path: Path) -> None:
    placed(tmp_path)
    refused = sharder(tmp_path, "shard", "--name", "made")
    assert (refused.returncode, len(refused.stderr.splitlines())) == (78, 1)
    done = sharder(tmp_path, "shard", "--name", "made", "--adopt")
    assert (done.returncode, facts(done.stdout)["state"]) == (0, "adopted"), done.stderr
    assert facts(done.stdout)["train_documents"] == "3"
    moved = (tmp_path / "datasets").rename(tmp_path / "elsewhere")
    moved.with_name("volume").mkdir()
    moved.rename(tmp_path / "volume" / "datasets")
    again = sharder(tmp_path, "shard", "--name", "made", "--adopt", "--output", str(tmp_path / "volume"))
    assert (again.returncode, facts(again.stdout)["state"]) == (0, "already"), again.stderr


def test_a_split_without_files_is_refused(tmp_path: Path) -> None:
    folders = placed(tmp_path)
    (folders["val"] / "val_0000.txt").unlink()
    with pytest.raises(UserError, match=r"val/made: no text shards here; place shard files there"):
        run(places(tmp_path, REUSE))


def test_an_adoption_that_stopped_between_the_splits_goes_on(tmp_path: Path) -> None:
    folders = placed(tmp_path)
    adopt(folders["val"], "val")
    assert run(places(tmp_path, REUSE))["state"] == "adopted"
    assert TextManifest.read(folders["train"]).num_documents == 3


def test_reuse_with_nothing_there_writes_from_the_source(tmp_path: Path) -> None:
    corpus = write_jsonl(tmp_path / "a.jsonl", [str(number) for number in range(200)])
    assert run(places(tmp_path, *jsonl(corpus), REUSE))["state"] == "written"


def test_describing_writes_nothing(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "a.jsonl", ["a", "b"])
    assert has_files(tmp_path)
    assert candidates(tmp_path) == [path]
    assert describe([path], tmp_path, "train").num_documents == 2
    assert list(tmp_path.iterdir()) == [path]
