"""Figures: each step once whatever happened, documented names, and TensorBoard beside them."""

import json
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st
import pytest
import torch

from tiny_run import Ground, copy_run, drop_after, losses, make_run, rows, scores, steps, tiny_experiment, train_here
from trainer.agree import Agreed
from trainer.loop import Spent, StepResult
from trainer.metrics import Metrics, step_row
from trainer.ranks import Ranks
from trainer.requests import Request
from trainwright.spec.derived import Derived
from trainwright.spec.paths import RunFolder

KEYS = {
    *("step", "loss", "lr", "grad_norm", "tokens", "step_seconds", "data_wait_seconds", "tokens_per_second"),
    *("epoch", "tokens_per_second_per_device", "mfu", "peak_memory_gib", "power_watts"),
}
RESULT = StepResult(2.5, 1e-3, Agreed(2.5 * 512, 0.75, Request.NONE, save_due=False))


def test_a_row_of_a_step_has_its_documented_names(one_rank: RunFolder) -> None:
    assert {frozenset(row) for row in steps(one_rank)} == {frozenset(KEYS | {"time", "save_seconds", "eta_seconds"})}


def test_bf16_rows_have_the_same_names(ground: Ground, tmp_path: Path) -> None:
    run = make_run(ground, tmp_path / "run", "train.precision=bf16", "train.steps=3")
    assert train_here(run) == 0
    assert {frozenset(row) for row in steps(run)} == {frozenset(KEYS | {"time", "save_seconds", "eta_seconds"})}


def test_a_row_counts_the_tokens_of_all_ranks(tmp_path: Path, one: Ranks) -> None:
    row = step_row(Derived(tiny_experiment(tmp_path)), one, 3, RESULT, Spent(0.5, 0.125))
    assert row["tokens"] == 3 * 8 * 64
    assert row["tokens_per_second"] == 8 * 64 / 0.5
    assert (row["loss"], row["lr"], row["grad_norm"]) == (2.5, 1e-3, 0.75)
    # No peak is known of a CPU, and none is made up.
    assert row["mfu"] is row["peak_memory_gib"] is None


def written(folder: Path, count: int) -> RunFolder:
    run = RunFolder(folder)
    with Metrics(run, None, tensorboard=False) as metrics:
        metrics.write({"step": 0, "eval_loss": 5.0, "bits_per_byte": 7.0})
        for step in range(1, count + 1):
            metrics.write({"step": step, "loss": 5.0 - step / 10})
            if step % 2 == 0:
                metrics.write({"step": step, "eval_loss": 5.0, "bits_per_byte": 7.0})
    return run


@given(count=st.integers(0, 9), resumed=st.integers(0, 9), torn=st.integers(0, 60))
def test_a_resume_keeps_whole_rows_up_to_its_step(
    tmp_path_factory: pytest.TempPathFactory, count: int, resumed: int, torn: int
) -> None:
    run = written(tmp_path_factory.mktemp("metrics"), count)
    before = rows(run)
    last = json.dumps({"step": min(count, resumed), "loss": 1.0, "lr": 0.1, "grad_norm": 2.0})
    with run.metrics.open("a") as file:
        # A kill leaves any part of a line, even all of it but the end.
        file.write(last[:torn])
    with Metrics(run, resumed, tensorboard=False) as metrics:
        assert rows(run) == [row for row in before if row["step"] <= resumed]
        assert metrics.evaluated_step == max((step for step in scores(run)), default=None)
        metrics.write({"step": resumed + 1, "loss": 0.5})
    assert rows(run)[-1]["loss"] == 0.5


def test_a_new_start_keeps_no_old_rows(tmp_path: Path) -> None:
    run = written(tmp_path, 4)
    with Metrics(run, None, tensorboard=False) as metrics:
        assert metrics.evaluated_step is None
    assert rows(run) == []


def test_a_number_that_is_none_is_never_written(tmp_path: Path) -> None:
    with Metrics(RunFolder(tmp_path), None, tensorboard=False) as metrics, pytest.raises(ValueError, match="JSON"):
        metrics.write({"step": 1, "loss": float("nan")})


def test_a_torn_file_heals_when_the_run_goes_on(ground: Ground, one_rank: RunFolder, tmp_path: Path) -> None:
    run = copy_run(ground, one_rank, tmp_path / "run")
    drop_after(run, 10)
    # Killed in step 14, which had been written by half.
    lines = run.metrics.read_bytes().splitlines(keepends=True)
    run.metrics.write_bytes(b"".join(lines[:16]) + lines[16][:37])
    assert train_here(run) == 0
    assert losses(run) == losses(one_rank)
    assert [row["step"] for row in rows(run)] == [row["step"] for row in rows(one_rank)]


def test_tensorboard_gets_every_number(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run = RunFolder(tmp_path)
    with Metrics(run, None, tensorboard=True) as metrics:
        for step in (1, 2, 3):
            metrics.write({"step": step, "loss": 4.0 - step, "mfu": None})
        metrics.write({"step": 3, "eval_loss": 2.5, "bits_per_byte": 1.5})
    with Metrics(run, 2, tensorboard=True) as metrics:
        metrics.write({"step": 3, "loss": 0.5})
    events = EventAccumulator(str(run.tensorboard))
    events.Reload()
    assert set(events.Tags()["scalars"]) == {"train/loss", "eval/eval_loss", "eval/bits_per_byte"}
    assert [(event.step, event.value) for event in events.Scalars("train/loss")] == [(1, 3.0), (2, 2.0), (3, 0.5)]


def test_the_peak_of_a_device_makes_the_utilisation(
    tmp_path: Path, one: Ranks, monkeypatch: pytest.MonkeyPatch
) -> None:
    derived = Derived(tiny_experiment(tmp_path))
    monkeypatch.setattr("trainer.metrics.peak_flops", lambda _device: 1e12)
    row = step_row(derived, one, 1, RESULT, Spent(0.5, 0.125))
    assert row["mfu"] == pytest.approx(512 * derived.flops_per_token / 0.5 / 1e12)
    assert one.device == torch.device("cpu")
