"""Kills real processes of real runs at random moments, and holds what comes out against an undisturbed run.

    python bench/kills.py --kills 200 --seed SEED

One run is left in peace. Others are started, one of their processes (or all of them) is killed with SIGKILL after a
random time, or boot is asked to stop with SIGTERM, and boot is started again, until the run is complete. Then text
shards, tokenizer, token shards and final weights must be the same bytes, metrics.jsonl must hold each step once with
the same losses, and no process may be left over. The last line printed is one JSON object; the exit code is 0 only when
all of this held.
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

from trainwright.spec.paths import ROOT_VARIABLE
from trainwright.store.process import processes_with

EXPERIMENT = """\
name: kills
data:
  source: {kind: text, document: file}
  path: CORPUS
  validation_fraction: 0.2
  documents_per_shard: 40
  workers: 2
tokenizer: {kind: bpe, vocab_size: 512}
model: {dim: 32, num_layers: 2, num_heads: 2}
train: {seq_len_tokens: 64, micro_batch: 2, global_batch_sequences: 8, steps: 58, precision: fp32}
optimizer: {lr: 3e-3}
evaluation: {every_steps: 4, max_tokens: 4000}
checkpoint: {dump: {every_steps: 5, keep: 2}}
logging: {num_samples: 1, sample_tokens: 4, print_every_steps: 5}
resources: {device: cpu, ranks_per_node: 2}
restart: {losses: 1000000, failures: 1000000, same_step: 1000000}
"""
VICTIMS = ("boot", "child", "rank", "all", "interrupt")
GONE_WITHIN_S = 20.0
# Of a machine that has other work too; nothing is measured by it.
PATIENCE_S = 900.0


@dataclass
class Tally:
    """What happened."""

    kills: int = 0
    runs: int = 0
    wrong: list[str] = field(default_factory=list)
    by_victim: Counter[str] = field(default_factory=Counter)
    by_stage: Counter[str] = field(default_factory=Counter)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", default="0", help="any text; CI gives the commit")
    arguments = parser.parse_args()
    dice, tally, started = random.Random(arguments.seed), Tally(), time.monotonic()
    with tempfile.TemporaryDirectory(prefix="kills-") as folder:
        experiment = write_corpus(Path(folder))
        reference, seconds = undisturbed(experiment, Path(folder) / "reference")
        print(f"undisturbed: {seconds:.1f} s", flush=True)
        while tally.kills < arguments.kills and not tally.wrong:
            disturbed(experiment, Path(folder) / "disturbed", reference, arguments.kills, seconds, dice, tally)
    result = {
        "name": "kills",
        "seed": arguments.seed,
        "kills": tally.kills,
        "completed_runs": tally.runs,
        "wrong": tally.wrong,
        "by_victim": dict(tally.by_victim),
        "by_stage": dict(tally.by_stage),
        "seconds": round(time.monotonic() - started, 1),
    }
    print(json.dumps(result))
    return 1 if tally.wrong or tally.runs == 0 else 0


def write_corpus(folder: Path) -> Path:
    """Write about 1 MB of made-up text in 150 files, and the experiment that reads it."""
    words = random.Random("corpus")
    vocabulary = ["".join(words.choices("abcdefghiklmnoprstuw", k=words.randint(2, 9))) for _ in range(800)]
    (folder / "corpus").mkdir()
    for number in range(150):
        lines = [" ".join(words.choices(vocabulary, k=12)) for _ in range(100)]
        (folder / "corpus" / f"{number:03d}.txt").write_text("\n".join(lines) + "\n")
    path = folder / "kills.yaml"
    path.write_text(EXPERIMENT.replace("CORPUS", str(folder / "corpus")))
    return path


def undisturbed(experiment: Path, root: Path) -> tuple[dict[str, str], float]:
    """Run once in peace; return what it left and how long it took."""
    started = time.monotonic()
    boot = start(experiment, root)
    if boot.wait(PATIENCE_S) != 0:
        raise SystemExit(f"the undisturbed run failed; see {root / 'boot.log'}:\n{(root / 'boot.log').read_text()}")
    return outcome(root), time.monotonic() - started


def disturbed(
    experiment: Path,
    root: Path,
    reference: dict[str, str],
    kills: int,
    seconds: float,
    dice: random.Random,
    tally: Tally,
) -> None:
    """Take one run to its end under kills, and compare."""
    shutil.rmtree(root, ignore_errors=True)
    while True:
        boot = start(experiment, root)
        moment = dice.uniform(0.2, seconds) if tally.kills < kills else PATIENCE_S
        try:
            code = boot.wait(moment)
        except subprocess.TimeoutExpired:
            kill(boot, root, dice.choice(VICTIMS), tally)
            code = boot.wait(PATIENCE_S)
            if left := alive_after(root):
                tally.wrong.append(f"processes left after kill {tally.kills}: {left}")
        if code == 0:
            break
        if code == 78 or tally.wrong:
            tally.wrong.append(f"boot ended with {code} after kill {tally.kills}: {tail(root)}")
            return
    tally.runs += 1
    found = outcome(root)
    different = sorted(key for key in reference.keys() | found.keys() if reference.get(key) != found.get(key))
    if different:
        tally.wrong.append(f"run {tally.runs} differs after {tally.kills} kills in {different[:5]}")
    print(f"run {tally.runs}: same bytes after {tally.kills} kills", flush=True)


def start(experiment: Path, root: Path) -> "subprocess.Popen[bytes]":
    root.mkdir(parents=True, exist_ok=True)
    log = (root / "boot.log").open("ab")
    environ = {**os.environ, ROOT_VARIABLE: str(root), "PYTHONPATH": str(Path(__file__).parents[1])}
    command = [sys.executable, "-m", "infra.boot", str(experiment)]
    return subprocess.Popen(command, env=environ, stdout=log, stderr=log, start_new_session=True)


def kill(boot: "subprocess.Popen[bytes]", root: Path, victim: str, tally: Tally) -> None:
    """Kill one process of the run (boot, its child, one below that) or all, or ask boot to stop; note where it was."""
    tree = processes_with(ROOT_VARIABLE, str(root))
    below = [pid for pid, parent in tree.items() if parent == boot.pid]
    deeper = [pid for pid, parent in tree.items() if parent in below]
    victims = {"child": below[:1], "rank": deeper[-1:], "all": list(tree)}
    chosen = victims.get(victim) or [boot.pid]
    for pid in chosen:
        try:
            os.kill(pid, signal.SIGTERM if victim == "interrupt" else signal.SIGKILL)
        except ProcessLookupError:
            continue
    tally.kills += 1
    tally.by_victim["boot" if victim != "interrupt" and chosen == [boot.pid] else victim] += 1
    tally.by_stage[stage_of(root)] += 1


def alive_after(root: Path) -> list[int]:
    """Return the processes that are still there some seconds after their boot has ended."""
    deadline = time.monotonic() + GONE_WITHIN_S
    while (left := list(processes_with(ROOT_VARIABLE, str(root)))) and time.monotonic() < deadline:
        time.sleep(0.05)
    return left


def stage_of(root: Path) -> str:
    """Return the last stage that the log names as started."""
    lines = [line for line in (root / "boot.log").read_text(errors="replace").splitlines() if "stage=" in line]
    if lines and "step=" in lines[-1]:
        return "train, after a step"
    return lines[-1].split("stage=")[1].split()[0] if lines else "start"


def tail(root: Path) -> str:
    return " | ".join((root / "boot.log").read_text(errors="replace").splitlines()[-5:])


def outcome(root: Path) -> dict[str, str]:
    """Return everything that must be equal: hashes of shards, tokenizer and weights, and the figures of each step."""
    files = [path for top in ("datasets", "artifacts") for path in (root / top).rglob("*") if path.is_file()]
    last = max((root / "runs/kills/checkpoints").glob("step_*"))
    files += sorted(last.glob("*.safetensors"))
    found = {str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}
    rows = [json.loads(line) for line in (root / "runs/kills/metrics.jsonl").read_text().splitlines()]
    for row in rows:
        key = f"{'evaluation' if 'eval_loss' in row else 'step'} {row['step']}"
        figures = [row.get(name) for name in ("loss", "lr", "grad_norm", "tokens", "eval_loss", "bits_per_byte")]
        found[key] = f"given twice: {key}" if key in found else repr(figures)
    return found


if __name__ == "__main__":
    sys.exit(main())
