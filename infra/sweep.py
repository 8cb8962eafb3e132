"""The word `sweep`: a grid of runs that differ in a few values, each in a run folder of its own.

On SLURM the points are the tasks of one job array, on Kubernetes the indexes of one Job; here they run one after the
other. They share corpus and tokenizer. `--table` says how they are doing.
"""

import itertools
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from infra.engine import Engine
from infra.job import Job, build_job, movable_image
from infra.kubernetes.sweeps import send_sweep
from infra.launches import launch_folder, record
from infra.parsers import say_followed, word_parser
from infra.plan import refuse_what_does_not_fit
from infra.rooms import room_command
from infra.runs import find_run, status
from infra.secret_values import values_for
from infra.slurm.here import with_site
from infra.slurm.jobs import make_ready, prepare, queue
from infra.slurm.layout import train_script
from infra.slurm.scripts import sweep_text
from infra.submit import write_rendered
from infra.targets import ENDS, TARGETS
from trainwright.spec.exits import Exit, UserError
from trainwright.spec.load import Loaded, find_experiment, load_experiment, split_words
from trainwright.spec.paths import ROOT_VARIABLE, RunFolder, root_from
from trainwright.spec.sites import SITES
from trainwright.spec.variables import BOOT_VARIABLES
from trainwright.store.files import write_text

MAX_POINTS = 1000
WAITS = "waits"
UNSEEN = "not visible from here: its folder is on the cluster's volume"


@dataclass(frozen=True, slots=True)
class Point:
    """One run of a sweep."""

    name: str
    values: tuple[str, ...]
    """What it has of its own, as overrides."""
    words: tuple[str, ...]
    """All its overrides."""


def sweep(argv: Sequence[str]) -> int:
    """Launch every point of a grid, or say how they are doing."""
    parser = word_parser(
        "sweep", "Launch a grid of runs: every override with commas is an axis, such as optimizer.lr=1e-3,3e-3."
    )
    parser.add_argument("--target", required=True, choices=("local", "slurm", "kubernetes"))
    parser.add_argument(
        "--at-once", type=int, default=4, metavar="K", help="points that may run at once, on SLURM and Kubernetes"
    )
    parser.add_argument("--table", action="store_true", help="only say how the points are doing")
    parser.add_argument("--force", action="store_true", help="send points even if they do not fit the GPU's memory")
    parser.add_argument("words", nargs="*", metavar="EXP a.b=x,y [c.d=z ...]", help="experiment, then overrides")
    arguments = parser.parse_intermixed_args(argv)
    name, overrides = split_words(arguments.words)
    path = find_experiment(name)
    fixed = [word for word in overrides if not _is_axis(word)]
    base = load_experiment(path, fixed, sites=SITES)
    say_followed(name, base)
    if (variable := base.origin("name")) in BOOT_VARIABLES:
        way = "every point of the sweep would have that name; unset it"
        raise UserError(f"{variable}={base.experiment.name}: is set in this environment, and {way}")
    if arguments.target == "slurm":
        base = with_site(base, name)
    points = grid(base, [word for word in overrides if _is_axis(word)])
    if not arguments.table:
        loaded = [load_experiment(path, point.words, sites=SITES) for point in points]
        if not arguments.force:
            _refuse_what_does_not_fit(loaded, arguments.target)
        _launch(arguments.target, loaded, arguments.at_once)
    unseen = arguments.target in ENDS and not any(_is_here(point, root_from()) for point in points)
    print("\n".join(table(points, root_from(), UNSEEN if unseen else WAITS)))  # noqa: T201 - the answer
    name = sweep_name(base.experiment.name)
    return _write_page(name, points, root_from(), unseen=unseen) if arguments.table else Exit.OK


def sweep_name(experiment: str) -> str:
    """Return the name under which a sweep is launched, stopped and reported."""
    return f"{experiment}-sweep"


def _is_here(point: Point, root: Path) -> bool:
    return RunFolder(root / "runs" / point.name).experiment.is_file()


def _write_page(name: str, points: Sequence[Point], root: Path, *, unseen: bool) -> int:
    """Draw the points' curves on one page, in the folder of the sweep's launch."""
    folder = launch_folder(root, name)
    folder.mkdir(parents=True, exist_ok=True)
    words = [word for point in points for word in (str(root / "runs" / point.name), " ".join(point.values))]
    flags = ["--unseen"] if unseen else []
    return subprocess.run(room_command("report.sweep", *flags, str(folder), name, *words), check=False).returncode


