"""Runs as a laptop sees them: their folders below the root, what was launched, and how they are doing."""

import json
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from infra.engine import Engine
from infra.launches import Launch, all_launches, find_launch
from infra.targets import TARGETS
from trainwright.spec.exits import Exit, UserError
from trainwright.spec.paths import RunFolder
from trainwright.store.files import read_json

FRESH_S = 60.0
"""A heartbeat that is younger belongs to a run that lives."""
TAIL_BYTES = 1 << 16


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
    for path in (Path(name), root / "runs" / name):
        if (path / "experiment.yaml").is_file():
            return RunFolder(path.absolute())
    runs = sorted(path.parent.name for path in (root / "runs").glob("*/experiment.yaml"))
    ways = f"; runs here: {', '.join(runs)}" if runs else ""
    raise UserError(f"{name}: no such run below {root / 'runs'}{ways}")


def statuses(root: Path, engine: Engine) -> list[Status]:
    """Return every run below the root and every launch from here, by name."""
    launches = {launch.name: launch for launch in all_launches(root)}
    folders = {path.parent.name: RunFolder(path.parent) for path in (root / "runs").glob("*/experiment.yaml")}
    return [
        status(name, folders.get(name), launches.get(name), engine) for name in sorted(launches.keys() | folders.keys())
    ]


def status(name: str, run: RunFolder | None, launch: Launch | None, engine: Engine) -> Status:
    """Return how a run is doing: what its folder says where it can be seen, else what its engine says."""
    engine_state = TARGETS[launch.target].state(launch, engine) if launch is not None else None
    beat = _read(run.heartbeat) if run is not None else {}
    age = max(0.0, time.time() - beat["time"]) if "time" in beat else None
    live = engine_state.live if engine_state is not None else age is not None and age < FRESH_S
    told = _told_by_folder(run, live=live) if run is not None else ""
    state = told or (engine_state.word if engine_state is not None else "not running")
    where = launch.target if launch is not None else "by hand"
    return Status(name, where, state, beat.get("step"), _steps(run), _loss(run), age)


def _told_by_folder(run: RunFolder, *, live: bool) -> str:
    """Return what a run's own records say of it; empty when they do not know better than the engine."""
    if run.ended.exists():
        return f"ended ({_read(run.ended).get('reason', 'on request')})"
    ends = sorted(run.attempts.glob("[0-9]*"))
    end = _read(ends[-1] / "end.json") if ends else {}
    if live:
        return _phase(run) if not end else ""
    if not end:
        return "lost" if ends else ""
    words: dict[int, str] = {Exit.INTERRUPTED: "interrupted", Exit.REFUSED: "refused", Exit.MISSING: "missing"}
    code = int(end["code"])
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
    except UserError:
        return None


def _loss(run: RunFolder | None) -> float | None:
    """Return the loss of the last step in metrics.jsonl; reads only its end."""
    if run is None or not run.metrics.is_file():
        return None
    with run.metrics.open("rb") as file:
        file.seek(max(0, os.fstat(file.fileno()).st_size - TAIL_BYTES))
        lines = file.read().split(b"\n")[:-1]
    for line in reversed(lines):
        try:
            row = json.loads(line)
        except ValueError:
            continue
        if isinstance(row, dict) and isinstance(row.get("loss"), float):
            return float(row["loss"])
    return None


def _read(path: Path) -> dict[str, Any]:
    try:
        return read_json(path)
    except (OSError, UserError):
        return {}


def launch_of(name: str, root: Path) -> Launch:
    """Return the launch of a run; raise `UserError` when it was never launched from here."""
    launch = find_launch(root, name)
    if launch is None:
        known = ", ".join(launch.name for launch in all_launches(root))
        ways = f"; launched from here: {known}" if known else ""
        raise UserError(f"{name}: was not launched from below {root}{ways}")
    return launch


def size_of(path: Path) -> int:
    """Return the bytes of a folder's files; links are not followed."""
    return sum(file.lstat().st_size for file in path.rglob("*") if file.is_file() and not file.is_symlink())
