"""One step is torch's plain step, clipped by the norm of the whole gradient; refused steps leave no trace."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
import math
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from tiny_run import Ground, blank_model, tiny_experiment
from trainer.checkpoint import named_state
from trainer.data import Batch, Dealing, batches, open_corpus
from trainer.initialise import initialise
from trainer.loop import Parts, Spent, StepResult, train, train_step
from trainer.optim import build_optimizer
from trainer.ranks import Ranks
from trainer.requests import Request, Requests
from trainer.schedule import learning_rate
from trainwright.spec.derived import Derived
from trainwright.spec.experiment import Experiment


@dataclass
class Diary:
    """What the loop called back, in order."""

    lines: list[str] = field(default_factory=list)
    refused: list[int] = field(default_factory=list)
    results: list[StepResult] = field(default_factory=list)

    def evaluate(self, step: int) -> Request:
        self.lines.append(f"evaluate {step}")
        return Request.NONE

    def save(self, step: int, cursor: int) -> None:
        self.lines.append(f"save {step} {cursor}")

    def refuse(self, step: int, result: StepResult, batch: Batch) -> None:
        assert not result.agreed.finite
        self.lines.append(f"refuse {step}")
        self.refused.append(batch.cursor)

    def record(self, step: int, result: StepResult, spent: Spent) -> None:
        assert spent.seconds > spent.data_wait >= 0
        self.lines.append(f"step {step}")
        self.results.append(result)


class Quiet(Requests):
    """Requests that never come, or come at one look."""

    def __init__(self, at: int | None = None, asked: Request = Request.INTERRUPT) -> None:
        self.at, self.asked, self.looks = at, asked, 0

    def look(self) -> Request:
        self.looks += 1
        return self.asked if self.looks == self.at else Request.NONE

    def committed(self, yes: bool) -> None:
        self.unsaved = not yes


class Spoiled(nn.Module):
    """A model whose loss, on some of its passes, is no number."""

    def __init__(self, model: nn.Module, passes: set[int]) -> None:
        super().__init__()
        self.model, self.passes, self.seen = model, passes, 0

    def forward(self, inputs: Tensor, targets: Tensor) -> Tensor:
        self.seen += 1
        loss: Tensor = self.model(inputs, targets)
        return loss * math.nan if self.seen in self.passes else loss


Wrap = Callable[[nn.Module], nn.Module]


@contextmanager
def assembled(
    ground: Ground,
    experiment: Experiment,
    ranks: Ranks,
    *,
    wrap: Wrap = lambda model: model,
    requests: Requests | None = None,
    refused: tuple[int, ...] = (),
) -> Iterator[tuple[Parts, Diary]]:
    """Yield a run's parts with fresh weights, and the diary that they write."""
    derived, diary = Derived(experiment), Diary()
    model = blank_model(derived)
    initialise(model, experiment.seed)
    dealing = Dealing(experiment.train.micro_batch, derived.grad_accum, 0, 1)
    with batches(*open_corpus(ground.tokens("train"), derived), dealing, 0, refused) as stream:
        yield (
            Parts(
                derived=derived,
                model=wrap(model),
                optimizer=build_optimizer(derived, model),
                batches=stream,
                ranks=ranks,
                requests=requests or Quiet(),
                evaluate=diary.evaluate,
                save=diary.save,
                refuse=diary.refuse,
                record=diary.record,
            ),
            diary,
        )


def state(parts: Parts) -> dict[str, Tensor]:
    model = parts.model.model if isinstance(parts.model, Spoiled) else parts.model
    return {name: each.detach().clone() for name, each in named_state(model, parts.optimizer).items()}


