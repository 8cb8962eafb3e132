import os
from pathlib import Path
import random
import shutil
import signal

import pytest

from made_corpus import (
    digest,
    experiment_file,
    facts,
    jsonl,
    made_documents,
    num_committed,
    places,
    sharder,
    start,
    wait_until,
    write_jsonl,
)
from sharder import shard, tokenizer
from sharder.encode import run
from trainwright.spec.exits import UserError
from trainwright.spec.paths import Places
from trainwright.store.text_shards import TextManifest, read_documents
from trainwright.tokens.bundle import Bundle, bytes_bundle
from trainwright.tokens.shards import TokenManifest, read_tokens

SHAPE = ("data.documents_per_shard=20", "data.validation_fraction=0.2")


def prepared(root: Path, *overrides: str) -> Places:
    """Return places with text shards and a tokenizer, and no tokens."""
    corpus = write_jsonl(root / "corpus.jsonl", made_documents(200))
    asked = places(root, *jsonl(corpus), *SHAPE, *overrides)
    shard.run(asked)
    tokenizer.run(asked)
    return asked


def tokens_folder(asked: Places, split: str = "train") -> Path:
    return asked.tokens(split, Bundle.load(asked.tokenizer).hash)


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def test_token_shards_hold_every_document_of_the_text_after_its_separator(tmp_path: Path) -> None:
    asked = prepared(tmp_path)
    run(asked)
    bundle = bytes_bundle()
    for split in ("train", "val"):
        text, tokens = TextManifest.read(asked.text(split)), TokenManifest.read(tokens_folder(asked, split))
        assert (tokens.complete, tokens.text_sha256, tokens.tokenizer_hash) == (True, text.sha256, bundle.hash)
        assert [entry.path for entry in tokens.shards] == [
            entry.path.replace(".jsonl.zst", ".bin") for entry in text.shards
        ]
        for entry, token_entry in zip(text.shards, tokens.shards, strict=True):
            expected = []
            for document in read_documents(asked.text(split) / entry.path):
                expected += [bundle.separator, *document.encode()]
            found = read_tokens(tokens_folder(asked, split) / token_entry.path)
            assert found.tolist() == expected
            assert token_entry.num_documents == entry.num_documents


def test_a_second_run_changes_no_byte(tmp_path: Path) -> None:
    asked = prepared(tmp_path)
    assert run(asked)["state"] == "written"
    before = digest(tmp_path / "datasets")
    assert run(asked)["state"] == "already"
    assert digest(tmp_path / "datasets") == before
    assert not [name for name in before if "lease" in name or name.endswith(".tmp")]


@pytest.mark.slow
def test_the_number_of_workers_changes_no_byte(tmp_path: Path) -> None:
    digests = []
    for number in (1, 2, 3):
        trained = ("tokenizer.kind=bpe", "tokenizer.vocab_size=500")
        run(prepared(tmp_path / str(number), *trained, f"data.workers={number}"))
        digests.append(digest(tmp_path / str(number) / "datasets"))
    assert digests[0] == digests[1] == digests[2]


def test_encoding_goes_on_from_any_committed_shards_in_any_order(tmp_path: Path) -> None:
    asked = prepared(tmp_path)
    run(asked)
    folder = tokens_folder(asked)
    whole = digest(tmp_path / "datasets")
    manifest = TokenManifest.read(folder)
    chooser = random.Random(3)
    for count in range(len(manifest.shards)):
        kept = tuple(sorted(chooser.sample(manifest.shards, count), key=lambda entry: entry.path))
        TokenManifest(
            manifest.tokenizer_hash, manifest.vocab_size, manifest.separator, manifest.text_sha256, False, kept
        ).write(folder)
        (folder / f".train_00002.bin.{os.getpid()}.tmp").write_text("half a shard")
        assert run(asked)["state"] == "written"
        assert digest(tmp_path / "datasets") == whole


