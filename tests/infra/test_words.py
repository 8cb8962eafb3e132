from collections.abc import Callable
import json
from pathlib import Path
import subprocess
import time

import pytest

from infra.launches import launch_folder, record
from trainwright.spec.paths import RunFolder
from trainwright.store.files import write_json, write_text
from trainwright.store.lease import acquire

Said = Callable[..., tuple[int, str, str]]


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a root with a space in its name that holds two runs, in a folder with nothing else."""
    place = tmp_path / "a root"
    for name in ("one", "two"):
        run = RunFolder(place / "runs" / name)
        write_text(run.experiment, "name: x\n")
        write_text(run.checkpoints / "step_00000001" / "data", "x" * 1000)
        write_json(run.heartbeat, {"time": time.time() - 7300, "step": 3, "phase": "step"})
        write_json(run.attempts / "0001" / "end.json", {"code": 75, "reason": "SIGTERM"})
        run.metrics.write_text('{"step": 3, "loss": 2.5}\n')
    monkeypatch.setenv("TRAINWRIGHT_ROOT", str(place))
    monkeypatch.chdir(tmp_path)
    return place


# --- ps --------------------------------------------------------------------------------------------------------------


def test_ps_prints_one_line_a_run(said: Said, root: Path) -> None:
    for name in ("heartbeat.json", "metrics.jsonl"):
        (root / "runs" / "two" / name).unlink()
    code, out, err = said("ps")
    assert (code, err) == (0, "")
    head, one, two = (line.split() for line in out.splitlines())
    assert head == ["RUN", "TARGET", "STEP", "LOSS", "SEEN", "STATE"]
    assert one == ["one", "by", "hand", "3", "2.5000", "2", "h", "ago", "interrupted:", "SIGTERM"]
    assert two == ["two", "by", "hand", "-", "-", "-", "interrupted:", "SIGTERM"]


def test_ps_as_json_is_one_document(said: Said, root: Path) -> None:
    del root
    code, out, _ = said("ps", "--json")
    assert code == 0
    assert [(row["name"], row["state"], row["loss"]) for row in json.loads(out)] == [
        ("one", "interrupted: SIGTERM", 2.5),
        ("two", "interrupted: SIGTERM", 2.5),
    ]


def test_ps_of_an_empty_root_says_so(said: Said, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRAINWRIGHT_ROOT", str(tmp_path / "none"))
    assert said("ps") == (0, f"no runs below {tmp_path}/none\n", "")
    assert json.loads(said("ps", "--json")[1]) == []


# --- logs ------------------------------------------------------------------------------------------------------------


def test_logs_of_a_run_that_was_never_launched_is_refused(said: Said, root: Path) -> None:
    for words in (("one",), ("one", "-f"), ("../runs/one",), ("",)):
        code, out, err = said("logs", *words)
        assert (code, out) == (78, "")
        assert err.startswith("trainwright: ")
        assert err.endswith(f"was not launched from below {root}\n")


def test_logs_prints_the_log_of_a_run_that_has_ended_even_when_told_to_follow(said: Said, root: Path) -> None:
    folder = launch_folder(root, "one")
    write_text(folder / "boot.log", "first\nlast\n")
    record("one", "local", str(dead_process()), folder)
    for words in (["logs", "one"], ["logs", "-f", "one"]):
        assert said(*words) == (0, "first\nlast\n", "")


def test_logs_of_a_launch_without_a_log_is_refused_by_name(said: Said, root: Path) -> None:
    record("one", "local", str(dead_process()), launch_folder(root, "one"))
    code, _, err = said("logs", "one")
    assert (code, err) == (
        78,
        f"trainwright: {root}/launch/one/boot.log: no log there; was the run launched from here?\n",
    )


def dead_process() -> int:
    process = subprocess.Popen(["true"])
    process.wait()
    return process.pid


# --- stop ------------------------------------------------------------------------------------------------------------


def test_stop_tells_a_run_that_lives_that_it_ends(said: Said, root: Path) -> None:
    run = RunFolder(root / "runs" / "one")
    with acquire(run.lease, "a test"):
        assert said("stop", "one") == (0, f"{run}: saves and ends after its current step\n", "")
    assert json.loads(run.ended.read_text())["reason"] == "stop was asked for"


@pytest.mark.parametrize("runs", ["runs", "elsewhere"])
def test_stop_of_a_launch_that_has_not_begun_leaves_the_request_that_boot_finds(
    said: Said, root: Path, runs: str
) -> None:
    run = RunFolder(root / runs / "three")
    record("three", "local", str(dead_process()), launch_folder(root, "three"), str(run))
    way = "`trainwright delete three --yes` takes its job away now"
    told = f"has not begun, and its first start will end at once; {way}"
    assert said("stop", "three", "--reason", "no longer wanted") == (0, f"{run}: {told}\n", "")
    assert json.loads(run.ended.read_text())["reason"] == "no longer wanted"
    assert said("stop", "three") == (0, f"{run}: is ended already\n", "")


def test_stop_of_a_sweep_or_of_a_name_that_nobody_launched_is_refused(said: Said, root: Path) -> None:
    record("two-sweep", "slurm", "11", launch_folder(root, "two-sweep"))
    for name in ("two-sweep", "four", ""):
        code, out, err = said("stop", name)
        assert (code, out) == (78, "")
        assert err == f"trainwright: {name}: no such run below {root}/runs; runs here: one, two\n"
    assert not (root / "runs" / "two-sweep").exists()


# --- delete ----------------------------------------------------------------------------------------------------------


def test_delete_shows_what_would_go_and_wants_yes(said: Said, root: Path) -> None:
    launch(root, "one")
    before = everything(root)
    for flag, folder in (("--all", "runs/one"), ("--checkpoints", "runs/one/checkpoints")):
        size = f"{sum(path.stat().st_size for path in (root / folder).rglob('*') if path.is_file()):,}"
        code, out, err = said("delete", "one", flag)
        assert (code, out) == (78, "")
        assert err == (
            f"trainwright: one: would remove its job 999999999 on target local and {root}/{folder} ({size} bytes); "
            "add --yes to do it\n"
        )
    assert said("delete", "one")[0] == 78
    assert everything(root) == before


def launch(root: Path, name: str) -> None:
    folder = launch_folder(root, name)
    write_text(folder / f"{name}.yaml", "name: x\n")
    record(name, "local", "999999999", folder)


def everything(root: Path) -> set[Path]:
    return set(root.rglob("*"))


def test_delete_removes_the_job_alone_unless_told_otherwise(said: Said, root: Path) -> None:
    launch(root, "one")
    launch(root, "two")
    runs = everything(root / "runs")
    assert said("delete", "one", "--yes") == (0, "one: removed its job 999999999 on target local\n", "")
    assert [path.name for path in (root / "launch").iterdir()] == ["two"]
    assert everything(root / "runs") == runs
    code, _, err = said("delete", "one", "--yes")
    assert (code, err) == (
        78,
        "trainwright: one: has no job to remove; --checkpoints or --all removes what it has written\n",
    )


def test_delete_of_checkpoints_leaves_the_rest(said: Said, root: Path) -> None:
    gone = {path for path in everything(root) if "checkpoints" in path.parts and "one" in path.parts}
    before = everything(root)
    assert said("delete", "one", "--checkpoints", "--yes")[0] == 0
    assert everything(root) == before - gone
    code, _, err = said("delete", "one", "--checkpoints", "--yes")
    assert (code, err) == (78, f"trainwright: {root}/runs/one/checkpoints: is not there; nothing to remove\n")


def test_delete_of_all_leaves_the_other_runs(said: Said, root: Path) -> None:
    before = everything(root / "runs" / "two")
    assert said("delete", "one", "--all", "--yes")[0] == 0
    assert [path.name for path in (root / "runs").iterdir()] == ["two"]
    assert everything(root / "runs" / "two") == before


@pytest.mark.parametrize("flags", [[], ["--checkpoints"], ["--all"]])
def test_delete_refuses_a_run_that_lives(said: Said, root: Path, flags: list[str]) -> None:
    launch(root, "one")
    with acquire(RunFolder(root / "runs" / "one").lease, "a test"):
        before = everything(root)
        code, _, err = said("delete", "one", *flags, "--yes")
        assert code == 78
        assert err.startswith(f"trainwright: one: a boot holds {root}/runs/one/lease.json; `trainwright stop one`")
        assert everything(root) == before


def test_a_launch_that_waits_for_its_turn_can_be_deleted_once_it_was_stopped(said: Said, root: Path) -> None:
    folder = launch_folder(root, "three")
    write_text(folder / "three.sh", "sleep 60\n")
    with subprocess.Popen(["bash", str(folder / "three.sh")]) as waits:
        record("three", "local", str(waits.pid), folder, str(root / "runs" / "three"))
        code, _, err = said("delete", "three", "--yes")
        assert (code, "`trainwright stop three` first" in err) == (78, True)
        assert said("stop", "three")[0] == 0
        assert said("delete", "three", "--yes")[0] == 0
        assert waits.wait(10) != 0


@pytest.mark.parametrize("name", ["runs/one", "./one", "..", ".", "/", "", "../a root/runs/one", "one/"])
def test_delete_takes_a_name_and_no_path(said: Said, root: Path, name: str) -> None:
    write_text(root / "experiment.yaml", "name: x\n")
    before = everything(root)
    for flags in (["--all"], ["--checkpoints"], []):
        code, out, err = said("delete", name, *flags, "--yes")
        assert (code, out) == (78, "")
        assert len(err.splitlines()) == 1
    assert everything(root) == before


def test_delete_follows_no_link_out_of_the_root(said: Said, root: Path, tmp_path: Path) -> None:
    outside = tmp_path / "precious"
    (root / "runs" / "one").rename(outside)
    (root / "runs" / "one").symlink_to(outside)
    (root / "runs" / "two" / "checkpoints").rename(tmp_path / "weights")
    (root / "runs" / "two" / "checkpoints").symlink_to(tmp_path / "weights")
    launch(root, "one")
    before = everything(tmp_path)
    for words in (["one", "--all"], ["one", "--checkpoints"], ["two", "--checkpoints"]):
        code, _, err = said("delete", *words, "--yes")
        assert code == 78
        assert "outside this root; remove that by hand" in err
    assert everything(tmp_path) == before
    # A link inside what goes is removed, and what it leads to stays.
    assert said("delete", "two", "--all", "--yes")[0] == 0
    assert (tmp_path / "weights" / "step_00000001" / "data").is_file()


def test_delete_of_a_run_below_a_root_that_is_itself_a_link_is_no_way_out(
    said: Said, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "link").symlink_to(root)
    monkeypatch.setenv("TRAINWRIGHT_ROOT", str(tmp_path / "link"))
    assert said("delete", "one", "--all", "--yes")[0] == 0
    assert not (root / "runs" / "one").exists()


def test_delete_wants_one_thing_at_a_time(said: Said, root: Path) -> None:
    del root
    assert said("delete", "one", "--all", "--checkpoints")[0] == 78
    assert said("delete", "--all")[0] == 78
