"""What a run spends beside its steps: waiting for batches, keeping records, evaluating.

    python bench/overhead.py --text FOLDER [--steps 40]

FOLDER holds English text (.txt). A Llama of 10 million parameters trains on this CPU through `boot`, one rank, with
records, terminal and TensorBoard as every run has them; all figures are read from its metrics.jsonl:

    loader       the wait for a batch, as a share of the step
    logging      from the end of a step to the start of the next one, where nothing was saved or evaluated between
    evaluation   seconds a token, against those of a training step (a forward pass is a third of both passes); with it,
                 the share of time that the cadence of each shipped experiment gives evaluation

The last line is one JSON object; the exit code is 0 when loader and logging stay under 1 % each.
"""

import argparse
from itertools import pairwise
import json
import os
from pathlib import Path
import statistics
import subprocess
import sys
import tempfile
from typing import Any

from encode import write_documents
from trainwright.spec.derived import Derived
from trainwright.spec.load import load_experiment

ROOT = Path(__file__).resolve().parent.parent
PROMISED_SHARE = 0.01
EXPERIMENT = """\
name: overhead
data: {source: {kind: jsonl}, path: CORPUS, validation_fraction: 0.02}
tokenizer: {kind: bpe, vocab_size: 8192}
model: {dim: 256, num_layers: 6, num_heads: 4}
train: {seq_len_tokens: 256, micro_batch: 8, global_batch_sequences: 16, steps: STEPS, precision: fp32}
evaluation: {every_steps: 20, max_tokens: 32_768}
resources: {device: cpu, ranks_per_node: 1}
"""


def main() -> int:
    """Print the shares as one JSON object; return 1 when one is larger than promised."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--text", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=40)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="overhead-") as folder:
        records = trained(Path(folder), asked.text, asked.steps)
    steps = [record for record in records if "loss" in record]
    evaluations = [record for record in records if "eval_loss" in record]
    seconds = statistics.median(record["step_seconds"] for record in steps)
    tokens_per_step = steps[-1]["tokens"] / len(steps)
    loader = statistics.median(record["data_wait_seconds"] for record in steps) / seconds
    logging = statistics.median(pauses(records)) / seconds
    scored = statistics.median(record["eval_seconds"] / record["eval_tokens"] for record in evaluations)
    relative = scored / (seconds / tokens_per_step)
    result = {
        "bench": "overhead",
        "unit": "share of the time of a step",
        "step_seconds": round(seconds, 4),
        "tokens_per_step": round(tokens_per_step),
        "loader": round(loader, 6),
        "logging": round(logging, 6),
        "evaluation_to_training_by_token": round(relative, 3),
        "evaluation_by_experiment": by_experiment(relative),
        "promised": {"loader": PROMISED_SHARE, "logging": PROMISED_SHARE},
        "passed": max(loader, logging) < PROMISED_SHARE,
        "processors": os.cpu_count(),
        "load_average": round(os.getloadavg()[0], 2),
    }
    print(json.dumps(result))
    return 0 if result["passed"] else 1


def trained(folder: Path, text: Path, steps: int) -> list[dict[str, Any]]:
    """Run the experiment in a folder; return its records."""
    (folder / "corpus").mkdir()
    write_documents(text, folder / "corpus" / "0.jsonl")
    experiment = folder / "overhead.yaml"
    experiment.write_text(EXPERIMENT.replace("CORPUS", str(folder / "corpus")).replace("STEPS", str(steps)))
    environ = {**os.environ, "TRAINWRIGHT_ROOT": str(folder), "PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, "-m", "infra.boot", str(experiment)], env=environ, check=True)
    lines = (folder / "runs" / "overhead" / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def pauses(records: list[dict[str, Any]]) -> list[float]:
    """Return the seconds between steps that follow one another at once."""
    return [
        after["time"] - before["time"] - after["step_seconds"]
        for before, after in pairwise(records)
        if "loss" in before and "loss" in after and not after.get("save_seconds")
    ]


def by_experiment(relative: float) -> dict[str, float]:
    """Return the share of evaluation in each shipped experiment, if a scored token costs `relative` trained ones."""
    shares = {}
    for path in sorted((ROOT / "experiments").glob("*.yaml")):
        derived = Derived(load_experiment(path, (), {}).experiment)
        evaluation = derived.experiment.evaluation
        if evaluation.every_steps is not None:
            trained_tokens = evaluation.every_steps * derived.tokens_per_step
            shares[path.stem] = round(relative * evaluation.max_tokens / trained_tokens, 4)
    return shares


if __name__ == "__main__":
    sys.exit(main())