@pytest.mark.parametrize("damage", ["cut", "flipped", "missing"])
def test_a_damaged_text_shard_is_refused_by_name_and_no_token_of_it_stays(tmp_path: Path, damage: str) -> None:
    asked = prepared(tmp_path)
    path = asked.text("train") / "train_00001.jsonl.zst"
    if damage == "cut":
        os.truncate(path, path.stat().st_size // 2)
    elif damage == "flipped":
        flip(path)
    else:
        path.unlink()
    with pytest.raises(UserError, match=r"train_00001\.jsonl\.zst.*boot --redo shard"):
        run(asked)
    manifest = TokenManifest.read(tokens_folder(asked))
    assert not manifest.complete
    assert "train_00001.bin" not in {entry.path for entry in manifest.shards}
    assert not (tokens_folder(asked) / "train_00001.bin").exists()


@pytest.mark.parametrize("damage", ["cut", "missing"])
def test_a_damaged_token_shard_is_refused_by_name(tmp_path: Path, damage: str) -> None:
    asked = prepared(tmp_path)
    run(asked)
    path = tokens_folder(asked) / "train_00001.bin"
    if damage == "cut":
        os.truncate(path, path.stat().st_size - 2)
    else:
        path.unlink()
    with pytest.raises(UserError, match=r"train_00001\.bin"):
        run(asked)


def test_a_flipped_token_is_found_before_the_work_goes_on(tmp_path: Path) -> None:
    asked = prepared(tmp_path)
    run(asked)
    folder = tokens_folder(asked)
    text = (folder / "manifest.json").read_text()
    (folder / "manifest.json").write_text(text.replace('"complete": true', '"complete": false'))
    flip(folder / "train_00001.bin")
    with pytest.raises(UserError, match=r"train_00001\.bin: its sha256"):
        run(asked)


def test_tokens_of_other_text_are_refused(tmp_path: Path) -> None:
    asked = prepared(tmp_path)
    run(asked)
    for split in ("train", "val"):
        for path in asked.text(split).glob("*.*"):
            path.unlink()
    write_jsonl(tmp_path / "corpus.jsonl", made_documents(200, seed=2))
    shard.run(asked)
    with pytest.raises(UserError, match=r"was encoded from text .* run boot --redo tokenizer"):
        run(asked)


def test_tokens_of_two_tokenizers_lie_side_by_side(tmp_path: Path) -> None:
    run(prepared(tmp_path))
    other = prepared(tmp_path, "tokenizer.kind=bpe", "tokenizer.vocab_size=500", "tokenizer.name=other")
    run(other)
    assert len(list(other.text("train").glob("tokens-*"))) == 2


def test_without_a_tokenizer_the_stage_to_run_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no tokenizer bundle here; run the tokenizer stage first"):
        run(places(tmp_path))


# --- real processes ---------------------------------------------------------------------------------------------------


def big(root: Path) -> list[str]:
    """Make text shards and a tokenizer that take a while to encode; return the words of the encode stage."""
    root.mkdir(parents=True, exist_ok=True)
    corpus = write_jsonl(root / "corpus.jsonl", made_documents(1500, words=600))
    overrides = [*jsonl(corpus), "data.documents_per_shard=25", "data.validation_fraction=0.2"]
    overrides += ["tokenizer.kind=bpe", "tokenizer.vocab_size=400", "data.workers=2"]
    asked = places(root, *overrides)
    shard.run(asked)
    tokenizer.run(asked)
    return ["encode", str(experiment_file(root)), *overrides]


def token_folders(root: Path) -> list[Path]:
    return sorted(root.glob("datasets/train/made/tokens-*"))


@pytest.mark.slow
def test_encoding_killed_at_any_moment_ends_with_the_same_bytes(tmp_path: Path) -> None:
    words = big(tmp_path / "killed")
    shutil.copytree(tmp_path / "killed", tmp_path / "whole")
    assert sharder(tmp_path / "whole", *words).returncode == 0
    chooser = random.Random(11)
    kills = 0
    for at_least in (0, 5, 15, 25):
        process = start(tmp_path / "killed", *words)
        more = at_least + chooser.randint(0, 6)
        wait_until(
            lambda more=more: any(num_committed(folder) >= more for folder in token_folders(tmp_path / "killed")),
            process,
        )
        process.kill()
        kills += process.wait() == -signal.SIGKILL
        process.communicate()
    assert kills >= 3
    done = sharder(tmp_path / "killed", *words)
    assert (done.returncode, facts(done.stdout)["state"]) == (0, "written"), done.stderr
    assert digest(tmp_path / "killed" / "datasets") == digest(tmp_path / "whole" / "datasets")


@pytest.mark.slow
def test_a_stop_request_ends_with_75_and_leaves_no_half_shard(tmp_path: Path) -> None:
    words = big(tmp_path)
    process = start(tmp_path, *words)
    assert wait_until(lambda: any(num_committed(folder) >= 3 for folder in token_folders(tmp_path)), process)
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=20)
    assert (process.returncode, err.splitlines()[-1]) == (75, "sharder: interrupted: SIGTERM")
    (folder,) = token_folders(tmp_path)
    assert not TokenManifest.read(folder).complete
    assert not (folder / "lease.json").exists()
    done = sharder(tmp_path, *words)
    assert done.returncode == 0, done.stderr
