from collections.abc import Callable
from pathlib import Path
import re
import subprocess
import sys
from typing import Any

from hypothesis import example, given, settings
from hypothesis import strategies as st
import pytest
import yaml

from infra import compose
from infra.engine import Answer
from infra.job import Job
from infra.launches import Launch, State
from recorder import IMAGE, IN_CONTAINER, Recorder, a_job
from trainwright.spec.exits import MissingError, UserError
from trainwright.spec.experiment import Resources

GOLDEN = Path(__file__).with_name("golden")
JOB = a_job(targets=IN_CONTAINER)
HARD = [
    "a b",
    "it's",
    'say "x"',
    "$(touch x)",
    "`x`",
    "$HOME",
    "${HOME:-x}",
    "$$",
    "$",
    "\\",
    "a\nb",
    "# x",
    "no",
    "1e3",
    "é",
]
LAUNCH = Launch("small", "local", "trainwright-small", "/root/launch/small", 0.0)
INSPECT = "inspect --type container --format '{{.State.Status}} {{.State.ExitCode}}' trainwright-small"


def service(job: Job) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(compose.text(job))["services"]["run"]
    return found


def interpolated(text: str, environ: dict[str, str]) -> str:
    """Return text as the compose specification reads it: $$, ${NAME}, ${NAME:-default}; anything else is an error."""

    def value(match: re.Match[str]) -> str:
        if match[0] == "$$":
            return "$"
        assert match[1], f"not for compose: {text!r}"
        return environ.get(match[1]) or match[2] or ""

    return re.sub(r"\$\$|\$\{(\w+)(?::-([^}]*))?\}|\$", value, text)


def test_the_compose_file_is_the_recorded_one_to_the_last_byte(golden: Callable[[Path, str], None]) -> None:
    golden(GOLDEN / "local.compose.yaml", compose.text(JOB))


def test_a_gpu_job_asks_for_what_its_experiment_asks(golden: Callable[[Path, str], None]) -> None:
    asked = Resources(ranks_per_node=4, cpus_per_node=32, memory_gib=240.5, shm_gib=16)
    golden(GOLDEN / "local-gpu.compose.yaml", compose.text(a_job(targets=IN_CONTAINER, resources=asked, secrets=())))


def test_a_cpu_job_asks_for_no_gpu_and_no_shared_memory() -> None:
    found = service(a_job(targets=IN_CONTAINER, resources=Resources(device="cpu")))
    assert not {"deploy", "shm_size", "cpus", "mem_limit"} & set(found)


def test_nothing_but_the_volume_and_the_scratch_folder_can_be_written() -> None:
    found = service(JOB)
    assert found["read_only"] is True
    assert found["tmpfs"] == ["/tmp"]
    assert [mount["target"] for mount in found["volumes"] if not mount.get("read_only")] == ["/workspace"]
    assert (found["cap_drop"], found["security_opt"]) == (["ALL"], ["no-new-privileges:true"])


def test_secrets_stand_in_the_file_by_name_alone() -> None:
    environment = service(JOB)["environment"]
    assert [name for name, value in environment.items() if value is None] == ["HF_TOKEN", "WANDB_API_KEY"]