def _is_axis(word: str) -> bool:
    """Return whether an override is a list of values to try; lists of a target's settings are only lists."""
    key, _, value = word.partition("=")
    return "," in value and not key.startswith(("targets.", "secrets"))


def grid(base: Loaded, axes: Sequence[str]) -> list[Point]:
    """Return the points: every combination of the axes' values, the last axis moving fastest."""
    if not axes:
        raise UserError("sweep: nothing to vary; give an override several values, such as optimizer.lr=1e-3,3e-3")
    experiment, tried = base.experiment, []
    for axis in axes:
        key, _, values = axis.partition("=")
        tried.append([f"{key}={value.strip()}" for value in values.split(",") if value.strip()])
    found = list(itertools.product(*tried))
    if len(found) > MAX_POINTS:
        raise UserError(f"sweep: {len(found)} points are more than {MAX_POINTS}; give fewer values")
    shared = (f"data.name={experiment.data_name}", f"tokenizer.name={experiment.tokenizer_name}")
    names = [f"{experiment.name}-{number}" for number in range(1, len(found) + 1)]
    return [
        Point(name, values, (*base.overrides, *values, f"name={name}", *shared))
        for name, values in zip(names, found, strict=True)
    ]


def _refuse_what_does_not_fit(points: Sequence[Loaded], target: str) -> None:
    """Raise `UserError` naming the first point that does not fit, before any of them is sent."""
    for point in points:
        try:
            refuse_what_does_not_fit(point.experiment, target)
        except UserError as error:
            raise UserError(f"{point.experiment.name}: {error}") from None


def _launch(target: str, points: Sequence[Loaded], at_once: int) -> None:
    root = root_from()
    jobs = [build_job(point) for point in points]
    engine = Engine({ROOT_VARIABLE: str(root), **values_for(target, jobs[0].secrets)})
    if target == "slurm":
        sweep_slurm(jobs, root, engine, at_once)
        return
    if target == "kubernetes":
        send_sweep(jobs, sweep_name(jobs[0].name.removesuffix("-1")), root, engine, at_once)
        return
    for job in jobs:
        folder = launch_folder(root, job.name)
        write_rendered(TARGETS[target].render(job), folder)
        if (code := engine.show("bash", str(folder / f"{job.name}.sh"))) == Exit.INTERRUPTED:
            raise UserError(f"{job.name}: was interrupted, saved; the same command goes on with it")
        if code != Exit.OK:
            print(f"{job.name}: ended with {code} (see above)")  # noqa: T201 - the terminal


def sweep_slurm(jobs: Sequence[Job], root: Path, engine: Engine, at_once: int) -> str:
    """Queue the points as one array, after one preparation for all; return the job ids."""
    if problem := movable_image(TARGETS["slurm"].image_of(jobs[0])):
        raise UserError(problem)
    points = [_one_link(job) for job in jobs]
    for job in points:
        folder = launch_folder(root, job.name)
        write_rendered(TARGETS["slurm"].render(job), folder)
        make_ready(job, folder, engine)
    name = sweep_name(points[0].name.removesuffix("-1"))
    script = launch_folder(root, name) / train_script(name)
    write_text(script, sweep_text(points[0], name, len(points), min(at_once, len(points))))
    ids = queue(script, prepare(points[0], launch_folder(root, points[0].name), engine), engine)
    record(name, "slurm", ids, script.parent)
    return ids


def _one_link(job: Job) -> Job:
    """Return a job that goes on by itself only where that needs no other jobs: its array is the sweep's."""
    site = job.targets.slurm
    if site.continuation in ("requeue", "off"):
        return job
    slurm = site.model_copy(update={"continuation": "off"})
    return replace(job, targets=job.targets.model_copy(update={"slurm": slurm}))


def table(points: Sequence[Point], root: Path, absent: str = WAITS) -> list[str]:
    """Return one line a point: its values, how far it is, and its newest loss; `absent` stands for a missing folder."""
    rows = [["RUN", "VALUES", "STEP", "LOSS", "STATE"]]
    for point in points:
        try:
            run = find_run(point.name, root)
        except UserError:
            rows.append([point.name, " ".join(point.values), "-", "-", absent])
            continue
        now = status(point.name, run, root, Engine())
        loss = "-" if now.loss is None else f"{now.loss:.4f}"
        rows.append([point.name, " ".join(point.values), f"{now.step or 0}/{now.steps or '-'}", loss, now.state])
    wide = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, wide, strict=True)).rstrip() for row in rows]
