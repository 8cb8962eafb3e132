"""Run the blocks of CI one after the other, hold each to its minutes, and end with one line of counts.

Every block runs to its end, so that one report shows all that is broken. No process outlives its block: what a block
leaves behind is reported, killed, and fails it. Linux only.
"""
# ruff: noqa: T201 - the terminal is what this is for

import ctypes
from dataclasses import dataclass
import os
from pathlib import Path
import re
import signal
import subprocess
import sys
import threading
import time

TOTAL_MINUTES = 60
GRACE_S = 10
BUDGET_MINUTES = {
    "check": 4,
    "unit": 9,
    "faults": 6,
    "demo": 4,
    "image": 13,
    "sif and slurm": 11,
    "kubernetes": 2,
    "runpod": 2,
    "kills": 6,
    "data": 3,
}
COMMANDS = {
    "check": ["make", "check"],
    # Most of a test is one process that imports torch; a file stays together, and with it what its tests share.
    "unit": ["make", "test", "TESTS=--ignore=tests/engines -m 'not faults' -n 2 --dist loadfile"],
    "faults": ["make", "test", "TESTS=--ignore=tests/engines -m faults"],
    "demo": ["make", "demo"],
    "image": ["make", "test", "TESTS=tests/engines/test_image.py tests/engines/test_compose_file.py"],
    # Together, so that the SIF is made once.
    "sif and slurm": ["make", "test", "TESTS=tests/engines/test_sif.py tests/engines/test_slurm.py"],
    "kubernetes": ["make", "test", "TESTS=tests/engines/test_kubernetes.py"],
    "runpod": ["make", "test", "TESTS=tests/engines/test_s3.py tests/engines/test_runpod.py"],
    "kills": ["make", "kills"],
    "data": ["make", "prove-data", "ARGS=--kills 10 --seed $$(git rev-parse HEAD)"],
}
"""The blocks that exist so far, in the order they run; the budgets of the others are already agreed."""

PR_SET_CHILD_SUBREAPER = 36
COUNTS = re.compile(r"(\d+) (passed|failed|errors?)\b")
CLOSING_LINE = re.compile(r"^=* ?(?=\d)[\w, ]*\b(passed|failed|errors?)\b.* in [\d.]+s")


@dataclass(frozen=True)
class Result:
    """What one block did; a block that runs no tests counts as one test."""

    name: str
    minutes: float
    passed: int
    failed: int


def main() -> int:
    """Run all blocks, print the table and the counts; return 1 when any failed or the whole took too long."""
    # Orphans of a block become our children, so that we can see and end them.
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    # Whoever stops us stops the block too: `finally` runs, and nothing is left behind.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    deadline = time.monotonic() + TOTAL_MINUTES * 60
    results = [run_block(name, command, deadline) for name, command in COMMANDS.items()]
    total = sum(result.minutes for result in results)
    failed = sum(result.failed for result in results) + (total > TOTAL_MINUTES)
    print_table(results, total)
    print(f"{sum(result.passed for result in results)} passed, {failed} failed", flush=True)
    return 1 if failed else 0


def run_block(name: str, command: list[str], deadline: float) -> Result:
    """Run one block to its end, or to the deadline of the whole, and count its tests."""
    print(f"--- {name}: {' '.join(command)}", flush=True)
    started = time.monotonic()
    process = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        start_new_session=True,
    )
    counts: dict[str, int] = {}
    # In a thread of its own: what a block leaves behind may hold its output open, and must not hold us.
    reader = threading.Thread(target=pass_on, args=(process, counts))
    reader.start()
    try:
        code = wait_and_reap(process, deadline)
    finally:
        left = end_leftovers(process)
        reader.join()
    if left:
        print(f"!!! {name} left processes behind: {'; '.join(left)}", flush=True)
    print(f"--- {name}: exit code {code}", flush=True)
    bad = code != 0 or bool(left)
    failed = max(counts.get("failed", 0) + counts.get("error", 0), int(bad))
    passed = counts.get("passed", 0) or int(not failed)
    return Result(name, (time.monotonic() - started) / 60, passed, failed)


def wait_and_reap(process: "subprocess.Popen[str]", deadline: float) -> int:
    """Return a block's exit code; reap orphans meanwhile, because a test takes a zombie for a living process."""
    while time.monotonic() < deadline:
        ended = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        if ended is None:
            time.sleep(0.05)
        elif ended.si_pid == process.pid:
            return process.wait()
        else:
            os.waitpid(ended.si_pid, 0)
    return -signal.SIGKILL


def pass_on(process: "subprocess.Popen[str]", counts: dict[str, int]) -> None:
    """Print what a block prints as it comes, and take the counts from pytest's closing line."""
    assert process.stdout is not None
    for line in process.stdout:
        print(line, end="", flush=True)
        if CLOSING_LINE.match(line):
            counts.update({word.rstrip("s"): int(number) for number, word in COUNTS.findall(line)})


def end_leftovers(process: "subprocess.Popen[str]") -> list[str]:
    """Give the orphans of a block some seconds to end, then kill them; return what each was."""
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    deadline = time.monotonic() + GRACE_S
    found = children()
    while found and time.monotonic() < deadline:
        time.sleep(0.1)
        found = children()
    left = [f"{pid} {words}" for pid, words in found.items()]
    while found:
        for pid in found:
            os.kill(pid, signal.SIGKILL)
        time.sleep(0.1)
        # Whatever those had started comes to us in turn.
        found = children()
    return left


def children() -> dict[int, str]:
    """Reap our dead children and return the command lines of the living ones."""
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        return {}
    found = {}
    for pid in Path(f"/proc/self/task/{os.getpid()}/children").read_text().split():
        words = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        found[int(pid)] = words.strip() or "(no command line)"
    return found


def print_table(results: list[Result], total: float) -> None:
    """Print the minutes of each block beside its budget; what is over shouts."""
    print("--- minutes")
    for result in results:
        budget = BUDGET_MINUTES[result.name]
        over = "" if result.minutes <= budget else f"   !!! OVER ITS BUDGET of {budget} minutes"
        counts = f"{result.passed} passed, {result.failed} failed"
        print(f"{result.name:<12}{result.minutes:6.1f} of {budget:2}  {counts}{over}")
    over = "" if total <= TOTAL_MINUTES else f"   !!! OVER THE CEILING of {TOTAL_MINUTES} minutes"
    print(f"{'total':<12}{total:6.1f} of {TOTAL_MINUTES:2}{over}")


if __name__ == "__main__":
    sys.exit(main())
