"""The frame of optimizers that treat every weight for itself: state made on the first update, shards as they lie.

What treats weights one by one gives the same on shards as on the whole, so the arithmetic sees plain local tensors,
and only the state is sharded as its parameter is. All arithmetic is fp32, whatever the state is kept in.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor

from trainer.optim.groups import shrink

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}

Update = Callable[[Tensor, Tensor, Mapping[str, Tensor], int, Mapping[str, Any]], None]
"""Changes a parameter and its state in place: parameter, gradient, state, count of this update, group."""


class Elementwise(torch.optim.Optimizer):
    """An optimizer given by its states' names and one update; `step` counts updates and is saved with the rest."""

    def __init__(
        self, groups: Sequence[dict[str, Any]], states: Sequence[str], dtype: torch.dtype, update: Update
    ) -> None:
        super().__init__(groups, {})
        self._states, self._dtype, self._update = tuple(states), dtype, update

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """Make one update."""
        assert closure is None
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self.update_one(parameter, group)

    def update_one(self, parameter: Tensor, group: Mapping[str, Any]) -> None:
        """Update one parameter."""
        state = self.state[parameter]
        if not state:
            state.update(fresh_state(parameter, self._states, self._dtype))
        state["step"] += 1
        assert parameter.grad is not None
        gradient = local(parameter.grad).float()
        averages = {name: local(state[name]) for name in self._states}
        wide = {name: average.float() for name, average in averages.items()}
        self._update(local(parameter), gradient, wide, int(state["step"]), group)
        for name, average in averages.items():
            if average is not wide[name]:
                average.copy_(wide[name])


def fresh_state(parameter: Tensor, names: Sequence[str], dtype: torch.dtype) -> dict[str, Tensor]:
    """Return zeros sharded as the parameter is, and the count of updates, which lives on the CPU.

    The count stays a tensor so that checkpoints carry it as they carry the rest.
    """
    states = {name: torch.zeros_like(parameter, dtype=dtype) for name in names}
    return {"step": torch.zeros((), dtype=torch.float32), **states}


def local(tensor: Tensor) -> Tensor:
    """Return this rank's part of a tensor."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def decay_after(parameter: Tensor, group: Mapping[str, Any], step: int) -> None:
    """Shrink a weight that was just updated."""
    factor = shrink(group, step)
    if factor != 1.0:
        parameter.mul_(factor)
