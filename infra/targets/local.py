"""This machine: a shell script that boots the experiment beside it."""

from pathlib import Path

from infra.job import Job, Rendered
from infra.shell import command_line


def render(job: Job) -> tuple[Rendered, ...]:
    """Return the script and the experiment; touches nothing."""
    if job.nodes > 1:
        note = [f"# {job.nodes} machines: run this on each, adding --node-rank R --master HOST:PORT."]
    else:
        note = []
    first, *rest = job.boot_arguments(job.experiment_file)
    lines = [
        "#!/usr/bin/env bash",
        f"# Runs the experiment {job.name} on this machine. Rendered; edit the experiment instead.",
        *note,
        "set -euo pipefail",
        'here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)',
        f'exec trainwright {first} "$here"/{command_line(rest)} "$@"',
    ]
    return (Rendered(f"{job.name}.sh", "\n".join(lines) + "\n"), Rendered(job.experiment_file, job.experiment_text))


def start(folder: Path, job: Job) -> list[str]:
    """Return the command that runs the rendered script."""
    return ["bash", str(folder / f"{job.name}.sh")]
