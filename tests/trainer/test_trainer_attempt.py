"""What a rank leaves behind for boot: an end record, signs of life, stacks when asked; by hand, none of it."""

from collections.abc import Iterator
import faulthandler
import json
import os
from pathlib import Path
import signal
import warnings

import pytest

from tiny_run import Ground, finish, make_run, start, train_here, wait_until
from trainer.attempt import Attempt
from trainwright.spec.exits import Exit, MissingError
from trainwright.spec.paths import RunFolder
from trainwright.spec.variables import ATTEMPT_VARIABLE, LEASE_VARIABLE
from trainwright.store.process import STACKS_SIGNAL


@pytest.fixture(autouse=True)
def _no_stacks_left_open() -> Iterator[None]:
    """Close what an attempt keeps open as long as its process lives, which here is longer than the attempt."""
    yield
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        faulthandler.unregister(STACKS_SIGNAL)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "run" / "attempts" / "0007"
    made.mkdir(parents=True)
    return made


def test_by_hand_there_is_a_heartbeat_and_nothing_else(tmp_path: Path) -> None:
    attempt = Attempt(RunFolder(tmp_path), 0, {})
    attempt.beat("step", 3, now=True)
    attempt.end(Exit.OK, "complete")
    attempt.check_lease()
    assert [path.name for path in tmp_path.iterdir()] == ["heartbeat.json"]
    assert json.loads((tmp_path / "heartbeat.json").read_text())["step"] == 3


def test_each_rank_says_that_it_lives_and_where_it_is(folder: Path) -> None:
    run = RunFolder(folder.parent.parent)
    attempt = Attempt(run, 5, {ATTEMPT_VARIABLE: str(folder)})
    attempt.beat("step", 12, now=True)
    attempt.beat("save", now=True)
    sign = json.loads((folder / "alive_00005.json").read_text())
    assert (sign["pid"], sign["phase"], sign["step"]) == (os.getpid(), "save", 12)
    # The run's own heartbeat is the first rank's.
    assert not run.heartbeat.exists()
    attempt.end(Exit.INTERRUPTED, "why")
    record = json.loads((folder / "rank_00005.json").read_text())
    assert record == {"rank": 5, "code": 75, "reason": "why", "step": 12}
    assert attempt.number == "0007"


def test_signs_of_life_are_not_written_every_step(folder: Path) -> None:
    attempt = Attempt(RunFolder(folder.parent.parent), 0, {ATTEMPT_VARIABLE: str(folder)})
    for step in range(1000):
        attempt.beat("step", step)
    assert json.loads((folder / "alive_00000.json").read_text())["step"] < 999
    # The end record has the last step all the same.
    attempt.end(Exit.OK, "complete")
    assert json.loads((folder / "rank_00000.json").read_text())["step"] == 999


def test_a_run_that_another_boot_took_over_saves_nothing_more(
    ground: Ground, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = make_run(ground, folder.parent.parent)
    run.lease.write_text(json.dumps({"id": "theirs"}))
    monkeypatch.setenv(ATTEMPT_VARIABLE, str(folder))
    monkeypatch.setenv(LEASE_VARIABLE, "ours")
    assert train_here(run) == Exit.MISSING
    assert not list(run.checkpoints.glob("step_*"))
    record = json.loads((folder / "rank_00000.json").read_text())
    assert (record["code"], record["step"]) == (Exit.MISSING, 10)
    assert "another boot has taken over this run" in record["reason"]


def test_a_lost_lease_is_missing(tmp_path: Path) -> None:
    attempt = Attempt(RunFolder(tmp_path), 0, {LEASE_VARIABLE: "ours"})
    with pytest.raises(MissingError, match=r"lease\.json"):
        attempt.check_lease()


def test_a_refused_run_says_why_in_its_record(
    own_ground: Ground, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shard = own_ground.tokens("train") / "train_00000.bin"
    shard.unlink()
    monkeypatch.setenv(ATTEMPT_VARIABLE, str(folder))
    assert train_here(make_run(own_ground, folder.parent.parent)) == Exit.REFUSED
    record = json.loads((folder / "rank_00000.json").read_text())
    assert record["code"] == Exit.REFUSED
    assert str(shard) in record["reason"]
    # Boot says it once for all ranks.
    assert "trainer: " not in capsys.readouterr().err


def test_what_nobody_foresaw_is_one_sentence_with_its_traceback_in_a_file(
    ground: Ground, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(ATTEMPT_VARIABLE, str(folder))
    monkeypatch.setattr("trainer.models.llama.summed_loss", lambda *_: {}["no such thing"])
    assert train_here(make_run(ground, folder.parent.parent)) == Exit.FAILED
    record = json.loads((folder / "rank_00000.json").read_text())
    assert (record["code"], record["reason"]) == (Exit.FAILED, "KeyError: 'no such thing'")
    assert "in train_step" in (folder / "traceback_00000.txt").read_text()


def test_a_process_writes_its_stacks_when_asked_and_goes_on(ground: Ground, folder: Path) -> None:
    run = make_run(ground, folder.parent.parent)
    process = start(run, environ={ATTEMPT_VARIABLE: str(folder)})
    wait_until(lambda: (folder / "alive_00000.json").is_file() or process.poll() is not None, "a sign of life")
    os.kill(process.pid, STACKS_SIGNAL)
    stacks = folder / "stacks_00000.txt"
    wait_until(lambda: "most recent call first" in stacks.read_text(), "stacks")
    process.send_signal(signal.SIGTERM)
    done = finish(process)
    assert done.code == Exit.INTERRUPTED, done.said
    assert json.loads((folder / "rank_00000.json").read_text())["code"] == Exit.INTERRUPTED
