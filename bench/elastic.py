"""Saves a checkpoint on N ranks, goes on with M, and holds what comes out against the run that stayed on N.

    python bench/elastic.py [--pairs 1-4 3-2]

Every run is a real boot with real ranks (CPU, gloo, fp32). For each N one run is left in peace; for each M its folder
is copied with only the checkpoint of step 10, and boot goes on with M ranks for 20 global batches. Then

- each global batch holds the same samples: the ranks write down the tokens that their `train_step` is given
  (bench/inside), and this program finds the sample that each row is by reading the shards in file order;
- the losses differ by less than 1e-4, relatively, and not at all when M is N; the learning rates are the same numbers;
- every tensor of weights and optimizer that M ranks hold after loading is, to the byte, what N ranks saved.

The last line printed is one JSON object; the exit code is 0 only when all of this held.
"""

import argparse
from dataclasses import asdict, dataclass
import hashlib
import json
import os
from pathlib import Path
import random
import shutil
import subprocess
import sys
import tempfile
import time

import numpy as np
from safetensors.numpy import load_file

from trainwright.tokens.shards import TokenCorpus

SAVED_AT = 10
BATCHES = 20
GLOBAL_BATCH = 12
SEQ_LEN_TOKENS = 64
RANKS = (1, 2, 3, 4)
LARGEST_DIFFERENCE = 1e-4
PATIENCE_S = 600.0
EXPERIMENT = f"""\
name: elastic
data:
  source: {{kind: text, document: file}}
  path: CORPUS
  validation_fraction: 0.2
  documents_per_shard: 3
  workers: 1
model: {{dim: 32, num_layers: 2, num_heads: 4, num_kv_heads: 2}}
train:
  seq_len_tokens: {SEQ_LEN_TOKENS}
  micro_batch: 1
  global_batch_sequences: {GLOBAL_BATCH}
  steps: {SAVED_AT + BATCHES}
  precision: fp32
optimizer: {{lr: 3e-3}}
schedule: {{warmup_steps: 3}}
evaluation: {{every_steps: null, max_tokens: 1000}}
checkpoint: {{dump: {{every_steps: {SAVED_AT}, keep: 9}}}}
resources: {{device: cpu}}
logging: {{tensorboard: false, num_samples: 0}}
"""

State = dict[str, "np.ndarray[tuple[int, ...], np.dtype[np.generic]]"]


@dataclass(frozen=True)
class Run:
    """What one run left: by step the samples it was fed, its losses and learning rates."""

    folder: Path
    fed: dict[int, list[int]]
    losses: dict[int, float]
    lrs: dict[int, float]


@dataclass(frozen=True)
class Pair:
    """A checkpoint of `saved_by` ranks, continued by `continued_by`."""

    saved_by: int
    continued_by: int
    equal_batches: int
    largest_relative_loss_difference: float
    same_learning_rates: bool
    tensors: int
    tensors_equal_to_the_byte: int
    seconds: float

    @property
    def held(self) -> bool:
        """Return whether all that must be the same was the same."""
        allowed = 0.0 if self.saved_by == self.continued_by else LARGEST_DIFFERENCE
        whole = self.tensors_equal_to_the_byte == self.tensors > 0
        near = self.largest_relative_loss_difference <= allowed
        return self.equal_batches == BATCHES and near and self.same_learning_rates and whole


