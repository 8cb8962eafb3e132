"""Every way of asking a run to stop makes it save, say so by its exit code, and go on exactly when started again."""

from collections.abc import Iterator
import json
from pathlib import Path
import signal
import threading
import time

import pytest

from tiny_run import STEPS, Finished, Ground, checkpoint_bytes, finish, losses, make_run, saved_steps, start
from tiny_run import train_here, wait_until
from trainer.requests import MARGIN_S, Request, Requests
from trainwright.spec.exits import Exit
from trainwright.spec.paths import RunFolder

ASKING = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2)
"""What schedulers and people send."""

Stopped = dict[signal.Signals, tuple[RunFolder, Finished]]


@pytest.fixture(autouse=True)
def _own_signals() -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in ASKING}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture(scope="session")
def stopped(ground: Ground, tmp_path_factory: pytest.TempPathFactory) -> Stopped:
    """Return a run for each signal, each a process of its own that got it before its first step."""
    folder = tmp_path_factory.mktemp("signals")
    runs = {number: make_run(ground, folder / number.name, "evaluation.every_steps=null") for number in ASKING}
    processes = {number: start(run) for number, run in runs.items()}
    for number, process in processes.items():
        beats = runs[number].heartbeat.is_file
        wait_until(lambda beats=beats, process=process: beats() or process.poll() is not None, "a sign of life")
        process.send_signal(number)
    return {number: (run, finish(processes[number])) for number, run in runs.items()}


@pytest.mark.slow
@pytest.mark.parametrize("number", ASKING, ids=lambda number: number.name)
def test_a_signal_makes_a_run_save_and_go_on_exactly(
    stopped: Stopped, one_rank: RunFolder, number: signal.Signals
) -> None:
    run, done = stopped[number]
    assert done.code == Exit.INTERRUPTED, done.said
    (step,) = saved_steps(run)
    assert list(losses(run)) == list(range(1, step + 1))
    assert 1 <= step < STEPS
    assert f"interrupted at step {step} of {STEPS}, saved" in done.said
    assert "Traceback" not in done.said
    assert train_here(run) == Exit.OK
    assert losses(run) == losses(one_rank)
    assert checkpoint_bytes(run, STEPS) == checkpoint_bytes(one_rank, STEPS)


def test_a_wall_clock_limit_that_draws_near_interrupts(
    ground: Ground, one_rank: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = make_run(ground, tmp_path / "run", "evaluation.every_steps=null")
    monkeypatch.setenv("TRAINWRIGHT_DEADLINE", str(time.monotonic() + MARGIN_S / 2))
    assert train_here(run) == Exit.INTERRUPTED
    assert saved_steps(run) == [1]
    monkeypatch.setenv("TRAINWRIGHT_DEADLINE", str(time.monotonic() + 3600))
    assert train_here(run) == Exit.OK
    assert losses(run) == losses(one_rank)


def test_a_stop_file_interrupts_an_evaluation_too(
    ground: Ground, one_rank: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stop = tmp_path / "stop"
    stop.touch()
    monkeypatch.setenv("TRAINWRIGHT_STOP_FILE", str(stop))
    run = make_run(ground, tmp_path / "run")
    assert train_here(run) == Exit.INTERRUPTED
    assert saved_steps(run) == [0]
    assert not run.metrics.read_text()
    stop.unlink()
    assert train_here(run) == Exit.OK
    assert losses(run) == losses(one_rank)


def test_an_end_is_saved_and_is_a_success(ground: Ground, one_rank: RunFolder, tmp_path: Path) -> None:
    run = make_run(ground, tmp_path / "run", "evaluation.every_steps=null")
    run.ended.write_text('{"reason": "enough"}')
    assert train_here(run) == Exit.OK
    assert saved_steps(run) == [1]
    assert not run.samples.exists()
    run.ended.unlink()
    assert train_here(run) == Exit.OK
    assert losses(run) == losses(one_rank)


def test_an_end_counts_more_than_an_interrupt(tmp_path: Path) -> None:
    stop, ended = tmp_path / "stop", tmp_path / "ended.json"
    requests = Requests(ended, {"TRAINWRIGHT_STOP_FILE": str(stop)})
    assert requests.look() is Request.NONE
    stop.touch()
    assert requests.look() is Request.INTERRUPT
    ended.touch()
    assert requests.look() is Request.END


@pytest.mark.parametrize("number", ASKING, ids=lambda number: number.name)
def test_a_signal_is_remembered(tmp_path: Path, number: signal.Signals) -> None:
    requests = Requests(tmp_path / "ended.json", {})
    signal.raise_signal(number)
    assert requests.look() is Request.INTERRUPT
    assert requests.look() is Request.INTERRUPT


def test_the_limit_leaves_time_for_two_saves(tmp_path: Path) -> None:
    limit = time.monotonic() + MARGIN_S + 100
    requests = Requests(tmp_path / "ended.json", {"TRAINWRIGHT_DEADLINE": str(limit)})
    requests.save_s = 40.0
    assert requests.look() is Request.NONE
    requests.save_s = 60.0
    assert requests.look() is Request.INTERRUPT


@pytest.mark.slow
def test_what_one_rank_sees_stops_all_of_them_at_the_same_step(
    stopped_by_one_rank: tuple[RunFolder, Finished],
) -> None:
    run, done = stopped_by_one_rank
    # torchrun would take 75 for a failure and kill the neighbour, so the records carry it.
    assert done.code == Exit.OK, done.said
    records = [json.loads((run.attempts / "0001" / f"rank_{rank:05d}.json").read_text()) for rank in (0, 1)]
    assert [record["code"] for record in records] == [Exit.INTERRUPTED] * 2
    assert {record["reason"] for record in records} == {f"interrupted at step 0 of {STEPS}, saved"}
    assert saved_steps(run) == [0]


@pytest.mark.slow
def test_what_is_saved_after_an_evaluation_are_the_shards_of_each_rank(
    stopped_by_one_rank: tuple[RunFolder, Finished],
) -> None:
    # The request came in the evaluation, which leaves the root's parameters gathered.
    run, _ = stopped_by_one_rank
    index = json.loads((run.checkpoints / "step_00000000" / "index.json").read_text())
    whole = [name for name, tensor in index.items() if len(tensor["pieces"]) != 2]
    assert not whole


def test_an_interrupt_that_goes_unheard_is_left_for_only_where_nothing_would_be_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("trainer.requests.LEAVE_AFTER_S", 0.3)
    stop, left = tmp_path / "stop", threading.Event()
    requests = Requests(tmp_path / "ended.json", {"TRAINWRIGHT_STOP_FILE": str(stop)})
    with requests.leaving(left.set):
        requests.committed(False)
        stop.touch()
        assert not left.wait(1.2), "an update is not saved yet"
        requests.committed(True)
        assert left.wait(5)


def test_an_end_is_no_reason_to_leave_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trainer.requests.LEAVE_AFTER_S", 0.1)
    (tmp_path / "ended.json").touch()
    left = threading.Event()
    with Requests(tmp_path / "ended.json", {}).leaving(left.set):
        assert not left.wait(1)
