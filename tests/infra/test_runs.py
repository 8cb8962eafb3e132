"""What `ps` says of a run: its folder where that knows, else its engine; nothing broken hides the other runs."""

from collections.abc import Callable
import json
import os
from pathlib import Path
import time
from typing import Any

import pytest

from infra.engine import Answer
from infra.launches import launch_folder, record
from infra.runs import LOST, Status, find_run, launch_of, named_run, size_of, statuses
from recorder import Recorder
from trainwright.spec.exits import UserError
from trainwright.spec.load import load_experiment
from trainwright.spec.paths import RunFolder
from trainwright.spec.resolved import experiment_text
from trainwright.store.files import write_json, write_text
from trainwright.store.lease import acquire

MakeRun = Callable[..., RunFolder]


@pytest.fixture
def make_run(tmp_path: Path, experiment_file: Callable[..., Path]) -> MakeRun:
    """Return a function that makes a run folder: with its heartbeat's age and its attempts' end records."""
    resolved = experiment_text(load_experiment(experiment_file(), (), {}).experiment, commit="", image="")

    def make(name: str, *ends: dict[str, Any] | None, beat: float | None = None) -> RunFolder:
        run = RunFolder(tmp_path / "runs" / name)
        write_text(run.experiment, resolved)
        for number, end in enumerate(ends):
            (run.attempts / f"{number:04d}").mkdir(parents=True)
            if end is not None:
                write_json(run.attempts / f"{number:04d}" / "end.json", end)
        if beat is not None:
            write_json(run.heartbeat, {"time": time.time() - beat, "step": 7, "phase": "step"})
        return run

    return make


def of(root: Path, name: str, engine: Recorder | None = None) -> Status:
    found = {status.name: status for status in statuses(root, engine or Recorder())}
    return found[name]


COMPLETE = {"code": 0, "reason": "complete"}
ENDS: dict[str, tuple[list[dict[str, Any] | None], str]] = {
    "made by hand": ([], "not running"),
    "complete": ([COMPLETE], "complete"),
    "complete in the end": ([None, {"code": 1, "reason": "x"}, COMPLETE], "complete"),
    "interrupted": ([{"code": 75, "reason": "SIGTERM at step 3"}], "interrupted: SIGTERM at step 3"),
    "refused": ([{"code": 78, "reason": "a.b: wrong"}], "refused: a.b: wrong"),
    "missing": ([{"code": 69, "reason": "no GPU"}], "missing: no GPU"),
    "failed": ([{"code": 1, "reason": "RuntimeError"}], "failed: RuntimeError"),
    "lost": ([COMPLETE, None], LOST),
    "a record from another age": ([{"reason": "x"}], "failed: x"),
}


@pytest.mark.parametrize("case", ENDS)
def test_a_run_that_does_not_run_is_told_by_its_newest_attempt(tmp_path: Path, make_run: MakeRun, case: str) -> None:
    ends, state = ENDS[case]
    make_run("small", *ends)
    assert of(tmp_path, "small").state == state


def test_a_run_that_completed_a_moment_ago_is_complete(tmp_path: Path, make_run: MakeRun) -> None:
    make_run("small", COMPLETE, beat=2.0)
    assert of(tmp_path, "small").state == "complete"


def test_a_run_by_hand_elsewhere_lives_as_long_as_its_heart_beats(tmp_path: Path, make_run: MakeRun) -> None:
    make_run("young", None, beat=10.0)
    make_run("old", None, beat=100.0)
    young, old = of(tmp_path, "young"), of(tmp_path, "old")
    assert (young.state, young.target, young.step, young.steps) == ("training", "by hand", 7, 10)
    assert old.state == LOST
    assert 100 <= (old.age_s or 0) < 160


def test_a_run_whose_lease_is_held_here_lives_before_its_heart_beats(tmp_path: Path, make_run: MakeRun) -> None:
    run = make_run("small", COMPLETE)
    with acquire(run.lease, "a test"):
        assert of(tmp_path, "small").state == "starting"
        (run.attempts / "0001").mkdir()
        assert of(tmp_path, "small").state == "starting"
    assert of(tmp_path, "small").state == LOST


def test_a_run_that_was_told_to_end_is_ending_until_it_has(tmp_path: Path, make_run: MakeRun) -> None:
    run = make_run("small", None, beat=1.0)
    write_json(run.ended, {"reason": "enough"})
    assert of(tmp_path, "small").state == "ending (enough)"
    write_json(run.attempts / "0000" / "end.json", COMPLETE)
    assert of(tmp_path, "small").state == "ended (enough)"


# --- launched --------------------------------------------------------------------------------------------------------


def container(name: str, root: Path) -> None:
    record(name, "local", f"trainwright-{name}", launch_folder(root, name))


def docker(answer: Answer) -> Recorder:
    return Recorder(programs=("docker",), answers=lambda word: answer if "inspect" in word else Answer(0, "", ""))


def test_a_launch_without_a_folder_is_told_by_its_engine(tmp_path: Path) -> None:
    container("small", tmp_path)
    status = of(tmp_path, "small", docker(Answer(0, "running 0\n", "")))
    assert status == Status("small", "local", "running", None, None, None, None)
    assert of(tmp_path, "small", docker(Answer(0, "exited 78\n", ""))).state == "exited (78)"


