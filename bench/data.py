"""Kills processes that ingest, shuffle and encode text at random moments, and compares with an undisturbed run.

    python bench/data.py --kills 100 --seed SEED

Two corpora are made of the same files: in the order of the source, and shuffled; the first is encoded too. Each is made
once in peace, by one process. Then they are made again and again, as one part, two or five, whose processes work at the
same time; after random times one of them or all are killed with SIGKILL, or stopped with SIGTERM, and started anew
until every part is done. The files below `datasets` must then be the same bytes, temporary ones gone. The last line
printed is one JSON object; the exit code is 0 only when all of this held.
"""

import argparse
from collections import Counter
from dataclasses import dataclass, field
import hashlib
import json
import os
from pathlib import Path
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time

NUM_FILES = 8
EXPERIMENT = """\
name: kills
data:
  source: {kind: jsonl, take: 9000}
  path: CORPUS
  validation_fraction: 0.02
  documents_per_shard: 400
  memory_mib: 16
  workers: WORKERS
tokenizer: {kind: bpe, vocab_size: 2000}
train: {global_batch_sequences: 1, micro_batch: 1, steps: 1}
"""
KINDS = {
    "in order": ["shard"],
    "shuffled": ["shard", "data.shuffle_documents=true"],
    # The slow encoder, or most kills would come before it or after.
    "encoded": ["encode", "data.encoder=tiktoken", "data.workers=2"],
}
"""What is made -> the word and the overrides that make it."""
PARTS = {"in order": (1, 2, 5), "shuffled": (1, 2, 5), "encoded": (1,)}
MAX_KILLS_OF_A_RUN = 4
PATIENCE_S = 300.0
INTERRUPTED, MISSING = 75, 69


@dataclass
class Tally:
    """What happened."""

    kills: int = 0
    runs: int = 0
    wrong: list[str] = field(default_factory=list)
    by_kind: Counter[str] = field(default_factory=Counter)
    by_parts: Counter[str] = field(default_factory=Counter)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", default="0", help="any text; CI gives the commit")
    arguments = parser.parse_args()
    dice, tally, started = random.Random(arguments.seed), Tally(), time.monotonic()
    with tempfile.TemporaryDirectory(prefix="data-kills-") as folder:
        experiment = write_corpus(Path(folder))
        reference, seconds = {}, {}
        for kind in KINDS:
            reference[kind], seconds[kind] = undisturbed(experiment, Path(folder) / "reference", kind)
            print(f"undisturbed, {kind}: {seconds[kind]:.1f} s", flush=True)
        while tally.kills < arguments.kills and not tally.wrong:
            kind = list(KINDS)[tally.runs % len(KINDS)]
            num_parts = dice.choice(PARTS[kind])
            root, kills = Path(folder) / "disturbed", min(arguments.kills, tally.kills + MAX_KILLS_OF_A_RUN)
            disturbed(experiment, root, (kind, num_parts), seconds[kind], kills, dice, tally)
            tally.runs += 1
            found = outcome(root)
            if different := sorted(
                key for key in found.keys() | reference[kind] if found.get(key) != reference[kind].get(key)
            ):
                tally.wrong.append(f"{kind}, {num_parts} parts, after {tally.kills} kills: {different[:5]} differ")
            print(f"run {tally.runs}: {kind}, {num_parts} parts, {tally.kills} kills so far", flush=True)
    result = {
        "name": "data",
        "seed": arguments.seed,
        "kills": tally.kills,
        "completed_runs": tally.runs,
        "wrong": tally.wrong,
        "by_kind": dict(tally.by_kind),
        "by_parts": dict(tally.by_parts),
        "seconds": round(time.monotonic() - started, 1),
    }
    print(json.dumps(result))
    return 1 if tally.wrong or tally.runs == 0 else 0


def write_corpus(folder: Path) -> Path:
    """Write about 12 MB of made-up documents in files that are pieces of their own, and the experiment."""
    words = random.Random("corpus")
    vocabulary = ["".join(words.choices("abcdefghiklmnoprstuw", k=words.randint(2, 9))) for _ in range(800)]
    (folder / "corpus").mkdir()
    for number in range(NUM_FILES):
        lines = [
            json.dumps({"text": f"{number} {row} " + " ".join(words.choices(vocabulary, k=150))}) for row in range(1300)
        ]
        lines[7] = "not json"
        (folder / "corpus" / f"{number}.jsonl").write_text("\n".join(lines) + "\n")
    path = folder / "kills.yaml"
    path.write_text(EXPERIMENT.replace("CORPUS", str(folder / "corpus")).replace("WORKERS", "1"))
    return path


