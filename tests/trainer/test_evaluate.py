"""Evaluation: nats over targets, bits over bytes, the same samples whatever the ranks."""

import math
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st
import pytest
import torch
from torch import Tensor, nn

from tiny_run import Ground, make_ground, rows, steps, tiny_experiment
from trainer.data import open_corpus
from trainer.evaluate import Score, Validation, evaluate
from trainer.ranks import Ranks
from trainer.requests import Request, Requests
from trainwright.spec.derived import Derived
from trainwright.spec.experiment import Experiment
from trainwright.spec.paths import RunFolder
from trainwright.tokens.shards import IGNORED, TokenCorpus, TokenManifest, write_shard


class OwnNumber(nn.Module):
    """Loses as many nats on each target as the target's number says; counts its passes."""

    def __init__(self) -> None:
        super().__init__()
        self.passes = 0

    def forward(self, tokens: Tensor, targets: Tensor, *, each_token: bool) -> Tensor:
        assert each_token
        assert tokens.shape == targets.shape == (4, 64)
        assert not self.training
        self.passes += 1
        return torch.where(targets == IGNORED, 0, targets).float()


class Asked(Requests):
    """Requests that are made by a test, without signals."""

    def __init__(self, *asked: Request) -> None:
        self._asked = list(asked)

    def look(self) -> Request:
        return self._asked.pop(0) if self._asked else Request.NONE


@pytest.fixture
def experiment(tmp_path: Path) -> Experiment:
    return tiny_experiment(tmp_path)


def validation(ground: Ground, experiment: Experiment, max_tokens: int) -> Validation:
    corpus, _ = open_corpus(ground.tokens("val"), Derived(experiment))
    return Validation(corpus, torch.from_numpy(ground.bundle.token_bytes), max_tokens)


def test_bits_per_byte_of_a_case_done_by_hand(tmp_path: Path, experiment: Experiment, one: Ranks) -> None:
    # Tokens 0 to 3 stand for 2, 0, 1 and 3 bytes; the model loses as many nats as the target's number.
    folder = tmp_path / "tokens"
    tokens = torch.tensor([0, 3, 1, 2, 3, 1], dtype=torch.int64).numpy().astype("<u2")
    entry = write_shard(folder / "val_00000.bin", [tokens], 4, 1)
    TokenManifest("hash", 4, 1, "text", complete=True, shards=(entry,)).write(folder)
    scored = Validation(TokenCorpus(folder), torch.tensor([2, 0, 1, 3]), 1000)
    found = evaluate(OwnNumber(), scored, experiment.train, one, Asked())
    assert isinstance(found, Score)
    # Targets 3, 1, 2, 3, 1: ten nats in all. Without the special token 1: eight nats, and 3 + 1 + 3 bytes.
    assert found.loss == pytest.approx(10 / 5)
    assert found.bits_per_byte == pytest.approx(8 / (math.log(2) * 7))
    assert found.num_tokens == 5


def test_each_target_of_the_corpus_is_scored_once(ground: Ground, experiment: Experiment, one: Ranks) -> None:
    scored = validation(ground, experiment, 10**9)
    targets = scored.corpus.read(1, scored.corpus.manifest.num_tokens).astype("int64")
    ordinary = targets[targets < 256]
    found = evaluate(OwnNumber(), scored, experiment.train, one, Asked())
    assert isinstance(found, Score)
    assert found.num_tokens == len(targets)
    assert found.loss == pytest.approx(targets.mean())
    assert found.bits_per_byte == pytest.approx(ordinary.sum() / math.log(2) / len(ordinary))
    assert len(ordinary) < len(targets)


@given(max_tokens=st.integers(1, 3000))
def test_no_more_is_scored_than_asked_and_at_least_a_sample(
    ground: Ground, tmp_path_factory: pytest.TempPathFactory, max_tokens: int
) -> None:
    experiment = tiny_experiment(tmp_path_factory.getbasetemp() / "evaluate")
    scored = validation(ground, experiment, max_tokens)
    everything = -(-(scored.corpus.manifest.num_tokens - 1) // 64)
    assert scored.samples(64) == min(everything, max(1, max_tokens // 64))


def test_every_rank_makes_the_same_number_of_passes_and_each_sample_is_of_one_rank(
    ground: Ground, experiment: Experiment
) -> None:
    scored = validation(ground, experiment, 64 * 9)
    found, passes = [], []
    for rank in range(3):
        model = OwnNumber()
        alone = Ranks(torch.device("cpu"), {})
        # One of three ranks, which here adds up nothing but its own part.
        alone.rank, alone.size, alone.sum = rank, 3, lambda values: values
        score = evaluate_part(model, scored, experiment, alone)
        found.append(score)
        passes.append(model.passes)
    assert passes == [1, 1, 1]
    assert found == [4 * 64, 4 * 64, 64]


def evaluate_part(model: OwnNumber, scored: Validation, experiment: Experiment, ranks: Ranks) -> int:
    score = evaluate(model, scored, experiment.train, ranks, Asked())
    assert isinstance(score, Score)
    return score.num_tokens


@pytest.mark.parametrize("asked", [Request.INTERRUPT, Request.END])
def test_a_request_ends_the_evaluation_and_leaves_the_model_in_training(
    ground: Ground, experiment: Experiment, one: Ranks, asked: Request
) -> None:
    model = OwnNumber()
    scored = validation(ground, experiment, 64 * 12)
    assert evaluate(model, scored, experiment.train, one, Asked(Request.NONE, asked)) is asked
    assert model.passes == 2
    assert model.training


def test_a_row_says_what_was_scored(one_rank: RunFolder) -> None:
    (first, *_) = [row for row in rows(one_rank) if "eval_loss" in row]
    assert set(first) == {"step", "eval_loss", "bits_per_byte", "eval_tokens", "eval_seconds", "time"}
    assert first["eval_tokens"] == 1000 // 64 * 64
    assert first["eval_loss"] == pytest.approx(steps(one_rank)[0]["loss"], rel=0.02)


def test_a_corpus_of_special_tokens_alone_has_no_bits(tmp_path: Path, experiment: Experiment, one: Ranks) -> None:
    ground = make_ground(tmp_path / "ground")
    scored = validation(ground, experiment, 640)
    nothing = Validation(scored.corpus, torch.zeros_like(scored.token_bytes), 640)
    found = evaluate(OwnNumber(), nothing, experiment.train, one, Asked())
    assert isinstance(found, Score)
    assert found.bits_per_byte == 0
