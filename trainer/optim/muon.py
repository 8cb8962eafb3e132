"""Muon (Jordan and others, 2024): each matrix moves along its orthogonalised momentum; all else by AdamW.

Orthogonalising needs the whole matrix, of which a sharded rank holds some rows. So the matrices of one shape are dealt
to the ranks, each gathers its own by one exchange, works on it alone, and gives the rows back by another: every matrix
is worked on once, whatever the number of ranks.
"""

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, Shard

from trainer.optim.adamw import adam_update
from trainer.optim.elementwise import DTYPES, Elementwise, fresh_state, local
from trainer.optim.groups import Horizon, parameter_groups, shrink
from trainer.products import product
from trainwright.spec.optimizers import Muon
from trainwright.spec.scaling import MuonRates

QUINTIC = (3.4445, -4.7750, 2.0315)
"""Coefficients of the iteration x -> a x + b x^3 + c x^5, which takes singular values close to 1."""


class MuonWithAdamW(Elementwise):
    """Muon for groups with `muon`, AdamW for the others."""

    def __init__(self, groups: Sequence[dict[str, Any]], settings: Muon) -> None:
        dtype = DTYPES[settings.moments]

        def update(p: Tensor, g: Tensor, state: Mapping[str, Tensor], t: int, group: Mapping[str, Any]) -> None:
            p.mul_(shrink(group, t))
            adam_update(p, g, state["mean"], state["square"], t=t, lr=group["lr"], settings=settings)

        super().__init__(groups, ("mean", "square"), dtype, update)
        self._settings, self._kept_as = settings, dtype

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """Make one update."""
        assert closure is None
        for group in self.param_groups:
            given = [each for each in group["params"] if each.grad is not None]
            if not group["muon"]:
                for parameter in given:
                    self.update_one(parameter, group)
                continue
            alike = defaultdict(list)
            for parameter in given:
                alike[parameter.shape].append(parameter)
            for matrices in alike.values():
                self._update_matrices(matrices, group)

    def _update_matrices(self, matrices: Sequence[Tensor], group: Mapping[str, Any]) -> None:
        settings, team = self._settings, _team(matrices[0])
        for first in range(0, len(matrices), team.size):
            some = matrices[first : first + team.size]
            whole = team.gather([self._direction(each) for each in some], some[0].shape)
            if whole is not None:
                whole = orthogonalise(whole, settings.newton_schulz_steps, DTYPES[settings.newton_schulz])
            for parameter, moved in zip(some, team.deal(whole, some), strict=True):
                factor = shrink(group, int(self.state[parameter]["step"]))
                if factor != 1.0:
                    local(parameter).mul_(factor)
                local(parameter).sub_(moved, alpha=group["lr"] * update_size(parameter.shape, settings))

    def _direction(self, parameter: Tensor) -> Tensor:
        """Take this rank's rows of the gradient into the momentum; return Nesterov's look ahead."""
        state = self.state[parameter]
        if not state:
            state.update(fresh_state(parameter, ("momentum",), self._kept_as))
        state["step"] += 1
        assert parameter.grad is not None
        gradient, kept = local(parameter.grad).float(), local(state["momentum"])
        momentum = kept.float() * self._settings.momentum + gradient
        kept.copy_(momentum)
        return gradient + self._settings.momentum * momentum


