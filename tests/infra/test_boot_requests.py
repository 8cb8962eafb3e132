"""The two requests: an interrupt saves and is run again (75), an end saves and stays ended (0)."""

from dataclasses import asdict
import json
import os
from pathlib import Path
import signal
import time

import pytest

from staged_runs import Disturbed, Staged
from tiny_boot import STEPS, TINY, Done, Place, Process, attempts, checkpoints, copy_place, digests, end, last_step
from tiny_boot import losses, make_place, processes, read, start
from trainwright.store.lease import Holder, acquire


@pytest.mark.slow
@pytest.mark.parametrize("what", ["SIGTERM", "SIGUSR1", "stop file"])
def test_an_interrupt_saves_and_asks_to_be_run_again(interrupted: Disturbed, what: str) -> None:
    told = interrupted.told[what]
    assert told.done.code == 75, told.done.said
    saved = told.saved[-1]
    assert told.at <= saved < STEPS
    assert f"interrupted at step {saved} of {STEPS}, saved" in told.done.said
    assert "interrupt: the stop file received" in told.done.said if what == "stop file" else what in told.done.said
    assert "Traceback" not in told.done.said


@pytest.mark.slow
def test_the_end_records_of_interrupted_attempts_say_so(interrupted: Disturbed) -> None:
    codes = [read(folder / "end.json")["code"] for folder in attempts(interrupted.place.run)]
    assert codes == [75, 75, 75, 0]


@pytest.mark.slow
def test_a_run_that_was_interrupted_goes_on_from_its_newest_checkpoint(interrupted: Disturbed) -> None:
    saved = [told.saved[-1] for told in interrupted.told.values()]
    said = [*[told.done.said for told in interrupted.told.values()][1:], interrupted.last.said]
    for step, later in zip(saved, said, strict=True):
        assert f"resume: from step_{step:08d}, the newest checkpoint that verifies" in later


@pytest.mark.slow
def test_a_run_that_was_interrupted_completes_as_if_nothing_had_happened(
    interrupted: Disturbed, calm: tuple[Place, Done]
) -> None:
    assert interrupted.last.code == 0, interrupted.last.said
    assert losses(interrupted.place.run) == losses(calm[0].run)
    assert [step for step, _ in losses(calm[0].run)] == list(range(1, STEPS + 1))


@pytest.mark.slow
def test_the_weights_of_an_interrupted_run_are_those_of_an_undisturbed_one(
    interrupted: Disturbed, calm: tuple[Place, Done]
) -> None:
    of_both = [place.run.checkpoints / f"step_{STEPS:08d}" for place in (interrupted.place, calm[0])]
    weights = [{path.name: path.read_bytes() for path in folder.glob("*.safetensors")} for folder in of_both]
    assert weights[0]
    assert weights[0] == weights[1]


MANY = TINY.replace("documents_per_shard: 8", "documents_per_shard: 2")


def interrupt_when(place: Place, committed: str, stage: str) -> Done:
    """Send SIGINT once the first piece of a stage's work is committed."""
    with place.booting("--until", "tokenizer") as process:
        process.until(lambda: any(place.root.glob(committed)), f"the first {stage}")
        process.signal(signal.SIGINT)
        return process.wait()


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Place:
    """Return a place with so many small shards that boot can be caught at them, undisturbed."""
    place = make_place(tmp_path_factory.mktemp("many"), MANY, documents=240)
    done = place.boot("--until", "tokenizer")
    assert done.code == 0, done.said
    return place


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["shard", "encode"])
def test_sharding_that_was_interrupted_is_finished_to_the_same_bytes(many: Place, tmp_path: Path, stage: str) -> None:
    place = Place(tmp_path, many.corpus)
    place.file.write_text(MANY)
    data = "datasets/train/tiny"
    first = {"shard": f"{data}/.work/*/slice_*.json", "encode": f"{data}/tokens-*/manifest.json"}[stage]
    done = interrupt_when(place, first, stage)
    assert done.code == 75, done.said
    assert "SIGINT received" in done.said
    assert done.last.endswith("run boot again to go on")
    assert "Traceback" not in done.said
    finished = {"shard": f"{data}/manifest.json", "encode": f"{data}/tokens-*/manifest.json"}[stage]
    assert not any(read(path)["complete"] for path in place.root.glob(finished))
    again = place.boot("--until", "tokenizer")
    assert again.code == 0, again.said
    assert digests(tmp_path / "datasets") == digests(many.root / "datasets")


