"""Where a run starts: from the newest checkpoint that verifies, or from initial weights; said with the reason."""

import logging
from pathlib import Path

import torch
from torch import nn

from trainer import checkpoint
from trainer.checkpoint import Committed, TrainState
from trainer.initialise import initialise
from trainer.pretrained import is_hub_folder, take_pretrained
from trainer.ranks import Ranks
from trainwright.spec.exits import UserError

log = logging.getLogger("trainer")


def resume_or_start(
    folder: Path,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    fresh: TrainState,
    ranks: Ranks,
    *,
    seed: int,
    init_from: Path | None = None,
) -> TrainState:
    """Give the model its values and return the state that they belong to; `fresh` is the state of a run's start.

    Damaged checkpoints are passed over by name. When there are some and none is sound the run is refused: starting
    again in silence would throw its work away.
    """
    found = _committed_alike(folder, ranks)
    for each in found:
        wrong = checkpoint.verify(each, ranks)
        if wrong:
            log.warning("resume: %s is refused: %s", each.folder.name, wrong)
            continue
        stored = checkpoint.read_train_state(each)
        checkpoint.check_same_run(each, stored, fresh)
        initialise(model, seed)
        # Before the first update an optimizer has no state, and neither has a checkpoint of that step.
        optimizer.state.clear()
        if stored.step:
            _allocate_state(optimizer)
        checkpoint.load(each, checkpoint.named_state(model, optimizer))
        if ranks.is_first:
            checkpoint.mark(each)
        log.info("resume: from %s, the newest checkpoint that verifies", each.folder.name)
        return stored
    if found:
        ways = f"restore one, or move {folder} away to start again"
        raise UserError(f"{folder}: none of its {len(found)} checkpoints verifies; {ways}")
    log.info("resume: starting from step 0, because %s holds no checkpoint", folder)
    initialise(model, seed)
    # A run that goes back to its start, having saved nothing yet, has moments already.
    optimizer.state.clear()
    if init_from is not None:
        _take_weights(init_from, model, ranks)
    return fresh


def _take_weights(folder: Path, model: nn.Module, ranks: Ranks) -> None:
    """Replace the initial weights by those of another run's newest sound checkpoint; its optimizer stays behind.

    A Hugging Face folder gives its own.
    """
    if is_hub_folder(folder):
        take_pretrained(folder, model)
        return
    for each in _committed_alike(folder, ranks):
        wrong = checkpoint.verify(each, ranks)
        if wrong is None:
            weights = {f"model/{name}": parameter for name, parameter in model.named_parameters()}
            checkpoint.load(each, weights)
            log.info("resume: initial weights are those of %s", each.folder)
            return
        log.warning("resume: %s is refused: %s", each.folder, wrong)
    raise UserError(f"train.init_from: {folder} holds no checkpoint that verifies; name a run that has one")


def _committed_alike(folder: Path, ranks: Ranks) -> list[Committed]:
    """Return what the first rank sees, on every rank: shared file systems show a rename late."""
    seen = [(each.step, str(each.folder)) for each in checkpoint.committed(folder)]
    return [Committed(step, Path(path)) for step, path in ranks.from_first(seen)]


def _allocate_state(optimizer: torch.optim.Optimizer) -> None:
    """Make the optimizer allocate its state by an update of size zero; the checkpoint then overwrites all of it."""
    for group in optimizer.param_groups:
        group["lr"] = 0.0
        for parameter in group["params"]:
            parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
