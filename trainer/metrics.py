"""Figures of a run: `metrics.jsonl` first, TensorBoard beside it.

One row a finished step, one an evaluation. A resumed run drops the rows after its checkpoint, because those steps are
done again, so that the file holds each step once.
"""

import json
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from trainer.device import peak_flops, peak_memory_gib
from trainer.loop import StepResult
from trainer.ranks import Ranks
from trainwright.spec.derived import Derived
from trainwright.spec.paths import RunFolder
from trainwright.store.files import write_bytes

Row = Mapping[str, Any]


def step_row(derived: Derived, ranks: Ranks, step: int, result: StepResult, seconds: float) -> Row:
    """Return the row of a finished step; `mfu` is model FLOPs over the dense peak, null where that is unknown."""
    speed = derived.tokens_per_step / seconds
    peak = peak_flops(ranks.device)
    return {
        "step": step,
        "loss": result.loss,
        "lr": result.lr,
        "grad_norm": result.agreed.grad_norm,
        "tokens": step * derived.tokens_per_step,
        "step_seconds": round(seconds, 4),
        "tokens_per_second": round(speed, 1),
        "mfu": speed * derived.flops_per_token / (peak * ranks.size) if peak else None,
        "peak_memory_gib": peak_memory_gib(ranks.device),
    }


class Metrics:
    """The first rank's writer of figures."""

    def __init__(self, run: RunFolder, resume_step: int | None, *, tensorboard: bool) -> None:
        self.evaluated_step = _keep_until(run.metrics, resume_step)
        """The last step with an evaluation on file."""
        run.metrics.parent.mkdir(parents=True, exist_ok=True)
        self._file = run.metrics.open("a", encoding="utf-8")
        self._board = None
        if tensorboard:
            from torch.utils.tensorboard.writer import SummaryWriter

            # TensorBoard itself hides the points of steps that are done again.
            purge = None if resume_step is None else resume_step + 1
            self._board = SummaryWriter(run.tensorboard, purge_step=purge)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Flush and close everything."""
        self._file.close()
        if self._board is not None:
            self._board.close()

    def write(self, row: Row) -> None:
        """Append one row; `step` orders it, every other number becomes a curve."""
        self._file.write(json.dumps({**row, "time": round(time.time(), 3)}, allow_nan=False) + "\n")
        self._file.flush()
        if self._board is not None:
            folder = "eval" if "eval_loss" in row else "train"
            for name, value in row.items():
                if name != "step" and isinstance(value, int | float):
                    self._board.add_scalar(f"{folder}/{name}", value, row["step"])


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
