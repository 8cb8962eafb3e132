"""What only a device knows: which one was asked for, its peak, its memory, its power, its determinism."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from trainwright.spec.derived import Derived
from trainwright.spec.exits import MissingError, UserError
from trainwright.spec.experiment import Resources
from trainwright.spec.gpus import find_gpu
from trainwright.spec.memory import smaller_micro_batch


def choose_device(resources: Resources, local_rank: int) -> torch.device:
    """Return this rank's device; raise `MissingError` when GPUs were asked for and are not there."""
    found = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if resources.device == "cpu" or (resources.device == "auto" and found < resources.ranks_per_node):
        return torch.device("cpu")
    if found < resources.ranks_per_node:
        ways = "use resources.device=cpu, or fewer resources.ranks_per_node"
        wanted = f"resources.ranks_per_node={resources.ranks_per_node}"
        raise MissingError(f"resources.device={resources.device}: {found} GPUs are here, but {wanted}; {ways}")
    return torch.device("cuda", local_rank)


def prepare_device(device: torch.device, *, deterministic: bool, local_ranks: int) -> None:
    """Set what is global in torch for one training process: device, threads, precision of fp32 products."""
    if device.type == "cuda":
        torch.cuda.set_device(device)
        if deterministic:
            os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
            torch.use_deterministic_algorithms(mode=True)
        return
    # Ranks on one CPU share its cores; more threads than cores make every collective wait.
    cores = len(os.sched_getaffinity(0))
    torch.set_num_threads(max(1, cores // local_ranks))


def peak_flops(device: torch.device) -> float | None:
    """Return the dense bf16 peak of a known GPU, None of anything else."""
    if device.type != "cuda":
        return None
    gpu = find_gpu(torch.cuda.get_device_name(device))
    return gpu.peak_flops if gpu else None


def describe_device(device: torch.device) -> str:
    """Return the device in words, for the run's first lines."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"CPU, {torch.get_num_threads()} threads a rank"


def peak_memory_gib(device: torch.device) -> float | None:
    """Return the most device memory that tensors took so far, None on CPUs."""
    return torch.cuda.max_memory_allocated(device) / 2**30 if device.type == "cuda" else None


def power_watts(device: torch.device) -> float | None:
    """Return what a GPU draws now, None where it does not say: drivers differ, and NVIDIA's library may be absent."""
    if device.type != "cuda":
        return None
    try:
        return torch.cuda.power_draw(device) / 1000
    except (ModuleNotFoundError, RuntimeError):
        return None


@contextmanager
def explaining_memory(derived: Derived, device: torch.device) -> Iterator[None]:
    """Turn a device's want of memory into a `UserError` that names the next smaller micro batch."""
    try:
        yield
    except RuntimeError as error:
        # On a CPU the allocator has no error of its own.
        if not isinstance(error, torch.OutOfMemoryError) and "can't allocate memory" not in str(error):
            raise
        train = derived.experiment.train
        smaller = smaller_micro_batch(derived)
        ways = [f"train.micro_batch={smaller}"] if smaller else []
        ways += ["train.recompute=full"] if train.recompute != "full" else []
        ways += ["more ranks"]
        took = peak_memory_gib(device)
        used = f" after {took:.1f} GiB" if took is not None else ""
        way = " or ".join(ways)
        message = f"train.micro_batch={train.micro_batch}: the device's memory ran out{used}; try {way}"
        raise UserError(message) from None
