from dataclasses import replace
import os
from pathlib import Path

import numpy as np
import pytest

from made_corpus import digest, facts, places, sharder
from sharder import encode, shard, tokenfiles, tokenizer
from sharder.tokenfiles import by_split, foreign_layout, run, run_corpus, token_files
from trainwright.spec.exits import UserError
from trainwright.tokens.bundle import bytes_bundle
from trainwright.tokens.shards import TokenManifest, read_tokens

TOKENS = [256, 104, 105, 256, 33, 10, 256, 255]
"""Three documents of bytes, each after its separator."""


def header(magic: int, version: int) -> bytes:
    return np.array([magic, version, len(TOKENS), *[0] * 253], dtype="<i4").tobytes()


FORMS = {
    "train.bin": np.array(TOKENS, dtype="<u2").tobytes(),
    "fineweb_train_000001.bin": header(20240520, 1) + np.array(TOKENS, dtype="<u2").tobytes(),
    "llama_000001.bin": header(20240801, 7) + np.array(TOKENS, dtype="<u4").tobytes(),
    "00000_00000_shuffled.ds": np.array(TOKENS, dtype="<u4").tobytes(),
}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    bytes_bundle().save(tmp_path / "artifacts" / "tokenizer" / "plain")
    return tmp_path


@pytest.mark.parametrize("name", FORMS)
def test_every_form_becomes_a_shard_with_the_same_tokens(root: Path, name: str) -> None:
    (root / name).write_bytes(FORMS[name])
    (root / f"{name}.metadata").write_text("some/tokenizer|4\n8\n8 tokens\n")
    found = run(root / name, "plain", root / "out", root)
    assert (found["tokens"], found["documents"], found["state"]) == (8, 3, "written")
    assert read_tokens(root / "out" / "train_00000.bin").tolist() == TOKENS
    manifest = TokenManifest.read(root / "out")
    assert (manifest.complete, manifest.tokenizer_hash) == (True, bytes_bundle().hash)
    before = digest(root / "out")
    assert run(root / name, "plain", root / "out", root)["state"] == "already"
    assert digest(root / "out") == before


def test_files_come_in_the_order_of_their_names_and_long_ones_are_cut(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tokenfiles, "SHARD_TOKENS", 3)
    (root / "in").mkdir()
    for name in ("val_1.bin", "val_0.bin"):
        (root / "in" / name).write_bytes(FORMS["train.bin"][: 8 if name == "val_1.bin" else None])
    assert run(root / "in", "plain", root / "out", root)["shards"] == 5
    found = [token for number in range(5) for token in read_tokens(root / "out" / f"val_0000{number}.bin").tolist()]
    assert found == TOKENS + TOKENS[:4]


def test_the_index_of_datatrove_says_the_width_too(root: Path) -> None:
    path = root / "x.ds"
    path.write_bytes(FORMS["train.bin"])
    with pytest.raises(UserError, match=r"its \.ds\.metadata or \.ds\.index must say more"):
        foreign_layout(path)
    np.array([3, 8], dtype="<u8").tofile(root / "x.ds.index")
    assert (foreign_layout(path).token_bytes, foreign_layout(path).num_tokens) == (2, 8)


def test_a_token_beyond_the_vocabulary_is_refused(root: Path) -> None:
    (root / "train.bin").write_bytes(np.array([1, 2, 50256], dtype="<u2").tobytes())
    with pytest.raises(UserError, match="holds token 50256, but the tokenizer has 265 entries"):
        run(root / "train.bin", "plain", root / "out", root)
    assert not (root / "out" / "manifest.json").exists()
    assert not list((root / "out").glob("*.bin"))


def test_a_file_that_a_killed_writer_left_full_of_zeros_is_refused(root: Path) -> None:
    np.array([*TOKENS, *[0] * 5000], dtype="<u2").tofile(root / "train.bin")
    with pytest.raises(UserError, match="as a file does whose writer was killed; make it again"):
        run(root / "train.bin", "plain", root / "out", root)


def test_other_files_in_the_same_output_are_refused(root: Path) -> None:
    (root / "train.bin").write_bytes(FORMS["train.bin"])
    run(root / "train.bin", "plain", root / "out", root)
    (root / "train.bin").write_bytes(FORMS["train.bin"][:-2])
    with pytest.raises(UserError, match="holds tokens of other files"):
        run(root / "train.bin", "plain", root / "out", root)


