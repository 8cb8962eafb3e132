from dataclasses import replace
from pathlib import Path

import pytest

from made_corpus import facts, jsonl, made_documents, places, sharder, write_jsonl
from sharder import shard
from sharder.byhand import find_bundle, read_input, run
from trainwright.spec.exits import UserError
from trainwright.tokens.bundle import Bundle, bytes_bundle
from trainwright.tokens.shards import TokenManifest, read_tokens


def test_a_file_is_encoded_with_a_bundle_named_below_the_root(tmp_path: Path) -> None:
    bytes_bundle().save(tmp_path / "artifacts" / "tokenizer" / "plain")
    write_jsonl(tmp_path / "a.jsonl", ["ab", "c"])
    words = ("--input", str(tmp_path / "a.jsonl"), "--tokenizer", "plain", "--output", str(tmp_path / "out"))
    done = sharder(tmp_path, "encode", *words)
    assert done.returncode == 0, done.stderr
    assert (facts(done.stdout)["documents"], facts(done.stdout)["tokens"]) == ("2", "5")
    assert read_tokens(tmp_path / "out" / "train_00000.bin").tolist() == [256, 97, 98, 256, 99]
    assert TokenManifest.read(tmp_path / "out").complete
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["manifest.json", "train_00000.bin"]


def test_a_folder_of_text_shards_gives_the_tokens_of_the_stage(tmp_path: Path) -> None:
    corpus = write_jsonl(tmp_path / "a.jsonl", made_documents(50))
    asked = places(tmp_path, *jsonl(corpus), "data.documents_per_shard=10", "data.validation_fraction=0.3")
    shard.run(asked)
    found = run(asked.text("train"), "bytes", tmp_path / "out", tmp_path, 1)
    assert found["documents"] == shard.read_text(asked)["train"].num_documents
    assert run(asked.text("train"), "bytes", tmp_path / "out", tmp_path, 1)["state"] == "already"


def test_a_folder_without_manifest_is_read_file_by_file(tmp_path: Path) -> None:
    (tmp_path / "text").mkdir()
    (tmp_path / "text" / "a.txt").write_text("one\ntwo\n")
    (tmp_path / "text" / "b.txt").write_text("three\n")
    found = run(tmp_path / "text", "bytes", tmp_path / "out", tmp_path, 1)
    assert (found["documents"], found["shards"]) == (3, 2)


def test_other_text_in_the_same_output_is_refused(tmp_path: Path) -> None:
    for name in ("a", "b"):
        run_on = write_jsonl(tmp_path / f"{name}.jsonl", [name])
        if name == "a":
            run(run_on, "bytes", tmp_path / "out", tmp_path, 1)
    with pytest.raises(UserError, match="was encoded from text"):
        run(run_on, "bytes", tmp_path / "out", tmp_path, 1)


def test_another_tokenizer_in_the_same_output_is_refused(tmp_path: Path) -> None:
    text = write_jsonl(tmp_path / "a.jsonl", ["a"])
    run(text, "bytes", tmp_path / "out", tmp_path, 1)
    replace(bytes_bundle(), special_tokens={"<|bos|>": 256}).save(tmp_path / "other")
    with pytest.raises(UserError, match=r"out: was encoded with tokenizer [0-9a-f]{8}, is now [0-9a-f]{8}; "):
        run(text, str(tmp_path / "other"), tmp_path / "out", tmp_path, 1)


def test_a_bundle_is_found_as_folder_by_name_or_made(tmp_path: Path) -> None:
    bytes_bundle().save(tmp_path / "folder")
    bytes_bundle().save(tmp_path / "artifacts" / "tokenizer" / "named")
    assert find_bundle(str(tmp_path / "folder"), tmp_path, tmp_path / "out") == tmp_path / "folder"
    assert find_bundle("named", tmp_path, tmp_path / "out") == tmp_path / "artifacts" / "tokenizer" / "named"
    assert Bundle.load(find_bundle("bytes", tmp_path, tmp_path / "out")).kind == "bytes"
    with pytest.raises(UserError, match=r"--tokenizer nobody: neither .* bundles there: named"):
        find_bundle("nobody", tmp_path, tmp_path / "out")


@pytest.mark.parametrize(("name", "message"), [("x.pdf", "is no text that is read here"), ("nowhere", "no such file")])
def test_what_is_no_text_is_refused_by_name(tmp_path: Path, name: str, message: str) -> None:
    (tmp_path / "x.pdf").write_text("x")
    with pytest.raises(UserError, match=message):
        read_input(tmp_path / name)


def test_an_empty_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no text in this folder"):
        read_input(tmp_path)
