"""What the trainer does on a disk that is full: figures and heartbeats stop no step, no checkpoint is half."""

from collections.abc import Callable
import errno
import json
import os
from pathlib import Path

import pytest
import torch

from small_disks import SmallDisk
from tiny_run import Ground, losses, make_run, rows, train_here
from trainer import checkpoint
from trainer.attempt import Attempt
from trainer.checkpoint import Committed, TrainState
from trainer.metrics import Metrics
from trainer.ranks import Ranks
from trainwright.spec.exits import Exit
from trainwright.spec.paths import RunFolder
from trainwright.spec.variables import ATTEMPT_VARIABLE

MountSmall = Callable[..., SmallDisk]


def row(step: int) -> dict[str, float]:
    return {"step": step, "loss": 5.0, "lr": 1e-3, "grad_norm": 0.5}


def test_rows_without_room_wait_and_none_is_missing_or_cut(
    small_disk: MountSmall, caplog: pytest.LogCaptureFixture
) -> None:
    disk = small_disk(256)
    run = RunFolder(disk.path)
    with Metrics(run, None, tensorboard=False) as metrics:
        metrics.write(row(1))
        disk.fill()
        for step in range(2, 200):
            metrics.write(row(step))
        # Readers meet whole rows only.
        assert run.metrics.read_bytes().endswith(b"\n")
        assert 1 < len(rows(run)) < 199
        assert [each["step"] for each in rows(run)] == list(range(1, len(rows(run)) + 1))
        with pytest.raises(OSError, match="No space left") as caught:
            metrics.settle()
        assert caught.value.filename == str(run.metrics)
        disk.free()
        metrics.settle()
        metrics.write(row(200))
    assert [each["step"] for each in rows(run)] == list(range(1, 201))
    assert [record.getMessage() for record in caplog.records] == [
        f"metrics: rows wait in memory for room: {run.metrics}: No space left on device"
    ]


def test_a_heartbeat_without_room_stops_nothing_and_is_a_sign_of_life_all_the_same(
    small_disk: MountSmall, caplog: pytest.LogCaptureFixture
) -> None:
    disk = small_disk(256)
    folder = disk.path / "attempts" / "0001"
    folder.mkdir(parents=True)
    attempt = Attempt(RunFolder(disk.path), 0, {ATTEMPT_VARIABLE: str(folder)})
    attempt.beat("start", 0, now=True)
    sign = folder / "alive_00000.json"
    before = sign.stat().st_mtime_ns
    disk.fill()
    for step in (1, 2):
        attempt.beat("step", step, now=True)
    # Boot's watch looks at the time of change too.
    assert sign.stat().st_mtime_ns > before
    assert json.loads(sign.read_text())["phase"] == "start"
    assert len(caplog.records) == 1
    assert "training goes on" in caplog.records[0].getMessage()
    assert attempt.end(Exit.FAILED, "no room") is False


def test_what_one_rank_cannot_write_is_raised_on_all_with_its_name(one: Ranks) -> None:
    def fail() -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), Path("/runs/x"))

    assert one.together(lambda: {"a": 1}) == [{"a": 1}]
    with pytest.raises(OSError, match="No space left on device") as caught:
        one.together(fail)
    assert (caught.value.errno, caught.value.filename) == (errno.ENOSPC, "/runs/x")


def saved(folder: Path, step: int, one: Ranks) -> None:
    checkpoint.save(folder, {"model/w": torch.full((30_000,), float(step))}, TrainState(step, 0, "corpus", {}), one)


def test_a_checkpoint_without_room_is_gone_and_the_one_before_it_is_whole(small_disk: MountSmall, one: Ranks) -> None:
    disk = small_disk(512)
    saved(disk.path, 1, one)
    disk.fill(leave_kib=60)
    with pytest.raises(OSError, match="No space left on device") as caught:
        saved(disk.path, 2, one)
    assert str(disk.path) in str(caught.value.filename)
    assert checkpoint.committed(disk.path) == [Committed(1, disk.path / "step_00000001")]
    assert checkpoint.verify(Committed(1, disk.path / "step_00000001"), one) is None
    assert {path.name for path in disk.path.iterdir()} == {".filler", "checkpoint_00000001.done", "step_00000001"}
    assert disk.free_bytes >= 60 << 10
    disk.free()
    saved(disk.path, 2, one)
    assert [each.step for each in checkpoint.committed(disk.path)] == [2, 1]


def test_a_checkpoint_that_could_not_be_marked_is_marked_when_it_is_resumed_from(
    ground: Ground, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(path: Path, _text: str) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))

    run = make_run(ground, tmp_path / "run", "train.steps=3", "logging.num_samples=0")
    marker = run.checkpoints / "checkpoint_00000003.done"
    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "write_text", refuse)
        assert train_here(run) == 0
    assert (
        f"step_00000003 is saved, but cannot be marked: [Errno 28] No space left on device: '{marker}'" in caplog.text
    )
    assert not marker.exists()
    assert train_here(run) == 0
    assert marker.is_file()


def test_a_run_whose_checkpoint_finds_no_room_ends_in_one_sentence_and_then_goes_on_to_the_same_end(
    ground: Ground, one_rank: RunFolder, small_disk: MountSmall, capfd: pytest.CaptureFixture[str]
) -> None:
    disk = small_disk(4096)
    run = make_run(ground, disk.path / "run")
    disk.fill(leave_kib=64)
    assert train_here(run) == Exit.FAILED
    said = capfd.readouterr().err
    assert said.count("No space left on device; free some space") == 1
    assert "Traceback" not in said
    assert checkpoint.committed(run.checkpoints) == []
    disk.free()
    assert train_here(run) == 0
    assert losses(run) == losses(one_rank)


def test_no_checkpoint_is_committed_before_the_rows_up_to_its_step(
    ground: Ground, one_rank: RunFolder, small_disk: MountSmall, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    disk = small_disk(64)
    run = make_run(ground, tmp_path / "run")
    # The figures lie on the disk that is full, and the checkpoints on one with room.
    run.metrics.symlink_to(disk.path / "metrics.jsonl")
    disk.fill()
    assert train_here(run) == Exit.FAILED
    assert capfd.readouterr().err.splitlines()[-1].startswith(f"trainer: {run.metrics}: No space left on device; free")
    assert checkpoint.committed(run.checkpoints) == []
    disk.free()
    assert train_here(run) == 0
    assert losses(run) == losses(one_rank)
