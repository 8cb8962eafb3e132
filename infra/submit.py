"""Sends a job: writes exactly what `render` shows, then starts it."""

from collections.abc import Sequence
from pathlib import Path

from infra.engine import Engine
from infra.job import Job, Rendered, movable_image
from infra.launches import Launch, find_launch, launch_folder, record
from infra.targets import ENDS, TARGETS, target_of
from trainwright.spec.exits import UserError
from trainwright.store.files import write_text


def write_rendered(files: Sequence[Rendered], folder: Path) -> None:
    """Write rendered files into a folder."""
    for file in files:
        write_text(folder / file.path, file.text)


def stale(files: Sequence[Rendered], folder: Path) -> list[str]:
    """Return the rendered files that a folder does not hold as they would be rendered now."""
    found = [(file, folder / file.path) for file in files]
    return [file.path for file, path in found if not path.is_file() or path.read_bytes() != file.text.encode()]


def submit(target_name: str, job: Job, root: Path, engine: Engine) -> Launch:
    """Render a job into its folder below the root, start it, and write down what was started.

    Refuses an image that may change under its name, and a run whose last launch still runs.
    """
    target = TARGETS[target_name]
    files = target.render(job)
    if problem := movable_image(target.image_of(job)):
        raise UserError(problem)
    _refuse_second(root, job.name, engine)
    folder = launch_folder(root, job.name)
    write_rendered(files, folder)
    return record(job.name, target_name, target.send(job, folder, engine), folder, _run_folder(target_name, job, root))


def _run_folder(target_name: str, job: Job, root: Path) -> str:
    """Return where this machine sees the run folder; empty where only the target does."""
    inside = target_name == "local" and job.targets.local.container and job.runs is not None
    runs = root / "runs" if job.runs is None else Path(job.runs)
    return "" if target_name in ENDS or inside else str(runs / job.name)


def _refuse_second(root: Path, name: str, engine: Engine) -> None:
    before = find_launch(root, name)
    if before is not None and (state := target_of(before).state(before, engine)).live:
        there = f"is {state.word} on target {before.target} ({before.id})"
        raise UserError(f"{name}: {there}; follow it with `trainwright logs {name} -f`, or stop it first")
