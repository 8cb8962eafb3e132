"""Adana beside AdamW on a small Enoki and real text: curves over three seeds, and the difference, whatever it is.

    python bench/optimizers.py --text FOLDER OUT.json [--steps 600] [--at-once 2]

FOLDER holds English text (.txt). Enoki of 3 heads (1.7 million parameters, a vocabulary of 2048 included) trains on
batches of 32 x 128 tokens through `boot`, as any run does. For each optimizer the peak rate of its scaling rule, half
and twice of it are tried with the first seed; the best goes on with the two others. A seed decides weights, order and
which documents are validation, the same for both optimizers; validation loss is taken on 65,536 tokens every 50 steps.
OUT is written at the end; the last line printed is one JSON object without the curves.
"""

import argparse
from concurrent.futures import ThreadPoolExecutor
import json
import os
from pathlib import Path
import statistics
import subprocess
import sys
import tempfile

from encode import write_documents

ROOT = Path(__file__).resolve().parent.parent
EXPERIMENT = """\
name: enoki-small
data:
  source: {kind: jsonl}
  path: CORPUS
  documents_per_shard: 2000
  validation_fraction: 0.02
tokenizer: {kind: bpe, vocab_size: 2048}
model: {kind: enoki, heads: 3}
train: {seq_len_tokens: 128, micro_batch: 32, global_batch_sequences: 32, steps: STEPS, grad_clip: 0.5, precision: fp32}
optimizer: {kind: adana, lr: null}
schedule: {kind: cos_inf}
evaluation: {every_steps: 50, max_tokens: 65_536}
checkpoint: {dump: {every_steps: 300, keep: 1}}
logging: {num_samples: 0}
resources: {device: cpu, ranks_per_node: 1}
"""
OPTIMIZERS = {
    # As the authors of Adana compare them: AdamW with decay that does not depend on the rate.
    "adamw": ["optimizer.kind=adamw", "optimizer.decay=independent"],
    "adana": ["optimizer.kind=adana"],
}
SEEDS = (0, 1, 2)
SCALES = (0.5, 1.0, 2.0)

Curve = list[tuple[int, float]]


def main() -> int:
    """Train, write the curves, print the difference; there is nothing to fail but the runs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--text", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--at-once", type=int, default=2, help="runs side by side, of one thread each")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="optimizers-") as folder:
        runs = Runs(Path(folder), asked.text, asked.steps)
        rules = {kind: runs.rule(kind) for kind in OPTIMIZERS}
        with ThreadPoolExecutor(asked.at_once) as pool:
            tried = {
                kind: {scale: pool.submit(runs.curve, kind, rule * scale, SEEDS[0]) for scale in SCALES}
                for kind, rule in rules.items()
            }
            best = {kind: min(each, key=lambda scale: each[scale].result()[-1][1]) for kind, each in tried.items()}
            more = {
                kind: [pool.submit(runs.curve, kind, rules[kind] * best[kind], seed) for seed in SEEDS[1:]]
                for kind in OPTIMIZERS
            }
            curves = {
                kind: [tried[kind][best[kind]].result(), *(each.result() for each in more[kind])] for kind in rules
            }
        grid = {kind: {str(scale): each[scale].result()[-1][1] for scale in SCALES} for kind, each in tried.items()}
    result = summary(curves, grid, rules, best, asked.steps)
    asked.out.write_text(json.dumps({**result, "curves": curves}) + "\n")
    print(json.dumps(result))
    return 0


def summary(
    curves: dict[str, list[Curve]],
    grid: dict[str, dict[str, float]],
    rules: dict[str, float],
    best: dict[str, float],
    steps: int,
) -> dict[str, object]:
    """Return what is printed last."""
    last = {kind: [curve[-1][1] for curve in each] for kind, each in curves.items()}
    differences = [adana - adamw for adana, adamw in zip(last["adana"], last["adamw"], strict=True)]
    return {
        "bench": "optimizers",
        "unit": "nats a token of validation text",
        "model": "enoki, 3 heads, 1.67 M parameters",
        "steps": steps,
        "tokens": steps * 4096,
        "rate_of_the_rule": rules,
        "loss_by_share_of_that_rate": grid,
        "share_taken": best,
        "seeds": SEEDS,
        "last_loss": last,
        "adana_minus_adamw": [round(each, 4) for each in differences],
        "mean": round(statistics.mean(differences), 4),
        "standard_deviation": round(statistics.stdev(differences), 4),
    }


class Runs:
    """A root with its data, and the runs in it."""

    def __init__(self, folder: Path, text: Path, steps: int) -> None:
        self._folder = folder
        self._experiment = folder / "enoki-small.yaml"
        (folder / "corpus").mkdir()
        write_documents(text, folder / "corpus" / "0.jsonl")
        self._experiment.write_text(EXPERIMENT.replace("CORPUS", str(folder / "corpus")).replace("STEPS", str(steps)))
        for seed in SEEDS:
            self._ran(
                "infra.boot", str(self._experiment), f"name=text-{seed}", *self._data(seed), "--until", "tokenizer"
            )

    def rule(self, kind: str) -> float:
        """Return the peak rate that the scaling rule gives."""
        lines = self._ran("infra", "plan", str(self._experiment), *OPTIMIZERS[kind], "optimizer.lr=null").splitlines()
        return next(float(line.split()[1]) for line in lines if line.startswith("peak_lr"))

    def curve(self, kind: str, rate: float, seed: int) -> Curve:
        """Train one run; return the validation loss by step."""
        name = f"{kind}-{round(1e6 * rate)}-{seed}"
        settings = [*OPTIMIZERS[kind], f"optimizer.lr={rate}", f"name={name}", *self._data(seed)]
        self._ran("infra.boot", str(self._experiment), *settings)
        lines = (self._folder / "runs" / name / "metrics.jsonl").read_text().splitlines()
        records = [json.loads(line) for line in lines]
        found = [(record["step"], record["eval_loss"]) for record in records if "eval_loss" in record]
        print(f"{name}: {found[-1][1]:.4f}", file=sys.stderr, flush=True)
        return found

    @staticmethod
    def _data(seed: int) -> list[str]:
        """Return the settings of a seed, which chooses the validation documents too."""
        return [f"seed={seed}", f"data.name=text-{seed}", f"tokenizer.name=bpe-{seed}"]

    def _ran(self, module: str, *words: str) -> str:
        environ = {**os.environ, "TRAINWRIGHT_ROOT": str(self._folder), "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
        done = subprocess.run(
            [sys.executable, "-m", module, *words], env=environ, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr[-2000:]
        return done.stdout


if __name__ == "__main__":
    sys.exit(main())
