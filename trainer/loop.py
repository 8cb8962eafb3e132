"""The training loop. One step is one global batch, one reduction over the ranks, one update.

The reduction carries the loss, the squared norm of the gradient and the requests together, so that all ranks clip by
the same norm, refuse the same non-finite step and stop after the same one.
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import nn

from trainer.agree import Agreed, agree
from trainer.data import Batch
from trainer.optim.elementwise import local
from trainer.parallelize import set_gradient_sync
from trainer.ranks import Ranks
from trainer.requests import Request, Requests
from trainer.schedule import learning_rate
from trainwright.spec.derived import Derived


@dataclass
class Parts:
    """What a run is made of; the loop owns the fields after `record`, everything else is built before it starts."""

    derived: Derived
    model: nn.Module
    optimizer: torch.optim.Optimizer
    batches: Iterator[Batch]
    ranks: Ranks
    requests: Requests
    evaluate: Callable[[int], Request]
    """Score the model at a step and record it; returns a request that came in between."""
    save: Callable[[int, int], None]
    """Commit a checkpoint of (step, cursor) by all ranks."""
    refuse: Callable[[int, "StepResult", Batch], None]
    """Count a batch whose update was refused after a step; raises when going on would be wrong."""
    record: Callable[[int, "StepResult", "Spent"], None]
    """Record a finished step and the time it took."""
    step: int = 0
    cursor: int = 0
    saved_step: int | None = None
    saved_at: float = 0.0
    evaluated_step: int | None = None


@dataclass(frozen=True, slots=True)
class StepResult:
    """What one global batch came to: updated if `agreed.finite`; `epoch` is how often the corpus was read by then."""

    loss: float
    lr: float
    agreed: Agreed
    epoch: float = 0.0


class Spent(NamedTuple):
    """Seconds of a step, and how many of them went by waiting for its batch."""

    seconds: float
    data_wait: float


def train(parts: Parts) -> Request:
    """Train to the last step or to a request; the state is saved when this returns.

    What is to be compiled keeps the ranks from hearing a request for minutes, so there is a checkpoint before it.
    """
    checkpoint, steps = parts.derived.experiment.checkpoint, parts.derived.steps
    parts.saved_at = time.monotonic()
    parts.requests.committed(True)
    compiles = parts.derived.experiment.train.compile and parts.saved_step is None
    request = (_save(parts) if compiles else Request.NONE) or _evaluate_if_due(parts)
    while parts.step < steps and request is Request.NONE:
        started = time.monotonic()
        batch = next(parts.batches)
        waited = time.monotonic() - started
        result = train_step(parts, batch, learning_rate(parts.derived, parts.step))
        parts.cursor, request = batch.next_cursor, result.agreed.request
        if not result.agreed.finite:
            parts.refuse(parts.step, result, batch)
            continue
        parts.step += 1
        parts.record(parts.step, result, Spent(time.monotonic() - started, waited))
        due = _due(parts.step, checkpoint.dump.every_steps, checkpoint.eval.every_steps, steps)
        if due or result.agreed.save_due:
            request = max(request, _save(parts))
        # Evaluation follows the save: if it dies, no step is lost.
        request = request or _evaluate_if_due(parts)
    return max(request, _save(parts))


def train_step(parts: Parts, batch: Batch, lr: float) -> StepResult:
    """Run one global batch through the model and update it, unless any rank's loss or gradient is not finite."""
    ranks, model, experiment = parts.ranks, parts.model, parts.derived.experiment
    loss = torch.zeros((), device=ranks.device)
    # Sharding averages gradients over ranks; the sum over targets is divided by their global count instead.
    scale = ranks.size / batch.num_targets
    for index, (inputs, targets) in enumerate(batch.on(ranks.device), 1):
        set_gradient_sync(model, sync=experiment.train.reduce_every_pass or index == len(batch.windows))
        summed = model(inputs, targets)
        (summed * scale).backward()
        loss += summed.detach()
    gradients = [local(p.grad) for p in model.parameters() if p.grad is not None]
    agreed = agree(loss, gradients, parts.requests.look(), save_due=_save_due(parts), ranks=ranks)
    if agreed.finite:
        clip = experiment.train.grad_clip
        if clip is not None and agreed.grad_norm > clip:
            torch._foreach_mul_(gradients, clip / agreed.grad_norm)
        for group in parts.optimizer.param_groups:
            group["lr"] = lr * group["lr_scale"]
        parts.requests.committed(False)
        parts.optimizer.step()
    parts.optimizer.zero_grad(set_to_none=True)
    return StepResult(agreed.loss_sum / batch.num_targets, lr, agreed, batch.epoch)


def _due(step: int, *cadences: int | None) -> bool:
    return any(every is not None and step % every == 0 for every in cadences)


def _save_due(parts: Parts) -> bool:
    minutes = parts.derived.experiment.checkpoint.dump.every_minutes
    return minutes is not None and time.monotonic() - parts.saved_at > 60 * minutes


def _evaluate_if_due(parts: Parts) -> Request:
    due = parts.step == parts.derived.steps or _due(parts.step, parts.derived.experiment.evaluation.every_steps)
    if not due or parts.evaluated_step == parts.step:
        return Request.NONE
    request = parts.evaluate(parts.step)
    if request is Request.NONE:
        parts.evaluated_step = parts.step
    return request


def _save(parts: Parts) -> Request:
    """Save unless it is done; return what any rank was asked meanwhile, since a save may take minutes."""
    request = Request.NONE
    if parts.saved_step != parts.step:
        parts.requests.committed(False)
        parts.save(parts.step, parts.cursor)
        parts.saved_step = parts.step
        request = Request(max(parts.ranks.gather(int(parts.requests.look()))))
    parts.requests.committed(True)
    parts.saved_at = time.monotonic()
    return request
