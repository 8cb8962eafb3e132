"""A corpus, an experiment and a root small enough to boot in seconds, and the ways to start and to watch boot."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
import hashlib
import json
import os
from pathlib import Path
import random
import shutil
import signal
import socket
import subprocess
import sys
import time
from typing import Any

from trainwright.spec.paths import RunFolder

STEPS = 100
TINY = f"""\
name: tiny
data:
  source: {{kind: text, document: file}}
  validation_fraction: 0.2
  documents_per_shard: 8
  workers: 1
model: {{dim: 32, num_layers: 1, num_heads: 2}}
train: {{seq_len_tokens: 64, micro_batch: 4, global_batch_sequences: 8, steps: {STEPS}, precision: fp32}}
optimizer: {{lr: 3e-3}}
evaluation: {{every_steps: 50, max_tokens: 1000}}
checkpoint: {{dump: {{every_steps: 7, keep: 99}}}}
resources: {{device: cpu}}
logging: {{tensorboard: false, num_samples: 0, print_every_steps: 20}}
"""
"""Two passes of four sequences on one rank, one pass on two; a step takes some 20 ms. The last one is on no cadence."""

WORDS = ("river", "mountain", "house", "garden", "letter", "window", "horse", "winter")
TWO_NODES = "resources.nodes=2"
TWO_RANKS = "resources.ranks_per_node=2"
PATIENCE_S = 90.0


@dataclass(frozen=True)
class Done:
    """How a process ended, and all that it said."""

    code: int
    said: str

    @property
    def last(self) -> str:
        return self.said.rstrip().rpartition("\n")[2]

    @property
    def lines(self) -> list[str]:
        """Return the lines without the clock at their start."""
        return [line[9:] if line[2:3] == line[5:6] == ":" else line for line in self.said.splitlines()]


@dataclass
class Process:
    """A boot that runs; its output goes to a file, so that nobody has to read it in time."""

    popen: subprocess.Popen[bytes]
    log: Path

    @property
    def pid(self) -> int:
        return self.popen.pid

    def said(self) -> str:
        return self.log.read_text(encoding="utf-8")

    def wait(self, seconds: float = PATIENCE_S) -> Done:
        """Wait for the end; a boot that takes too long is killed and fails the test."""
        try:
            return Done(self.popen.wait(seconds), self.said())
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError(f"did not end in {seconds} s:\n{self.said()}") from None

    def signal(self, number: signal.Signals) -> None:
        self.popen.send_signal(number)

    def kill(self) -> None:
        """Kill boot at once; what it started dies with it."""
        self.popen.kill()
        self.popen.wait()

    def until(self, true: Callable[[], bool], what: str) -> None:
        """Wait for something that this boot does; fail when it ends first."""
        limit = time.monotonic() + PATIENCE_S
        while not true():
            assert self.popen.poll() is None, f"boot ended before {what}:\n{self.said()}"
            assert time.monotonic() < limit, f"waited in vain for {what}:\n{self.said()}"
            time.sleep(0.01)


@dataclass(frozen=True)
class Place:
    """A root with an experiment file in it."""

    root: Path
    corpus: Path
    data: Path | None = None
    """The root that holds the shards and the tokenizer, if it is another one."""

    @property
    def file(self) -> Path:
        return self.root / "tiny.yaml"

    @property
    def run(self) -> RunFolder:
        return RunFolder(self.root / "runs" / "tiny")

    def start(self, *words: str, **variables: str) -> Process:
        places = [f"data.path={self.corpus}", *([f"paths.data={self.data}"] if self.data else [])]
        return start(self.root, "boot", str(self.file), *places, *words, **variables)

    def boot(self, *words: str, **variables: str) -> Done:
        return self.start(*words, **variables).wait()

    @contextmanager
    def booting(self, *words: str, **variables: str) -> Iterator[Process]:
        """Start boot and see to it that it is gone afterwards, whatever the test finds."""
        process = self.start(*words, **variables)
        try:
            yield process
        finally:
            process.kill()


def make_place(root: Path, text: str = TINY, documents: int = 40) -> Place:
    """Write a corpus and an experiment that reads it."""
    write_corpus(root / "corpus", documents)
    (root / "tiny.yaml").write_text(text, encoding="utf-8")
    return Place(root, root / "corpus")


def copy_place(source: Place, root: Path, *, trained: bool) -> Place:
    """Copy a run into a root of its own; the data stays where it is, and without `trained` so does the training."""
    later = ("checkpoints", "metrics.jsonl", "train.json", "report*", "training.*", "ended.json", "continue.json")
    skip = shutil.ignore_patterns("attempts", "lease.json*", "*.old-*", *([] if trained else later))
    shutil.copytree(source.run.path, root / "runs" / "tiny", ignore=skip)
    shutil.copy(source.file, root / "tiny.yaml")
    return Place(root, source.corpus, source.data or source.root)


def write_corpus(folder: Path, documents: int, bytes_each: int = 2000) -> None:
    """Write text files with something to learn in them, never two alike."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(documents):
        draw = random.Random(number)
        words = draw.choices(WORDS, k=400)
        (folder / f"{number:04d}.txt").write_text(f"{number} {' '.join(words)}"[:bytes_each], encoding="utf-8")


