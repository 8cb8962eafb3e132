"""The lease: one writer at a time, on one machine and across machines, and never two winners."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
import json
from pathlib import Path
import signal
import subprocess
import sys
import threading
import time

import pytest

from trainwright.spec.exits import Exit
from trainwright.store import lease as lease_module
from trainwright.store.files import write_json
from trainwright.store.lease import Holder, LeaseHeldError, acquire, holds, is_live, read_holder

HOLDER = """
import sys, time
from pathlib import Path
from trainwright.store.lease import acquire
lease = acquire(Path(sys.argv[1]), "holds for a test")
print(lease.holder.id, flush=True)
sys.stdin.read()
lease.release()
"""
ELSEWHERE = Holder("0123456789abcdef", 3, "another-machine", 1, "boot:pid:1", 7, "boot attempt 2")


@contextmanager
def holding(path: Path) -> Iterator["subprocess.Popen[str]"]:
    """Run a process that holds the lease until its stdin closes."""
    command = [sys.executable, "-c", HOLDER, str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert len(process.stdout.readline().strip()) == 16
        try:
            yield process
        finally:
            process.kill()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "run" / "lease.json"


def test_a_lease_is_held_from_acquire_to_release(path: Path) -> None:
    with acquire(path, "trains") as lease:
        assert holds(path, lease.holder.id)
        assert not holds(path, "somebody-else")
        assert is_live(path)
        found = read_holder(path)
        assert found is not None
        assert (found.what, found.generation) == ("trains", 1)
    assert not holds(path, lease.holder.id)
    assert not is_live(path)
    assert list(path.parent.iterdir()) == []


def test_a_second_claimant_is_refused_at_once_while_the_holder_lives(path: Path) -> None:
    with holding(path) as process:
        started = time.monotonic()
        with pytest.raises(LeaseHeldError) as caught:
            acquire(path, "trains too")
        assert time.monotonic() - started < 1
        assert f"held by holds for a test (pid {process.pid} on " in str(caught.value)
        assert "stop that one first" in str(caught.value)
        assert caught.value.exit == Exit.MISSING
        assert is_live(path)


def test_a_holder_that_was_killed_here_is_replaced_at_once(path: Path) -> None:
    with holding(path) as process:
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert not is_live(path)
        started = time.monotonic()
        with acquire(path, "goes on") as lease:
            assert time.monotonic() - started < 1
            assert lease.holder.generation == 2
            assert sorted(file.name for file in path.parent.iterdir()) == ["lease.json", "lease.json.2"]
    assert list(path.parent.iterdir()) == []


def test_claims_of_holders_that_were_killed_before_they_cleared_up_go_with_the_next_one(path: Path) -> None:
    killed = "import os, signal\nimport trainwright.store.lease as module\n"
    killed += "module._clear_claims_before = lambda *_: os.kill(os.getpid(), signal.SIGKILL)\n"
    for _ in range(3):
        done = subprocess.run([sys.executable, "-c", killed + HOLDER, str(path)], check=False)
        assert done.returncode == -signal.SIGKILL
    assert sorted(found.name for found in path.parent.iterdir()) == [
        path.name,
        *(f"{path.name}.{n}" for n in (1, 2, 3)),
    ]
    with acquire(path, "comes after them") as lease:
        assert lease.holder.generation == 4
        assert sorted(found.name for found in path.parent.iterdir()) == [path.name, f"{path.name}.4"]
    assert list(path.parent.iterdir()) == []


def test_a_zombie_holds_nothing(path: Path) -> None:
    with holding(path) as process:
        process.send_signal(signal.SIGKILL)
        # Not waited for: the process is dead, but its id is still in the table.
        deadline = time.monotonic() + 5
        while is_live(path) and time.monotonic() < deadline:
            time.sleep(0.01)
        acquire(path, "goes on").release()


def test_a_process_that_got_the_same_id_later_is_not_the_holder(path: Path) -> None:
    with acquire(path, "trains") as lease:
        stamp = lease.holder.process_start
        write_json(path, asdict(replace(lease.holder, id="older", process_start=stamp + "1")))
        assert not is_live(path)
        acquire(path, "goes on").release()


def test_a_released_lease_is_free_at_once(path: Path) -> None:
    with holding(path) as process:
        assert process.stdin is not None
        process.stdin.close()
        assert process.wait() == 0
        acquire(path, "next").release()


def test_a_holder_elsewhere_whose_counter_stands_still_is_dead_after_patience(path: Path) -> None:
    path.parent.mkdir()
    write_json(path, asdict(ELSEWHERE))
    told: list[str] = []
    started = time.monotonic()
    with acquire(path, "goes on", wait=told.append, patience_s=0.6) as lease:
        assert 0.6 <= time.monotonic() - started < 3
        assert lease.holder.generation == 4
    assert len(told) == 1
    assert "boot attempt 2 (pid 1 on another-machine)" in told[0]


def test_a_holder_elsewhere_whose_counter_moves_is_alive(path: Path) -> None:
    path.parent.mkdir()
    write_json(path, asdict(ELSEWHERE))
    stop = threading.Event()

    def beat() -> None:
        counter = ELSEWHERE.counter
        while not stop.wait(0.1):
            counter += 1
            write_json(path, asdict(replace(ELSEWHERE, counter=counter)))

    thread = threading.Thread(target=beat)
    thread.start()
    try:
        assert is_live(path, watch_s=5)
        with pytest.raises(LeaseHeldError, match="whose counter moves; stop that one first"):
            acquire(path, "wants it", patience_s=5)
    finally:
        stop.set()
        thread.join()
    assert not is_live(path, watch_s=0.5)


def test_a_holder_elsewhere_that_lets_go_makes_room(path: Path) -> None:
    path.parent.mkdir()
    write_json(path, asdict(ELSEWHERE))
    timer = threading.Timer(0.3, path.unlink)
    timer.start()
    started = time.monotonic()
    acquire(path, "next", patience_s=20).release()
    assert time.monotonic() - started < 5
    timer.join()


def test_the_same_host_name_in_another_pid_namespace_proves_nothing(path: Path) -> None:
    path.parent.mkdir()
    with acquire(path.parent / "mine.json", "only to know this host") as lease:
        stranger = replace(lease.holder, process_start="another-boot:pid:[1]:5", pid=2**22 - 1)
    write_json(path, asdict(stranger))
    started = time.monotonic()
    acquire(path, "next", patience_s=0.5).release()
    assert time.monotonic() - started >= 0.5


def test_the_counter_moves_while_a_lease_is_held(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease_module, "BEAT_S", 0.05)
    with acquire(path, "trains") as lease:
        seen = set()
        deadline = time.monotonic() + 5
        while len(seen) < 3 and time.monotonic() < deadline:
            holder = read_holder(path)
            assert holder is not None
            assert holder.id == lease.holder.id
            seen.add(holder.counter)
        assert len(seen) >= 3


def test_a_holder_that_was_replaced_neither_beats_nor_removes_the_other(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease_module, "BEAT_S", 0.05)
    with acquire(path, "trains") as lease:
        write_json(path, asdict(ELSEWHERE))
        time.sleep(0.3)
        assert read_holder(path) == ELSEWHERE
        assert not holds(path, lease.holder.id)
    assert read_holder(path) == ELSEWHERE


RACER = """
import sys, time
from pathlib import Path
from trainwright.store.lease import LeaseHeldError, acquire
start, held = float(sys.stdin.readline()), []
for number, path in enumerate(sys.argv[1:]):
    while time.time() < start + 0.1 * number:
        pass
    try:
        held.append(acquire(Path(path), "races", patience_s=20))
    except LeaseHeldError:
        pass