def test_a_second_boot_on_a_live_run_gives_way_at_once_and_names_the_holder(sharded: Staged, tmp_path: Path) -> None:
    place = copy_place(sharded.place, tmp_path / "held", trained=False)
    with acquire(place.run.lease, "boot of tiny") as lease:
        before = digests(place.run.path)
        done = place.boot()
        assert done.code == 69
        assert f"held by boot of tiny (pid {lease.holder.pid} on {lease.holder.host})" in done.last
        assert "Traceback" not in done.said
        assert digests(place.run.path) == before


@pytest.fixture(scope="module")
def stopped(sharded: Staged, tmp_path_factory: pytest.TempPathFactory) -> tuple[Place, Done, Done]:
    """Return a run that was ended on request while it trained, what boot said, and what stop said."""
    place = copy_place(sharded.place, tmp_path_factory.mktemp("ended"), trained=False)
    with place.booting() as process:
        process.until(lambda: last_step(place.run) >= 5, "step 5")
        asked = start(place.root, "stop", "tiny", "--reason", "seen enough").wait()
        done = process.wait()
    return place, done, asked


@pytest.mark.slow
def test_stop_ends_a_live_run_saved_and_for_good(stopped: tuple[Place, Done, Done]) -> None:
    place, done, asked = stopped
    assert (asked.code, done.code) == (0, 0), done.said
    assert "saves and ends after its current step" in asked.said
    saved = checkpoints(place.run)[-1]
    assert 5 <= saved < STEPS
    assert f"ended on request at step {saved} of {STEPS}, saved" in done.said
    assert read(place.run.ended)["reason"] == "seen enough"
    assert end(place.run)["reason"] == "ended on request"


@pytest.mark.slow
def test_an_ended_run_has_its_report(stopped: tuple[Place, Done, Done]) -> None:
    assert "seen enough" in stopped[0].run.report_md.read_text()


@pytest.mark.slow
def test_every_later_start_says_that_the_run_was_ended_and_exits_0(stopped: tuple[Place, Done, Done]) -> None:
    before = digests(stopped[0].run.path)
    done = stopped[0].boot()
    assert done.code == 0
    assert "this run was ended (seen enough); boot --continue goes on with it" in done.last
    assert digests(stopped[0].run.path) == before


@pytest.mark.slow
def test_continue_takes_an_ended_run_up_again(stopped: tuple[Place, Done, Done], tmp_path: Path) -> None:
    place = copy_place(stopped[0], tmp_path / "on", trained=True)
    assert place.run.ended.exists()
    done = place.boot("--continue", "--until", "train")
    assert done.code == 0, done.said
    assert f"resume: from step_{checkpoints(stopped[0].run)[-1]:08d}" in done.said
    assert last_step(place.run) == STEPS
    assert not place.run.ended.exists()


def test_stop_of_a_run_that_is_not_live_marks_it_as_ended(sharded: Staged, tmp_path: Path) -> None:
    place = copy_place(sharded.place, tmp_path / "idle", trained=False)
    first = start(place.root, "stop", str(place.run)).wait()
    assert first.code == 0
    assert "is not running; marked as ended" in first.said
    assert read(place.run.ended)["reason"] == "stop was asked for"
    again = start(place.root, "stop", "tiny", "--reason", "another").wait()
    assert again.code == 0
    assert "is ended already" in again.said
    assert read(place.run.ended)["reason"] == "stop was asked for"


@pytest.mark.slow
def test_three_interrupts_without_progress_stop_the_run_until_somebody_says_continue(
    sharded: Staged, tmp_path: Path
) -> None:
    place = copy_place(sharded.place, tmp_path / "short", trained=False)
    # Less than a stage needs to stop in.
    short = "resources.walltime_minutes=0.1"
    found = [place.boot(short) for _ in range(4)]
    assert [done.code for done in found] == [75, 75, 78, 78], found[-1].said
    assert "interrupted" in found[0].last
    assert "3 attempts were interrupted without progress" in found[2].last
    assert "boot --continue" in found[2].last
    assert "boot --continue" in found[3].last
    assert len(attempts(place.run)) == 3, "a run that has spent its budget is refused before it costs anything"
    again = place.boot("--continue", short)
    assert again.code == 75
    assert place.boot(short).code == 75


