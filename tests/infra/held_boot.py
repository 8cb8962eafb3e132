"""Boots whose ranks are held in a phase while the run is asked to stop."""

from contextlib import suppress
from dataclasses import dataclass
import os
from pathlib import Path
import signal
import tempfile
import time

from tiny_boot import TWO_RANKS, Done, Place, Process, attempts, checkpoints, processes, read, start
from trainwright.spec.paths import MANIFEST

SHIM = Path(__file__).parent / "hold"

PHASES = {
    "start": "trainer.run:_build:1",
    "compile": "torch._inductor.graph:GraphLowering.compile_to_module:1",
    "first step": "trainer.loop:train_step:1",
    "evaluation": "trainer.evaluate:_score:3",
    "saving": "trainer.checkpoint:fsync_file:2",
    "before saving": "trainer.loop:_save:1",
    "last step": "trainer.loop:train_step:100",
    "sampling": "trainer.generate:_next_logits:2",
}
"""Phase -> what a fresh run of `tiny_boot.TINY` on two ranks calls there, and which call it is."""

REQUESTS = ("SIGTERM", "SIGINT", "SIGUSR1", "SIGUSR2", "stop file", "stop RUN", "wall-clock limit")
SAMPLES = ("logging.num_samples=1", "logging.sample_tokens=6")
FOREVER_S = 600
# The limit less what ranks keep for two saves and all that follows: 30 s from the start of boot, of a busy machine.
LIMIT = "resources.walltime_minutes=0.83"


@dataclass(frozen=True)
class Held:
    """What came of a request to a run that was held in a phase."""

    done: Done
    seconds: float
    """From the request to the end of boot."""
    saved: list[int]
    """The checkpoints afterwards."""


def hold(place: Place, where: str, request: str, *words: str, keep_s: float | None = None) -> Held:
    """Boot two ranks, hold them at `MODULE:FUNCTION:CALL`, make the request, let go once boot has heard it.

    `keep_s` holds them for so long instead, heard or not; further holds may follow the first in `where`, with seconds.
    """
    first, _, more = where.partition(" ")
    limit = request == "wall-clock limit"
    seconds = "limit" if limit else str(FOREVER_S if keep_s is None else keep_s)
    with tempfile.TemporaryDirectory(prefix="hold-") as folder:
        marks = Path(folder)
        path = os.pathsep.join([str(SHIM), *os.environ.get("PYTHONPATH", "").split(os.pathsep)]).rstrip(os.pathsep)
        variables = {"HOLD": f"{first}:{seconds} {more}".strip(), "HOLD_MARKS": folder, "PYTHONPATH": path}
        with place.booting("--until", "train", TWO_RANKS, *words, *([LIMIT] if limit else []), **variables) as process:
            process.until((marks / "entered").exists, f"the ranks are held at {first}")
            begun = time.monotonic()
            ask(place, process, request)
            if keep_s is None and not limit:
                process.until(lambda: request == "stop RUN" or "interrupt: " in process.said(), "the request is heard")
                (marks / "go").touch()
            done = process.wait(200)
    return Held(done, time.monotonic() - begun, committed(place))


def ask(place: Place, process: Process, request: str) -> None:
    """Ask a run to stop."""
    if request.startswith("SIG"):
        process.signal(signal.Signals[request])
    elif request == "stop file":
        (place.run.logs / f"stop-{attempts(place.run)[-1].name}").touch()
    elif request == "to the whole job: SIGTERM and SIGUSR1":
        # As SLURM signals a job step: boot, the agent, the ranks and whatever these have started.
        for number in (signal.SIGTERM, signal.SIGUSR1):
            for pid in processes(place.root):
                with suppress(ProcessLookupError):
                    os.kill(pid, number)
    elif request == "stop RUN":
        done = start(place.root, "stop", "tiny").wait()
        assert done.code == 0, done.said


def committed(place: Place) -> list[int]:
    """Return the steps of the checkpoints that have a manifest."""
    return [step for step in checkpoints(place.run) if (place.run.checkpoints / f"step_{step:08d}" / MANIFEST).exists()]


def gone(root: Path, within_s: float) -> list[int]:
    """Wait for the processes of a root to go; return those that do not."""
    limit = time.monotonic() + within_s
    while (left := processes(root)) and time.monotonic() < limit:
        time.sleep(0.05)
    return left


def weights(place: Place, step: int) -> dict[str, bytes]:
    """Return the tensor files of a checkpoint."""
    return {path.name: path.read_bytes() for path in (place.run.checkpoints / f"step_{step:08d}").glob("*.safetensors")}


def ended_for(place: Place) -> str | None:
    return str(read(place.run.ended)["reason"]) if place.run.ended.exists() else None
