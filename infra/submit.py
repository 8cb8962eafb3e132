"""Sends a job: writes exactly what `render` shows, then starts it."""

import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from infra.job import Job, Rendered
from infra.targets import Target
from trainwright.store.files import write_text

Run = Callable[[Sequence[str]], int]


def write_rendered(files: Sequence[Rendered], folder: Path) -> None:
    """Write rendered files into a folder."""
    for file in files:
        write_text(folder / file.path, file.text)


def stale(files: Sequence[Rendered], folder: Path) -> list[str]:
    """Return the rendered files that a folder does not hold as they would be rendered now."""
    found = [(file, folder / file.path) for file in files]
    return [file.path for file, path in found if not path.is_file() or path.read_text(encoding="utf-8") != file.text]


def submit(target: Target, job: Job, folder: Path, run: Run | None = None) -> int:
    """Render a job into a folder and start it; return the exit code of the engine's command."""
    write_rendered(target.render(job), folder)
    return (run or _run)(target.start(folder, job))


def _run(command: Sequence[str]) -> int:
    # The rendered script says `trainwright`; started from here that is this very installation.
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
    return subprocess.run(command, check=False, env={**os.environ, "PATH": path}).returncode