@given(st.lists(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"])) | st.sampled_from(HARD)))
@example(HARD)
def test_any_override_arrives_through_yaml_and_interpolation(values: list[str]) -> None:
    overrides = tuple(f"a.b={value}" for value in values)
    command = service(a_job(targets=IN_CONTAINER, overrides=overrides))["command"]
    assert [interpolated(word, {}) for word in command] == ["boot", "/experiment/small.yaml", *overrides, "--continue"]


@given(st.lists(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"])) | st.sampled_from(HARD)))
@settings(max_examples=10)
def test_any_override_arrives_through_the_code_of_podman_compose(values: list[str]) -> None:
    from podman_compose import rec_subs

    overrides = [f"a.b={value}" for value in values]
    document = yaml.safe_load(compose.text(a_job(targets=IN_CONTAINER, overrides=tuple(overrides))))
    command = rec_subs(document, {"HOME": "/wrong"})["services"]["run"]["command"]
    assert command == ["boot", "/experiment/small.yaml", *overrides, "--continue"]


def test_podman_compose_reads_the_file_as_it_is_meant(tmp_path: Path) -> None:
    root, overrides = "/a root/it's", tuple(f"data.path={value}" for value in HARD)
    (tmp_path / "small.compose.yaml").write_text(compose.text(a_job(targets=IN_CONTAINER, overrides=overrides)))
    command = [sys.executable, "-m", "podman_compose", "-f", "small.compose.yaml", "config"]
    environ = {"PATH": "/usr/bin:/bin", "TRAINWRIGHT_ROOT": root, "HOME": "/wrong"}
    done = subprocess.run(command, cwd=tmp_path, env=environ, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    found = yaml.safe_load(done.stdout)["services"]["run"]
    assert found["command"] == ["boot", "/experiment/small.yaml", *overrides, "--continue"]
    assert found["volumes"][0]["source"] == root
    assert found["user"] == "10001:0"
    assert found["environment"]["RUN_SHARD"] == "1"
    assert found["image"] == IMAGE


# --- the container ---------------------------------------------------------------------------------------------------


def docker(*inspected: Answer) -> Recorder:
    """Return a machine with docker compose, whose containers are found in these states one after the other."""
    states = iter(inspected)
    return Recorder(
        programs=("docker", "podman", "podman-compose"),
        answers=lambda command: next(states) if " inspect " in command else Answer(0, "", ""),
    )


GONE = Answer(1, "\n", "Error: No such container: trainwright-small\n")


def test_launching_starts_the_rendered_file_detached_as_this_user() -> None:
    engine = docker(GONE)
    assert compose.up(JOB, Path("/r/launch/small"), engine.given({"HF_TOKEN": "x"})) == "trainwright-small"
    assert engine.commands[-1] == "docker compose -f /r/launch/small/small.compose.yaml up --detach"
    environ = engine.said[-1][1]
    assert re.fullmatch(r"\d+:0", environ["TRAINWRIGHT_USER"])
    assert environ["HF_TOKEN"] == "x"


def test_a_container_of_this_name_from_another_root_is_not_replaced() -> None:
    engine = docker(Answer(0, "running 0\n", ""))
    with pytest.raises(UserError, match=r"^trainwright-small: a container of this name is running"):
        compose.up(JOB, Path("/r/launch/small"), engine)
    assert not [command for command in engine.commands if " up " in command]


def test_why_it_could_not_be_started_is_told() -> None:
    engine = Recorder(
        programs=("podman-compose",),
        answers=lambda command: GONE if "inspect" in command else Answer(125, "", "a\nError: no such image\n"),
    )
    with pytest.raises(MissingError, match=r"^podman-compose could not start trainwright-small: Error: no such image$"):
        compose.up(a_job(targets=IN_CONTAINER, secrets=()), Path("/r"), engine)


def test_values_of_secrets_are_not_given_to_a_program_that_shows_them_to_everybody() -> None:
    engine = Recorder(programs=("podman", "podman-compose"))
    with pytest.raises(MissingError, match=r"^podman-compose: shows values of secrets .*; use docker compose"):
        compose.up(JOB, Path("/r"), engine)
    assert not engine.said


def test_a_machine_without_either_says_so() -> None:
    for programs in ((), ("podman",)):
        with pytest.raises(MissingError, match="docker compose, podman-compose: neither is on this machine"):
            compose.up(JOB, Path("/r"), Recorder(programs=programs))


def test_docker_without_compose_leaves_the_container_to_podman() -> None:
    def answers(command: str) -> Answer:
        return Answer(1, "", "unknown command") if command.startswith("docker") else Answer(0, "running 0\n", "")

    engine = Recorder(programs=("docker", "podman", "podman-compose"), answers=answers)
    assert compose.state(LAUNCH, engine) == State("running", live=True)
    assert compose.logs(LAUNCH, engine, follow=True) == 0
    assert f"podman {INSPECT}" in engine.commands
    assert engine.commands[-1] == "podman logs --follow trainwright-small"


@pytest.mark.parametrize(
    ("answer", "state"),
    [
        (Answer(0, "running 0\n", ""), State("running", live=True)),
        (Answer(0, "restarting 75\n", ""), State("restarting", live=True)),
        (Answer(0, "stopping 0\n", ""), State("stopping", live=True)),
        (Answer(0, "exited 78\n", ""), State("exited (78)", live=False)),
        (Answer(0, "created 0\n", ""), State("created (0)", live=False)),
        (GONE, State("removed", live=False)),
        (Answer(125, "", "Error: inspecting object: no such container x\n"), State("removed", live=False)),
    ],
)
def test_the_state_is_what_the_engine_says(answer: Answer, state: State) -> None:
    assert compose.state(LAUNCH, docker(answer)) == state


def test_an_engine_that_does_not_answer_is_no_container_that_is_gone() -> None:
    down = Answer(1, "", "Cannot connect to the Docker daemon. Is it running?\n")
    with pytest.raises(MissingError, match="does not tell how trainwright-small is doing: Cannot connect"):
        compose.state(LAUNCH, docker(down))


def test_removing_takes_all_that_compose_made() -> None:
    engine = docker()
    compose.down(LAUNCH, engine)
    assert engine.commands[-1] == "docker compose -f /root/launch/small/small.compose.yaml down"


def test_only_a_container_is_a_container() -> None:
    assert compose.owns(LAUNCH)
    assert not compose.owns(Launch("small", "local", "4242", "/root/launch/small", 0.0))


def test_the_engine_starts_a_failed_run_again_but_repeats_no_wish() -> None:
    def restart(*flags: str) -> str:
        document = yaml.safe_load(compose.text(a_job(flags=flags)))
        return str(document["services"]["run"]["restart"])

    assert restart() == "on-failure:3"
    assert restart("--fresh") == "no"
