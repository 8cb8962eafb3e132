"""Every derived number is told with its formula, and the formulas give the numbers."""

from collections.abc import Callable
from pathlib import Path

import pytest

from trainwright.spec.derived import Derived
from trainwright.spec.explained import explained
from trainwright.spec.load import load_experiment

Write = Callable[..., Path]


def told(path: Path, *overrides: str) -> tuple[Derived, dict[str, tuple[float, str]]]:
    derived = Derived(load_experiment(path, overrides, {}).experiment)
    return derived, {each.name: (each.value, each.formula) for each in explained(derived)}


def test_every_fact_is_explained(experiment_file: Write) -> None:
    derived, numbers = told(experiment_file())
    assert {name: numbers[name][0] for name in derived.facts()} == derived.facts()
    assert all(formula for _, formula in numbers.values())


def test_numbers_follow_from_one_another(experiment_file: Write) -> None:
    _, numbers = told(experiment_file(), "train.steps=null", "train.tokens_per_parameter=20")
    value = {name: number for name, (number, _) in numbers.items()}
    assert value["total_tokens"] == value["steps"] * value["tokens_per_step"]
    assert value["tokens_per_parameter"] == pytest.approx(20, rel=0.01)
    assert numbers["steps"][1] == "20.0 x num_parameters / tokens_per_step, up"
    assert value["decay_per_step"] == pytest.approx(3e-4 * 0.1)


def test_rules_are_told_where_they_gave_the_number(experiment_file: Write) -> None:
    words = ("model.kind=nanochat", "model.depth=4", "optimizer.kind=muon", "optimizer.scale=spectral")
    batch = ("train.global_batch_sequences=null", "train.batch_rule=depth", "train.seq_len_tokens=2048")
    _, numbers = told(experiment_file(), *words, *batch, "train.micro_batch=1")
    assert numbers["global_batch_sequences"][1].startswith("2^round(log2(2^19 x (matrix weights / 110,100,480)^0.383))")
    assert numbers["peak_lr"][1].startswith("0.02 x sqrt(tokens of a step / 2^19)")
    assert {"embedding_lr", "output_lr", "nanochat_weight_decay"} <= set(numbers)
    _, numbers = told(experiment_file(), "optimizer.decay=independent", "optimizer.omega=2")
    assert numbers["decay_per_step"] == (2 / 10, "omega / steps, at the peak")
    _, numbers = told(experiment_file(), "optimizer.decay=log_time", "train.steps=1342")
    assert numbers["decay_start_steps"] == (134, "int(steps / 10)")
    assert numbers["decay_at_start"][0] == pytest.approx(0.02985, rel=1e-3)
