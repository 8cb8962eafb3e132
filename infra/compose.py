"""The image on this machine, through docker or podman compose: one service, nothing writable but volume and scratch."""

import os
from pathlib import Path
from typing import Any

from infra.engine import Engine
from infra.job import IMAGE_ROOT, SCRATCH, Job
from infra.launches import Launch, State
from infra.yaml_text import yaml_text
from trainwright.spec.exits import MissingError, UserError
from trainwright.spec.paths import ROOT_VARIABLE

USER_VARIABLE = "TRAINWRIGHT_USER"
PREFIX = "trainwright-"
HEADER = """\
# Runs the experiment {name} in its image. Rendered; edit the experiment instead.
# By hand: TRAINWRIGHT_ROOT=/my/volume TRAINWRIGHT_USER=$(id -u):0 docker compose -f {file} up
"""
GRACE = "10m"
"""After SIGTERM; boot exits as soon as it has saved."""
RESTARTS = 3
"""The engine cannot tell exit codes apart, so it tries a few times; boot's own budgets are in the run folder."""


def file_name(name: str) -> str:
    """Return the name of a run's compose file."""
    return f"{name}.compose.yaml"


def text(job: Job) -> str:
    """Return the compose file of a job; values of secrets come from the environment of whoever starts it."""
    experiment = f"/experiment/{job.experiment_file}"
    service: dict[str, Any] = {
        "image": _literal(job.needed_image()),
        "container_name": f"{PREFIX}{job.name}",
        "command": [_literal(word) for word in job.boot_arguments(experiment)],
        "user": f"${{{USER_VARIABLE}:-10001:0}}",
        "environment": {
            **{name: _literal(value) for name, value in job.environ},
            **{name: f"${{{name}:?is a secret of this experiment}}" for name in job.secrets},
        },
        "volumes": [
            {"type": "bind", "source": f"${{{ROOT_VARIABLE}:-./workspace}}", "target": IMAGE_ROOT},
            {"type": "bind", "source": f"./{job.experiment_file}", "target": experiment, "read_only": True},
        ],
        "read_only": True,
        "tmpfs": [SCRATCH],
        "cap_drop": ["ALL"],
        "security_opt": ["no-new-privileges:true"],
        "stop_grace_period": GRACE,
        "restart": f"on-failure:{RESTARTS}",
        **_resources(job),
    }
    document = {"name": f"{PREFIX}{job.name}", "services": {"run": service}}
    return HEADER.format(name=job.name, file=file_name(job.name)) + yaml_text(document)


def _resources(job: Job) -> dict[str, Any]:
    asked = job.resources
    found: dict[str, Any] = {}
    if asked.needed_shm_gib:
        found["shm_size"] = f"{int(asked.needed_shm_gib * 1024)}m"
    if asked.cpus_per_node:
        found["cpus"] = asked.cpus_per_node
    if asked.memory_gib:
        found["mem_limit"] = f"{int(asked.memory_gib * 1024)}m"
    if asked.num_gpus_per_node and asked.device == "cuda":
        gpus = {"driver": "nvidia", "count": asked.num_gpus_per_node, "capabilities": ["gpu"]}
        found["deploy"] = {"resources": {"reservations": {"devices": [gpus]}}}
    return found


def _literal(value: str) -> str:
    """Return text that compose takes as it is: it reads a dollar sign as the start of a variable."""
    return value.replace("$", "$$")


def owns(launch: Launch) -> bool:
    """Return whether a launch is a container."""
    return launch.id.startswith(PREFIX)


def up(job: Job, folder: Path, engine: Engine) -> str:
    """Start the container, detached; return its name."""
    words = (*_compose(engine), "-f", str(folder / file_name(job.name)), "up", "--detach")
    answer = engine.given(_environment()).ask(*words)
    if answer.code != 0:
        said = (answer.err or answer.out).strip().splitlines() or ["it said nothing"]
        raise MissingError(f"{words[0]} could not start {PREFIX}{job.name}: {said[-1]}")
    return f"{PREFIX}{job.name}"


def _environment() -> dict[str, str]:
    """Return what the compose file asks of its environment besides root and secrets: a user who may write the root."""
    # Rootless podman maps users; without this its container could not write what belongs to whoever starts it.
    mapped = {"PODMAN_USERNS": "keep-id"} if os.getuid() != 0 else {}
    return {USER_VARIABLE: f"{os.getuid()}:0", **mapped}


def state(launch: Launch, engine: Engine) -> State:
    """Return what the engine says of the container."""
    answer = engine.ask(_program(engine), "inspect", "--format", "{{.State.Status}} {{.State.ExitCode}}", launch.id)
    word, _, code = answer.out.strip().partition(" ")
    if answer.code != 0 or not word:
        return State("removed", live=False)
    live = word in ("running", "restarting", "paused")
    return State(word if live else f"{word} ({code})", live)


def logs(launch: Launch, engine: Engine, *, follow: bool) -> int:
    """Print the container's log."""
    return engine.show(_program(engine), "logs", *(["--follow"] if follow else []), launch.id)


def down(launch: Launch, engine: Engine) -> None:
    """Remove the container, asking it to save first when it runs."""
    program = _program(engine)
    for words in (("stop", launch.id), ("rm", launch.id)):
        answer = engine.ask(program, *words)
        if answer.code != 0 and "no such" not in answer.err.lower():
            raise UserError(f"{program} {words[0]} {launch.id}: {answer.err.strip().splitlines()[-1]}")


def _compose(engine: Engine) -> tuple[str, ...]:
    if engine.has("docker") and engine.ask("docker", "compose", "version").code == 0:
        return ("docker", "compose")
    for program in ("podman-compose", "docker-compose"):
        if engine.has(program):
            return (program,)
    way = "install one, or set targets.local.container=false"
    raise MissingError(f"docker compose, podman-compose: neither is on this machine; {way}")


def _program(engine: Engine) -> str:
    for program in ("docker", "podman"):
        if engine.has(program):
            return program
    raise MissingError("docker, podman: neither is on this machine")
