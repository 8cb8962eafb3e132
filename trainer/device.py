"""What only a device knows: which one was asked for, its peak, its memory, its determinism."""

import os

import torch

from trainwright.spec.exits import MissingError
from trainwright.spec.experiment import Resources

PEAK_FLOPS = {
    "H200": 989e12,
    "H100": 989e12,
    "A100": 312e12,
    "L40S": 362e12,
    "RTX 4090": 165e12,
    "B200": 2250e12,
}
"""Dense bf16 FLOP/s by a part of the device's name (vendor data sheets, without sparsity)."""


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
    name = torch.cuda.get_device_name(device)
    return next((peak for part, peak in PEAK_FLOPS.items() if part in name), None)


def describe_device(device: torch.device) -> str:
    """Return the device in words, for the run's first lines."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"CPU, {torch.get_num_threads()} threads a rank"


def peak_memory_gib(device: torch.device) -> float | None:
    """Return the most device memory that tensors took so far, None on CPUs."""
    return torch.cuda.max_memory_allocated(device) / 2**30 if device.type == "cuda" else None
