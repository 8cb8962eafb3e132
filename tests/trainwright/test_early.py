"""A request never ends a process in a traceback: before its work it is 75, and after it the exit code stands."""

import os
from pathlib import Path
import signal
import subprocess
import sys

import pytest

from sources import ROOT
from trainwright import early
from trainwright.spec.exits import Exit

YOUNG = """
import signal, sys, time
from trainwright.early import hear_no_more, obey_until_heard
{before}
obey_until_heard("tool")
{after}
print("here", flush=True)
time.sleep({seconds})
sys.exit(5)
"""


def asked(number: signal.Signals, *words: str, path: Path = ROOT) -> tuple[int, str]:
    """Run Python with some words, ask it to stop when it says that it is here; return its code and its complaints."""
    environ = {**os.environ, "PYTHONPATH": f"{path}:{ROOT}"}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen([sys.executable, *words], cwd=ROOT, env=environ, **pipes) as process:
        assert process.stdout.readline() == "here\n"
        process.send_signal(number)
        _, said = process.communicate(timeout=60)
    return process.returncode, said


def young(seconds: float, before: str = "", after: str = "") -> str:
    return YOUNG.format(seconds=seconds, before=before, after=after)


def test_the_code_is_that_of_the_table() -> None:
    assert early.INTERRUPTED == Exit.INTERRUPTED


@pytest.mark.parametrize("number", early.SIGNALS, ids=lambda number: number.name)
def test_a_process_that_has_not_begun_ends_as_one_that_was_interrupted(number: signal.Signals) -> None:
    assert asked(number, "-c", young(30)) == (75, "tool: interrupted before it began\n")


def test_who_listens_by_then_is_asked_instead() -> None:
    listens = "signal.signal(signal.SIGTERM, lambda *_: sys.exit(3))"
    assert asked(signal.SIGTERM, "-c", young(30, after=listens)) == (3, "")


def test_what_the_parent_left_ignored_stays_so() -> None:
    ignores = "signal.signal(signal.SIGTERM, signal.SIG_IGN)"
    assert asked(signal.SIGTERM, "-c", young(0.5, before=ignores)) == (5, "")


@pytest.mark.parametrize("number", early.SIGNALS, ids=lambda number: number.name)
def test_at_the_end_the_exit_code_stands(number: signal.Signals) -> None:
    assert asked(number, "-c", young(0.3, after="hear_no_more()")) == (5, "")


PROGRAMS = {
    "trainer": "trainer",
    "trainer.agent": "agent",
    "infra.boot": "boot",
    "infra.boot.entry": "trainwright",
}


@pytest.mark.parametrize("room", PROGRAMS)
def test_ctrl_c_while_a_program_imports_is_one_line_and_75(tmp_path: Path, room: str) -> None:
    # What it imports first of all that takes time.
    (tmp_path / "pydantic.py").write_text("print('here', flush=True)\nimport time\ntime.sleep(30)\n")
    expected = (75, f"{PROGRAMS[room]}: interrupted before it began\n")
    assert asked(signal.SIGINT, "-m", room, "boot", path=tmp_path) == expected
