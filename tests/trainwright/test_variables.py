"""The boot variables: each sets one value, and unset is not zero."""

from collections.abc import Callable
from pathlib import Path

import pytest

from trainwright.spec.exits import UserError
from trainwright.spec.experiment import Experiment
from trainwright.spec.load import load_experiment
from trainwright.spec.variables import boot_values

Write = Callable[..., Path]


def loaded(path: Path, *overrides: str, **environ: str) -> Experiment:
    return load_experiment(path, overrides, environ).experiment


def test_run_experiment_sets_the_name(experiment_file: Write) -> None:
    assert loaded(experiment_file()).name == "small"
    assert loaded(experiment_file(), "name=other", RUN_EXPERIMENT="pod-7").name == "pod-7"


@pytest.mark.parametrize(("text", "shard"), [("0", False), ("false", False), ("1", True), ("true", True)])
def test_run_shard_says_whether_to_shard(experiment_file: Write, text: str, shard: bool) -> None:
    assert loaded(experiment_file()).data.shard is True
    assert loaded(experiment_file(), f"data.shard={not shard}", RUN_SHARD=text).data.shard is shard


def test_shard_lines_sets_the_documents_of_a_shard(experiment_file: Write) -> None:
    assert loaded(experiment_file()).data.documents_per_shard == 250_000
    assert loaded(experiment_file(), SHARD_LINES="1000").data.documents_per_shard == 1000


def test_unset_or_empty_changes_nothing(experiment_file: Write) -> None:
    plain = loaded(experiment_file("data: {shard: false}\n"))
    assert loaded(experiment_file("data: {shard: false}\n"), RUN_SHARD="", SHARD_LINES="", RUN_EXPERIMENT="") == plain
    assert boot_values({}) == {}
    assert boot_values({"RUN_SHARD": "", "OTHER": "1"}) == {}


def test_zero_is_a_value_and_may_be_wrong(experiment_file: Write) -> None:
    with pytest.raises(UserError, match=r"data\.documents_per_shard=0: must be at least 1$"):
        loaded(experiment_file(), SHARD_LINES="0")
    assert boot_values({"SHARD_LINES": "0"}) == {"data.documents_per_shard": ("SHARD_LINES", "0")}


def test_show_can_name_the_variable_that_won(experiment_file: Write) -> None:
    environ = {"RUN_EXPERIMENT": "a", "RUN_SHARD": "1", "SHARD_LINES": "5"}
    found = load_experiment(experiment_file(), (), environ)
    paths = ("name", "data.shard", "data.documents_per_shard")
    assert [found.origin(path) for path in paths] == ["RUN_EXPERIMENT", "RUN_SHARD", "SHARD_LINES"]
