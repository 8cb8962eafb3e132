"""The ranks of one run and what they tell each other outside the model: small sums, and JSON.

Control messages travel over gloo in a group of their own, so that a checkpoint's exchange never interleaves with the
model's collectives, and as JSON rather than pickle.
"""

import json
import os
from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh

START_TIMEOUT = timedelta(minutes=30)
"""Compiling and reading a large checkpoint take minutes, at different speeds on different ranks."""


def make_mesh(ranks: int, shard_ranks: int | None, device: torch.device) -> DeviceMesh | None:
    """Return how ranks share a model: none alone, all of them in one row, or rows that each share one copy (HSDP)."""
    if ranks == 1:
        return None
    if shard_ranks is None or shard_ranks == ranks:
        return init_device_mesh(device.type, (ranks,), mesh_dim_names=("shard",))
    return init_device_mesh(device.type, (ranks // shard_ranks, shard_ranks), mesh_dim_names=("replicate", "shard"))


class Ranks:
    """This process among the ranks; with a single one no process group exists."""

    def __init__(
        self, device: torch.device, environ: Mapping[str, str] = os.environ, shard_ranks: int | None = None
    ) -> None:
        self.rank = int(environ.get("RANK", "0"))
        self.size = int(environ.get("WORLD_SIZE", "1"))
        self.device = device
        self.mesh: DeviceMesh | None = None
        self._control: dist.ProcessGroup | None = None
        if self.size > 1:
            backend = "nccl" if device.type == "cuda" else "gloo"
            bound = device if device.type == "cuda" else None
            dist.init_process_group(backend, timeout=START_TIMEOUT, device_id=bound)
            self._control = dist.new_group(backend="gloo", timeout=START_TIMEOUT)
            self.mesh = make_mesh(self.size, shard_ranks, device)
            self._warm_up()

    def _warm_up(self) -> None:
        """Wait for the slowest rank, then make the connections of the first collective before anything is measured."""
        self.barrier()
        dist.all_reduce(torch.zeros(1, device=self.device))

    @property
    def replicas(self) -> int:
        """Return how many copies of the model the ranks hold: one, unless it is shared within groups of them."""
        return self.mesh.size(0) if self.mesh is not None and self.mesh.ndim == 2 else 1

    @property
    def is_first(self) -> bool:
        """Return whether this rank speaks for all."""
        return self.rank == 0

    def sum(self, values: Tensor) -> Tensor:
        """Add a small tensor over all ranks, in place, on the training device."""
        if self.size > 1:
            dist.all_reduce(values)
        return values

    def gather(self, value: Any) -> list[Any]:
        """Return every rank's JSON value, in rank order, on every rank."""
        if self._control is None:
            return [value]
        data = torch.frombuffer(bytearray(json.dumps(value).encode()), dtype=torch.uint8)
        sizes = [torch.zeros(1, dtype=torch.int64) for _ in range(self.size)]
        dist.all_gather(sizes, torch.tensor([len(data)]), group=self._control)
        longest = max(int(size) for size in sizes)
        padded = torch.zeros(longest, dtype=torch.uint8)
        padded[: len(data)] = data
        buffers = [torch.zeros(longest, dtype=torch.uint8) for _ in range(self.size)]
        dist.all_gather(buffers, padded, group=self._control)
        pairs = zip(buffers, sizes, strict=True)
        return [json.loads(buffer[: int(size)].numpy().tobytes()) for buffer, size in pairs]

    def from_first(self, value: Any) -> Any:
        """Return the first rank's JSON value on every rank."""
        return self.gather(value if self.is_first else None)[0]

    def together(self, work: Callable[[], Any]) -> list[Any]:
        """Do some work on every rank and return each one's JSON value; an `OSError` of one is raised on all.

        A disk that is full for one rank ends the others in order, rather than by a connection that breaks.
        """
        try:
            done = {"value": work(), "error": None}
        except OSError as error:
            where = None if error.filename is None else str(error.filename)
            done = {"value": None, "error": [error.errno, error.strerror or str(error), where]}
        found = self.gather(done)
        for one in found:
            if one["error"] is not None:
                raise OSError(*one["error"])
        return [one["value"] for one in found]

    def barrier(self) -> None:
        """Wait for every rank."""
        self.gather(None)

    def close(self) -> None:
        """Leave the group; only after an orderly end, since a broken group would wait for its dead."""
        if self.size > 1:
            self.barrier()
            dist.destroy_process_group()
