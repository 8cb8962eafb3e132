"""The files of a run folder that repeat its experiment: they come back whole, and hand edits are refused."""

from collections.abc import Callable
from pathlib import Path
import tomllib
from typing import Any

import pytest
import yaml

from trainwright.spec.canonical import sha256_json
from trainwright.spec.exits import UserError
from trainwright.spec.experiment import Experiment, default_kind
from trainwright.spec.load import load_experiment
from trainwright.spec.resolved import (
    Training,
    changes,
    dump,
    experiment_hash,
    experiment_text,
    fixed_fields,
    flat,
    open_experiment,
    plain,
    read_resolved,
    read_training,
    refuse_edited,
)

Write = Callable[..., Path]
ODD = (
    "data.source.kind=jsonl",
    "data.source.field=no",
    "data.path=/data/12:30:00/\u00e9 #1",
    "data.name=1e3",
    "optimizer.lr=1e-5",
    "optimizer.eps=1e-30",
    "train.grad_clip=null",
    "train.steps=null",
    "train.flops=1e21",
    "paths.runs=2026-11-21",
    "seed=9007199254740993",
)
"""Values that YAML would guess wrong, or that lose digits on the way."""


@pytest.fixture
def experiment(experiment_file: Write) -> Experiment:
    return load_experiment(experiment_file(), ODD, {}).experiment


@pytest.fixture
def training(experiment: Experiment, tmp_path: Path) -> Training:
    return Training(experiment, tmp_path / "runs/small", Path("/d/train"), Path("/d/val"), Path("/t"))


def written(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def test_a_resolved_experiment_comes_back_whole(experiment: Experiment, tmp_path: Path) -> None:
    path = written(tmp_path / "experiment.yaml", experiment_text(experiment, commit="abc", image="x@sha256:1"))
    assert read_resolved(path) == experiment
    assert open_experiment(path) == experiment
    stored = yaml.safe_load(path.read_text())
    assert (stored["commit"], stored["image"], stored["hash"]) == ("abc", "x@sha256:1", experiment_hash(experiment))
    assert stored["experiment"]["resources"]["nodes"] == 1


def test_the_same_experiment_gives_the_same_bytes(experiment: Experiment) -> None:
    texts = {experiment_text(Experiment.model_validate(plain(experiment)), commit="", image="") for _ in range(2)}
    assert texts == {experiment_text(experiment, commit="", image="")}


@pytest.mark.parametrize(("old", "new"), [("lr: 1.0e-05", "lr: 1.0e-06"), ("nodes: 1", "nodes: 2")])
def test_a_resolved_experiment_edited_by_hand_is_refused(
    experiment: Experiment, tmp_path: Path, old: str, new: str
) -> None:
    text = experiment_text(experiment, commit="", image="")
    assert old in text
    path = written(tmp_path / "experiment.yaml", text.replace(old, new))
    with pytest.raises(UserError, match=r"was edited by hand; edit the experiment file instead and delete this one$"):
        read_resolved(path)


def test_a_file_of_either_form_opens(experiment_file: Write, experiment: Experiment, tmp_path: Path) -> None:
    assert open_experiment(experiment_file(), ODD) == experiment
    path = written(tmp_path / "resolved.yaml", experiment_text(experiment, commit="", image=""))
    with pytest.raises(UserError, match="takes no overrides"):
        open_experiment(path, ("seed=1",))


def test_training_yaml_comes_back_whole(training: Training, tmp_path: Path) -> None:
    path = written(tmp_path / "training.yaml", training.yaml_text())
    assert read_training(path) == training
    assert yaml.safe_load(path.read_text())["derived"]["grad_accum"] == 4


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("lr: 1.0e-05", "lr: 2.0e-05"),
        ("micro_batch: 2", "micro_batch: 4"),
        ("train_tokens: /d/train", "train_tokens: /d/other"),
        ("run: ", "run: /tmp/"),
        ("grad_accum: 4", "grad_accum: 8"),
        ("experiment_hash: ", "experiment_hash: 0"),
        ("hash: ", "extra: 2026-13-45\nhash: "),
    ],
)
def test_training_yaml_edited_by_hand_is_refused(training: Training, tmp_path: Path, old: str, new: str) -> None:
    text = training.yaml_text()
    assert old in text
    path = written(tmp_path / "training.yaml", text.replace(old, new, 1))
    with pytest.raises(UserError) as caught:
        read_training(path)
    way = "was edited by hand; edit the experiment file instead, delete this one, and run boot again"
    assert str(caught.value) == f"{path}: {way}"


def test_training_yaml_without_its_folders_is_refused(training: Training, tmp_path: Path) -> None:
    text = "".join(line for line in training.yaml_text().splitlines(keepends=True) if not line.startswith("tokenizer:"))
    with pytest.raises(UserError, match=r"has no 'tokenizer'; delete it and run boot again$"):
        read_training(written(tmp_path / "training.yaml", text))


