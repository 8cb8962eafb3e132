"""TensorBoard beside a run: it shows the run's figures on this machine alone, and can neither stop nor outlive it."""

from collections.abc import Iterator
import json
import os
from pathlib import Path
import signal
import socket
import subprocess
import sys
import time
from urllib.error import URLError
from urllib.request import urlopen

import pytest

from infra.boot.board import board
from tiny_boot import clean_environment, free_port, processes
from trainwright.spec.paths import RunFolder

SERVES = """
import sys, time
from pathlib import Path
from infra.boot.board import board
from trainwright.spec.paths import RunFolder
with board(RunFolder(Path(sys.argv[1])), int(sys.argv[2])):
    print("begun", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    found = RunFolder(tmp_path / "runs" / "small")
    for folder in (found.logs, found.tensorboard):
        folder.mkdir(parents=True)
    write_curve(found.tensorboard)
    return found


def write_curve(folder: Path) -> None:
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.compat.proto.summary_pb2 import Summary
    from tensorboard.summary.writer.record_writer import RecordWriter

    with (folder / "events.out.tfevents.1.here").open("wb") as file:
        records = RecordWriter(file)
        records.write(Event(wall_time=1.0, file_version="brain.Event:2").SerializeToString())
        for step in (1, 2):
            point = Summary.Value(tag="loss", simple_value=1.0 / step)
            records.write(Event(wall_time=1.0, step=step, summary=Summary(value=[point])).SerializeToString())


def scalars(port: int, patience_s: float = 60.0) -> list[list[float]]:
    """Ask a TensorBoard for the run's loss until it answers with one."""
    deadline = time.monotonic() + patience_s
    while True:
        try:
            with urlopen(f"http://127.0.0.1:{port}/data/plugin/scalars/scalars?tag=loss&run=.", timeout=5) as answer:
                found: list[list[float]] = json.loads(answer.read())
                return found
        except (URLError, OSError, ValueError):
            assert time.monotonic() < deadline, "TensorBoard shows nothing"
            time.sleep(0.2)


@pytest.mark.slow
def test_it_shows_the_runs_figures_on_this_machine_alone_and_dies_with_boot(run: RunFolder) -> None:
    port, root = free_port(), run.path.parents[1]
    environ = {**clean_environment(), "TRAINWRIGHT_ROOT": str(root)}
    with subprocess.Popen([sys.executable, "-c", SERVES, str(run), str(port)], env=environ) as boot:
        try:
            assert [(step, value) for _, step, value in scalars(port)] == [(1, 1.0), (2, 0.5)]
            assert listening(port) == {"0100007F"}
            assert len(processes(root)) >= 2
        finally:
            boot.kill()
    deadline = time.monotonic() + 10
    while processes(root):
        assert time.monotonic() < deadline, "TensorBoard outlives boot"
        time.sleep(0.05)
    assert listening(port) == set()


def listening(port: int) -> set[str]:
    """Return the addresses, as /proc/net/tcp writes them, on which somebody listens to a port; IPv6 too."""
    lines = [line.split() for kind in ("tcp", "tcp6") for line in Path(f"/proc/net/{kind}").read_text().splitlines()]
    return {line[1].split(":")[0] for line in lines if line[1].endswith(f":{port:04X}") and line[3] == "0A"}


@pytest.fixture
def taken() -> Iterator[int]:
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        yield holder.getsockname()[1]


@pytest.mark.slow
def test_a_port_that_is_taken_stops_nothing_and_stands_in_the_log(run: RunFolder, taken: int) -> None:
    log = run.logs / "tensorboard.log"
    with board(run, taken):
        deadline = time.monotonic() + 60
        while str(taken) not in log.read_text():
            assert time.monotonic() < deadline
            time.sleep(0.1)
    assert "in use" in log.read_text() or "bind" in log.read_text()
    assert "Traceback" not in log.read_text()


def test_nothing_is_served_unless_asked_for(run: RunFolder) -> None:
    before = children()
    with board(run, None):
        assert children() == before
    assert not (run.logs / "tensorboard.log").exists()


def children() -> set[str]:
    return set(Path(f"/proc/self/task/{os.getpid()}/children").read_text().split())


def test_its_end_comes_with_that_of_training_and_its_death_before_changes_nothing(run: RunFolder) -> None:
    before = children()
    with board(run, free_port()):
        assert len(children() - before) == 1
    assert children() == before
    with board(run, free_port()):
        (child,) = children() - before
        os.kill(int(child), signal.SIGKILL)
    assert children() == before


def test_a_board_that_cannot_be_started_is_told_once(
    run: RunFolder, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = children()
    monkeypatch.setattr(sys, "executable", "/no/such/python")
    with board(run, free_port()):
        assert children() == before
    why = "[Errno 2] No such file or directory: '/no/such/python'"
    assert caplog.messages == [f"boot: TensorBoard could not be started ({why}); training goes on without it"]