def test_what_is_no_token_file_is_refused_by_name(root: Path) -> None:
    (root / "x.txt").write_text("x")
    for path, message in ((root / "nowhere", "no such file"), (root / "x.txt", "no token files here")):
        with pytest.raises(UserError, match=message):
            token_files(path)
    os.mkfifo(root / "pipe.bin")
    for path in (root, root / "pipe.bin"):
        with pytest.raises(UserError, match=r"pipe\.bin: is no file that can be read to its end"):
            token_files(path)


def both_splits(root: Path) -> Path:
    folder = root / "in"
    folder.mkdir()
    (folder / "train.bin").write_bytes(FORMS["train.bin"])
    (folder / "val.bin").write_bytes(FORMS["train.bin"][:6])
    return folder


@pytest.mark.parametrize(
    ("name", "split"),
    [
        ("val.bin", "val"),
        ("fineweb_val_000000.bin", "val"),
        ("Validation-0.ds", "val"),
        ("train.bin", "train"),
        ("interval_000001.bin", "train"),
        ("medieval.bin", "train"),
    ],
)
def test_what_is_for_validation_says_so_in_its_name(name: str, split: str) -> None:
    assert list(by_split([Path(name)])) == [split]


def test_validation_never_gets_among_the_tokens_of_training(root: Path) -> None:
    with pytest.raises(UserError, match=r"train \(train\.bin\) and val \(val\.bin\); give --name"):
        run(both_splits(root), "plain", root / "out", root)
    assert not (root / "out").exists()


def test_a_corpus_of_tokens_goes_through_the_stages_without_text(root: Path) -> None:
    words = ("--input", str(both_splits(root)), "--tokenizer", "plain", "--name", "made")
    done = sharder(root, "import", *words)
    assert done.returncode == 0, done.stderr
    assert (facts(done.stdout)["train_tokens"], facts(done.stdout)["val_tokens"]) == ("8", "3")
    before = digest(root / "datasets")
    assert facts(sharder(root, "import", *words).stdout)["state"] == "already"

    asked = places(root, "data.shard=false", "tokenizer.kind=bytes", "tokenizer.name=plain")
    assert shard.run(asked)["state"] == "already"
    assert tokenizer.run(asked)["state"] == "shared"
    encoded = encode.run(asked)
    assert (encoded["state"], encoded["train_tokens"]) == ("already", 8)
    assert digest(root / "datasets") == before

    with pytest.raises(UserError, match=r"its tokens were imported; set data\.reuse_shards=true"):
        shard.run(places(root))
    with pytest.raises(UserError, match=r"holds no text to train a tokenizer on; give one in tokenizer\.path"):
        tokenizer.run(places(root, "data.shard=false", "tokenizer.kind=bpe"))
    replace(bytes_bundle(), made={"other": 1}, special_tokens={"<|bos|>": 256}).save(asked.tokenizer.with_name("other"))
    with pytest.raises(UserError, match=r"came as tokens, without text for tokenizer .* tokenizer\.path"):
        encode.run(places(root, "data.shard=false", "tokenizer.name=other"))


def test_a_corpus_of_other_tokens_or_of_text_is_not_written_over(root: Path) -> None:
    folder, asked = both_splits(root), places(root)
    run_corpus(folder, "plain", asked)
    (folder / "val.bin").write_bytes(FORMS["train.bin"][:4])
    with pytest.raises(UserError, match=r"datasets/val/made: holds another corpus; choose another --name"):
        run_corpus(folder, "plain", asked)
    other = places(root / "other")
    other.text("val").mkdir(parents=True)
    (other.text("val") / "val_0000.txt").write_text("text\n")
    with pytest.raises(UserError, match="holds another corpus"):
        run_corpus(folder, "bytes", other)
    (folder / "val.bin").unlink()
    with pytest.raises(UserError, match=r"no file for validation \(validation has val in its name"):
        run_corpus(folder, "plain", places(root / "third"))


def test_an_imported_shard_that_was_lost_is_named(root: Path) -> None:
    (root / "train.bin").write_bytes(FORMS["train.bin"])
    run(root / "train.bin", "plain", root / "out", root)
    (root / "out" / "train_00000.bin").unlink()
    with pytest.raises(UserError, match=r"train_00000\.bin: missing"):
        run(root / "train.bin", "plain", root / "out", root)


def test_the_word_import_needs_its_three_flags(root: Path) -> None:
    (root / "train.bin").write_bytes(FORMS["train.bin"])
    words = ("--input", str(root / "train.bin"), "--tokenizer", "plain", "--output", str(root / "out"))
    done = sharder(root, "import", *words)
    assert (done.returncode, facts(done.stdout)["tokens"]) == (0, "8"), done.stderr
    assert sharder(root, "import", *words[:4]).returncode == 78
