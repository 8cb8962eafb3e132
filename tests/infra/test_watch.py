"""Ranks are stood in for by small processes that register for the stacks signal as ranks do."""

from collections.abc import Iterator
import json
import os
from pathlib import Path
import signal
import subprocess
import sys
import time

import pytest

from infra.boot.attempts import Attempt
from infra.boot.watch import Watch
from trainwright.spec.experiment import Resources
from trainwright.store.process import STACKS_SIGNAL

RANK = f"""
import faulthandler, sys, time
faulthandler.register({int(STACKS_SIGNAL)}, file=open(sys.argv[1], "a"), all_threads=True)
print("ready", flush=True)
def waiting_for_ever():
    time.sleep(60)
waiting_for_ever()
"""
RESOURCES = Resources(hang_minutes=1.5 / 60, slow_minutes=10)


@pytest.fixture
def attempt(tmp_path: Path) -> Attempt:
    return Attempt(tmp_path, time.monotonic())


@pytest.fixture
def rank(attempt: Attempt) -> Iterator["subprocess.Popen[str]"]:
    command = [sys.executable, "-I", "-c", RANK, str(attempt.stacks(0))]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    yield process
    process.kill()
    process.communicate()


def sign(attempt: Attempt, rank: int, pid: int | None, phase: str, step: int) -> None:
    attempt.alive(rank).write_text(json.dumps({"pid": pid, "phase": phase, "step": step, "time": 0}))


def watched(watch: Watch, seconds: float) -> str | None:
    limit = time.monotonic() + seconds
    while time.monotonic() < limit:
        if found := watch.hung():
            return found
        time.sleep(0.05)
    return None


@pytest.mark.slow
def test_ranks_that_give_signs_of_life_are_left_alone_and_silence_is_told_by_rank(
    attempt: Attempt, rank: "subprocess.Popen[str]"
) -> None:
    watch = Watch(attempt, range(2), RESOURCES)
    limit, step = time.monotonic() + 2.7, 0
    while time.monotonic() < limit:
        step += 1
        sign(attempt, 0, rank.pid, "step", step)
        sign(attempt, 1, rank.pid, "step", step)
        assert watch.hung() is None
        time.sleep(0.3)
    os.kill(rank.pid, signal.SIGSTOP)
    limit = time.monotonic() + 10
    while (found := watch.hung()) is None and time.monotonic() < limit:
        step += 1
        sign(attempt, 1, None, "step", step)
        time.sleep(0.1)
    assert found is not None
    assert found.startswith("no sign of life: rank 0 for ")
    assert "in step (process stopped)" in found
    assert "rank 1" not in found
    # A stopped rank is woken to write its stacks; the other one is gone, and that is no error.
    assert watch.dump_stacks() == [attempt.stacks(0)]
    assert "waiting_for_ever" in attempt.stacks(0).read_text()


def test_what_may_rightly_take_longer_has_more_time(attempt: Attempt) -> None:
    watch = Watch(attempt, range(5), Resources(hang_minutes=1e-4, slow_minutes=10))
    for rank, phase in enumerate(("start", "evaluate", "save", "finish", "step")):
        sign(attempt, rank, None, phase, 3)
    found = watched(watch, 5)
    assert found is not None
    assert "rank 4" in found
    assert not any(f"rank {rank}" in found for rank in range(4)), found


def test_a_rank_that_never_gives_a_sign_is_hung_in_its_start(attempt: Attempt) -> None:
    found = watched(Watch(attempt, range(1), Resources(hang_minutes=10, slow_minutes=1e-3)), 10)
    assert found is not None
    assert "rank 0" in found
    assert "in start (process gone)" in found