@pytest.mark.parametrize("clip", ["null", "0.5", "1000"])
def test_a_step_is_torchs_plain_step(ground: Ground, one: Ranks, tmp_path: Path, clip: str) -> None:
    # With an epsilon this large the update is as long as the gradient, so that clipping shows.
    experiment = tiny_experiment(tmp_path, f"train.grad_clip={clip}", "optimizer.eps=1", "optimizer.lr=0.5")
    with assembled(ground, experiment, one) as (parts, _), assembled(ground, experiment, one) as (plain, _):
        adamw = torch.optim.AdamW(plain.model.parameters(), lr=0.5, betas=(0.9, 0.95), eps=1, fused=False)
        for group, decay in zip(parts.optimizer.param_groups, (0.01, 0.01), strict=True):
            group["weight_decay"] = decay
        for step in range(3):
            result = train_step(parts, next(parts.batches), lr=0.5)
            loss, norm = plain_step(plain.model, adamw, next(plain.batches), experiment.train.grad_clip)
            assert result.loss == pytest.approx(loss, rel=1e-5), step
            assert result.agreed.grad_norm == pytest.approx(norm, rel=1e-4), step
            assert norm > 0.6, "a clip of 0.5 must be felt"
        for (name, found), expected in zip(parts.model.named_parameters(), plain.model.parameters(), strict=True):
            assert torch.allclose(found, expected, rtol=1e-4, atol=1e-6), name


def plain_step(
    model: nn.Module, optimizer: torch.optim.Optimizer, batch: Batch, clip: float | None
) -> tuple[float, float]:
    """Make the update of a whole batch as a textbook does: mean loss of all logits, clipped by torch."""
    inputs, targets = (torch.cat([each[side] for each in batch.passes]) for side in (0, 1))
    loss = nn.functional.cross_entropy(model(inputs).flatten(0, 1), targets.flatten())
    loss.backward()
    norm = nn.utils.clip_grad_norm_(model.parameters(), clip if clip is not None else math.inf)
    optimizer.step()
    optimizer.zero_grad()
    return loss.item(), norm.item()


def test_clipping_scales_the_update_as_soon_as_the_norm_is_above_it(ground: Ground, one: Ranks, tmp_path: Path) -> None:
    whole, norm = first_update(ground, tiny_experiment(tmp_path, "train.grad_clip=null", *PROPORTIONAL), one)
    for share in (1.1, 0.9, 0.3):
        clipped = tiny_experiment(tmp_path, f"train.grad_clip={share * norm}", *PROPORTIONAL)
        moved, same_norm = first_update(ground, clipped, one)
        assert same_norm == norm, "the norm on record is the one before clipping"
        for name, each in whole.items():
            assert torch.allclose(moved[name], each * min(1, share), rtol=1e-2, atol=1e-5), (share, name)
    assert any(each.abs().max() > 1e-3 for each in whole.values())


PROPORTIONAL = ("optimizer.eps=100", "optimizer.weight_decay=0")
"""With an epsilon so large an update is proportional to the gradient."""


def first_update(ground: Ground, experiment: Experiment, one: Ranks) -> tuple[dict[str, Tensor], float]:
    with assembled(ground, experiment, one) as (parts, _):
        before = state(parts)
        result = train_step(parts, next(parts.batches), lr=100.0)
        after = state(parts)
    return {name: after[name] - each for name, each in before.items()}, result.agreed.grad_norm


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_an_update_that_is_no_number_is_refused_before_it_is_made(
    ground: Ground, one: Ranks, tmp_path: Path, bad: float
) -> None:
    with assembled(ground, tiny_experiment(tmp_path), one) as (parts, _):
        train_step(parts, next(parts.batches), lr=0.1)
        with torch.no_grad():
            parts.model.get_parameter("blocks.1.mlp.down.weight")[3, 5] = bad
        before = state(parts)
        result = train_step(parts, next(parts.batches), lr=0.1)
        assert not result.agreed.finite
        after = state(parts)
        assert after.keys() == before.keys()
        assert all(torch.equal(after[name].nan_to_num(7), each.nan_to_num(7)) for name, each in before.items())
        assert all(parameter.grad is None for parameter in parts.model.parameters())


