"""Laws about children are held by real ones; this process stands in for boot and gets its signals."""

from collections.abc import Iterator
import os
from pathlib import Path
import signal
import sys
import threading
import time

import pytest

from infra.boot.attempts import Attempt
from infra.boot.supervise import LIMIT_MARGIN_S, SIGNALS, Interrupts, supervise
from infra.boot.watch import Watch
from trainwright.spec.experiment import Resources

OBEDIENT = """
import signal, sys, time
signal.signal(signal.SIGTERM, lambda *_: sys.exit(75))
open(sys.argv[1], "w").close()
time.sleep(60)
"""


@pytest.fixture
def interrupts() -> Iterator[Interrupts]:
    before = {number: signal.getsignal(number) for number in SIGNALS}
    yield Interrupts()
    for number, handler in before.items():
        signal.signal(number, handler)


def python(program: str, *arguments: str) -> list[str]:
    return [sys.executable, "-IS", "-c", program, *arguments]


def run(program: str, interrupts: Interrupts, *arguments: str) -> int:
    code, hung = supervise(python(program, *arguments), os.environ, interrupts)
    assert hung is None
    return code


def once(path: Path, act: "object") -> threading.Thread:
    """Call `act` when a file has come into being."""

    def wait() -> None:
        while not path.exists():
            time.sleep(0.01)
        act()

    thread = threading.Thread(target=wait, daemon=True)
    thread.start()
    return thread


@pytest.mark.parametrize("code", [0, 1, 69, 75, 78])
def test_the_exit_code_is_the_childs(interrupts: Interrupts, code: int) -> None:
    assert run(f"raise SystemExit({code})", interrupts) == code


def test_a_child_that_is_killed_has_a_negative_code(interrupts: Interrupts) -> None:
    assert run("import os; os.kill(os.getpid(), 9)", interrupts) == -signal.SIGKILL


@pytest.mark.parametrize("number", SIGNALS)
def test_every_signal_to_boot_reaches_the_child_as_sigterm(
    interrupts: Interrupts, tmp_path: Path, number: signal.Signals
) -> None:
    ready = tmp_path / "ready"
    once(ready, lambda: os.kill(os.getpid(), number))
    assert run(OBEDIENT, interrupts, str(ready)) == 75
    assert interrupts.received == number


def test_a_ctrl_c_at_the_terminal_reaches_boot_alone(interrupts: Interrupts, tmp_path: Path) -> None:
    out = tmp_path / "session"
    run("import os, sys; open(sys.argv[1], 'w').write(str(os.getsid(0)))", interrupts, str(out))
    assert int(out.read_text()) != os.getsid(0)


def test_the_stop_file_is_an_interrupt_too(interrupts: Interrupts, tmp_path: Path) -> None:
    ready, interrupts.stop_file = tmp_path / "ready", tmp_path / "stop"
    once(ready, interrupts.stop_file.touch)
    assert run(OBEDIENT, interrupts, str(ready)) == 75
    assert interrupts.received is None


def test_nothing_is_pending_until_somebody_asks(interrupts: Interrupts, tmp_path: Path) -> None:
    assert not interrupts.pending()
    interrupts.stop_file = tmp_path / "stop"
    assert not interrupts.pending()
    interrupts.publish()
    assert not interrupts.stop_file.exists()


def test_a_signal_is_made_visible_to_the_ranks(interrupts: Interrupts, tmp_path: Path) -> None:
    interrupts.stop_file = tmp_path / "logs" / "stop-0001"
    os.kill(os.getpid(), signal.SIGUSR2)
    assert interrupts.pending()
    interrupts.publish()
    assert interrupts.stop_file.exists()


def test_a_stop_file_that_stopped_an_earlier_start_is_removed_and_said(
    interrupts: Interrupts, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    stop = tmp_path / "stop"
    interrupts.listen(stop)
    stop.touch()
    assert interrupts.publish()
    assert interrupts.pending()
    later = Interrupts()
    with caplog.at_level("INFO"):
        later.listen(stop)
    assert not stop.exists()
    assert not later.pending()
    assert caplog.messages == [f"boot: removed {stop}, which has stopped an earlier start"]


def test_a_signal_that_was_made_visible_stops_no_later_start(interrupts: Interrupts, tmp_path: Path) -> None:
    interrupts.listen(tmp_path / "stop")
    os.kill(os.getpid(), signal.SIGTERM)
    interrupts.publish()
    assert (tmp_path / "stop").exists()
    later = Interrupts()
    later.listen(tmp_path / "stop")
    assert not later.pending()


@pytest.mark.parametrize("age_s", [0, 5, 86400])
def test_a_stop_file_that_nobody_has_heard_stops_this_start_whatever_its_age(
    interrupts: Interrupts, tmp_path: Path, age_s: float
) -> None:
    stop = tmp_path / "stop"
    stop.touch()
    os.utime(stop, (0, time.time() - age_s))
    interrupts.listen(stop)
    assert interrupts.why() == "the stop file"


def test_a_stop_file_that_is_touched_again_is_a_new_request(interrupts: Interrupts, tmp_path: Path) -> None:
    stop = tmp_path / "stop"
    stop.touch()
    interrupts.listen(stop)
    interrupts.publish()
    stop.touch()
    later = Interrupts()
    later.listen(stop)
    assert later.pending()


def test_the_end_of_the_run_ends_a_room(interrupts: Interrupts, tmp_path: Path) -> None:
    ready, interrupts.end_file = tmp_path / "ready", tmp_path / "ended.json"
    once(ready, interrupts.end_file.touch)
    assert run(OBEDIENT, interrupts, str(ready)) == 75
    assert not interrupts.pending()


RANK = """
import json, os, signal, sys, time
signal.signal(signal.SIGTERM, lambda *_: sys.exit(75))
with open(sys.argv[1], "w") as file:
    json.dump({"pid": os.getpid(), "phase": "step", "step": 1}, file)
time.sleep(60)
"""


def test_ranks_are_told_by_signals_where_the_stop_file_cannot_be_written(
    interrupts: Interrupts, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "logs").write_text("no folder")
    interrupts.listen(tmp_path / "logs" / "stop")
    attempt = Attempt(tmp_path, time.monotonic())
    sign = attempt.alive(0)
    once(sign, lambda: os.kill(os.getpid(), signal.SIGTERM))
    agent = "import subprocess, sys; sys.exit(subprocess.call([sys.executable, '-c', *sys.argv[1:]]))"
    command = python(agent, RANK, str(sign))
    with caplog.at_level("INFO"):
        code, _ = supervise(command, os.environ, interrupts, Watch(attempt, range(1), Resources()))
    assert code == 75
    said = f"interrupt: {tmp_path}/logs/stop cannot be written; the ranks are told by signals"
    assert caplog.messages == ["interrupt: SIGTERM received; saving, then stopping", said]


def test_the_wall_clock_limit_interrupts_with_time_to_spare(interrupts: Interrupts) -> None:
    interrupts.deadline = time.monotonic() + LIMIT_MARGIN_S + 60
    assert not interrupts.pending()
    interrupts.deadline -= 61
    assert interrupts.why() == "the wall-clock limit"
