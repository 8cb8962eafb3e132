"""A corpus, a tokenizer and run folders small enough to train in a second, and the ways to start and read a run."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors.torch import load_file
import torch
from torch import Tensor

from trainer.__main__ import main
from trainer.models import build_model
from trainer.requests import SIGNALS
from trainwright.spec.derived import Derived
from trainwright.spec.exits import guarded
from trainwright.spec.experiment import Experiment
from trainwright.spec.load import load_experiment
from trainwright.spec.paths import RunFolder, Split, step_name
from trainwright.spec.resolved import Training
from trainwright.tokens.bundle import Bundle, bytes_bundle
from trainwright.tokens.shards import ShardEntry, TokenManifest, write_shard

STEPS = 20
TINY = f"""\
name: tiny
model: {{dim: 32, num_layers: 2, num_heads: 4, num_kv_heads: 2}}
train: {{seq_len_tokens: 64, micro_batch: 4, global_batch_sequences: 8, steps: {STEPS}, precision: fp32}}
optimizer: {{lr: 3e-3}}
schedule: {{warmup_steps: 3}}
evaluation: {{every_steps: 10, max_tokens: 1000}}
checkpoint: {{dump: {{every_steps: 10, keep: 5}}}}
resources: {{device: cpu}}
logging: {{tensorboard: false, num_samples: 2, sample_tokens: 6}}
"""
"""Two passes of four sequences on one rank, one pass on two; an epoch is shorter than the run, its end is padded."""

TWO_RANKS = "resources.ranks_per_node=2"
PATIENCE_S = 120.0


@dataclass(frozen=True)
class Ground:
    """The tokenizer and the token shards that runs read."""

    root: Path
    tokenizer: Path
    bundle: Bundle

    def tokens(self, split: Split) -> Path:
        return self.root / split


def make_ground(root: Path) -> Ground:
    """Write a bytes tokenizer, three training shards of different lengths and one validation shard."""
    bundle = bytes_bundle()
    bundle.save(root / "tokenizer")
    ground = Ground(root, root / "tokenizer", bundle)
    write_tokens(ground, "train", (3, 5, 2))
    write_tokens(ground, "val", (3,))
    return ground


def write_tokens(ground: Ground, split: Split, shards: tuple[int, ...], salt: int = 0) -> None:
    """Write shards of so many documents; another `salt` is another text."""
    bundle = ground.bundle
    entries: list[ShardEntry] = []
    for index, documents in enumerate(shards):
        tokens = [bundle.encode_document(made_text(f"{salt} {split} {index} {each}")) for each in range(documents)]
        path = ground.tokens(split) / f"{split}_{index:05d}.bin"
        entries.append(write_shard(path, tokens, bundle.vocab_size, documents))
    manifest = TokenManifest(bundle.hash, bundle.vocab_size, bundle.separator, "text", complete=True)
    TokenManifest(**{**_fields(manifest), "shards": tuple(entries)}).write(ground.tokens(split))


def _fields(manifest: TokenManifest) -> dict[str, Any]:
    return {name: getattr(manifest, name) for name in TokenManifest.__dataclass_fields__}


def made_text(seed: str) -> str:
    """Return a text with something to learn in it."""
    draw = random.Random(seed)
    things = ["river", "mountain", "house", "garden", "letter", "window", "horse", "winter"]
    doings = ["sees", "follows", "holds", "remembers", "leaves"]
    return "".join(
        f"The {draw.choice(things)} {draw.choice(doings)} the {draw.choice(things)}. "
        for _ in range(draw.randint(14, 22))
    )


def tiny_experiment(folder: Path, *overrides: str) -> Experiment:
    path = folder / "tiny.yaml"
    folder.mkdir(parents=True, exist_ok=True)
    path.write_text(TINY, encoding="utf-8")
    return load_experiment(path, overrides, {}).experiment


def make_run(ground: Ground, folder: Path, *overrides: str) -> RunFolder:
    """Write the `training.yaml` of a run, as boot does; an existing folder keeps the rest of what it holds."""
    experiment = tiny_experiment(folder, *overrides)
    training = Training(experiment, folder, ground.tokens("train"), ground.tokens("val"), ground.tokenizer)
    run = RunFolder(folder)
    run.training_yaml.write_text(training.yaml_text(), encoding="utf-8")
    return run


def copy_run(ground: Ground, source: RunFolder, folder: Path, *overrides: str) -> RunFolder:
    """Copy a run with its checkpoints and figures; the copy may differ in what is free to change."""
    shutil.copytree(source.path, folder)
    return make_run(ground, folder, *overrides)


def drop_after(run: RunFolder, step: int) -> None:
    """Delete the checkpoints after a step, as if the run had been killed before it saved them."""
    for folder in run.checkpoints.glob("step_*"):
        if int(folder.name[5:13]) > step:
            shutil.rmtree(folder)


def train_here(run: RunFolder) -> int:
    """Train by one rank inside this process, through the command's own `main`; return its exit code."""
    before = {number: signal.getsignal(number) for number in SIGNALS}
    try:
        return guarded("trainer", lambda: main([str(run.training_yaml)]))
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def start(run: RunFolder, ranks: int = 1, environ: Mapping[str, str] | None = None) -> subprocess.Popen[str]:
    """Start a run in processes of its own: one rank as a person would, more under the agent as boot does."""
    training = str(run.training_yaml)
    one = ["-m", "trainer", training]
    agent = ["-m", "trainer.agent", "--standalone", "--local-addr", "127.0.0.1"]
    several = [*agent, "--nproc-per-node", str(ranks), "--max-restarts", "0", "-m", "trainer", training]
    return subprocess.Popen(
        [sys.executable, *(one if ranks == 1 else several)],
        cwd=run.path,
        env={**clean_environment(), **(environ or {})},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def clean_environment() -> dict[str, str]:
    """Return the environment without what says something about ranks, attempts or experiments."""
    ours = ("TRAINWRIGHT_", "TORCHELASTIC_", "RUN_")
    ranks = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "OMP_NUM_THREADS", "SHARD_LINES")
    return {name: value for name, value in os.environ.items() if name not in ranks and not name.startswith(ours)}


