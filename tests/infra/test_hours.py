"""The hours of a run are counted over its attempts, and their end is a request like any other."""

from collections.abc import Callable
import json
import os
from pathlib import Path
import time

import pytest

from infra.boot.attempts import used_hours
from infra.boot.hours import held_to, max_hours
from staged_runs import Staged
from tiny_boot import copy_place, end, read
from trainwright.spec.exits import UserError
from trainwright.spec.paths import RunFolder
from trainwright.store.files import write_json


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    return RunFolder(tmp_path / "run")


@pytest.fixture
def attempted(run: RunFolder) -> Callable[..., Path]:
    """Return a function that leaves the records of an attempt, which took an hour unless it was lost."""

    def leave(*, continued: bool = False, trained: bool = True, lost: bool = False) -> Path:
        folder = run.attempts / f"{len(list(run.attempts.glob('*'))) + 1:04d}"
        write_json(folder / "start.json", {"time": time.time() - 7200, "progress": "", "continued": continued})
        if trained:
            write_json(folder / "prepared.json", {})
        if not lost:
            write_json(folder / "end.json", {"code": 75, "reason": "SIGTERM", "step": 1, "seconds": 3600.0})
        return folder

    return leave


def test_hours_are_those_of_all_attempts_that_came_to_train(run: RunFolder, attempted: Callable[..., Path]) -> None:
    assert used_hours(run) == 0
    attempted()
    attempted(trained=False)
    attempted()
    assert used_hours(run) == 2


def test_a_lost_attempt_counts_up_to_the_last_thing_that_it_wrote(
    run: RunFolder, attempted: Callable[..., Path]
) -> None:
    folder = attempted(lost=True)
    write_json(folder / "alive_00000.json", {"pid": 1})
    for path in folder.iterdir():
        os.utime(path, (0, time.time() - 5400))
    os.utime(folder / "alive_00000.json", (0, time.time() - 1800))
    assert used_hours(run) == pytest.approx(1.5, abs=0.01)


def test_whoever_says_continue_starts_the_count_anew(run: RunFolder, attempted: Callable[..., Path]) -> None:
    attempted()
    attempted()
    attempted(continued=True)
    attempted()
    assert used_hours(run) == 2
    attempted(continued=True, trained=False)
    assert used_hours(run) == 0


def test_a_run_within_its_hours_is_left_alone(run: RunFolder, attempted: Callable[..., Path]) -> None:
    attempted()
    for limit in (None, 1.01):
        with held_to(limit, run):
            time.sleep(0.1)
    assert not run.ended.exists()


def test_the_hours_are_over_while_the_run_trains(run: RunFolder, attempted: Callable[..., Path]) -> None:
    attempted()
    with held_to(1 + 0.5 / 3600, run):
        assert not run.ended.exists()
        limit = time.monotonic() + 10
        while not run.ended.exists() and time.monotonic() < limit:
            time.sleep(0.02)
    assert json.loads(run.ended.read_text())["reason"].startswith("the run has taken the 1.00014 hours")


def test_a_request_that_cannot_be_written_harms_nobody(run: RunFolder, caplog: pytest.LogCaptureFixture) -> None:
    run.path.parent.mkdir(exist_ok=True)
    run.path.write_text("no folder")
    with held_to(0, run):
        limit = time.monotonic() + 10
        while not caplog.messages and time.monotonic() < limit:
            time.sleep(0.02)
    assert f"{run.ended} cannot be written" in caplog.messages[0]


@pytest.mark.parametrize(("text", "hours"), [(None, None), ("", None), ("12", 12), ("0.5", 0.5)])
def test_the_target_sets_the_limit(text: str | None, hours: float | None) -> None:
    assert max_hours({} if text is None else {"TRAINWRIGHT_MAX_HOURS": text}) == hours


def test_a_limit_that_is_no_number_is_refused() -> None:
    with pytest.raises(UserError, match=r"^TRAINWRIGHT_MAX_HOURS=long: is no number of hours"):
        max_hours({"TRAINWRIGHT_MAX_HOURS": "long"})


@pytest.mark.slow
def test_a_run_whose_hours_are_over_is_saved_and_ended_in_whatever_start(sharded: Staged, tmp_path: Path) -> None:
    place = copy_place(sharded.place, tmp_path / "hours", trained=False)
    first = place.boot("--until", "train", "train.steps=20")
    assert first.code == 0, first.said
    place.run.stage("train").unlink()
    done = place.boot(TRAINWRIGHT_MAX_HOURS=str(read(place.run.attempts / "0001" / "end.json")["seconds"] / 3600))
    assert done.code == 0, done.said
    assert "hours that it may take (max_hours); it is asked to save and end" in done.said
    assert end(place.run)["reason"] == "ended on request"
    assert read(place.run.ended)["reason"].startswith("the run has taken the ")
    assert "Traceback" not in done.said