@dataclass(frozen=True)
class Ground:
    """Where everything of one measurement lies, and the sample that each row of tokens is."""

    root: Path
    sample_of: dict[str, int]


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--pairs", nargs="+", metavar="N-M", help="only these; without it all pairs of 1 to 4 ranks")
    words = parser.parse_args().pairs
    every = [(saved_by, by) for saved_by in RANKS for by in RANKS]
    chosen = [pair for pair in every if words is None or f"{pair[0]}-{pair[1]}" in words]
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="elastic-") as folder:
        ground = prepare(Path(folder))
        undisturbed = {ranks: whole_run(ground, ranks) for ranks in sorted({saved_by for saved_by, _ in chosen})}
        pairs = [continued(ground, undisturbed[saved_by], saved_by, by) for saved_by, by in chosen]
    result = {
        "name": "elastic",
        "global_batch_sequences": GLOBAL_BATCH,
        "micro_batch": 1,
        "saved_at_step": SAVED_AT,
        "batches": BATCHES,
        "samples_in_an_epoch": len(ground.sample_of),
        "largest_difference_allowed": LARGEST_DIFFERENCE,
        "largest_difference": max((pair.largest_relative_loss_difference for pair in pairs), default=None),
        "held": sum(pair.held for pair in pairs),
        "pairs": [asdict(pair) for pair in pairs],
        "seconds": round(time.monotonic() - started, 1),
    }
    print(json.dumps(result))
    return 0 if pairs and all(pair.held for pair in pairs) else 1