def start(experiment: Path, root: Path, kind: str, part: str) -> "subprocess.Popen[bytes]":
    root.mkdir(parents=True, exist_ok=True)
    environ = {**os.environ, "TRAINWRIGHT_ROOT": str(root), "PYTHONPATH": str(Path(__file__).parents[1])}
    word, *overrides = KINDS[kind]
    command = [sys.executable, "-m", "sharder", word, str(experiment), *overrides]
    command += ["--part", part] if word == "shard" else []
    with (root / "log").open("ab") as log:
        return subprocess.Popen(command, env=environ, stdout=log, stderr=log, start_new_session=True)


def prepare(experiment: Path, root: Path, kind: str) -> None:
    """Empty a root; to be encoded, a corpus and its tokenizer are put there, made once."""
    shutil.rmtree(root, ignore_errors=True)
    if KINDS[kind][0] == "shard":
        return
    prepared = root.with_name("prepared")
    if not prepared.exists():
        undisturbed(experiment, prepared, "in order")
        environ = {**os.environ, "TRAINWRIGHT_ROOT": str(prepared), "PYTHONPATH": str(Path(__file__).parents[1])}
        subprocess.run([sys.executable, "-m", "sharder", "tokenizer", str(experiment)], env=environ, check=True)
    shutil.copytree(prepared, root)


def undisturbed(experiment: Path, root: Path, kind: str) -> tuple[dict[str, str], float]:
    """Make a corpus once in peace; return what it left and how long it took."""
    prepare(experiment, root, kind)
    started = time.monotonic()
    if start(experiment, root, kind, "1/1").wait(PATIENCE_S) != 0:
        raise SystemExit(f"the undisturbed run failed:\n{(root / 'log').read_text()}")
    return outcome(root), time.monotonic() - started


def disturbed(
    experiment: Path,
    root: Path,
    shape: tuple[str, int],
    seconds: float,
    kills: int,
    dice: random.Random,
    tally: Tally,
) -> None:
    """Take one corpus to its end under kills."""
    kind, num_parts = shape
    prepare(experiment, root, kind)
    names = [f"{number}/{num_parts}" for number in range(1, num_parts + 1)]
    todo = set(names)
    while todo and not tally.wrong:
        running = {name: start(experiment, root, kind, name) for name in names if name in todo}
        if tally.kills < kills:
            wait_a_while(running, dice.uniform(0.3, 0.8 * seconds))
            alive = [name for name, process in running.items() if process.poll() is None]
            for name in dice.choice([alive, alive[:1], alive[-1:]]):
                running[name].send_signal(dice.choice([signal.SIGKILL, signal.SIGKILL, signal.SIGTERM]))
                tally.kills += 1
                tally.by_kind[kind] += 1
                tally.by_parts[str(num_parts)] += 1
        for name, process in running.items():
            code = process.wait(PATIENCE_S)
            if code == 0:
                todo.discard(name)
            elif code not in (-signal.SIGKILL, -signal.SIGTERM, INTERRUPTED, MISSING):
                tally.wrong.append(f"part {name} ended with {code}: {tail(root)}")
        if not todo and not complete(root):
            # Whoever published was killed; any part does it again.
            todo = {names[0]}


def wait_a_while(running: "dict[str, subprocess.Popen[bytes]]", seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and any(process.poll() is None for process in running.values()):
        time.sleep(0.01)


def complete(root: Path) -> bool:
    manifests = [root / "datasets" / split / "kills" / "manifest.json" for split in ("train", "val")]
    return all(path.exists() and json.loads(path.read_text())["complete"] for path in manifests)


def tail(root: Path) -> str:
    return " | ".join((root / "log").read_text(errors="replace").splitlines()[-5:])


def outcome(root: Path) -> dict[str, str]:
    """Return the hash of every file of the corpus."""
    files = [path for path in (root / "datasets").rglob("*") if path.is_file()]
    return {str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


if __name__ == "__main__":
    sys.exit(main())