def start(root: Path, *words: str, **variables: str) -> Process:
    """Start `python -m infra`; `root` is the root volume."""
    root.mkdir(parents=True, exist_ok=True)
    number = len(list(root.parent.glob(f"{root.name}.*.log")))
    log = root.parent / f"{root.name}.{number}.log"
    environ = {**clean_environment(), "TRAINWRIGHT_ROOT": str(root), **variables}
    with log.open("wb") as file:
        command = [sys.executable, "-m", "infra", *words]
        popen = subprocess.Popen(command, cwd=root, env=environ, stdout=file, stderr=subprocess.STDOUT)
    return Process(popen, log)


def clean_environment() -> dict[str, str]:
    """Return the environment without what says something about ranks, attempts or experiments."""
    starts = ("TRAINWRIGHT_", "TORCHELASTIC_", "RUN_", "OMP_", "PET_", "MASTER_")
    names = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "GROUP_RANK", "SHARD_LINES")
    return {name: value for name, value in os.environ.items() if name not in names and not name.startswith(starts)}


def processes(root: Path) -> list[int]:
    """Return every living process whose environment names this root."""
    wanted, found = f"TRAINWRIGHT_ROOT={root}".encode(), []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if wanted in (folder / "environ").read_bytes().split(b"\0"):
                found.append(int(folder.name))
        except (FileNotFoundError, ProcessLookupError, PermissionError):
            continue
    return found


@contextmanager
def on_core(number: int) -> Iterator[None]:
    """Let what is started here have one core to itself, as a machine of its own would."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {sorted(before)[number % len(before)]})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def pet(rank: int, port: int) -> dict[str, str]:
    where = {"PET_MASTER_ADDR": "127.0.0.1", "PET_MASTER_PORT": str(port)}
    return {"PET_NNODES": "2", "PET_NODE_RANK": str(rank), **where}


def trained_on_two_nodes(place: Place, words: list[tuple[str, ...]], variables: list[dict[str, str]]) -> list[Done]:
    """Boot both nodes, the second first, and return how they ended."""
    common = ("--until", "train", TWO_NODES)
    with ExitStack() as stack:
        started = []
        for node in (1, 0):
            with on_core(node):
                booting = place.booting(*common, *words[node], **variables[node])
                started.append(stack.enter_context(booting))
        return [process.wait() for process in reversed(started)]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def digests(folder: Path) -> dict[str, str]:
    """Return the sha256 of every file below a folder by its name, leases left out."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and not path.name.startswith("lease.json"))
    return {path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def rows(run: RunFolder) -> list[dict[str, Any]]:
    """Return the rows of the figures; a last line may still be on its way."""
    if not run.metrics.exists():
        return []
    lines = run.metrics.read_text(encoding="utf-8").splitlines(keepends=True)
    return [json.loads(line) for line in lines if line.endswith("\n")]


def losses(run: RunFolder) -> list[tuple[int, float]]:
    """Return (step, loss) of every row in the order of the file, so that a step told twice is seen."""
    return [(row["step"], row["loss"]) for row in rows(run) if "loss" in row]


def last_step(run: RunFolder) -> int:
    return max((step for step, _ in losses(run)), default=0)


def checkpoints(run: RunFolder) -> list[int]:
    return sorted(int(path.name[5:]) for path in run.checkpoints.glob("step_" + "[0-9]" * 8))


def attempts(run: RunFolder) -> list[Path]:
    return sorted(path for path in run.attempts.iterdir() if path.name.isdigit())


def read(path: Path) -> Mapping[str, Any]:
    found: Mapping[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found


def end(run: RunFolder) -> Mapping[str, Any]:
    """Return the end record of the newest attempt."""
    return read(attempts(run)[-1] / "end.json")


def rank_pid(run: RunFolder, rank: int) -> int:
    return int(read(attempts(run)[-1] / f"alive_{rank:05d}.json")["pid"])


def stages(run: RunFolder) -> set[str]:
    """Return the stages that have a record."""
    return {path.stem for path in run.stage("x").parent.glob("*.json")}
