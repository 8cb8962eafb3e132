"""Every folder and file name below the root volume; no other module spells one.

ROOT/datasets/{train,val}/NAME/train_00000.jsonl.zst, manifest.json, tokens-HASH8/
ROOT/artifacts/tokenizer/NAME/        ROOT/assets/
ROOT/runs/EXP/                        ROOT/cache/EXP/          ROOT/hf_cache/
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from trainwright.spec.experiment import Experiment

ROOT_VARIABLE = "TRAINWRIGHT_ROOT"
DEFAULT_ROOT = Path("workspace")
MANIFEST = "manifest.json"
SPLITS: tuple["Split", ...] = ("train", "val")

Split = Literal["train", "val"]


@dataclass(frozen=True, slots=True)
class Places:
    """Where an experiment's files lie."""

    root: Path
    experiment: Experiment

    @property
    def _data(self) -> Path:
        return Path(self.experiment.paths.data) if self.experiment.paths.data else self.root

    def text(self, split: Split) -> Path:
        """Return the folder of text shards."""
        return self._data / "datasets" / split / self.experiment.data_name

    def tokens(self, split: Split, tokenizer_hash: str) -> Path:
        """Return the folder of token shards made with a tokenizer."""
        return self.text(split) / f"tokens-{tokenizer_hash[:8]}"

    @property
    def tokenizer(self) -> Path:
        """Return the folder of the tokenizer bundle."""
        return self._data / "artifacts" / "tokenizer" / self.experiment.tokenizer_name

    @property
    def assets(self) -> Path:
        """Return the folder of downloaded assets."""
        return self._data / "assets"

    @property
    def run(self) -> "RunFolder":
        """Return the run's own folder."""
        runs = Path(self.experiment.paths.runs) if self.experiment.paths.runs else self.root / "runs"
        return RunFolder(runs / self.experiment.name)

    @property
    def cache(self) -> Path:
        """Return the folder of caches that may be deleted at any time."""
        caches = Path(self.experiment.paths.cache) if self.experiment.paths.cache else self.root / "cache"
        return caches / self.experiment.name

    @property
    def hf_cache(self) -> Path:
        """Return the cache of the Hugging Face libraries."""
        return self.root / "hf_cache"


@dataclass(frozen=True, slots=True)
class RunFolder:
    """The names inside one run's folder."""

    path: Path

    def __str__(self) -> str:
        return str(self.path)

    @property
    def experiment(self) -> Path:
        """Return the resolved experiment."""
        return self.path / "experiment.yaml"

    @property
    def training_yaml(self) -> Path:
        """Return the trainer's projection of the experiment."""
        return self.path / "training.yaml"

    @property
    def training_toml(self) -> Path:
        """Return the same projection as TOML, for people and for tools that read it."""
        return self.path / "training.toml"

    def stage(self, name: str) -> Path:
        """Return the completion record of a stage."""
        return self.path / "stages" / f"{name}.json"

    @property
    def checkpoints(self) -> Path:
        """Return the folder of checkpoints."""
        return self.path / "checkpoints"

    @property
    def metrics(self) -> Path:
        """Return the figures of every step."""
        return self.path / "metrics.jsonl"

    @property
    def samples(self) -> Path:
        """Return the continuations written at the end of the run."""
        return self.path / "samples.jsonl"

    @property
    def tensorboard(self) -> Path:
        """Return the folder of TensorBoard events."""
        return self.path / "tensorboard"

    @property
    def heartbeat(self) -> Path:
        """Return the sign of life of the training loop."""
        return self.path / "heartbeat.json"

    @property
    def lease(self) -> Path:
        """Return the claim of the one boot that may write here."""
        return self.path / "lease.json"

    @property
    def ended(self) -> Path:
        """Return the request, and then the record, that this run is over."""
        return self.path / "ended.json"

    @property
    def go_on(self) -> Path:
        """Return the wish of a person that the next attempt starts with new budgets."""
        return self.path / "continue.json"

    @property
    def attempts(self) -> Path:
        """Return the folder of attempts."""
        return self.path / "attempts"

    @property
    def logs(self) -> Path:
        """Return the folder of logs."""
        return self.path / "logs"

    @property
    def export(self) -> Path:
        """Return the folder of exported weights."""
        return self.path / "export"

    @property
    def report_md(self) -> Path:
        """Return the report as Markdown."""
        return self.path / "report.md"

    @property
    def report_html(self) -> Path:
        """Return the report as one page."""
        return self.path / "report.html"


def root_from(environ: Mapping[str, str] = os.environ) -> Path:
    """Return the root volume: `TRAINWRIGHT_ROOT` (set in the image), else `./workspace`."""
    return Path(environ.get(ROOT_VARIABLE) or DEFAULT_ROOT).absolute()


def shard_name(split: Split, index: int) -> str:
    """Return the stem of a shard's file name."""
    return f"{split}_{index:05d}"


def step_name(step: int) -> str:
    """Return the folder name of a checkpoint."""
    return f"step_{step:08d}"


def done_name(step: int) -> str:
    """Return the name of the marker beside a committed checkpoint."""
    return f"checkpoint_{step:08d}.done"
