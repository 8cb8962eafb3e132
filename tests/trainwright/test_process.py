"""Processes that never outlive their parent."""

import os
from pathlib import Path
import signal
import subprocess
import sys
import time

import pytest

from trainwright.store.process import processes_with

CHILD = """
import os, sys, time
from trainwright.store.process import die_with_parent
die_with_parent(int(sys.argv[1]) if len(sys.argv) > 1 else None)
print(os.getpid(), flush=True)
time.sleep(60)
"""
PARENT = """
import os, subprocess, sys, time
subprocess.Popen([sys.executable, "-c", sys.argv[1], str(os.getpid())])
time.sleep(60)
"""


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.skipif(sys.platform != "linux", reason="prctl is Linux's")
def test_a_child_dies_when_its_parent_is_killed() -> None:
    with subprocess.Popen([sys.executable, "-c", PARENT, CHILD], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        assert is_running(child)
        parent.send_signal(signal.SIGKILL)
        deadline = time.monotonic() + 10
        while is_running(child) and time.monotonic() < deadline:
            time.sleep(0.02)
        assert not is_running(child)


@pytest.mark.skipif(sys.platform != "linux", reason="prctl is Linux's")
def test_a_child_whose_parent_is_gone_already_dies_at_once() -> None:
    not_its_parent = os.getppid()
    done = subprocess.run(
        [sys.executable, "-c", CHILD, str(not_its_parent)], capture_output=True, check=False, timeout=30
    )
    assert done.returncode == -signal.SIGKILL
    assert done.stdout == b""


def test_processes_are_found_by_what_they_were_started_with_and_zombies_are_not(tmp_path: Path) -> None:
    variable = "TRAINWRIGHT_TEST_MARK"
    environ = {**os.environ, variable: str(tmp_path)}
    with subprocess.Popen(["sleep", "60"], env=environ) as child:
        assert processes_with(variable, str(tmp_path)) == {child.pid: os.getpid()}
        assert processes_with(variable, f"{tmp_path}-other") == {}
        child.kill()
        deadline = time.monotonic() + 10
        while is_running(child.pid) and time.monotonic() < deadline:
            time.sleep(0.01)
        # Nobody has waited for it yet: it is a zombie.
        assert processes_with(variable, str(tmp_path)) == {}