print(len(held), flush=True)
sys.stdin.read()
"""


@pytest.mark.parametrize("dead_holder", [False, True])
def test_every_race_has_one_winner(tmp_path: Path, dead_holder: bool) -> None:
    paths = [tmp_path / str(number) / "lease.json" for number in range(12)]
    if dead_holder:
        with holding(paths[0]) as process:
            process.kill()
        for path in paths[1:]:
            path.parent.mkdir()
            path.write_bytes(paths[0].read_bytes())
            path.with_name("lease.json.1").touch()
    command = [sys.executable, "-c", RACER, *map(str, paths)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    racers = [subprocess.Popen(command, text=True, bufsize=1, **pipes) for _ in range(3)]
    try:
        start = time.time() + 1.5
        wins = []
        for racer in racers:
            assert racer.stdin is not None
            racer.stdin.write(f"{start}\n")
        for racer in racers:
            assert racer.stdout is not None
            wins.append(int(racer.stdout.readline()))
    finally:
        for racer in racers:
            racer.kill()
            racer.communicate()
    assert sum(wins) == len(paths)


def test_a_claimant_that_died_between_claim_and_lease_is_passed(path: Path) -> None:
    path.parent.mkdir()
    write_json(path, asdict(ELSEWHERE))
    path.with_name("lease.json.4").touch()
    with acquire(path, "goes on", patience_s=0.4) as lease:
        assert lease.holder.generation == 5


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", json.dumps({**asdict(ELSEWHERE), "extra": 1})])
def test_a_lease_that_cannot_be_read_is_no_lease(path: Path, text: str) -> None:
    path.parent.mkdir()
    path.write_text(text)
    assert read_holder(path) is None
    assert not is_live(path)
    acquire(path, "next").release()


@pytest.mark.parametrize("claimed", [False, True])
def test_what_the_waiting_claimant_heeds_ends_the_waiting_with_nothing_taken(path: Path, claimed: bool) -> None:
    # One holder stands still elsewhere; the other died between its claim and its lease.
    path.parent.mkdir()
    if claimed:
        path.with_name("lease.json.1").touch()
    else:
        write_json(path, asdict(ELSEWHERE))
    before = sorted(file.name for file in path.parent.iterdir())
    asked = time.monotonic() + 0.5

    def heed() -> None:
        if time.monotonic() > asked:
            raise InterruptedError

    with pytest.raises(InterruptedError):
        acquire(path, "goes on", heed=heed)
    assert time.monotonic() - asked < 1
    assert sorted(file.name for file in path.parent.iterdir()) == before