def test_a_stop_file_in_scratch_that_came_while_the_container_started_stops_that_start_alone(
    sharded: Staged, tmp_path: Path
) -> None:
    place, stop = copy_place(sharded.place, tmp_path / "again", trained=False), tmp_path / "stop"
    place.run.stage("tokenizer").unlink()
    stop.touch()
    os.utime(stop, (0, time.time() - 5))
    done = [place.boot("--until", "tokenizer", TRAINWRIGHT_STOP_FILE=str(stop)) for _ in range(2)]
    assert [one.code for one in done] == [75, 0], done[1].said
    assert done[0].last.endswith("interrupted before stage tokenizer; run boot again to go on")
    assert done[1].said.count(f"boot: removed {stop}, which has stopped an earlier start") == 1
    assert not stop.exists()


def test_a_run_that_is_ended_before_it_begins_does_nothing(sharded: Staged, tmp_path: Path) -> None:
    place = Place(tmp_path / "ahead", sharded.place.corpus)
    place.file.parent.mkdir()
    place.file.write_text(TINY)
    place.run.path.mkdir(parents=True)
    place.run.ended.write_text('{"reason": "no longer wanted"}')
    done = place.boot()
    assert done.code == 0, done.said
    assert "this run was ended (no longer wanted); boot --continue goes on with it" in done.last
    assert [path.name for path in place.run.path.iterdir()] == ["ended.json"]


def test_a_continue_that_meets_a_live_run_leaves_its_pending_stop_alone(sharded: Staged, tmp_path: Path) -> None:
    place = copy_place(sharded.place, tmp_path / "pending", trained=False)
    with acquire(place.run.lease, "boot of tiny"):
        place.run.ended.write_text('{"reason": "seen enough"}')
        before = digests(place.run.path)
        done = place.boot("--continue")
        assert done.code == 69, done.said
        assert digests(place.run.path) == before


@pytest.mark.parametrize(("how", "code"), [("SIGTERM", 75), ("SIGINT", 75), ("stop file", 75), ("stop", 0)])
def test_a_boot_that_watches_a_foreign_lease_hears_every_request(
    sharded: Staged, tmp_path: Path, how: str, code: int
) -> None:
    place, stop = copy_place(sharded.place, tmp_path / "watches", trained=False), tmp_path / "stop"
    holder = Holder("0123456789abcdef", 3, "another-machine", 1, "boot:pid:1", 7, "boot of tiny")
    place.run.lease.write_text(json.dumps(asdict(holder)))
    with place.booting(TRAINWRIGHT_STOP_FILE=str(stop)) as process:
        process.until(lambda: "watching its counter" in process.said(), "the wait")
        begun = time.monotonic()
        if how == "stop file":
            stop.touch()
        elif how == "stop":
            place.run.ended.write_text('{"reason": "seen enough"}')
        else:
            process.signal(signal.Signals[how])
        done = process.wait()
    assert done.code == code
    assert time.monotonic() - begun < 2
    assert ("while waiting for the lease" if code else "was ended (seen enough)") in done.last
    assert read(place.run.lease)["id"] == holder.id
    assert not place.run.attempts.exists()


@pytest.mark.slow
def test_a_run_that_is_ended_while_it_is_sharded_ends_at_once(many: Place, tmp_path: Path) -> None:
    place = Place(tmp_path, many.corpus)
    place.file.write_text(MANY)
    with place.booting() as process:
        process.until(lambda: any(tmp_path.glob("datasets/train/tiny/.work/*/slice_*.json")), "the first slice")
        asked = start(place.root, "stop", "tiny").wait()
        done = process.wait()
    assert (asked.code, done.code) == (0, 0), done.said
    assert "Traceback" not in done.said
    assert end(place.run)["reason"] == "ended on request"
    assert not (tmp_path / "artifacts").exists()


@pytest.mark.slow
def test_a_signal_that_comes_while_boot_waits_for_a_stage_is_obeyed_in_time(many: Place, tmp_path: Path) -> None:
    place = Place(tmp_path, many.corpus)
    place.file.write_text(MANY)
    with place.booting("--until", "shard") as process:
        process.until((tmp_path / "datasets").exists, "the sharder")
        done, seconds = timed(process)
    assert done.code == 75, done.said
    assert seconds < 5
    assert not processes(tmp_path)


def timed(process: Process) -> tuple[Done, float]:
    begun = time.monotonic()
    process.signal(signal.SIGTERM)
    return process.wait(), time.monotonic() - begun
