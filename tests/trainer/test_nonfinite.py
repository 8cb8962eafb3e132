"""Bad batches are passed over and counted; too many in a row mean a return to a checkpoint, and that has a budget."""

from collections.abc import Iterable
import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tiny_run import STEPS, Ground, checkpoint_tensors, copy_run, drop_after, losses, make_run, steps, tiny_experiment
from tiny_run import train_here, write_tokens
from trainer import checkpoint
from trainer.agree import Agreed
from trainer.checkpoint import Committed, read_train_state
from trainer.data import Batch, Dealing, batches, open_corpus
from trainer.loop import StepResult
from trainer.loss import summed_loss
from trainer.nonfinite import Refusals, RollBackError
from trainer.ranks import Ranks
from trainer.requests import Request
from trainwright.spec.derived import Derived
from trainwright.spec.exits import Exit, UserError
from trainwright.spec.paths import RunFolder, step_name
from trainwright.spec.training import Nonfinite

BAD = StepResult(math.nan, 0.1, Agreed(math.nan, math.nan, Request.NONE, save_due=False))


def batch(cursor: int) -> Batch:
    return Batch(torch.empty(0), None, 512, cursor, cursor + 8)


def test_more_in_a_row_than_allowed_ask_for_a_return(caplog: pytest.LogCaptureFixture) -> None:
    refusals = Refusals(Nonfinite(skips_in_a_row=2, rollbacks=1), (), 0)
    refusals.refuse(4, BAD, batch(32))
    refusals.refuse(4, BAD, batch(40))
    with pytest.raises(RollBackError, match="3 batches in a row"):
        refusals.refuse(4, BAD, batch(48))
    assert refusals.refused == [32, 40, 48]
    assert "samples 48 to 55 after step 4" in caplog.text


def test_a_good_step_in_between_starts_the_count_again() -> None:
    refusals = Refusals(Nonfinite(skips_in_a_row=1), (), 0)
    for step in range(20):
        refusals.refuse(step, BAD, batch(step * 8))
    assert refusals.rollbacks == 0


def test_returns_have_a_budget_that_outlives_the_process() -> None:
    refusals = Refusals(Nonfinite(rollbacks=2), (8, 16), 1)
    refusals.roll_back()
    with pytest.raises(UserError, match=r"train\.nonfinite\.rollbacks=2: .* raise train\.nonfinite\.rollbacks"):
        refusals.roll_back()
    assert refusals.refused == [8, 16]


def poison(ground: Ground, folder: Path, monkeypatch: pytest.MonkeyPatch, cursors: Iterable[int]) -> None:
    """Make the loss of the batches at some cursors no number, whenever they come up."""
    bad = []
    opened = open_corpus(ground.tokens("train"), Derived(tiny_experiment(folder)))
    for cursor in cursors:
        with batches(*opened, Dealing(8, 1, 0, 1), cursor) as stream:
            bad += [row.tobytes() for row in next(stream).passes[0][1].numpy()]

    def spoiled(hidden: Tensor, weight: Tensor, targets: Tensor, *options: Any) -> Tensor:
        loss = summed_loss(hidden, weight, targets, *options)
        rows = [row.tobytes() for row in targets.view(-1, 64).numpy()]
        return loss * math.nan if set(rows) & set(bad) else loss

    monkeypatch.setattr("trainer.models.llama.summed_loss", spoiled)


@pytest.fixture
def long_ground(own_ground: Ground) -> Ground:
    """Return a corpus with more samples than a run takes, or the bad ones would come up again in other company."""
    write_tokens(own_ground, "train", (9, 9, 9))
    return own_ground


@pytest.mark.parametrize("first", [16, 88], ids=["before the first checkpoint", "after it"])
def test_a_return_to_a_checkpoint_changes_nothing_of_what_is_learned(
    long_ground: Ground, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, first: int
) -> None:
    bad = (first, first + 8, first + 16)
    settings = ("evaluation.every_steps=null", "train.steps=12")
    poison(long_ground, tmp_path, monkeypatch, bad)
    patient = make_run(long_ground, tmp_path / "patient", *settings, "train.nonfinite.skips_in_a_row=5")
    returning = make_run(long_ground, tmp_path / "returning", *settings)
    assert train_here(patient) == train_here(returning) == Exit.OK
    assert losses(returning) == losses(patient)
    assert [row["step"] for row in steps(returning)] == list(range(1, 13))
    left, right = checkpoint_tensors(returning, 12), checkpoint_tensors(patient, 12)
    assert all(torch.equal(left[name], right[name]) for name in right)
    states = [read_train_state(Committed(12, run.checkpoints / step_name(12))) for run in (returning, patient)]
    assert [state.rollbacks for state in states] == [1, 0]
    assert [state.refused for state in states] == [bad, bad]


def test_spoiled_weights_spend_the_budget_and_stop_the_run(
    ground: Ground, one_rank: RunFolder, one: Ranks, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = copy_run(ground, one_rank, tmp_path / "run")
    drop_after(run, 10)
    tensors = checkpoint_tensors(run, 10)
    tensors["model/blocks.0.mlp.up.weight"][1, 2] = math.nan
    checkpoint.save(run.checkpoints, tensors, read_train_state(Committed(10, run.checkpoints / step_name(10))), one)
    spoiled = {path: path.read_bytes() for path in run.checkpoints.rglob("*") if path.is_file()}
    assert train_here(run) == Exit.REFUSED
    assert "loss or gradient is not finite again; lower optimizer.lr" in capsys.readouterr().err
    assert {path: path.read_bytes() for path in run.checkpoints.rglob("*") if path.is_file()} == spoiled
    assert max(losses(run)) == 10 < STEPS


def test_a_resumed_run_passes_over_what_was_refused_before(
    long_ground: Ground, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = make_run(long_ground, tmp_path / "run", "train.steps=12", "evaluation.every_steps=null")
    with monkeypatch.context() as patch:
        poison(long_ground, tmp_path, patch, (40,))
        assert train_here(run) == Exit.OK
    whole = losses(run)
    state = json.loads((run.checkpoints / step_name(10) / "train_state.json").read_text())
    assert (state["refused"], state["cursor"]) == ([40], 88)
    drop_after(run, 10)
    assert train_here(run) == Exit.OK
    assert losses(run) == whole
