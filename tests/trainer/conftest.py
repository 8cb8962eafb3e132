"""Runs that many laws look at, made once: what is done to one of them is done to a copy."""

import json
import os
from pathlib import Path
import signal

# Threads that wait by spinning take the cores from whatever else runs here; libgomp reads this as torch loads it.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import pytest
import torch

from tiny_run import TWO_RANKS, Finished, Ground, clean_environment, finish, make_ground, make_run, start
from tiny_run import train_in_processes, wait_until
from trainer.ranks import Ranks
from trainwright.spec.paths import RunFolder


@pytest.fixture(autouse=True)
def _no_ranks_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in set(os.environ) - set(clean_environment()):
        monkeypatch.delenv(name)


@pytest.fixture(scope="session")
def ground(tmp_path_factory: pytest.TempPathFactory) -> Ground:
    return make_ground(tmp_path_factory.mktemp("ground"))


@pytest.fixture
def own_ground(tmp_path: Path) -> Ground:
    """Return a tokenizer and shards that a test may damage."""
    return make_ground(tmp_path / "ground")


@pytest.fixture(scope="session")
def one() -> Ranks:
    """Return a single rank on the CPU."""
    return Ranks(torch.device("cpu"), {})


@pytest.fixture(scope="session")
def one_rank(ground: Ground, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """Return a finished run of one rank."""
    return finished(make_run(ground, tmp_path_factory.mktemp("runs") / "one"), 1)


@pytest.fixture(scope="session")
def two_ranks(ground: Ground, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """Return the same run by two ranks with a pass each."""
    return finished(make_run(ground, tmp_path_factory.mktemp("runs") / "two", TWO_RANKS), 2)


@pytest.fixture(scope="session")
def two_ranks_in_four_passes(ground: Ground, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """Return the same run by two ranks with four passes each."""
    run = make_run(ground, tmp_path_factory.mktemp("runs") / "two_in_four", TWO_RANKS, "train.micro_batch=1")
    return finished(run, 2)


def finished(run: RunFolder, ranks: int) -> RunFolder:
    done = train_in_processes(run, ranks)
    assert done.code == 0, done.said
    return run


@pytest.fixture(scope="session")
def stopped_by_one_rank(ground: Ground, tmp_path_factory: pytest.TempPathFactory) -> tuple[RunFolder, Finished]:
    """Return a run of two ranks, of which the second alone was told to stop before the first step."""
    run = make_run(ground, tmp_path_factory.mktemp("runs") / "stopped", TWO_RANKS)
    attempt = run.attempts / "0001"
    attempt.mkdir(parents=True)
    process = start(run, 2, {"TRAINWRIGHT_ATTEMPT": str(attempt)})
    sign = attempt / "alive_00001.json"
    wait_until(lambda: sign.is_file() or process.poll() is not None, "a sign of life of the second rank")
    if process.poll() is None:
        os.kill(json.loads(sign.read_text())["pid"], signal.SIGUSR1)
    return run, finish(process)
