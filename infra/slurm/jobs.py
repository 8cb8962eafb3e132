"""A launch as the queue sees it: submitting, asking, following, cancelling."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from infra.engine import Answer, Engine
from infra.job import Job
from infra.launches import Launch, State
from infra.shell import command_line
from infra.slurm.directives import PREPARE_SUFFIX
from infra.slurm.image import refuse_bad_sif
from infra.slurm.layout import BEGUN, OVER, log_path, prepare_script, secrets_file, train_script
from trainwright.spec.exits import Exit, MissingError, UserError
from trainwright.spec.load import load_experiment
from trainwright.spec.paths import Places, RunFolder
from trainwright.store.assets import refuse_missing
from trainwright.store.files import write_private

SQUEUE = ("squeue", "--noheader", "--me", "--format=%A|%j|%T|%r|%Z")
OUTPUT = "#SBATCH --output="
ASK_S, READ_S = 5.0, 0.5


@dataclass(frozen=True, slots=True)
class Row:
    """One job of a launch in the queue."""

    id: str
    name: str
    state: str
    reason: str


def submit(job: Job, folder: Path, engine: Engine) -> str:
    """Queue preparation and training, or prepare on this host first; return their job ids, joined by commas."""
    make_ready(job, folder, engine)
    return queue(folder / train_script(job.name), prepare(job, folder, engine), engine)


def make_ready(job: Job, folder: Path, engine: Engine) -> None:
    """Refuse what cannot work, then leave what the job needs beside its scripts: a place for logs, and its secrets."""
    if not engine.has("sbatch"):
        hosts = ", ".join(job.targets.slurm.hosts) or "its login node"
        raise MissingError(f"sbatch: not on this host; run `trainwright launch` on a host of the site ({hosts})")
    _check_assets(job, folder)
    for name in (OVER, BEGUN):
        (folder / name).unlink(missing_ok=True)
    (folder / log_path(job, "train")).parent.mkdir(parents=True, exist_ok=True)
    if job.secrets:
        values = [f"{name}={command_line([engine.environ[name]])}\n" for name in job.secrets]
        write_private(folder / secrets_file(job.name), "".join(values))


def queue(script: Path, first: str | None, engine: Engine) -> str:
    """Queue a job script, after the job of the preparation if there is one; return the ids of both."""
    folder = script.parent
    if first is None:
        return _sbatch(engine, folder, script)
    wait = (f"--dependency=afterok:{first}", "--kill-on-invalid-dep=yes")
    try:
        return f"{first},{_sbatch(engine, folder, script, *wait)}"
    except UserError:
        engine.ask("scancel", first)
        raise


def _check_assets(job: Job, folder: Path) -> None:
    """Refuse what the job would miss, before it waits in a queue for it."""
    root = folder.parents[1]
    if job.targets.slurm.container != "off":
        refuse_bad_sif(job, root)
    if not job.targets.slurm.internet:
        experiment = load_experiment(folder / job.experiment_file, job.overrides, environ={}).experiment
        refuse_missing(Places(root, experiment))


def prepare(job: Job, folder: Path, engine: Engine) -> str | None:
    """Return the job of the preparation, or None when there is none: it is done, was done here, or is not wanted."""
    script, run = folder / prepare_script(job.name), RunFolder((folder / log_path(job, "x")).parents[1])
    if job.targets.slurm.prepare == "off" or (run.stage("tokenizer").exists() and not job.flags):
        return None
    if job.targets.slurm.prepare == "job":
        return _sbatch(engine, folder, script)
    code = engine.show("env", f"--chdir={folder}", "bash", str(script))
    if code != Exit.OK:
        kind = MissingError if code == Exit.MISSING else UserError
        raise kind(f"{script}: the preparation on this host ended with {code} (see above); nothing was queued")
    return None


def _sbatch(engine: Engine, folder: Path, script: Path, *options: str) -> str:
    answer = engine.ask("sbatch", "--parsable", f"--chdir={folder}", *options, str(script))
    if answer.code != 0:
        raise UserError(f"{script}: sbatch refuses it: {_last_words(answer)}")
    return answer.out.strip().partition(";")[0]


def rows(folder: Path, engine: Engine) -> list[Row]:
    """Return the jobs that were started in a folder and are still in the queue, in the queue's order."""
    answer = engine.ask(*SQUEUE)
    if answer.code != 0:
        raise MissingError(f"squeue does not tell how the jobs are doing: {_last_words(answer)}")
    found = [line.split("|", 4) for line in answer.out.splitlines() if line.count("|") >= 4]
    places = {str(folder), str(folder.resolve())}
    return [Row(*parts[:4]) for parts in found if parts[4] in places]


