"""The doctor says one line a check; with `--alive`, whether a run gives signs of life."""

from collections.abc import Callable
import json
import os
from pathlib import Path
import time

import pytest

from infra.boot.doctor import PREPARING_S, alive, checks, compiler, main
from trainwright.spec.exits import UserError
from trainwright.spec.load import validate
from trainwright.spec.paths import RunFolder
from trainwright.store.files import write_json


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TRAINWRIGHT_ROOT", str(tmp_path / "root"))
    return tmp_path / "root"


def test_a_machine_that_is_asked_for_nothing_is_good(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert all(line.startswith("good ") for line in lines)
    assert any(str(root) in line for line in lines)


def test_every_check_is_made_though_one_finds_something_wrong(
    root: Path, capsys: pytest.CaptureFixture[str], experiment_file: Callable[..., Path]
) -> None:
    del root
    path = experiment_file("resources: {device: cpu, shm_gib: 1e6}\n")
    assert main([str(path)]) == 69
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == ["good", "good", "WRONG", "good", "good"]
    assert "resources.shm_gib" in lines[2]


def test_the_first_word_of_each_line_is_a_check(experiment_file: Callable[..., Path]) -> None:
    del experiment_file
    experiment = validate({"name": "a", "train": {"steps": "1", "global_batch_sequences": "8"}}, "here")
    assert list(checks(experiment)) == ["user", "volume", "shared memory", "GPUs", "compiler"]


def test_a_compiler_is_needed_only_where_something_is_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    assert compiler(needed=False) == "none, and none needed"
    with pytest.raises(UserError, match="install one"):
        compiler(needed=True)


def held_run(root: Path, *, phase: str | None, age_s: float) -> RunFolder:
    run = RunFolder(root / "runs" / "small")
    (run.attempts / "0001").mkdir(parents=True)
    run.experiment.write_text("x")
    then = time.time() - age_s
    write_json(run.attempts / "0001" / "start.json", {"time": then})
    run.lease.write_text(json.dumps({}))
    os.utime(run.lease, (then, then))
    if phase is not None:
        write_json(run.heartbeat, {"time": then, "phase": phase})
    return run


def test_a_run_that_nobody_holds_gives_no_sign_of_life(tmp_path: Path) -> None:
    assert not alive(tmp_path).good
    held_run(tmp_path, phase="step", age_s=1).lease.unlink()
    assert not alive(tmp_path).good


def test_a_fresh_sign_is_good_and_an_old_one_is_not(tmp_path: Path) -> None:
    held_run(tmp_path / "fresh", phase=None, age_s=1)
    found = alive(tmp_path / "fresh")
    assert found.good
    assert "small, in preparation" in found.sentence
    held_run(tmp_path / "old", phase=None, age_s=PREPARING_S + 60)
    assert not alive(tmp_path / "old").good


def test_alive_is_an_exit_code(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--alive"]) == 1
    held_run(root, phase="step", age_s=1)
    assert main(["--alive"]) == 0
    assert "small, in step, 1 s ago" in capsys.readouterr().out
