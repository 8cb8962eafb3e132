from contextlib import closing
import multiprocessing
import os
from pathlib import Path
import signal
import subprocess
import sys
import time

import pytest

from made_corpus import REPOSITORY, wait_until
from sharder.stop import SIGNALS
from sharder.workers import BYTES_WORTH_A_PROCESS, num_workers, spread

SLEEPERS = """
import os, sys, time
from contextlib import closing
from pathlib import Path
from sharder.stop import obey_signals
from sharder.workers import spread
from trainwright.spec.exits import guarded

def sleep(folder):
    Path(folder, str(os.getpid())).touch()
    time.sleep(120)

def main():
    obey_signals()
    with closing(spread(sleep, [sys.argv[1]] * 3, 2, lambda: None)) as results:
        print(list(results))

if __name__ == "__main__":
    sys.exit(guarded("test", main))
"""


def start(folder: Path) -> tuple[subprocess.Popen[str], list[int]]:
    """Start two workers that sleep; return the process and theirs."""
    (folder / "pids").mkdir()
    program = folder / "sleepers.py"
    program.write_text(SLEEPERS)
    variables = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    words = [sys.executable, str(program), str(folder / "pids")]
    process = subprocess.Popen(words, env=variables, stderr=subprocess.PIPE, text=True, start_new_session=True)
    assert wait_until(lambda: len(list((folder / "pids").iterdir())) == 2, process)
    return process, [int(path.name) for path in (folder / "pids").iterdir()]


def gone(pids: list[int]) -> bool:
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        if not any(Path(f"/proc/{pid}").exists() for pid in pids):
            return True
        time.sleep(0.01)
    return False


def test_workers_die_with_a_parent_that_is_killed(tmp_path: Path) -> None:
    process, pids = start(tmp_path)
    process.kill()
    process.communicate()
    assert gone(pids)


def test_a_stop_request_to_the_whole_group_is_heard_by_the_parent_alone(tmp_path: Path) -> None:
    process, pids = start(tmp_path)
    for pid in pids:
        status = Path(f"/proc/{pid}/status").read_text()
        blocked = int(status.partition("SigBlk:")[2].split()[0], 16)
        assert all(blocked >> (number - 1) & 1 for number in SIGNALS), pid
    os.killpg(process.pid, signal.SIGINT)
    _, err = process.communicate(timeout=20)
    assert process.returncode == 75
    assert err == "test: interrupted: SIGINT\n"
    assert gone(pids)


def test_a_worker_that_is_killed_ends_the_work_with_a_sentence(tmp_path: Path) -> None:
    process, pids = start(tmp_path)
    os.kill(pids[0], signal.SIGKILL)
    _, err = process.communicate(timeout=20)
    assert process.returncode == 1
    assert err == (
        "test: a worker process was killed, most often for want of memory: "
        "lower data.workers or data.documents_per_shard\n"
    )
    assert gone(pids)


@pytest.mark.parametrize("processes", [1, 2, 9])
def test_every_task_gives_its_result_once(processes: int) -> None:
    ticks = []
    with closing(spread(abs, range(-5, 0), processes, lambda: ticks.append(1))) as results:
        assert sorted(results) == [(index, 5 - index) for index in range(5)]
    assert ticks
    assert multiprocessing.active_children() == []


def test_what_a_task_raises_reaches_the_caller_and_ends_the_others() -> None:
    with (
        pytest.raises(ValueError, match="invalid literal"),
        closing(spread(int, ["1", "x", "2"], 2, lambda: None)) as results,
    ):
        list(results)
    assert multiprocessing.active_children() == []


def test_closing_early_leaves_no_process() -> None:
    with closing(spread(abs, range(100), 2, lambda: None)) as results:
        next(results)
        assert multiprocessing.active_children()
    assert multiprocessing.active_children() == []


def test_little_text_needs_no_second_process() -> None:
    processors = len(os.sched_getaffinity(0))
    assert num_workers(0, 0) == 1
    assert num_workers(0, 10_000 * BYTES_WORTH_A_PROCESS) == processors
    assert num_workers(7, 0) == 7