def prepare(root: Path) -> Ground:
    """Make text and token shards by boot, and learn which tokens each sample has."""
    write_corpus(root / "corpus")
    (root / "elastic.yaml").write_text(EXPERIMENT.replace("CORPUS", str(root / "corpus")))
    boot(root, root / "prepared", 1, until="tokenizer")
    (tokens,) = (root / "datasets/train/elastic").glob("tokens-????????")
    corpus = TokenCorpus(tokens)
    num_samples = -(-(corpus.manifest.num_tokens - 1) // SEQ_LEN_TOKENS)
    inputs, targets = corpus.pairs(np.arange(num_samples), SEQ_LEN_TOKENS)
    rows = [left.tobytes() + right.tobytes() for left, right in zip(inputs, targets, strict=True)]
    sample_of = {hashlib.sha256(row).hexdigest(): sample for sample, row in enumerate(rows)}
    assert len(sample_of) == num_samples, "two samples are alike; nothing could be told from their tokens"
    # An epoch must end within the batches that are compared.
    assert SAVED_AT * GLOBAL_BATCH < num_samples < (SAVED_AT + BATCHES) * GLOBAL_BATCH, num_samples
    return Ground(root, sample_of)


def write_corpus(folder: Path) -> None:
    """Write thirty texts, never two alike, with something to learn in them."""
    folder.mkdir()
    draw = random.Random("elastic")
    vocabulary = ["".join(draw.choices("abcdefghiklmnoprstuw", k=draw.randint(2, 9))) for _ in range(60)]
    for number in range(30):
        (folder / f"{number}.txt").write_text(" ".join(draw.choices(vocabulary, k=85)))


def whole_run(ground: Ground, ranks: int) -> Run:
    """Run on so many ranks from the first step to the last."""
    folder = ground.root / f"undisturbed-{ranks}"
    shutil.copytree(ground.root / "prepared", folder)
    run = boot_and_read(ground, folder, ranks)
    print(f"undisturbed on {ranks}: loss {run.losses[1]:.4f} to {run.losses[SAVED_AT + BATCHES]:.4f}", flush=True)
    return run


def continued(ground: Ground, undisturbed: Run, saved_by: int, by: int) -> Pair:
    """Go on with `by` ranks from the checkpoint of an undisturbed run, and compare."""
    started = time.monotonic()
    folder, saved = ground.root / f"from-{saved_by}-to-{by}", f"step_{SAVED_AT:08d}"
    shutil.copytree(undisturbed.folder, folder, ignore=shutil.ignore_patterns("record", "attempts", "train.json"))
    for path in (folder / "elastic/checkpoints").glob("step_*"):
        if path.name != saved:
            shutil.rmtree(path)
    run = boot_and_read(ground, folder, by)
    steps = range(SAVED_AT + 1, SAVED_AT + BATCHES + 1)
    assert set(run.fed) == set(steps), f"{folder} did not go on at step {SAVED_AT}: {sorted(run.fed)}"
    left = read_state(undisturbed.folder / "elastic/checkpoints" / saved)
    right = read_state(folder / "record/checkpoints" / saved)
    assert all(f"optimizer/{name[6:]}/exp_avg_sq" in left for name in left if name.startswith("model/"))
    pair = Pair(
        saved_by,
        by,
        equal_batches=sum(run.fed[step] == undisturbed.fed[step] for step in steps),
        largest_relative_loss_difference=max(abs(run.losses[step] / undisturbed.losses[step] - 1) for step in steps),
        same_learning_rates=run.lrs == undisturbed.lrs,
        tensors=len(left.keys() | right.keys()),
        tensors_equal_to_the_byte=sum(alike(left[name], right[name]) for name in left.keys() & right.keys()),
        seconds=round(time.monotonic() - started, 1),
    )
    print(f"{saved_by} -> {by}: {'held' if pair.held else 'DID NOT HOLD'} {asdict(pair)}", flush=True)
    return pair


def boot_and_read(ground: Ground, folder: Path, ranks: int) -> Run:
    """Boot a run to the end of its training, and return what it left."""
    record = folder / "record"
    boot(ground.root, folder, ranks, until="train", record=record)
    rows = [json.loads(line) for line in (folder / "elastic/metrics.jsonl").read_text().splitlines()]
    steps = [row for row in rows if "loss" in row]
    assert [row["step"] for row in steps] == list(range(1, SAVED_AT + BATCHES + 1))
    losses, lrs = ({row["step"]: row[name] for row in steps} for name in ("loss", "lr"))
    return Run(folder, read_fed(ground, record, ranks), losses, lrs)


def boot(root: Path, runs: Path, ranks: int, *, until: str, record: Path | None = None) -> None:
    """Boot the experiment with its run folder below `runs`; whatever it says is shown only when it fails."""
    here = Path(__file__).resolve().parent
    environ = {**os.environ, "TRAINWRIGHT_ROOT": str(root), "PYTHONPATH": f"{here / 'inside'}:{here.parent}"}
    if record is not None:
        environ["ELASTIC_RECORD"] = str(record)
    changes = [f"paths.runs={runs}", f"resources.ranks_per_node={ranks}"]
    command = [sys.executable, "-m", "infra.boot", str(root / "elastic.yaml"), *changes, "--until", until]
    done = subprocess.run(
        command, env=environ, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=PATIENCE_S, check=False
    )
    if done.returncode != 0:
        raise SystemExit(f"{runs.name}: boot ended with {done.returncode}:\n{done.stdout.decode()}")


def read_fed(ground: Ground, record: Path, ranks: int) -> dict[int, list[int]]:
    """Return, sorted, the samples that all ranks together were fed at each step."""
    files = sorted(record.glob("rank_*.jsonl"))
    assert len(files) == ranks, f"{record} has the records of {len(files)} ranks, not of {ranks}"
    fed: dict[int, list[int]] = {}
    for line in (line for path in files for line in path.read_text().splitlines()):
        told = json.loads(line)
        assert told["ranks"] == ranks
        assert len(told["rows"]) == GLOBAL_BATCH // ranks
        fed.setdefault(told["step"], []).extend(ground.sample_of[row] for row in told["rows"])
    return {step: sorted(samples) for step, samples in fed.items()}


def read_state(folder: Path) -> State:
    """Return the whole tensors of a checkpoint, put together by its index alone."""
    files = {path.name: load_file(path) for path in folder.glob("*.safetensors")}
    whole = {}
    for name, entry in json.loads((folder / "index.json").read_text()).items():
        whole[name] = np.full(entry["shape"], np.nan, dtype=entry["dtype"])
        for piece in entry["pieces"]:
            box = tuple(slice(at, at + size) for at, size in zip(piece["offset"], piece["shape"], strict=True))
            whole[name][box] = files[piece["file"]][name]
    return whole


def alike(left: "np.ndarray[tuple[int, ...], np.dtype[np.generic]]", right: object) -> bool:
    """Return whether two arrays have the same type, shape and bytes."""
    assert isinstance(right, np.ndarray)
    return left.dtype == right.dtype and left.shape == right.shape and left.tobytes() == right.tobytes()


if __name__ == "__main__":
    sys.exit(main())
