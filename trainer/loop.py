"""The training loop. One step is one global batch, one reduction over the ranks, one update.

The reduction carries the loss, the squared norm of the gradient and the requests together, so that all ranks clip by
the same norm, refuse the same non-finite step and stop after the same one.
"""

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from trainer.data import Batch
from trainer.parallelize import computing, set_gradient_sync
from trainer.ranks import Ranks
from trainer.requests import Request, Requests
from trainer.schedule import learning_rate
from trainwright.spec.derived import Derived
from trainwright.spec.exits import UserError


@dataclass
class Parts:
    """What a run is made of; the loop owns `step` and `cursor`, everything else is built before it starts."""

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
    record: Callable[[int, "StepResult", float], None]
    """Record a finished step and the seconds it took."""
    step: int = 0
    cursor: int = 0
    saved_step: int | None = None
    evaluated_step: int | None = None


@dataclass(frozen=True, slots=True)
class StepResult:
    """One finished update."""

    loss: float
    grad_norm: float
    lr: float
    request: Request


def train(parts: Parts) -> Request:
    """Train to the last step or to a request; the state is saved when this returns."""
    experiment, steps = parts.derived.experiment, parts.derived.steps
    request = _evaluate_if_due(parts)
    while parts.step < steps and request is Request.NONE:
        started = time.monotonic()
        batch = next(parts.batches)
        result = train_step(parts, batch, learning_rate(parts.derived, parts.step))
        parts.step, parts.cursor = parts.step + 1, batch.next_cursor
        parts.record(parts.step, result, time.monotonic() - started)
        if _due(parts.step, experiment.checkpoint.dump.every_steps, experiment.checkpoint.eval.every_steps):
            _save(parts)
        # Evaluation follows the save: if it dies, no step is lost.
        request = result.request or _evaluate_if_due(parts)
    _save(parts)
    return request


def train_step(parts: Parts, batch: Batch, lr: float) -> StepResult:
    """Run one global batch through the model and update it; on any rank's non-finite value nobody updates."""
    ranks, model = parts.ranks, parts.model
    loss = torch.zeros((), device=ranks.device)
    # Sharding averages gradients over ranks; the sum over targets is divided by their global count instead.
    scale = ranks.size / batch.num_targets
    for index, (inputs, targets) in enumerate(batch.passes, 1):
        set_gradient_sync(model, sync=index == len(batch.passes))
        with computing(parts.derived.experiment.train, ranks.device, ranks.mesh):
            summed = model(inputs.to(ranks.device, non_blocking=True), targets.to(ranks.device, non_blocking=True))
        (summed * scale).backward()
        loss += summed.detach()
    gradients = [_local(p.grad) for p in model.parameters() if p.grad is not None]
    total, norm, request = _reduce(loss, gradients, parts.requests.look(), ranks)
    mean = total / batch.num_targets
    if not (math.isfinite(mean) and math.isfinite(norm)):
        at = f"step {parts.step + 1} (samples {parts.cursor} to {batch.next_cursor})"
        raise UserError(f"loss {mean} and gradient norm {norm} at {at}: the update was refused on all ranks")
    clip = parts.derived.experiment.train.grad_clip
    if clip is not None and norm > clip:
        torch._foreach_mul_(gradients, clip / norm)
    for group in parts.optimizer.param_groups:
        group["lr"] = lr
    parts.optimizer.step()
    parts.optimizer.zero_grad(set_to_none=True)
    return StepResult(mean, norm, lr, request)


def _reduce(loss: Tensor, gradients: list[Tensor], asked: Request, ranks: Ranks) -> tuple[float, float, Request]:
    """Return summed loss, norm of the whole gradient, and the highest request of any rank."""
    norms = torch.stack(torch._foreach_norm(gradients))  # noqa: SLF001 - torch's clip_grad_norm_ calls the same
    flags = torch.tensor([asked == Request.INTERRUPT, asked == Request.END])
    vector = torch.cat((torch.stack((loss.double(), norms.double().square().sum())), flags.to(loss.device)))
    # One rank holds all of a plain model's gradient; the ranks of a sharded one hold disjoint parts of it.
    total, squares, interrupt, end = ranks.sum(vector).tolist()
    request = Request.END if end else Request.INTERRUPT if interrupt else Request.NONE
    return total, math.sqrt(squares) if squares >= 0 else math.nan, request


def _local(gradient: Tensor) -> Tensor:
    return gradient.to_local() if isinstance(gradient, DTensor) else gradient


def _due(step: int, *cadences: int | None) -> bool:
    return any(every is not None and step % every == 0 for every in cadences)


def _evaluate_if_due(parts: Parts) -> Request:
    due = parts.step == parts.derived.steps or _due(parts.step, parts.derived.experiment.evaluation.every_steps)
    if not due or parts.evaluated_step == parts.step:
        return Request.NONE
    request = parts.evaluate(parts.step)
    if request is Request.NONE:
        parts.evaluated_step = parts.step
    return request


def _save(parts: Parts) -> None:
    if parts.saved_step != parts.step:
        parts.save(parts.step, parts.cursor)
        parts.saved_step = parts.step
