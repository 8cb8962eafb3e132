from collections.abc import Callable
from dataclasses import replace
import json
import os
from pathlib import Path
import subprocess
import sys

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
import pytest

from infra.job import Job
from infra.targets import TARGETS
from infra.targets.local import render, start

GOLDEN = Path(__file__).with_name("golden")
TEXT = "name: small   # as its author wrote it\n"
JOB = Job(
    name="small",
    experiment_text=TEXT,
    overrides=("train.steps=20", "data.path=/data/it's here"),
    flags=("--continue",),
    nodes=1,
    ranks_per_node=2,
)
HARD = ["a b", "it's", 'say "x"', "$(touch x)", "`x`", "$HOME", "*", "~", "\\", "a;b", "a\nb", "# x", "", "!!", "é"]


def script(job: Job) -> str:
    return {file.path: file.text for file in render(job)}["small.sh"]


def test_the_script_is_the_recorded_one_to_the_last_byte(golden: Callable[[Path, str], None]) -> None:
    golden(GOLDEN / "local.sh", script(JOB))


def test_the_experiment_travels_as_its_author_wrote_it() -> None:
    assert {file.path: file.text for file in render(JOB)}["small.yaml"] == TEXT


def test_the_same_job_gives_the_same_bytes() -> None:
    assert render(JOB) == render(replace(JOB))


def test_several_machines_are_told_what_to_add() -> None:
    assert "--node-rank" in script(replace(JOB, nodes=4))
    assert "--node-rank" not in script(JOB)


def test_starting_is_running_the_script(tmp_path: Path) -> None:
    assert start(tmp_path, JOB) == ["bash", str(tmp_path / "small.sh")]


def test_the_table_holds_this_target() -> None:
    assert (TARGETS["local"].render, TARGETS["local"].start) == (render, start)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a folder with a `trainwright` that prints its arguments."""
    fake = tmp_path / "bin" / "trainwright"
    fake.parent.mkdir()
    fake.write_text(f"#!{sys.executable} -IS\nimport json, sys\nprint(json.dumps(sys.argv[1:]))\n")
    fake.chmod(0o755)
    return tmp_path


def arguments(folder: Path, job: Job, *more: str) -> list[str]:
    """Run the rendered script of a job, somewhere else than where it lies; return what trainwright gets."""
    place = folder / "a folder"
    place.mkdir(exist_ok=True)
    for file in render(job):
        (place / file.path).write_text(file.text)
    environ = {**os.environ, "PATH": f"{folder / 'bin'}:{os.environ['PATH']}"}
    command = [*start(place, job), *more]
    done = subprocess.run(command, cwd="/", env=environ, capture_output=True, text=True, check=True, timeout=30)
    found: list[str] = json.loads(done.stdout)
    return found


def test_the_script_boots_the_experiment_beside_it_with_every_override_as_it_is(folder: Path) -> None:
    overrides = tuple(f"data.path={word}" for word in HARD)
    found = arguments(folder, replace(JOB, overrides=overrides), "--node-rank", "1")
    experiment = str(folder / "a folder" / "small.yaml")
    assert found == ["boot", experiment, *overrides, "--continue", "--node-rank", "1"]


@settings(max_examples=10, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.text(st.characters(exclude_characters="\0\r", exclude_categories=["Cs"])), max_size=4))
def test_any_override_survives_the_shell(folder: Path, values: list[str]) -> None:
    overrides = tuple(f"a.b={value}" for value in values)
    assert arguments(folder, replace(JOB, overrides=overrides))[2:] == [*overrides, "--continue"]


@pytest.mark.parametrize("nodes", [1, 4])
@pytest.mark.parametrize("overrides", [(), tuple(f"data.path={word}" for word in HARD)])
def test_bash_and_shellcheck_accept_the_script(tmp_path: Path, nodes: int, overrides: tuple[str, ...]) -> None:
    path = tmp_path / "small.sh"
    path.write_text(script(replace(JOB, nodes=nodes, overrides=overrides, flags=())))
    shellcheck = Path(sys.executable).with_name("shellcheck")
    # Below a warning are remarks that words in single quotes do not expand, which is what they are there for.
    for command in (["bash", "-n", str(path)], [str(shellcheck), "--severity=warning", str(path)]):
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
        assert done.returncode == 0, done.stdout + done.stderr
