"""Runs that many laws look at, made once: what is done to one of them is done to a copy."""

from collections.abc import Callable, Iterator
import os
import signal
import time

import pytest

from infra.cli import main
from infra.runpod.client import Client
from infra.runpod.key import Key
from runpod_server import fake_runpod
from runpod_state import KEY, FakeRunPod
from staged_runs import Disturbed, Staged, Told
from tiny_boot import TWO_RANKS, Done, Place, Process, attempts, checkpoints, clean_environment, copy_place, free_port
from tiny_boot import last_step, make_place, pet, processes, rank_pid, stages, trained_on_two_nodes
from trainwright.spec.exits import guarded


@pytest.fixture(autouse=True)
def _no_ranks_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in set(os.environ) - set(clean_environment()):
        monkeypatch.delenv(name)


@pytest.fixture
def said(capfd: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Return a function that runs a word and returns its code, output and complaints."""

    def run(*words: str) -> tuple[int, str, str]:
        try:
            code = guarded("trainwright", lambda: main(words))
        except SystemExit as stop:
            code = int(stop.code or 0)
        return int(code), *capfd.readouterr()

    return run


@pytest.fixture
def fake() -> Iterator[FakeRunPod]:
    """Return a RunPod of our own; its time passes when its clients wait."""
    with fake_runpod() as found:
        yield found


@pytest.fixture
def client(fake: FakeRunPod) -> Client:
    """Return a client of it."""
    return Client(Key(KEY, "a test"), fake.url, fake.clock)


@pytest.fixture(scope="session")
def sharded(tmp_path_factory: pytest.TempPathFactory) -> Staged:
    """Return a run that was booted up to its token shards; nothing is trained."""
    place = make_place(tmp_path_factory.mktemp("staged"))
    done, records = {}, {}
    for stage in ("prepare", "shard", "tokenizer"):
        done[stage] = place.boot("--until", stage)
        assert done[stage].code == 0, done[stage].said
        records[stage] = stages(place.run)
    return Staged(place, done, records)


@pytest.fixture(scope="session")
def staged(sharded: Staged, tmp_path_factory: pytest.TempPathFactory) -> Staged:
    """Return the same run, booted on to its report; look at it, but change nothing."""
    place = copy_place(sharded.place, tmp_path_factory.mktemp("trained"), trained=True)
    done, records = dict(sharded.done), dict(sharded.records)
    for stage in ("train", "report"):
        done[stage] = place.boot("--until", stage)
        assert done[stage].code == 0, done[stage].said
        records[stage] = stages(place.run)
    return Staged(place, done, records)


@pytest.fixture(scope="session")
def calm(sharded: Staged, tmp_path_factory: pytest.TempPathFactory) -> tuple[Place, Done]:
    """Return an undisturbed run of two ranks."""
    place = copy_place(sharded.place, tmp_path_factory.mktemp("calm"), trained=False)
    done = place.boot("--until", "train", TWO_RANKS)
    assert done.code == 0, done.said
    return place, done


def disturb(place: Place, told: dict[str, Told], what: str, at: int, *words: str) -> None:
    """Boot, disturb the run once a step is finished, and note what comes of it."""
    with place.booting("--until", "train", TWO_RANKS, *words) as process:
        process.until(lambda: last_step(place.run) >= at, f"step {at}")
        reached, begun = last_step(place.run), time.monotonic()
        DISTURBANCES[what](place, process)
        done = process.wait()
    told[what] = Told(what, reached, done, checkpoints(place.run), time.monotonic() - begun)


def _touch_stop_file(place: Place, process: Process) -> None:
    del process
    (place.run.logs / f"stop-{attempts(place.run)[-1].name}").touch()


def _lose_boot(place: Place, process: Process) -> None:
    process.kill()
    gone = time.monotonic() + 3
    while processes(place.root) and time.monotonic() < gone:
        time.sleep(0.02)
    left = processes(place.root)
    assert not left, f"processes of the run outlive boot: {left}"


DISTURBANCES = {
    "SIGTERM": lambda _, process: process.signal(signal.SIGTERM),
    "SIGUSR1": lambda _, process: process.signal(signal.SIGUSR1),
    "stop file": _touch_stop_file,
    "boot killed": _lose_boot,
    "rank killed": lambda place, _: os.kill(rank_pid(place.run, 1), signal.SIGKILL),
    "rank stopped": lambda place, _: os.kill(rank_pid(place.run, 1), signal.SIGSTOP),
}


@pytest.fixture(scope="session")
def interrupted(sharded: Staged, tmp_path_factory: pytest.TempPathFactory) -> Disturbed:
    """Return a run of one machine that was asked to stop three times, in three ways, and that two machines finish."""
    place = copy_place(sharded.place, tmp_path_factory.mktemp("interrupted"), trained=False)
    told: dict[str, Told] = {}
    for at, what in ((3, "SIGTERM"), (16, "SIGUSR1"), (30, "stop file")):
        disturb(place, told, what, at)
    port = free_port()
    first, second = trained_on_two_nodes(place, [(), ()], [pet(0, port), pet(1, port)])
    assert second.code == first.code, second.said
    return Disturbed(place, told, first)


@pytest.fixture(scope="session")
def broken(sharded: Staged, tmp_path_factory: pytest.TempPathFactory) -> Disturbed:
    """Return a run whose boot was killed, then one of its ranks, and of which then one rank hung."""
    place = copy_place(sharded.place, tmp_path_factory.mktemp("broken"), trained=False)
    told: dict[str, Told] = {}
    disturb(place, told, "boot killed", 9)
    disturb(place, told, "rank killed", 16)
    disturb(place, told, "rank stopped", 23, "resources.hang_minutes=0.1")
    return Disturbed(place, told, place.boot("--until", "train", TWO_RANKS))
