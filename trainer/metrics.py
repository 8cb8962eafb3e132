"""Figures of a run: `metrics.jsonl` first, TensorBoard beside it.

One row a finished step, one an evaluation. A resumed run drops the rows after its checkpoint, because those steps are
done again, so that the file holds each step once. Rows for which the disk has no room wait in memory while training
goes on; a checkpoint is committed only after the rows up to its step are in the file, so that none is ever missing.
"""

import json
import logging
import os
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from trainer.curves import Curves
from trainer.device import peak_flops, peak_memory_gib, power_watts
from trainer.loop import Spent, StepResult
from trainer.ranks import Ranks
from trainwright.spec.derived import Derived
from trainwright.spec.paths import RunFolder
from trainwright.store.files import naming, write_bytes

log = logging.getLogger("trainer")

Row = Mapping[str, Any]


def step_row(derived: Derived, ranks: Ranks, step: int, result: StepResult, spent: Spent) -> Row:
    """Return the row of a finished step.

    `mfu` = tokens a second x FLOPs a token / (ranks x dense bf16 peak of the GPU), with fp8 too, null where the peak is
    unknown; what is recomputed counts for nothing. `data_wait_seconds` is part of `step_seconds`; saves and evaluations
    are not.
    """
    speed = derived.tokens_per_step / spent.seconds
    peak = peak_flops(ranks.device)
    return {
        "step": step,
        "loss": result.loss,
        "lr": result.lr,
        "grad_norm": result.agreed.grad_norm,
        "tokens": step * derived.tokens_per_step,
        "epoch": round(result.epoch, 6),
        "step_seconds": round(spent.seconds, 4),
        "data_wait_seconds": round(spent.data_wait, 5),
        "tokens_per_second": round(speed, 1),
        "tokens_per_second_per_device": round(speed / ranks.size, 1),
        "mfu": speed * derived.flops_per_token / (peak * ranks.size) if peak else None,
        "peak_memory_gib": peak_memory_gib(ranks.device),
        "power_watts": power_watts(ranks.device),
    }


class Metrics:
    """The first rank's writer of figures."""

    def __init__(self, run: RunFolder, resume_step: int | None, *, tensorboard: bool) -> None:
        self.evaluated_step = _keep_until(run.metrics, resume_step)
        """The last step with an evaluation on file."""
        run.metrics.parent.mkdir(parents=True, exist_ok=True)
        self._path = run.metrics
        # Without a buffer, so that each row is in the file or known not to be.
        self._file = run.metrics.open("ab", buffering=0)
        self._waiting = b""
        self.save_seconds = 0.0
        """Time that saves have kept the loop waiting since the last row."""
        again = None if resume_step is None else resume_step + 1
        self._curves = Curves(run.tensorboard, again) if tensorboard else None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close everything; rows that still wait belong to steps after the newest checkpoint."""
        self._file.close()
        if self._curves is not None:
            self._curves.close()

    def write(self, row: Row) -> None:
        """Append one row; `step` orders it, every other number becomes a curve.

        A row that cannot be written waits for the next one, and for `settle`.
        """
        is_new = not self._waiting
        self._waiting += json.dumps({**row, "time": round(time.time(), 3)}, allow_nan=False).encode() + b"\n"
        try:
            self.settle()
        except OSError as error:
            if is_new:
                log.warning("metrics: rows wait in memory for room: %s: %s", error.filename, error.strerror)
        if self._curves is not None:
            folder = "eval" if "eval_loss" in row else "train"
            numbers = {name: value for name, value in row.items() if isinstance(value, int | float) and name != "step"}
            self._curves.add(row["step"], {f"{folder}/{name}": value for name, value in numbers.items()})

    def settle(self) -> None:
        """Write the rows that wait; raise `OSError` naming the file when there is no room for all of them."""
        size = os.fstat(self._file.fileno()).st_size
        rest = self._waiting
        try:
            with naming(self._path):
                while rest:
                    rest = rest[self._file.write(rest) :]
        except OSError:
            # Readers never meet a row that was cut.
            os.ftruncate(self._file.fileno(), size)
            raise
        self._waiting = b""


def _keep_until(path: Path, step: int | None) -> int | None:
    """Drop the rows after a step (all of them for None), and what a kill left of a last line.

    Returns the step of the last evaluation that stays.
    """
    if not path.exists():
        return None
    kept, evaluated = [], None
    for line in path.read_bytes().splitlines(keepends=True):
        try:
            row = json.loads(line)
            row_step = row["step"]
        except (ValueError, KeyError, TypeError):
            continue
        if step is not None and row_step <= step and line.endswith(b"\n"):
            kept.append(line)
            evaluated = row_step if "eval_loss" in row else evaluated
    write_bytes(path, b"".join(kept))
    return evaluated