class _Team:
    """The ranks that hold the rows of one matrix, and the two exchanges between them."""

    def __init__(self, group: dist.ProcessGroup | None, size: int, rank: int) -> None:
        self.group, self.size, self.rank = group, size, rank

    def gather(self, parts: Sequence[Tensor], shape: torch.Size) -> Tensor | None:
        """Bring this rank's rows of each matrix; return the whole of the one that this rank is to work on, if any."""
        if self.group is None:
            return parts[0]
        mine = self.rank < len(parts)
        rows = self._rows(shape[0])
        received = parts[0].new_empty(sum(rows) * shape[1] if mine else 0)
        sizes = [count * shape[1] if mine else 0 for count in rows]
        sent = [rows[self.rank] * shape[1] if owner < len(parts) else 0 for owner in range(self.size)]
        dist.all_to_all_single(received, torch.cat([part.reshape(-1) for part in parts]), sizes, sent, self.group)
        return received.view(shape) if mine else None

    def deal(self, whole: Tensor | None, matrices: Sequence[Tensor]) -> list[Tensor]:
        """Give every rank its rows of the matrix that this rank worked on; return this rank's rows of each."""
        if self.group is None:
            assert whole is not None
            return [whole]
        shape = matrices[0].shape
        rows = self._rows(shape[0])
        sent = [count * shape[1] if whole is not None else 0 for count in rows]
        part = rows[self.rank] * shape[1]
        sizes = [part if owner < len(matrices) else 0 for owner in range(self.size)]
        data = local(matrices[0]).new_empty(0) if whole is None else whole.reshape(-1)
        received = data.new_empty(sum(sizes))
        dist.all_to_all_single(received, data, sizes, sent, self.group)
        return [one.view(rows[self.rank], shape[1]) for one in torch.split(received, [part] * len(matrices))]

    def _rows(self, count: int) -> list[int]:
        """Return the rows of each rank, as FSDP cuts them."""
        each = -(-count // self.size)
        return [max(0, min(each, count - rank * each)) for rank in range(self.size)]


def _team(parameter: Tensor) -> _Team:
    """Return the ranks between which a parameter's rows are cut; replicas work side by side, each on its own copy."""
    if not isinstance(parameter, DTensor):
        return _Team(None, 1, 0)
    axis = next((axis for axis, placed in enumerate(parameter.placements) if isinstance(placed, Shard)), None)
    if axis is None or parameter.device_mesh.size(axis) == 1:
        return _Team(None, 1, 0)
    mesh = parameter.device_mesh
    return _Team(mesh.get_group(axis), mesh.size(axis), mesh.get_local_rank(axis))


def orthogonalise(matrix: Tensor, steps: int, dtype: torch.dtype) -> Tensor:
    """Return a matrix with about the same singular vectors whose singular values are near 1, by Newton and Schulz."""
    a, b, c = QUINTIC
    x = matrix.to(dtype)
    tall = x.shape[0] > x.shape[1]
    # The iteration is cheaper on the short side.
    x = x.mT if tall else x
    x = x / (x.norm() + 1e-7)
    for _ in range(steps):
        gram = product(x, x.mT)
        x = a * x + product(b * gram + product(c * gram, gram), x)
    found: Tensor = x.mT if tall else x
    return found.to(matrix.dtype).contiguous()


def update_size(shape: Sequence[int], settings: Muon) -> float:
    """Return what an orthogonal matrix of a shape is multiplied by before the rate."""
    rows, columns = shape
    if settings.scale == "rms":
        return 0.2 * math.sqrt(max(rows, columns))
    return math.sqrt(max(1.0, rows / columns))


def build_muon(settings: Muon, model: nn.Module, horizon: Horizon) -> torch.optim.Optimizer:
    """Return Muon over the matrices of the blocks, with AdamW over the rest."""
    rates = horizon.rates or MuonRates(horizon.lr, horizon.lr, horizon.lr, horizon.lr)
    more: dict[str, dict[str, Any]] = {}
    for name, parameter in model.named_parameters():
        is_matrix = name.startswith("blocks.") and parameter.dim() == 2
        if is_matrix:
            rate = rates.matrices
        elif parameter.dim() < 2:
            rate = rates.rest
        else:
            rate = rates.output if name.startswith("output") else rates.embedding
        more[name] = {"muon": is_matrix, "lr_scale": rate / horizon.lr}
    return MuonWithAdamW(parameter_groups(model, settings, horizon, more), settings)
