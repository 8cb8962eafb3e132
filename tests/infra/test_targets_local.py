from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
import json
import os
from pathlib import Path
import signal
import subprocess
import sys

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
import pytest

from infra.engine import Engine
from infra.job import Job
from infra.launches import Launch, State
from infra.targets import TARGETS, local
from infra.targets.local import image_of, logs, remove, render, send, state
from recorder import IMAGE, IN_CONTAINER, Recorder, a_job
from trainwright.spec.exits import UserError
from trainwright.spec.experiment import Resources

GOLDEN = Path(__file__).with_name("golden")
JOB = a_job()
HARD = ["a b", "it's", 'say "x"', "$(touch x)", "`x`", "$HOME", "*", "~", "\\", "a;b", "a\nb", "# x", "", "!!", "é"]


def script(job: Job) -> str:
    return {file.path: file.text for file in render(job)}["small.sh"]


def test_the_script_is_the_recorded_one_to_the_last_byte(golden: Callable[[Path, str], None]) -> None:
    golden(GOLDEN / "local.sh", script(JOB))


def test_in_a_container_it_is_a_compose_file() -> None:
    assert [file.path for file in render(a_job(targets=IN_CONTAINER))] == ["small.compose.yaml", "small.yaml"]


def test_the_experiment_travels_as_its_author_wrote_it() -> None:
    assert {file.path: file.text for file in render(JOB)}["small.yaml"] == JOB.experiment_text


def test_the_same_job_gives_the_same_bytes() -> None:
    assert render(JOB) == render(replace(JOB))


def test_several_machines_are_told_what_to_add() -> None:
    assert "--node-rank" in script(a_job(resources=Resources(nodes=4)))
    assert "--node-rank" not in script(JOB)
    with pytest.raises(UserError, match=r"^resources.nodes=4: a compose file is one machine"):
        render(a_job(targets=IN_CONTAINER, resources=Resources(nodes=4)))


def test_an_image_is_needed_only_in_a_container() -> None:
    assert image_of(JOB) is None
    assert image_of(a_job(targets=IN_CONTAINER)) == IMAGE
    with pytest.raises(UserError, match=r"^image: "):
        image_of(a_job(targets=IN_CONTAINER, image=None))


def test_the_table_holds_this_target() -> None:
    assert TARGETS["local"] is local


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
    command = ["bash", str(place / "small.sh"), *more]
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
    path.write_text(script(a_job(resources=Resources(nodes=nodes), overrides=overrides, flags=())))
    shellcheck = Path(sys.executable).with_name("shellcheck")
    # Below a warning are remarks that words in single quotes do not expand, which is what they are there for.
    for command in (["bash", "-n", str(path)], [str(shellcheck), "--severity=warning", str(path)]):
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
        assert done.returncode == 0, done.stdout + done.stderr


FOLLOW = """
import sys
from infra.engine import Engine
from infra.launches import Launch
from infra.targets.local import logs
sys.exit(logs(Launch("small", "local", sys.argv[1], sys.argv[2], 0.0), Engine(), follow=True))
"""


# --- a launch of something that takes its time -----------------------------------------------------------------------


@pytest.fixture
def running(folder: Path) -> Iterator[Launch]:
    """Return the launch of a job whose `trainwright` speaks, waits for a line of its own, and speaks again."""
    os.mkfifo(folder / "go on")
    fake = folder / "bin" / "trainwright"
    program = (
        f"import sys; print('first', sys.argv[2], flush=True); open({str(folder / 'go on')!r}).read(); print('last')"
    )
    fake.write_text(f"#!{sys.executable} -IS\n{program}\n")
    place = folder / "x" / ".." / "launch" / "small"
    (folder / "x").mkdir()
    place.mkdir(parents=True)
    for file in render(JOB):
        (place / file.path).write_text(file.text)
    engine = Engine({"PATH": f"{folder / 'bin'}:{os.environ['PATH']}"})
    launch = Launch("small", "local", send(JOB, place, engine), str(place), 0.0)
    try:
        yield launch
    finally:
        if state(launch, engine).live:
            os.kill(int(launch.id), signal.SIGKILL)
        if ended(launch) is None:
            os.waitpid(int(launch.id), 0)


def ended(launch: Launch) -> int | None:
    """Reap the process of a launch if it has ended; return its status, 0 when that is no child any more."""
    try:
        pid, status = os.waitpid(int(launch.id), os.WNOHANG)
    except ChildProcessError:
        return 0
    return status if pid else None


def test_a_launch_is_live_until_its_process_ends_however_its_folder_is_spelt(running: Launch, folder: Path) -> None:
    assert state(running, Engine()) == State("running", live=True)
    (folder / "go on").write_text("x")
    os.waitpid(int(running.id), 0)
    assert state(running, Engine()) == State("not running", live=False)


def test_a_process_that_took_over_the_number_is_not_the_launch(running: Launch, tmp_path: Path) -> None:
    for other in (tmp_path / "launch" / "smal", tmp_path / "launch", tmp_path):
        assert not state(replace(running, folder=str(other)), Engine()).live
    for number in ("0", "999999999", "self/../1", "x", ""):
        assert not state(replace(running, id=number), Engine()).live


def test_following_ends_when_the_run_ends(running: Launch, folder: Path) -> None:
    command = [sys.executable, "-c", FOLLOW, running.id, running.folder]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as follower:
        assert follower.stdout is not None
        assert follower.stdout.readline().startswith("first ")
        (folder / "go on").write_text("x")
        os.waitpid(int(running.id), 0)
        assert follower.stdout.read() == "last\n"
        assert follower.wait(timeout=20) == 0


def test_a_follower_that_is_interrupted_leaves_the_run_alone(running: Launch) -> None:
    command = [sys.executable, "-m", "infra", "logs", "small", "-f"]
    (running.path / "launch.json").write_text(json.dumps(asdict(running)))
    environ = {**os.environ, "TRAINWRIGHT_ROOT": str(running.path.parents[1])}
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environ, start_new_session=True
    ) as follower:
        assert follower.stdout is not None
        assert follower.stderr is not None
        assert follower.stdout.readline().startswith("first ")
        os.killpg(follower.pid, signal.SIGINT)  # as a terminal does
        assert follower.wait(timeout=20) == 0
        assert follower.stderr.read() == ""
    assert state(running, Engine()).live


def test_removing_a_process_that_lives_asks_it_to_save(running: Launch) -> None:
    remove(running, Engine())
    assert os.WTERMSIG(os.waitpid(int(running.id), 0)[1]) == signal.SIGTERM
    remove(running, Engine())


def test_an_earlier_log_is_kept_aside(running: Launch, folder: Path) -> None:
    (folder / "go on").write_text("x")
    os.waitpid(int(running.id), 0)
    recorder = Recorder()
    assert send(JOB, running.path, recorder) == "4242"
    assert recorder.commands == [f"bash {running.path / 'small.sh'}"]
    assert (running.path / "boot.log.old-1").read_text().endswith("last\n")
    with pytest.raises(UserError, match=r"boot.log: no log there"):
        logs(running, Engine(), follow=False)
