"""Continuations: the same weights draw the same, within the vocabulary, and each is written with its prompt."""

import json
from pathlib import Path

import pytest
import torch
from torch import nn

from tiny_run import Ground, blank_model, copy_run, tiny_experiment, train_here
from trainer.checkpoint import Committed, load
from trainer.generate import PROMPT_TOKENS, TEMPERATURE, continuations
from trainer.initialise import initialise
from trainer.ranks import Ranks
from trainer.requests import Request
from trainwright.spec.derived import Derived
from trainwright.spec.experiment import Experiment
from trainwright.spec.paths import RunFolder, step_name
from trainwright.tokens.shards import read_tokens

PROMPTS = [[256, 84, 104, 101], [256, 32, 116, 104]]


@pytest.fixture
def experiment(tmp_path: Path) -> Experiment:
    return tiny_experiment(tmp_path)


@pytest.fixture
def trained(one_rank: RunFolder, experiment: Experiment) -> nn.Module:
    model = blank_model(Derived(experiment))
    initialise(model, 0)
    weights = {f"model/{name}": each for name, each in model.named_parameters()}
    load(Committed(20, one_rank.checkpoints / step_name(20)), weights)
    return model


def drawn(
    model: nn.Module, experiment: Experiment, one: Ranks, tokens: int = 70, vocabulary: int = 265
) -> list[list[int]]:
    return continuations(model, PROMPTS, tokens, vocabulary, experiment.train, one)


def test_the_same_weights_draw_the_same(trained: nn.Module, experiment: Experiment, one: Ranks) -> None:
    torch.manual_seed(1)
    first = drawn(trained, experiment, one)
    torch.manual_seed(2)
    assert drawn(trained, experiment, one) == first
    # Longer than the model's context, which then moves along.
    assert [len(row) for row in first] == [70, 70]
    assert trained.training


@pytest.mark.filterwarnings("ignore:`torch.jit.script_method` is deprecated:DeprecationWarning")
def test_blocks_that_were_compiled_to_train_are_not_compiled_anew_to_draw(
    trained: nn.Module, experiment: Experiment, one: Ranks
) -> None:
    def never(*_: object) -> None:
        raise AssertionError

    plain = drawn(trained, experiment, one, tokens=3)
    for block in trained.blocks:
        block.compile(backend=never)
    train = experiment.train.model_copy(update={"compile": True})
    assert continuations(trained, PROMPTS, 3, 265, train, one) == plain


@pytest.mark.parametrize("asked", [Request.INTERRUPT, Request.END])
def test_a_request_ends_the_drawing_and_leaves_the_model_in_training(
    trained: nn.Module, experiment: Experiment, one: Ranks, asked: Request
) -> None:
    looks = iter([Request.NONE, Request.NONE, asked])
    assert continuations(trained, PROMPTS, 70, 265, experiment.train, one, lambda: next(looks)) is asked
    assert next(looks, None) is None
    assert trained.training


def test_other_weights_draw_otherwise(trained: nn.Module, experiment: Experiment, one: Ranks) -> None:
    first = drawn(trained, experiment, one)
    initialise(trained, 1)
    assert drawn(trained, experiment, one) != first


def test_padding_of_the_vocabulary_is_never_drawn(experiment: Experiment, one: Ranks) -> None:
    model = blank_model(Derived(experiment))
    initialise(model, 1)
    assert {token for row in drawn(model, experiment, one, vocabulary=5) for token in row} == {0, 1, 2, 3, 4}


def test_the_end_of_a_run_writes_the_samples_that_its_weights_give(
    ground: Ground, one_rank: RunFolder, tmp_path: Path
) -> None:
    written = [json.loads(line) for line in one_rank.samples.read_text().splitlines()]
    assert [set(row) for row in written] == [{"prompt", "continuation", "step", "temperature"}] * 2
    assert all(row["temperature"] == TEMPERATURE for row in written)
    corpus = "".join(ground.bundle.decode(_tokens(ground)))
    for row in written:
        assert len(row["prompt"].replace("<|bos|>", "^")) == PROMPT_TOKENS
        assert row["prompt"] in corpus
        assert row["continuation"]
    again = copy_run(ground, one_rank, tmp_path / "run")
    again.samples.unlink()
    assert train_here(again) == 0
    assert again.samples.read_bytes() == one_rank.samples.read_bytes()


def _tokens(ground: Ground) -> list[int]:
    return [token for path in sorted(ground.tokens("val").glob("*.bin")) for token in read_tokens(path).tolist()]


def test_no_samples_are_written_when_none_are_asked_for(ground: Ground, one_rank: RunFolder, tmp_path: Path) -> None:
    run = copy_run(ground, one_rank, tmp_path / "run", "logging.num_samples=0")
    assert train_here(run) == 0
    assert run.samples.read_text() == ""
