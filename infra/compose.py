"""The image on this machine, through docker or podman compose: one service, nothing writable but volume and scratch."""

import os
from pathlib import Path
from typing import Any

from infra.engine import Answer, Engine
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
DOCKER = ("docker", "compose")
PODMAN = ("podman-compose",)
LIVE = ("running", "restarting", "paused", "stopping")


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
            # Without a value here, compose passes on the one in its own environment.
            **dict.fromkeys(job.secrets),
        },
        "volumes": [
            {"type": "bind", "source": f"${{{ROOT_VARIABLE}:-./workspace}}", "target": IMAGE_ROOT},
            {"type": "bind", "source": f"./{job.experiment_file}", "target": experiment, "read_only": True},
        ],
        # TensorBoard answers on 127.0.0.1 alone, which in a network of its own would be nobody's but the container's.
        "network_mode": "host",
        "read_only": True,
        "tmpfs": [SCRATCH],
        "cap_drop": ["ALL"],
        "security_opt": ["no-new-privileges:true"],
        "stop_grace_period": GRACE,
        # A wish such as --fresh is for the first start alone, and the engine would repeat it.
        "restart": "no" if job.flags else f"on-failure:{RESTARTS}",
        **_resources(job),
    }
    document = {"name": f"{PREFIX}{job.name}", "services": {"run": service}}
    note = f"# It takes the values of {', '.join(job.secrets)} from your environment.\n" if job.secrets else ""
    return HEADER.format(name=job.name, file=file_name(job.name)) + note + yaml_text(document)


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
    words, name = _compose(engine), f"{PREFIX}{job.name}"
    if job.secrets and words == PODMAN:
        leak = "shows values of secrets to everybody on this machine, in its list of processes"
        raise MissingError(f"{words[0]}: {leak}; use docker compose, or set targets.local.container=false")
    if (there := _state(name, engine)).live:
        raise UserError(f"{name}: a container of this name is {there.word}, launched from another root; stop it first")
    answer = engine.given(_environment()).ask(*words, "-f", str(folder / file_name(job.name)), "up", "--detach")
    if answer.code != 0:
        raise MissingError(f"{words[0]} could not start {name}: {_last_words(answer)}")
    return name


def _environment() -> dict[str, str]:
    """Return what the compose file asks of its environment besides root and secrets: a user who may write the root."""
    # Rootless podman maps users; without this its container could not write what belongs to whoever starts it.
    mapped = {"PODMAN_USERNS": "keep-id"} if os.getuid() != 0 else {}
    return {USER_VARIABLE: f"{os.getuid()}:0", **mapped}


def state(launch: Launch, engine: Engine) -> State:
    """Return what the engine says of the container."""
    return _state(launch.id, engine)


def _state(name: str, engine: Engine) -> State:
    program = _program(engine)
    words = ("inspect", "--type", "container", "--format", "{{.State.Status}} {{.State.ExitCode}}")
    answer = engine.ask(program, *words, name)
    word, _, code = answer.out.strip().partition(" ")
    if answer.code != 0 and "no such" not in answer.err.lower():
        raise MissingError(f"{program} does not tell how {name} is doing: {_last_words(answer)}")
    if answer.code != 0:
        return State("removed", live=False)
    return State(word, live=True) if word in LIVE else State(f"{word} ({code})", live=False)


def logs(launch: Launch, engine: Engine, *, follow: bool) -> int:
    """Print the container's log."""
    return engine.show(_program(engine), "logs", *(["--follow"] if follow else []), launch.id)


def down(launch: Launch, engine: Engine) -> None:
    """Remove the container and what compose made for it, asking it to save first when it runs."""
    words = _compose(engine)
    answer = engine.given(_environment()).ask(*words, "-f", str(launch.path / file_name(launch.name)), "down")
    if answer.code != 0:
        raise UserError(f"{words[0]} could not remove {launch.id}: {_last_words(answer)}")


def _last_words(answer: Answer) -> str:
    return ((answer.err or answer.out).strip().splitlines() or ["it said nothing"])[-1]


def _compose(engine: Engine) -> tuple[str, ...]:
    if engine.has("docker") and engine.ask("docker", "compose", "version").code == 0:
        return DOCKER
    for words in (PODMAN, ("docker-compose",)):
        if engine.has(words[0]):
            return words
    way = "install one, or set targets.local.container=false"
    raise MissingError(f"docker compose, podman-compose: neither is on this machine; {way}")


def _program(engine: Engine) -> str:
    """Return the program that knows the containers of `_compose`."""
    return "podman" if _compose(engine) == PODMAN else "docker"
