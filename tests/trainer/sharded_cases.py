"""Trains cases for ten steps, by one rank or several: `python sharded_cases.py FOLDER CASES.json`, a process a rank.

For each case: ten steps of the loop's own `train_step`, with a checkpoint after five and after ten; then a fresh model
and optimizer go on from the first checkpoint, and their own tenth step is saved beside it. The reductions of the first
step are counted.
"""

import json
import os
from pathlib import Path
import sys
from typing import Any

import torch
import torch.distributed as dist

from tiny_run import blank_model, tiny_experiment
from trainer import checkpoint
from trainer.checkpoint import TrainState
from trainer.data import Batch
from trainer.initialise import initialise
from trainer.loop import Parts, train_step
from trainer.optim import build_optimizer
from trainer.parallelize import parallelize
from trainer.ranks import Ranks, make_mesh
from trainer.requests import Request, Requests
from trainer.resume import resume_or_start
from trainer.schedule import learning_rate
from trainwright.spec.derived import Derived

STEPS, SAVED = 10, 5
BATCH, PASSES = 8, 2
FRESH = TrainState(0, 0, "corpus", {})
Built = tuple[torch.nn.Module, torch.optim.Optimizer]


class NoRequests(Requests):
    """Hears nothing, and leaves the signals to who runs this."""

    def __init__(self) -> None:
        pass

    def look(self) -> Request:
        return Request.NONE

    def committed(self, yes: bool) -> None:
        pass


def build(derived: Derived, ranks: Ranks) -> Built:
    with torch.device("meta"):
        model = blank_model(derived)
    model = parallelize(model, derived.experiment.train, ranks.mesh).to_empty(device=ranks.device)
    initialise(model, 1)
    return model, build_optimizer(derived, model)


def train(derived: Derived, built: Built, ranks: Ranks, first: int, last: int) -> None:
    """Make the updates after `first` up to `last`; step k always sees the same batch, cut over ranks and passes."""
    parts = Parts(derived, *built, iter(()), ranks, NoRequests(), unused, unused, unused, unused)
    for step in range(first, last):
        result = train_step(parts, batch(derived, ranks, step), learning_rate(derived, step))
        assert result.agreed.finite


def batch(derived: Derived, ranks: Ranks, step: int) -> Batch:
    length = derived.experiment.train.seq_len_tokens
    draw = torch.Generator().manual_seed(step)
    shape = (PASSES, ranks.size, BATCH // ranks.size // PASSES, length + 1)
    windows = torch.randint(0, 256, shape, generator=draw)[:, ranks.rank].to(torch.int16)
    return Batch(windows, None, BATCH * length, step, step + 1)


def unused(*_: Any) -> Any:
    raise AssertionError


def counted_first_step(derived: Derived, built: Built, ranks: Ranks) -> int:
    """Make the first update; return how often gradients were reduced over the ranks."""
    name = next(name for name in ("reduce_scatter_single", "reduce_scatter_tensor") if hasattr(dist, name))
    calls, plain = [], getattr(dist, name)

    def counting(*given: Any, **named: Any) -> Any:
        calls.append(1)
        return plain(*given, **named)

    setattr(dist, name, counting)
    try:
        train(derived, built, ranks, 0, 1)
    finally:
        setattr(dist, name, plain)
    return len(calls)


def save(folder: Path, built: Built, step: int, ranks: Ranks) -> None:
    checkpoint.save(folder, checkpoint.named_state(*built), TrainState(step, step, "corpus", {}), ranks)


def one_case(derived: Derived, place: Path, ranks: Ranks) -> None:
    ranks.mesh = make_mesh(ranks.size, derived.experiment.resources.shard_ranks, ranks.device)
    built = build(derived, ranks)
    reductions = counted_first_step(derived, built, ranks)
    train(derived, built, ranks, 1, SAVED)
    save(place / "straight", built, SAVED, ranks)
    train(derived, built, ranks, SAVED, STEPS)
    save(place / "straight", built, STEPS, ranks)
    built = build(derived, ranks)
    if ranks.is_first:
        (place / "reductions").write_text(str(reductions))
        (place / "resumed").mkdir(parents=True)
        (place / "straight" / "step_00000005").rename(place / "resumed" / "step_00000005")
    ranks.barrier()
    resume_or_start(place / "resumed", *built, FRESH, ranks, seed=1)
    train(derived, built, ranks, SAVED, STEPS)
    save(place / "resumed", built, STEPS, ranks)


def main(folder: Path, cases: dict[str, list[str]]) -> None:
    ranks = Ranks(torch.device("cpu"))
    torch.set_num_threads(1)
    for name, overrides in cases.items():
        one_case(Derived(tiny_experiment(folder / f"rank-{ranks.rank}", *overrides)), folder / name, ranks)
    ranks.close()


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main(Path(sys.argv[1]), json.loads(Path(sys.argv[2]).read_text()))