def test_a_launch_with_a_folder_is_told_by_both(tmp_path: Path, make_run: MakeRun) -> None:
    container("small", tmp_path)
    run = make_run("small", None, beat=1.0)
    running, gone = docker(Answer(0, "running 0\n", "")), docker(Answer(0, "exited 137\n", ""))
    assert of(tmp_path, "small", running).state == "training"
    # The engine knows better than a heartbeat that is still young.
    assert of(tmp_path, "small", gone).state == LOST
    write_json(run.attempts / "0000" / "end.json", COMPLETE)
    assert of(tmp_path, "small", gone).state == "complete"
    # Started again, and not yet at its first record.
    assert of(tmp_path, "small", running).state == "running"


def test_an_engine_that_does_not_answer_is_told_in_the_line_of_its_run(tmp_path: Path, make_run: MakeRun) -> None:
    for name in ("alone", "finished", "trained"):
        container(name, tmp_path)
    make_run("finished", COMPLETE)
    make_run("trained", None, beat=1000.0)
    make_run("other", COMPLETE)
    down = docker(Answer(1, "", "Cannot connect to the Docker daemon\n"))
    found = {status.name: status.state for status in statuses(tmp_path, down)}
    assert found["alone"].startswith("unknown: docker does not tell how trainwright-alone is doing: Cannot connect")
    assert found["trained"].startswith("unknown: docker does not tell")
    assert (found["finished"], found["other"]) == ("complete", "complete")


def test_half_written_and_foreign_things_hide_no_run(tmp_path: Path, make_run: MakeRun) -> None:
    make_run("good", COMPLETE)
    run = make_run("torn", None)
    write_text(run.experiment, "name: [")
    write_text(run.heartbeat, '{"time": "yesterday"')
    write_text(run.lease, "{")
    write_text(run.attempts / "0000" / "end.json", "{")
    write_text(run.metrics, "not JSON\n{")
    odd = make_run("odd", None)
    write_json(odd.heartbeat, {"time": "yesterday", "phase": 3})
    for name in ("a file", "empty"):
        (tmp_path / "runs" / name).touch() if name == "a file" else (tmp_path / "runs" / name).mkdir()
    write_text(launch_folder(tmp_path, "broken") / "launch.json", "{")
    record("newer", "moon", "1", launch_folder(tmp_path, "newer"))
    found = {status.name: status.state for status in statuses(tmp_path, Recorder())}
    assert found == {
        "good": "complete",
        "torn": LOST,
        "odd": LOST,
        "broken": f"unknown: {tmp_path}/launch/broken/launch.json: is no launch record; remove that folder",
        "newer": found["newer"],
    }
    assert "was sent to target moon, which is none of" in found["newer"]


def test_nothing_at_all_is_no_run(tmp_path: Path) -> None:
    assert statuses(tmp_path / "nowhere", Recorder()) == []
    (tmp_path / "runs").touch()
    (tmp_path / "launch").touch()
    assert statuses(tmp_path, Recorder()) == []


def test_the_loss_is_the_last_one_of_a_long_file_whose_end_is_torn(tmp_path: Path, make_run: MakeRun) -> None:
    run = make_run("small", None)
    rows = [{"step": step, "loss": 1.0 / step, "pad": "x" * 100} for step in range(1, 2000)]
    lines = [json.dumps(row) for row in (*rows, {"step": 1999, "eval_loss": 3.0})]
    run.metrics.write_text("\n".join(lines) + '\n{"step": 2000, "loss": 7.')
    assert of(tmp_path, "small").loss == 1.0 / 1999


# --- finding ---------------------------------------------------------------------------------------------------------


def test_a_run_is_found_by_name_and_by_folder_wherever_that_lies(tmp_path: Path, make_run: MakeRun) -> None:
    run = make_run("small")
    elsewhere = tmp_path / "elsewhere"
    (tmp_path / "runs").rename(elsewhere)
    assert find_run(str(elsewhere / "small"), tmp_path).path == elsewhere / "small"
    with pytest.raises(UserError, match=r"^small: no such run below .*/runs$"):
        named_run("small", tmp_path)
    elsewhere.rename(tmp_path / "runs")
    assert find_run("small", tmp_path) == named_run("small", tmp_path) == run
    with pytest.raises(UserError, match=r"runs here: small$"):
        named_run("smal", tmp_path)


def test_what_was_never_launched_is_refused_with_what_was(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=rf"^small: was not launched from below {tmp_path}$"):
        launch_of("small", tmp_path)
    container("other", tmp_path)
    with pytest.raises(UserError, match=r"launched from here: other$"):
        launch_of("small", tmp_path)
    assert launch_of("other", tmp_path).id == "trainwright-other"


def test_the_size_of_a_folder_counts_its_files_and_follows_no_link(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    (folder / "deep").mkdir(parents=True)
    (folder / "deep" / "a").write_bytes(b"x" * 10)
    (folder / "b").write_bytes(b"x" * 5)
    (tmp_path / "large").write_bytes(b"x" * 1000)
    (folder / "link").symlink_to(tmp_path / "large")
    (folder / "loop").symlink_to(tmp_path)
    os.mkfifo(folder / "pipe")
    assert size_of(folder) == 15
