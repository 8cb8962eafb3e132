"""GPUs by name: their memory, and the dense bf16 peak against which utilisation is measured."""

from dataclasses import dataclass

from trainwright.spec.experiment import Experiment


@dataclass(frozen=True, slots=True)
class Gpu:
    """One type of GPU, from its maker's data sheet."""

    name: str
    memory_gib: float
    """What a process may have of it: less than on the box, which counts in powers of ten."""
    peak_flops: float
    """Dense bf16 FLOP/s, without sparsity."""
    has_float8: bool = True
    """Whether it multiplies float8: capability 8.9 and newer."""


GPUS = (
    Gpu("B200", 178.0, 2250e12),
    Gpu("H200", 139.0, 989e12),
    Gpu("H100", 79.0, 989e12),
    Gpu("A100-40GB", 39.0, 312e12, has_float8=False),
    Gpu("A100", 79.0, 312e12, has_float8=False),
    Gpu("L40S", 44.0, 362e12),
    Gpu("L40", 44.0, 181e12),
    Gpu("A6000", 47.0, 155e12, has_float8=False),
    Gpu("RTX 4090", 23.5, 165e12),
    Gpu("RTX 5090", 31.0, 210e12),
    Gpu("RTX 3090", 23.5, 71e12, has_float8=False),
)
"""Of several whose name is part of another's the more special one comes first."""


def find_gpu(name: str) -> Gpu | None:
    """Return the type that a name speaks of, such as `h100`, `NVIDIA H100 80GB HBM3` or `A100-SXM4-40GB`."""
    plain = _plain(name)
    if "A100" in plain and "40G" in plain:
        plain = _plain("A100-40GB")
    return next((gpu for gpu in GPUS if _plain(gpu.name) in plain), None)


def _plain(name: str) -> str:
    return "".join(letter for letter in name.upper() if letter.isalnum())


def planned_gpu(experiment: Experiment, target: str | None = None) -> Gpu | None:
    """Return the GPU that a run is planned for: `resources.gpu`, else the smallest that its target may give."""
    targets = experiment.targets
    named = {
        "runpod": targets.runpod.gpus,
        "slurm": (targets.slurm.gpu_type or "",),
        "kubernetes": (targets.kubernetes.gpu or "",),
    }
    names = (experiment.resources.gpu,) if experiment.resources.gpu else named.get(target or "", ())
    found = [gpu for name in names if (gpu := find_gpu(name))]
    return min(found, key=lambda gpu: gpu.memory_gib, default=None)