def state(launch: Launch, engine: Engine) -> State:
    """Return the state of a launch's jobs: that of one that runs, else of the first that waits, with its reason."""
    found = rows(launch.path, engine)
    if not found:
        return State("not in the queue", live=False)
    row = min(found, key=lambda row: row.state != "RUNNING")
    what = "preparation " if row.name.endswith(PREPARE_SUFFIX) else ""
    reason = f" ({row.reason})" if row.reason not in ("", "None") else ""
    return State(f"{what}{row.state.lower()}{reason}", live=True)


def cancel(launch: Launch, engine: Engine) -> None:
    """Cancel what is left of a launch in the queue; what runs hears SIGTERM and saves within the site's KillWait."""
    ids = [row.id for row in rows(launch.path, engine)]
    if ids and (answer := engine.ask("scancel", *ids)).code != 0:
        raise UserError(f"scancel {' '.join(ids)}: {_last_words(answer)}")


def logs(launch: Launch, engine: Engine, *, follow: bool) -> int:
    """Print what a launch's jobs said; with `follow`, go on until none of them is left in the queue."""
    files = _log_files(launch)
    if not follow and not any(file.is_file() for file in files):
        raise UserError(f"{files[-1]}: no log there yet; the jobs are {state(launch, engine).word}")
    try:
        copy_growing(files, (lambda: bool(rows(launch.path, engine))) if follow else lambda: False)
    except KeyboardInterrupt:
        return Exit.OK
    return Exit.OK


def _log_files(launch: Launch) -> list[Path]:
    """Return the logs that the launch's scripts name, the preparation's first."""
    scripts = [launch.path / name(launch.name) for name in (prepare_script, train_script)]
    lines = [line for script in scripts if script.is_file() for line in script.read_text("utf-8").splitlines()]
    named = [line.removeprefix(OUTPUT) for line in lines if line.startswith(OUTPUT)]
    found: list[Path] = []
    for name in named:
        place, pattern = (Path("/"), name[1:]) if name.startswith("/") else (launch.path, name)
        # %a is the task of a sweep: each point has a log of its own.
        found += sorted(place.glob(pattern.replace("%a", "*"))) if "%a" in name else [place / pattern]
    return found


def copy_growing(files: Sequence[Path], live: Callable[[], bool]) -> None:
    """Print files as they grow, each from its start, for as long as something lives; not yet there is empty."""
    read = dict.fromkeys(files, 0)
    while True:
        deadline, lives = time.monotonic() + ASK_S, live()
        while True:
            for file in files:
                read[file] += _print_from(file, read[file])
            if not lives:
                return
            if time.monotonic() > deadline:
                break
            time.sleep(READ_S)


def _print_from(file: Path, start: int) -> int:
    try:
        with file.open("rb") as log:
            log.seek(start)
            data = log.read()
    except FileNotFoundError:
        return 0
    # Half a letter of UTF-8 waits for its other half.
    whole = data[: data.rfind(b"\n") + 1]
    print(whole.decode("utf-8", "replace"), end="", flush=True)  # noqa: T201 - the answer
    return len(whole)


def _last_words(answer: Answer) -> str:
    return ((answer.err or answer.out).strip().splitlines() or ["it said nothing"])[-1]
