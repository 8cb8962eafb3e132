"""This machine: a script that boots the experiment beside it, or a compose file that does so in the image."""

import os
import signal
import time
from pathlib import Path

from infra import compose
from infra.engine import Engine
from infra.job import Job, Rendered
from infra.launches import Launch, State
from infra.shell import command_line
from trainwright.spec.exits import UserError
from trainwright.store.files import set_aside

LOG = "boot.log"
"""What a detached script prints, beside the script."""
EXEC_S = 0.2


def render(job: Job) -> tuple[Rendered, ...]:
    """Return the script or the compose file, and the experiment."""
    experiment = Rendered(job.experiment_file, job.experiment_text)
    if not job.targets.local.container:
        return (Rendered(f"{job.name}.sh", _script(job)), experiment)
    if job.resources.nodes > 1:
        many = "a compose file is one machine; start the image on each by hand, or use another target"
        raise UserError(f"resources.nodes={job.resources.nodes}: {many}")
    return (Rendered(compose.file_name(job.name), compose.text(job)), experiment)


def _script(job: Job) -> str:
    nodes = job.resources.nodes
    note = [f"# {nodes} machines: run this on each, adding --node-rank R --master HOST:PORT."] if nodes > 1 else []
    first, *rest = job.boot_arguments(job.experiment_file)
    lines = [
        "#!/usr/bin/env bash",
        f"# Runs the experiment {job.name} on this machine. Rendered; edit the experiment instead.",
        *note,
        "set -euo pipefail",
        'here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)',
        *(f"export {name}={command_line([value])}" for name, value in job.environ),
        f'exec trainwright {first} "$here"/{command_line(rest)} "$@"',
    ]
    return "\n".join(lines) + "\n"


def image_of(job: Job) -> str | None:
    """Return the image, when it is used."""
    return job.needed_image() if job.targets.local.container else None


def send(job: Job, folder: Path, engine: Engine) -> str:
    """Start the script as a process of its own, or the container; neither ends with the terminal."""
    if job.targets.local.container:
        return compose.up(job, folder, engine)
    if (folder / LOG).exists():
        set_aside(folder / LOG)  # it may hold the reason of a failure
    return str(engine.detach(folder / LOG, "bash", str(folder / f"{job.name}.sh")))


def state(launch: Launch, engine: Engine) -> State:
    """Return whether the process or container is there."""
    if compose.owns(launch):
        return compose.state(launch, engine)
    live = _is_alive(launch)
    return State("running" if live else "not running", live)


def _is_alive(launch: Launch) -> bool:
    """Return whether the process that was started still runs what lies in the launch's folder, not a later namesake."""
    try:
        words = _command_line(int(launch.id))
    except (OSError, ValueError):
        return False
    # The shell may have spelt the folder otherwise: without its `..`, say.
    folder = launch.path.resolve()
    return any(Path(os.fsdecode(word)).resolve().parent == folder for word in words if word.startswith(b"/"))


def _command_line(pid: int) -> list[bytes]:
    """Return the words of a process; the kernel shows none for the moment in which it becomes another program."""
    deadline = time.monotonic() + EXEC_S
    while not (words := Path(f"/proc/{pid}/cmdline").read_bytes()) and time.monotonic() < deadline:
        time.sleep(EXEC_S / 40)
    return words.split(b"\0")


def logs(launch: Launch, engine: Engine, *, follow: bool) -> int:
    """Print what boot said; with `follow`, until it ends."""
    if compose.owns(launch):
        return compose.logs(launch, engine, follow=follow)
    log = launch.path / LOG
    if not log.is_file():
        raise UserError(f"{log}: no log there; was the run launched from here?")
    until = (f"--pid={launch.id}", "--follow=name") if follow and _is_alive(launch) else ()
    return engine.show("tail", "--lines=+1", *until, str(log))


def remove(launch: Launch, engine: Engine) -> None:
    """Remove the container; a process leaves nothing behind."""
    if compose.owns(launch):
        compose.down(launch, engine)
    elif _is_alive(launch):
        os.kill(int(launch.id), signal.SIGTERM)
