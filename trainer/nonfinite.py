"""Batches whose loss or gradient is no finite number: passed over and counted, then a return to a good checkpoint.

The update of such a batch is refused on all ranks before it is made. A few in a row are taken for bad data. More of
them mean that the weights themselves may be spoiled: the run goes back to its newest checkpoint and, when the bad
batches come up again, passes over them. Both have a budget. Refused batches are named in the checkpoints, so that a
resumed run passes over the same ones.
"""

import logging

from trainer.data import Batch
from trainer.loop import StepResult
from trainwright.spec.exits import UserError
from trainwright.spec.training import Nonfinite

log = logging.getLogger("trainer")


class RollBackError(Exception):
    """The loop cannot go on from here; it can from the newest checkpoint."""


class Refusals:
    """The refused batches of a run."""

    def __init__(self, settings: Nonfinite, refused: tuple[int, ...], rollbacks: int) -> None:
        self._settings = settings
        self._in_a_row = 0
        self._last_step = -1
        self.refused = list(refused)
        self.rollbacks = rollbacks

    def refuse(self, step: int, result: StepResult, batch: Batch) -> None:
        """Count a batch that was refused after `step` updates; raise `RollBackError` when there were too many."""
        self._in_a_row = self._in_a_row + 1 if step == self._last_step else 1
        self._last_step = step
        self.refused.append(batch.cursor)
        what = f"loss {result.loss} and gradient norm {result.agreed.grad_norm}"
        samples = f"samples {batch.cursor} to {batch.next_cursor - 1}"
        log.warning("nonfinite: %s on %s after step %d; the update was refused on all ranks", what, samples, step)
        if self._in_a_row > self._settings.skips_in_a_row:
            raise RollBackError(f"{self._in_a_row} batches in a row")

    def roll_back(self) -> None:
        """Count a return to a checkpoint; raise `UserError` when the budget is spent."""
        self.rollbacks += 1
        self._in_a_row = 0
        if self.rollbacks > self._settings.rollbacks:
            allowed = self._settings.rollbacks
            ways = "lower optimizer.lr, look at the samples named above, or raise train.nonfinite.rollbacks"
            raise UserError(f"train.nonfinite.rollbacks={allowed}: loss or gradient is not finite again; {ways}")
        log.warning(
            "nonfinite: going back to the newest checkpoint (%d of %d)", self.rollbacks, self._settings.rollbacks
        )
