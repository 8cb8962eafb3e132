"""Writes down what the ranks of a real run are fed and what they restored; loaded by Python itself in every process.

A folder on PYTHONPATH with this name is imported as an interpreter starts. In a rank, and only where ELASTIC_RECORD
names a folder, the loop's own `train_step` is wrapped: the tokens that it is given are hashed row by row, and before
the first step of a resumed process the state in the ranks' memory is written there as a checkpoint.
"""

from collections.abc import Callable
import hashlib
import json
import os
from pathlib import Path
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from trainer.data import Batch
    from trainer.loop import Parts, StepResult

    Step = Callable[[Parts, Batch, float], StepResult]


def recorded(train_step: "Step", folder: Path) -> "Step":
    """Return the same step that first writes down what it is given."""
    from trainer import checkpoint
    from trainer.parallelize import settle

    folder.mkdir(parents=True, exist_ok=True)
    begun = False

    def step(parts: "Parts", batch: "Batch", lr: float) -> "StepResult":
        nonlocal begun
        if parts.step and not begun:
            settle(parts.model)
            state = checkpoint.TrainState(parts.step, parts.cursor, "", {})
            named = checkpoint.named_state(parts.model, parts.optimizer)
            checkpoint.save(folder / "checkpoints", named, state, parts.ranks)
        begun = True
        pairs = [pair for tensors in batch.passes for pair in zip(*tensors, strict=True)]
        rows = [hashlib.sha256(left.numpy().tobytes() + right.numpy().tobytes()).hexdigest() for left, right in pairs]
        line = {"step": parts.step + 1, "ranks": parts.ranks.size, "rows": rows}
        with (folder / f"rank_{parts.ranks.rank:05d}.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
        return train_step(parts, batch, lr)

    return step


def is_rank() -> bool:
    """Return whether this process is `python -m trainer`, and not what starts it."""
    words = sys.orig_argv
    return "-m" in words[:-1] and words[words.index("-m") + 1] == "trainer"


if "ELASTIC_RECORD" in os.environ and is_rank():
    import trainer.loop

    trainer.loop.train_step = recorded(trainer.loop.train_step, Path(os.environ["ELASTIC_RECORD"]))