def test_a_refused_batch_is_as_if_it_had_never_been(ground: Ground, one: Ranks, tmp_path: Path) -> None:
    experiment = tiny_experiment(tmp_path, "train.steps=6")
    # Two passes a batch: the sixth pass is the second of the third batch.
    with (
        assembled(ground, experiment, one, wrap=lambda model: Spoiled(model, {6})) as (spoiled, diary),
        assembled(ground, experiment, one, refused=(16,)) as (without, other),
    ):
        assert train(spoiled) is train(without) is Request.NONE
        assert diary.refused == [16]
        assert (spoiled.step, spoiled.cursor) == (without.step, without.cursor) == (6, 56)
        assert [result.loss for result in diary.results] == [result.loss for result in other.results]
        assert [line for line in diary.lines if line != "refuse 2"] == other.lines
        left, right = state(spoiled), state(without)
        assert left.keys() == right.keys()
        assert all(torch.equal(left[name], right[name]) for name in right)


def test_saves_come_before_evaluations_and_each_step_is_saved_once(ground: Ground, one: Ranks, tmp_path: Path) -> None:
    cadence = ("train.steps=5", "checkpoint.dump.every_steps=2", "checkpoint.eval.every_steps=4")
    experiment = tiny_experiment(tmp_path, *cadence, "evaluation.every_steps=2")
    with assembled(ground, experiment, one) as (parts, diary):
        assert train(parts) is Request.NONE
    assert diary.lines == [
        "evaluate 0",
        "step 1",
        *("step 2", "save 2 16", "evaluate 2"),
        "step 3",
        *("step 4", "save 4 32", "evaluate 4"),
        *("step 5", "save 5 40", "evaluate 5"),
    ]


def test_rates_follow_the_schedule(ground: Ground, one: Ranks, tmp_path: Path) -> None:
    with assembled(ground, tiny_experiment(tmp_path, "train.steps=6"), one) as (parts, diary):
        train(parts)
        assert [result.lr for result in diary.results] == [learning_rate(parts.derived, step) for step in range(6)]


@pytest.mark.parametrize("asked", [Request.INTERRUPT, Request.END])
def test_a_request_ends_the_loop_after_the_step_and_its_save(
    ground: Ground, one: Ranks, tmp_path: Path, asked: Request
) -> None:
    experiment = tiny_experiment(tmp_path, "evaluation.every_steps=2")
    with assembled(ground, experiment, one, requests=Quiet(2, asked)) as (parts, diary):
        assert train(parts) is asked
    # An evaluation that is due can wait for the next attempt; the machine may be gone in seconds.
    assert diary.lines == ["evaluate 0", "step 1", "step 2", "save 2 16"]


@pytest.mark.parametrize("asked", [Request.INTERRUPT, Request.END])
def test_a_request_that_comes_in_a_save_costs_no_further_step(
    ground: Ground, one: Ranks, tmp_path: Path, asked: Request
) -> None:
    experiment = tiny_experiment(tmp_path, "checkpoint.dump.every_steps=2", "evaluation.every_steps=2")
    # Each step looks once, and so does each save: the third look is that of the save at step 2.
    with assembled(ground, experiment, one, requests=Quiet(3, asked)) as (parts, diary):
        assert train(parts) is asked
    assert diary.lines == ["evaluate 0", "step 1", "step 2", "save 2 16"]


def test_what_compiles_has_a_checkpoint_before_it(ground: Ground, one: Ranks, tmp_path: Path) -> None:
    # The model of these parts is not compiled, but the loop does not know.
    experiment = tiny_experiment(tmp_path, "train.compile=true", "train.steps=3")
    with assembled(ground, experiment, one) as (parts, diary):
        train(parts)
    assert diary.lines[:3] == ["save 0 0", "evaluate 0", "step 1"]
    with assembled(ground, experiment, one) as (parts, diary):
        parts.saved_step = 0
        train(parts)
    assert diary.lines[0] == "evaluate 0", "a run that resumes has one already"


def test_time_alone_makes_a_save_due(ground: Ground, one: Ranks, tmp_path: Path) -> None:
    often = ("train.steps=3", "checkpoint.dump.every_steps=null", "checkpoint.dump.every_minutes=1e-9")
    experiment = tiny_experiment(tmp_path, *often, "evaluation.every_steps=null")
    with assembled(ground, experiment, one) as (parts, diary):
        train(parts)
    assert [line for line in diary.lines if line.startswith("save")] == ["save 1 8", "save 2 16", "save 3 24"]