def test_training_yaml_that_is_cut_is_refused(training: Training, tmp_path: Path) -> None:
    text = training.yaml_text()
    for share in (0.1, 0.5, 0.9, 0.99):
        with pytest.raises(UserError, match=r"training\.yaml"):
            read_training(written(tmp_path / "training.yaml", text[: int(len(text) * share)]))


def test_training_toml_says_the_same_without_what_is_off(training: Training) -> None:
    told = dict(flat(tomllib.loads(training.toml_text())))
    meant = {path: value for path, value in flat(yaml.safe_load(training.yaml_text())) if value is not None}
    assert told == meant
    assert "experiment.train.grad_clip" not in told


def test_only_what_decides_learning_is_fixed(experiment_file: Write) -> None:
    def fields(*overrides: str) -> dict[str, object]:
        return fixed_fields(load_experiment(experiment_file(), overrides, {}).experiment)

    free = ("train.steps=99", "train.micro_batch=1", "resources.ranks_per_node=2", "logging.num_samples=0")
    assert fields(*free) == fields()
    (change,) = changes(fields(), fields("optimizer.lr=0.5"))
    assert str(change) == "optimizer.lr: was 0.0003, is now 0.5"


def test_changes_name_what_came_and_what_went() -> None:
    found = [str(change) for change in changes({"a": 1, "b": 2}, {"b": 2, "c": 3})]
    assert found == ["a: was 1, is now not there", "c: was not there, is now 3"]


@pytest.mark.parametrize(
    "overrides",
    [
        (),
        ODD,
        ("optimizer.kind=muon", "optimizer.lr=0.02", "schedule.kind=constant", "tokenizer.kind=bpe"),
        ("data.source.kind=hub", "data.source.preset=fineweb-edu", "seed=3", "optimizer.eps=1e-7"),
    ],
)
def test_a_field_that_an_older_record_lacks_is_a_change_only_when_it_is_not_at_its_default(
    experiment_file: Write, overrides: tuple[str, ...]
) -> None:
    experiment = load_experiment(experiment_file(), overrides, {}).experiment
    fixed = fixed_fields(experiment)
    chosen = dict(flat(experiment.model_dump(mode="json", exclude_defaults=True)))
    sections = ("data.source", "tokenizer", "model", "optimizer", "schedule")
    kinds = {f"{section}.kind": default_kind(section) for section in sections}
    named = []
    for path in fixed:
        older = {key: value for key, value in fixed.items() if key != path}
        found = [change.field for change in changes(older, fixed)]
        assert found == ([path] if path in chosen or kinds.get(path, fixed[path]) != fixed[path] else []), path
        named += found
    assert {"name", "train.seq_len_tokens"} <= set(named) < set(fixed)


def test_a_field_that_is_not_known_any_more_is_named(experiment_file: Write) -> None:
    fixed = fixed_fields(load_experiment(experiment_file(), (), {}).experiment)
    (change,) = changes({**fixed, "optimizer.nesterov": True}, fixed)
    assert str(change) == "optimizer.nesterov: was True, is now not there"


def written_before(text: str, *fields: str) -> str:
    """Return what a Trainwright had written that did not know some fields of the experiment yet."""
    tree: dict[str, Any] = yaml.safe_load(text)
    for field in fields:
        *parents, last = field.split(".")
        block = tree["experiment"]
        for parent in parents:
            block = block[parent]
        del block[last]
    head = "experiment_hash" if "experiment_hash" in tree else "hash"
    tree[head] = sha256_json(tree["experiment"])
    if head == "experiment_hash":
        tree["hash"] = sha256_json({key: value for key, value in tree.items() if key not in (head, "hash")})
    return dump(tree)


def test_the_files_of_a_run_that_an_older_trainwright_began_are_read(training: Training, tmp_path: Path) -> None:
    newer = ("optimizer.weight_decay", "evaluation.max_tokens", "restart")
    text = written_before(experiment_text(training.experiment, commit="", image=""), *newer)
    path = written(tmp_path / "experiment.yaml", text)
    assert read_resolved(path) == training.experiment
    path = written(tmp_path / "training.yaml", written_before(training.yaml_text(), *newer))
    assert read_training(path) == training
    path.write_text(path.read_text().replace("seed: ", "seed: 1"))
    with pytest.raises(UserError, match="was edited by hand"):
        read_training(path)


def test_training_yaml_is_whole_though_its_fields_are_not_known_any_more(training: Training, tmp_path: Path) -> None:
    tree = yaml.safe_load(training.yaml_text())
    tree["experiment"]["logging"]["bells"] = True
    path = written(tmp_path / "training.yaml", written_before(dump(tree)))
    refuse_edited(path, path.read_text())
    with pytest.raises(UserError, match=r"logging\.bells: unknown key"):
        read_training(path)


def test_the_hash_follows_every_value(experiment_file: Write) -> None:
    def hashed(*overrides: str) -> str:
        return experiment_hash(load_experiment(experiment_file(), overrides, {}).experiment)

    assert hashed() == hashed("seed=42")
    assert len({hashed(), hashed("seed=1"), hashed("logging.num_samples=4"), hashed("paths.runs=/r")}) == 4
