"""A disk that fills under a run: one sentence, nothing half taken for whole, and the same end once there is room."""

from collections.abc import Callable
import json
from pathlib import Path

import pytest

from staged_runs import Staged
from infra.boot.attempts import Outcome, past_attempts, start_attempt
from infra.boot.budget import Past
from small_disks import SmallDisk
from tiny_boot import TWO_RANKS, Done, Place, checkpoints, copy_place, digests, end, losses, make_place, stages
from trainwright.spec.exits import Exit
from trainwright.spec.paths import RunFolder
from trainwright.store.files import FileEntry, verify_entry

MountSmall = Callable[..., SmallDisk]

WAY = "No space left on device; free some space, then run the same command again"
PATIENT = ("restart.failures=99", "restart.losses=99", "restart.same_step=99")


def refused_part(done: Done, disk: SmallDisk) -> str:
    """Return which file had no room; hold that a user is told so in exactly one sentence."""
    assert done.code == 1, done.said
    assert "Traceback" not in done.said
    told = [line for line in done.said.splitlines() if WAY in line]
    assert len(told) == 1, done.said
    path = told[0].partition(f": {WAY}")[0].rpartition(" ")[2]
    assert path.startswith(str(disk.path)), told[0]
    return str(Path(path).relative_to(disk.path))


def listed_files_are_whole(root: Path) -> int:
    """Hold that whatever a manifest lists is there to the last byte; return how many manifests there are."""
    found = list(root.rglob("manifest.json"))
    for path in found:
        manifest = json.loads(path.read_text())
        for each in [*manifest.get("files", ()), *manifest.get("shards", ())]:
            entry = FileEntry(each["path"], each["bytes"], each["sha256"])
            assert verify_entry(path.parent, entry, hashes=True) is None
    return len(found)


@pytest.mark.faults
@pytest.mark.slow
def test_a_disk_that_fills_before_training_is_said_each_time_and_costs_nothing(
    small_disk: MountSmall, sharded: Staged
) -> None:
    disk = small_disk(4096)
    place = make_place(disk.path)
    full, before = [], 0
    # Each try has a little more room than the one before, so that another file is the one without.
    for room_kib in (0, *range(12, 200, 4)):
        disk.fill(leave_kib=room_kib)
        tried = place.boot("--until", "tokenizer", *PATIENT)
        if tried.code == 0:
            break
        full.append(refused_part(tried, disk))
        manifests = listed_files_are_whole(disk.path)
        assert manifests >= before
        before = manifests
        assert not list(disk.path.rglob(".*.tmp"))
        assert not list(disk.path.rglob("lease.json*"))
    hit = {path.rpartition("/")[2].split("_")[0] for path in full}
    assert {"lease.json", "prepare.json", "train"} <= hit, full
    assert any("/tokens-" in path for path in full), full
    assert len(set(full)) >= 6, full
    disk.free()
    done = place.boot("--until", "tokenizer", *PATIENT)
    assert done.code == 0, done.said
    assert stages(place.run) == {"prepare", "shard", "tokenizer"}
    for folder in ("datasets", "artifacts"):
        assert digests(place.root / folder) == digests(sharded.place.root / folder)


def test_an_attempt_whose_end_finds_no_room_is_a_loss_and_no_crash(
    small_disk: MountSmall, caplog: pytest.LogCaptureFixture
) -> None:
    disk = small_disk(64)
    run = RunFolder(disk.path)
    attempt = start_attempt(run, "a lease", "step=7")
    disk.fill()
    attempt.end(Outcome(Exit.FAILED, "a disk is full"))
    assert f"{attempt.end_record}: not written (No space left on device); this attempt counts as a loss" in caplog.text
    disk.free()
    assert past_attempts(run) == [Past("step=7", None)]


def test_an_attempt_whose_start_finds_no_room_was_none(small_disk: MountSmall) -> None:
    disk = small_disk(64)
    run = RunFolder(disk.path)
    disk.fill()
    with pytest.raises(OSError, match="No space left"):
        start_attempt(run, "a lease", "step=7")
    assert past_attempts(run) == []


@pytest.mark.faults
@pytest.mark.slow
def test_a_disk_that_fills_under_training_keeps_the_newest_checkpoint_and_the_run_goes_on_to_the_same_end(
    small_disk: MountSmall, sharded: Staged, calm: tuple[Place, Done]
) -> None:
    disk = small_disk(8192)
    place = copy_place(sharded.place, disk.path / "root", trained=False)
    disk.fill(leave_kib=2048)
    words = ("--until", "train", TWO_RANKS, "logging.tensorboard=true")
    done = place.boot(*words)
    assert refused_part(done, disk).startswith("root/runs/tiny/checkpoints/.saving/rank_0000")
    saved = checkpoints(place.run)
    assert saved
    assert saved[-1] < 100
    assert listed_files_are_whole(place.run.checkpoints) == len(saved)
    assert not (place.run.checkpoints / ".saving").exists()
    assert place.run.metrics.read_bytes().endswith(b"\n")
    assert end(place.run)["code"] == 1
    disk.free()
    again = place.boot(*words)
    assert again.code == 0, again.said
    assert f"resume: from step_{saved[-1]:08d}" in again.said
    assert losses(place.run) == losses(calm[0].run)
    assert weights(place) == weights(calm[0])


def weights(place: Place) -> dict[str, str]:
    found = digests(place.run.checkpoints / "step_00000100")
    return {name: digest for name, digest in found.items() if name.endswith(".safetensors")}
