"""Experiments, corpora and digests for the sharder's tests, and the sharder as a real process."""

from collections.abc import Callable
import hashlib
import json
import os
from pathlib import Path
import random
import subprocess
import sys
import time

from sharder.sources.corpus import Corpus, NoText, no_document
from trainwright.spec.load import load_experiment
from trainwright.spec.paths import Places
from trainwright.store.text_shards import Drops

REPOSITORY = Path(__file__).parents[2]
SMALL = """
name: made
train: {seq_len_tokens: 64, micro_batch: 2, global_batch_sequences: 2, steps: 10}
model: {dim: 64, num_layers: 1, num_heads: 2}
resources: {device: cpu}
"""
WORDS = (
    "the",
    "of",
    "naïve",
    "語",
    "café",
    "zero\u200bwidth",
    "🙂",
    "model\ttoken",
    "1234",
    "x=y",
    "(",
    "{}",
    "'ll",
    "don't",
)


def experiment_file(folder: Path) -> Path:
    path = folder / "made.yaml"
    path.write_text(SMALL)
    return path


def places(root: Path, *overrides: str) -> Places:
    root.mkdir(parents=True, exist_ok=True)
    return Places(root, load_experiment(experiment_file(root), overrides, {}).experiment)


def made_documents(count: int, seed: int = 1, words: int = 60) -> list[str]:
    """Return documents with newlines, tabs and letters of several scripts, never two alike."""
    chooser = random.Random(seed)
    return [
        f"{number} " + chooser.choice(["\n", " ", "\n\n"]).join(chooser.choices(WORDS, k=chooser.randint(1, words)))
        for number in range(count)
    ]


def write_jsonl(path: Path, documents: list[str], key: str = "text") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps({key: text}) + "\n" for text in documents), encoding="utf-8")
    return path


def jsonl(path: Path) -> list[str]:
    return ["data.source.kind=jsonl", f"data.path={path}"]


def documents(corpus: Corpus, drops: Drops | None = None, place: Path = Path("unused")) -> list[str]:
    """Return the documents of an opened source as the shard stage takes them; count what it drops."""
    counted = Drops() if drops is None else drops
    counted.update(corpus.left_out)
    found = []
    for file in corpus.files:
        corpus.fetch(file, place)
        for row in corpus.rows(file, 0, place):
            reason = row.reason if isinstance(row, NoText) else no_document(row)
            if reason is None:
                found.append(row.decode())
            else:
                counted[reason] += 1
    return found


def digest(folder: Path) -> dict[str, str]:
    """Return the sha256 of every file below a folder by its name."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def environment(root: Path, **variables: str) -> dict[str, str]:
    kept = {key: os.environ[key] for key in ("PATH", "HOME", "LANG") if key in os.environ}
    return {**kept, "TRAINWRIGHT_ROOT": str(root), **variables}


def start(root: Path, *words: str, **variables: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "sharder", *words]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen(command, cwd=REPOSITORY, env=environment(root, **variables), text=True, **pipes)


def sharder(root: Path, *words: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run `python -m sharder` to its end."""
    process = start(root, *words, **variables)
    out, err = process.communicate(timeout=120)
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)


def facts(out: str) -> dict[str, str]:
    """Return the facts in the last line of a stage's output."""
    return dict(pair.split("=", 1) for pair in out.strip().splitlines()[-1].split(" "))


def num_committed(folder: Path) -> int:
    """Return how many shards a manifest lists now."""
    try:
        return len(json.loads((folder / "manifest.json").read_text())["shards"])
    except FileNotFoundError:
        return 0


def num_slices(folder: Path) -> int:
    """Return how many slices of a piece are committed now."""
    return len(list(folder.glob("slice_*.json")))


def wait_until(condition: Callable[[], bool], process: subprocess.Popen[str], seconds: float = 60) -> bool:
    """Wait for a condition; return False when the process ended first."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if condition():
            return True
        if process.poll() is not None:
            return False
        time.sleep(0.002)
    raise AssertionError("neither the condition nor the end came")


def words_of(root: Path, *overrides: str) -> list[str]:
    """Return the words that shard a made experiment."""
    root.mkdir(parents=True, exist_ok=True)
    return ["shard", str(experiment_file(root)), *overrides]
