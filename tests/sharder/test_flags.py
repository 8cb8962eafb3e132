import argparse
from pathlib import Path

import pytest

from made_corpus import experiment_file, facts, sharder, write_jsonl
from sharder.flags import FLAGS, SWITCHES, add_flags, experiment_of
from trainwright.spec.exits import UserError
from trainwright.spec.experiment import Experiment


def read(*words: str) -> Experiment:
    parser = argparse.ArgumentParser()
    parser.add_argument("words", nargs="*")
    add_flags(parser)
    arguments = parser.parse_args(list(words))
    return experiment_of(arguments, arguments.words)


def test_every_flag_sets_its_field() -> None:
    data = read("--name", "web", "--preset", "fineweb-100bt", "--take", "7", "--max-bytes", "1e6", "--gzip").data
    assert (data.name, data.source.kind, data.compression) == ("web", "hub", "gzip")
    assert (data.source.take, data.source.max_bytes) == (7, 1_000_000)
    assert data.source.place.config == "sample-100BT"
    assert read("--name", "x", "--lines-per-shard", "9").data.documents_per_shard == 9
    assert len({path for path, _ in FLAGS.values()}) == len(FLAGS)
    assert all(flag.startswith("--") for flag in (*FLAGS, *SWITCHES))


@pytest.mark.parametrize(
    ("words", "take", "share"),
    [
        (("--mode", "smoke"), 20_000, 0.1),
        (("--mode", "smoke", "--take", "50"), 50, 0.1),
        (("--mode", "prod"), None, 0.0005),
        (("--mode", "prod", "data.validation_fraction=0.25"), None, 0.25),
        (("--mode", "split", "--val-ratio", "0.3"), None, 0.3),
        (("--mode", "split", "data.validation_fraction=0.3"), None, 0.3),
    ],
)
def test_a_mode_gives_values_and_what_is_said_goes_first(
    words: tuple[str, ...], take: int | None, share: float
) -> None:
    data = read(
        *[word for word in words if "=" in word], "--name", "x", *[word for word in words if "=" not in word]
    ).data
    assert (data.source.take, data.validation_fraction) == (take, share)


def test_the_mode_split_wants_its_ratio() -> None:
    with pytest.raises(UserError, match="--val-ratio missing"):
        read("--name", "x", "--mode", "split")


def test_the_text_field_goes_where_the_source_looks(tmp_path: Path) -> None:
    given = ["--source", "jsonl", "--input", str(tmp_path), "--text-field", "body", "--name", "x"]
    assert read(*given).data.source.field == "body"
    assert read("--dataset", "a/b", "--text-field", "body", "--name", "x").data.source.column == "body"


def test_an_experiment_goes_before_and_a_name_is_enough_without_one(tmp_path: Path) -> None:
    file = experiment_file(tmp_path)
    assert read(str(file), "--seed", "5").seed == 5
    with pytest.raises(UserError, match="no experiment given"):
        read("--seed", "5")


def test_a_corpus_is_made_without_an_experiment(tmp_path: Path) -> None:
    corpus = write_jsonl(tmp_path / "a.jsonl", [f"document {number}" for number in range(300)])
    words = ("--name", "web", "--source", "jsonl", "--input", str(corpus), "--mode", "smoke", "--plain")
    done = sharder(tmp_path, "shard", *words)
    assert done.returncode == 0, done.stderr
    assert facts(done.stdout)["state"] == "written"
    assert (tmp_path / "datasets" / "train" / "web" / "train_00000.jsonl").exists()


@pytest.mark.parametrize("words", [("--mode", "all"), ("--part", "3/2", "--name", "x"), ("--take", "0", "--name", "x")])
def test_wrong_flags_are_one_sentence_and_exit_78(tmp_path: Path, words: tuple[str, ...]) -> None:
    done = sharder(tmp_path, "shard", *words)
    assert (done.returncode, done.stdout) == (78, "")
    assert len(done.stderr.splitlines()) == 1
