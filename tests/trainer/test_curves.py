"""TensorBoard's curves: what is written can be read, and nothing that is in their way stops a run."""

from collections.abc import Callable
from pathlib import Path

import pytest

from small_disks import SmallDisk
from tiny_run import rows
from trainer.curves import Curves
from trainer.metrics import Metrics
from trainwright.spec.paths import RunFolder

MountSmall = Callable[..., SmallDisk]


def row(step: int) -> dict[str, float]:
    return {"step": step, "loss": 5.0, "lr": 1e-3, "grad_norm": 0.5}


def test_points_are_there_while_the_run_still_writes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    monkeypatch.setattr("trainer.curves.FLUSH_S", 0.0)
    curves = Curves(tmp_path, None)
    curves.add(1, {"train/loss": 3.0})
    curves.add(2, {"train/loss": 2.5})
    events = EventAccumulator(str(tmp_path))
    events.Reload()
    curves.close()
    assert [(event.step, event.value) for event in events.Scalars("train/loss")] == [(1, 3.0), (2, 2.5)]


def test_curves_without_room_are_given_up_and_said_once(
    small_disk: MountSmall, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    disk = small_disk(256)
    run = RunFolder(disk.path)
    with Metrics(run, None, tensorboard=True) as metrics:
        disk.fill()
        for step in range(1, 400):
            metrics.write(row(step))
        disk.free()
    assert [record.getMessage().split(":")[0] for record in caplog.records] == ["metrics", "tensorboard"]
    assert "Traceback" not in capfd.readouterr().err


def test_a_run_whose_curves_have_no_folder_trains(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    run = RunFolder(tmp_path)
    run.tensorboard.write_text("a file where the folder should be")
    with Metrics(run, None, tensorboard=True) as metrics:
        metrics.write(row(1))
    assert [each["step"] for each in rows(run)] == [1]
    assert [record.getMessage().split(":")[0] for record in caplog.records] == ["tensorboard"]
