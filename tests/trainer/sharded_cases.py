"""Trains cases for ten steps, by one rank or several: `python sharded_cases.py FOLDER CASES.json`, a process a rank.

For each case: ten steps with a checkpoint after five and after ten; then a fresh model and optimizer go on from the
first checkpoint, and their own tenth step is saved beside it.
"""

import json
import os
from pathlib import Path
import sys

import torch

from tiny_run import blank_model, tiny_experiment
from trainer import checkpoint
from trainer.checkpoint import TrainState
from trainer.initialise import initialise
from trainer.optim import build_optimizer
from trainer.parallelize import parallelize, set_gradient_sync
from trainer.ranks import Ranks, make_mesh
from trainer.resume import resume_or_start
from trainer.schedule import learning_rate
from trainwright.spec.derived import Derived

STEPS, SAVED = 10, 5
BATCH, PASSES = 8, 2
FRESH = TrainState(0, 0, "corpus", {})
Built = tuple[torch.nn.Module, torch.optim.Optimizer]


def build(derived: Derived, ranks: Ranks) -> Built:
    with torch.device("meta"):
        model = blank_model(derived)
    model = parallelize(model, derived.experiment.train, ranks.mesh).to_empty(device=ranks.device)
    initialise(model, 1)
    return model, build_optimizer(derived, model)


def train(derived: Derived, built: Built, ranks: Ranks, first: int, last: int) -> None:
    """Make the updates after `first` up to `last`; step k always sees the same batch, cut over ranks and passes."""
    model, optimizer = built
    share = BATCH // ranks.size // PASSES
    length = derived.experiment.train.seq_len_tokens
    for step in range(first, last):
        draw = torch.Generator().manual_seed(step)
        batch = torch.randint(0, 256, (PASSES, ranks.size, share, length + 1), generator=draw)
        for index in range(PASSES):
            set_gradient_sync(model, sync=index == PASSES - 1)
            rows = batch[index, ranks.rank]
            loss = model(rows[:, :-1], rows[:, 1:])
            (loss * ranks.size / batch[..., 1:].numel()).backward()
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(derived, step) * group["lr_scale"]
        optimizer.step()
        optimizer.zero_grad()


def save(folder: Path, built: Built, step: int, ranks: Ranks) -> None:
    checkpoint.save(folder, checkpoint.named_state(*built), TrainState(step, step, "corpus", {}), ranks)


def main(folder: Path, cases: dict[str, list[str]]) -> None:
    ranks = Ranks(torch.device("cpu"))
    torch.set_num_threads(1)
    for name, overrides in cases.items():
        derived = Derived(tiny_experiment(folder / f"rank-{ranks.rank}", *overrides))
        ranks.mesh = make_mesh(ranks.size, derived.experiment.resources.shard_ranks, ranks.device)
        built, place = build(derived, ranks), folder / name
        train(derived, built, ranks, 0, SAVED)
        save(place / "straight", built, SAVED, ranks)
        train(derived, built, ranks, SAVED, STEPS)
        save(place / "straight", built, STEPS, ranks)
        built = build(derived, ranks)
        if ranks.is_first:
            (place / "resumed").mkdir(parents=True)
            (place / "straight" / "step_00000005").rename(place / "resumed" / "step_00000005")
        ranks.barrier()
        resume_or_start(place / "resumed", *built, FRESH, ranks, seed=1)
        train(derived, built, ranks, SAVED, STEPS)
        save(place / "resumed", built, STEPS, ranks)
    ranks.close()


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main(Path(sys.argv[1]), json.loads(Path(sys.argv[2]).read_text()))
