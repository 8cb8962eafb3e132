"""The words about runs that exist: ps, logs, stop, delete."""

import json
import shutil
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from infra.engine import Engine
from infra.launches import Launch, find_launch, launch_folder
from infra.parsers import word_parser
from infra.runs import Status, find_run, launch_of, named_run, size_of, statuses
from infra.targets import ENDS, target_of
from trainwright.spec.exits import Exit, UserError
from trainwright.spec.paths import RunFolder, root_from
from trainwright.store.files import write_json
from trainwright.store.lease import is_live


def ps(argv: Sequence[str]) -> int:
    """Print every run below the root and every launch from here."""
    parser = word_parser("ps", "List the runs below the root, and what was launched from here.")
    parser.add_argument("--json", action="store_true", help="print one JSON document instead")
    arguments = parser.parse_args(argv)
    found = statuses(root_from(), Engine())
    if arguments.json:
        print(json.dumps([asdict(status) for status in found], indent=1))
    elif found:
        print("\n".join(_table([["RUN", "TARGET", "STEP", "LOSS", "SEEN", "STATE"], *map(_row, found)])))
    else:
        print(f"no runs below {root_from()}")
    return Exit.OK


def _row(status: Status) -> list[str]:
    step = "-" if status.step is None else f"{status.step}/{status.steps}" if status.steps else str(status.step)
    loss = "-" if status.loss is None else f"{status.loss:.4f}"
    return [status.name, status.target, step, loss, _age(status.age_s), status.state]


def _age(seconds: float | None) -> str:
    if seconds is None:
        return "-"
    for size, unit in ((86400, "d"), (3600, "h"), (60, "m")):
        if seconds >= size:
            return f"{seconds / size:.0f} {unit} ago"
    return f"{seconds:.0f} s ago"


def _table(rows: list[list[str]]) -> list[str]:
    wide = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, wide, strict=True)).rstrip() for row in rows]


def logs(argv: Sequence[str]) -> int:
    """Print what a launched run says."""
    parser = word_parser("logs", "Print the log of a run that was launched from here.")
    parser.add_argument("run_name", metavar="RUN", help="a run's name")
    parser.add_argument("-f", "--follow", action="store_true", help="go on as the log grows, until the run ends")
    arguments = parser.parse_args(argv)
    launch = launch_of(arguments.run_name, root_from())
    return target_of(launch).logs(launch, Engine(), follow=arguments.follow)


def stop(argv: Sequence[str]) -> int:
    """Ask a run to save and end, for good."""
    parser = word_parser("stop", "End a run: it saves and finishes, and later starts say that it was ended.")
    parser.add_argument("run_folder", metavar="RUN", help="a run's name or folder")
    parser.add_argument("--reason", default="stop was asked for", help="kept in the run's ended.json")
    arguments = parser.parse_args(argv)
    if (launch := _out_of_sight(arguments.run_folder, root_from())) is not None:
        print(ENDS[launch.target](launch, Engine(), arguments.reason))
        return Exit.OK
    ahead = _not_begun(arguments.run_folder, root_from())
    run = ahead or find_run(arguments.run_folder, root_from())
    if run.ended.exists():
        print(f"{run}: is ended already")
        return Exit.OK
    write_json(run.ended, {"reason": arguments.reason, "time": round(time.time(), 3)})
    if is_live(run.lease):
        print(f"{run}: saves and ends after its current step")
    elif ahead is not None:
        way = f"`trainwright delete {run.path.name} --yes` takes its job away now"
        print(f"{run}: has not begun, and its first start will end at once; {way}")
    else:
        print(f"{run}: is not running; marked as ended")
    return Exit.OK


def _not_begun(name: str, root: Path) -> RunFolder | None:
    """Return the folder that a run will have which was launched from here, and whose boot has not made it yet."""
    if (Path(name) / "experiment.yaml").is_file():
        return None
    launch = find_launch(root, name)
    run = RunFolder(Path(launch.run)) if launch is not None and launch.run else None
    return run if run is not None and not run.experiment.is_file() else None


def _out_of_sight(name: str, root: Path) -> Launch | None:
    """Return the launch of a run whose folder is not here and whose target can end it all the same."""
    if any((folder / "experiment.yaml").is_file() for folder in (Path(name), root / "runs" / name)):
        return None
    launch = find_launch(root, name)
    return launch if launch is not None and launch.target in ENDS else None


def delete(argv: Sequence[str]) -> int:
    """Remove a run's job, and on request its checkpoints or all of it."""
    parser = word_parser("delete", "Remove a run that does not run: its job, and with a flag what it has written.")
    parser.add_argument("run_name", metavar="RUN", help="a run's name")
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--checkpoints", action="store_true", help="also its checkpoints")
    what.add_argument("--all", action="store_true", help="also its whole run folder; corpora and tokenizers stay")
    parser.add_argument("--yes", action="store_true", help="do it; without this, only say what would go")
    arguments = parser.parse_args(argv)
    root, name = root_from(), arguments.run_name
    if Path(name).name != name or name == "..":
        raise UserError(f"{name}: delete takes the name of a run below {root / 'runs'}, not a path")
    folder = _folder_to_delete(name, root, checkpoints=arguments.checkpoints, everything=arguments.all)
    _refuse_live(name, root)
    launch = find_launch(root, name)
    parts = [f"its job {launch.id} on target {launch.target}"] if launch is not None else []
    parts += [f"{folder} ({size_of(folder):,} bytes)"] if folder is not None else []
    if not parts:
        raise UserError(f"{name}: has no job to remove; --checkpoints or --all removes what it has written")
    if not arguments.yes:
        raise UserError(f"{name}: would remove {' and '.join(parts)}; add --yes to do it")
    if launch is not None:
        target_of(launch).remove(launch, Engine())
        shutil.rmtree(launch_folder(root, name))
    if folder is not None:
        shutil.rmtree(folder)
    print(f"{name}: removed {' and '.join(parts)}")
    return Exit.OK


def _folder_to_delete(name: str, root: Path, *, checkpoints: bool, everything: bool) -> Path | None:
    """Return the folder to remove, which lies where its name says: what a link leads to is not ours to remove."""
    if not (checkpoints or everything):
        return None
    run = named_run(name, root)
    folder = run.path if everything else run.checkpoints
    if not folder.exists():
        raise UserError(f"{folder}: is not there; nothing to remove")
    if folder.resolve() != root.resolve() / folder.relative_to(root):
        raise UserError(f"{folder}: leads to {folder.resolve()}, outside this root; remove that by hand")
    return folder


def _refuse_live(name: str, root: Path) -> None:
    launch = find_launch(root, name)
    run = RunFolder(Path(launch.run) if launch is not None and launch.run else root / "runs" / name)
    # A run that was ended before it began may still wait for its turn.
    waits = run.ended.exists() and not run.lease.exists()
    if launch is not None and not waits and (state := target_of(launch).state(launch, Engine())).live:
        raise UserError(f"{name}: is {state.word} on target {launch.target}; `trainwright stop {name}` first")
    if is_live(run.lease):
        raise UserError(f"{name}: a boot holds {run.lease}; `trainwright stop {name}` first")
