"""Runs as a laptop sees them: their folders below the root, what was launched, and how they are doing."""

import json
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from infra.engine import Engine
from infra.launches import Launch, State, find_launch, launched
from infra.targets import target_of
from trainwright.spec.exits import Exit, UserError
from trainwright.spec.paths import RunFolder
from trainwright.store.files import read_json
from trainwright.store.lease import is_live

FRESH_S = 60.0
"""A heartbeat that is younger belongs to a run that lives."""
TAIL_BYTES = 1 << 16
LOST = "lost"
"""An attempt that does not run and left no end record: boot was killed, or its machine is gone."""


@dataclass(frozen=True, slots=True)
class Status:
    """One line of `ps`."""

    name: str
    target: str
    state: str
    step: int | None
    steps: int | None
    loss: float | None
    age_s: float | None
    """Seconds since the last sign of life."""


def find_run(name: str, root: Path) -> RunFolder:
    """Return the run folder for a path, or for a run's name below the root."""
    if (Path(name) / "experiment.yaml").is_file():
        return RunFolder(Path(name).absolute())
    return named_run(name, root)


def named_run(name: str, root: Path) -> RunFolder:
    """Return the run folder for a run's name below the root."""
    path = root / "runs" / name
    if (path / "experiment.yaml").is_file():
        return RunFolder(path)
    runs = sorted(path.parent.name for path in (root / "runs").glob("*/experiment.yaml"))
    ways = f"; runs here: {', '.join(runs)}" if runs else ""
    raise UserError(f"{name}: no such run below {root / 'runs'}{ways}")


def statuses(root: Path, engine: Engine) -> list[Status]:
    """Return every run below the root and every launch from here, by name."""
    folders = {path.parent.name: RunFolder(path.parent) for path in (root / "runs").glob("*/experiment.yaml")}
    return [status(name, folders.get(name), root, engine) for name in sorted({*launched(root), *folders})]


def status(name: str, run: RunFolder | None, root: Path, engine: Engine) -> Status:
    """Return how a run is doing: what its folder says where it can be seen, else what its engine says."""
    target, said, problem = _ask_engine(name, root, engine)
    beat, end = (_read(run.heartbeat), _last_end(run)) if run is not None else ({}, None)
    then = beat.get("time")
    age = max(0.0, time.time() - then) if isinstance(then, int | float) else None
    # A run by hand on another machine shows only its heartbeat.
    fresh = said is None and not end and age is not None and age < FRESH_S
    live = (said is not None and said.live) or (run is not None and is_live(run.lease, watch_s=0.0)) or fresh
    state = _told_by_folder(run, end, live=live) if run is not None else ""
    if problem and not live and state in ("", LOST):
        state = problem
    otherwise = said.word if said is not None else "starting" if live else "not running"
    row = _last_row(run)
    step = row.get("step", beat.get("step"))
    return Status(name, target, state or otherwise, step, _steps(run), row.get("loss"), age)


def _ask_engine(name: str, root: Path, engine: Engine) -> tuple[str, State | None, str]:
    """Return a run's target, its state there, and why that is not known.

    One record or engine that cannot be asked must not hide all other runs.
    """
    launch = None
    try:
        launch = find_launch(root, name)
        return ("by hand", None, "") if launch is None else (launch.target, target_of(launch).state(launch, engine), "")
    except UserError as error:
        return launch.target if launch is not None else "-", None, f"unknown: {error}"


def _last_end(run: RunFolder) -> dict[str, Any] | None:
    """Return the end record of the newest attempt, empty while it has none; None when there was no attempt."""
    attempts = sorted(run.attempts.glob("[0-9]*"))
    return _read(attempts[-1] / "end.json") if attempts else None


def _told_by_folder(run: RunFolder, end: dict[str, Any] | None, *, live: bool) -> str:
    """Return what a run's own records say of it; empty when they do not know better than the engine."""
    if run.ended.exists():
        return f"{'ending' if live else 'ended'} ({_read(run.ended).get('reason', 'on request')})"
    if live:
        return _phase(run) if not end else ""
    if not end:
        return LOST if end is not None else ""
    words: dict[object, str] = {Exit.INTERRUPTED: "interrupted", Exit.REFUSED: "refused", Exit.MISSING: "missing"}
    code = end.get("code")
    return "complete" if code == Exit.OK else f"{words.get(code, 'failed')}: {end.get('reason', '')}"


def _phase(run: RunFolder) -> str:
    phase = str(_read(run.heartbeat).get("phase", "starting"))
    return "training" if phase == "step" else phase


def _steps(run: RunFolder | None) -> int | None:
    from trainwright.spec.derived import Derived
    from trainwright.spec.resolved import read_resolved

    if run is None:
        return None
    try:
        return Derived(read_resolved(run.experiment)).steps
    except (OSError, UserError):
        return None


def _last_row(run: RunFolder | None) -> dict[str, Any]:
    """Return the row of the last step in metrics.jsonl; reads only its end."""
    if run is None or not run.metrics.is_file():
        return {}
    with run.metrics.open("rb") as file:
        file.seek(max(0, os.fstat(file.fileno()).st_size - TAIL_BYTES))
        lines = file.read().split(b"\n")[:-1]
    for line in reversed(lines):
        try:
            row = json.loads(line)
        except ValueError:
            continue
        if isinstance(row, dict) and isinstance(row.get("loss"), float):
            return row
    return {}


def _read(path: Path) -> dict[str, Any]:
    try:
        return read_json(path)
    except (OSError, UserError):
        return {}


def launch_of(name: str, root: Path) -> Launch:
    """Return the launch of a run; raise `UserError` when it was never launched from here."""
    launch = find_launch(root, name)
    if launch is None:
        known = ", ".join(launched(root))
        ways = f"; launched from here: {known}" if known else ""
        raise UserError(f"{name}: was not launched from below {root}{ways}")
    return launch


def size_of(path: Path) -> int:
    """Return the bytes of a folder's files; links are not followed."""
    return sum(file.lstat().st_size for file in path.rglob("*") if file.is_file() and not file.is_symlink())