@dataclass(frozen=True)
class Finished:
    """How a process ended, and all that it said."""

    code: int
    said: str


def finish(process: subprocess.Popen[str]) -> Finished:
    """Wait for a process; one that takes too long is killed and fails the test."""
    try:
        said, _ = process.communicate(timeout=PATIENCE_S)
    except subprocess.TimeoutExpired:
        process.kill()
        raise
    return Finished(process.returncode, said)


def train_in_processes(run: RunFolder, ranks: int = 1, environ: Mapping[str, str] | None = None) -> Finished:
    return finish(start(run, ranks, environ))


def wait_until(true: Callable[[], bool], what: str) -> None:
    """Wait for something another process does."""
    limit = time.monotonic() + PATIENCE_S
    while not true():
        assert time.monotonic() < limit, f"waited in vain for {what}"
        time.sleep(0.02)


def rows(run: RunFolder) -> list[dict[str, Any]]:
    return [json.loads(line) for line in run.metrics.read_text(encoding="utf-8").splitlines()]


def steps(run: RunFolder) -> list[dict[str, Any]]:
    return [row for row in rows(run) if "loss" in row]


def losses(run: RunFolder) -> dict[int, float]:
    return {row["step"]: row["loss"] for row in steps(run)}


def scores(run: RunFolder) -> dict[int, float]:
    return {row["step"]: row["bits_per_byte"] for row in rows(run) if "eval_loss" in row}


def saved_steps(run: RunFolder) -> list[int]:
    """Return the steps of the folders that count as checkpoints, oldest first."""
    return sorted(int(folder.name[5:]) for folder in run.checkpoints.glob("step_" + "[0-9]" * 8))


def checkpoint_bytes(run: RunFolder, step: int) -> dict[str, bytes]:
    """Return the tensor files of a checkpoint, byte for byte."""
    folder = run.checkpoints / step_name(step)
    return {path.name: path.read_bytes() for path in sorted(folder.glob("*.safetensors"))}


def checkpoint_tensors(run: RunFolder, step: int) -> dict[str, Tensor]:
    """Return the whole tensors of a checkpoint, put together by its index alone."""
    folder = run.checkpoints / step_name(step)
    files = {path.name: load_file(path) for path in folder.glob("*.safetensors")}
    whole = {}
    for name, entry in json.loads((folder / "index.json").read_text()).items():
        whole[name] = torch.full(entry["shape"], float("nan"), dtype=getattr(torch, entry["dtype"]))
        for piece in entry["pieces"]:
            box = tuple(slice(at, at + size) for at, size in zip(piece["offset"], piece["shape"], strict=True))
            whole[name][box] = files[piece["file"]][name]
    return whole


def blank_model(derived: Derived) -> torch.nn.Module:
    """Return an experiment's model without values."""
    experiment = derived.experiment
    return build_model(experiment.model, derived.vocab_size, experiment.train.seq_len_tokens)
