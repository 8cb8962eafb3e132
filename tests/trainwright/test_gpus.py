"""GPUs are found by whatever name engines have for them, and the smallest that a target may give is planned for."""

from collections.abc import Callable
from pathlib import Path

import pytest

from trainwright.spec.gpus import find_gpu, planned_gpu
from trainwright.spec.load import load_experiment

Write = Callable[..., Path]


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("NVIDIA H100 80GB HBM3", "H100"),
        ("h200", "H200"),
        ("NVIDIA A100-SXM4-80GB", "A100"),
        ("NVIDIA A100-SXM4-40GB", "A100-40GB"),
        ("a100-40gb", "A100-40GB"),
        ("NVIDIA GeForce RTX 4090", "RTX 4090"),
        ("NVIDIA L40S", "L40S"),
        ("NVIDIA L40", "L40"),
        ("NVIDIA RTX A6000", "A6000"),
    ],
)
def test_a_gpu_is_known_by_the_names_that_engines_use(name: str, found: str) -> None:
    gpu = find_gpu(name)
    assert gpu is not None
    assert gpu.name == found


def test_an_unknown_gpu_is_unknown() -> None:
    assert find_gpu("TPU v5p") is None
    assert find_gpu("") is None


def test_a_run_is_planned_for_the_gpu_that_its_target_gives(experiment_file: Write) -> None:
    def planned(target: str | None, *overrides: str) -> str | None:
        gpu = planned_gpu(load_experiment(experiment_file(), overrides, {}).experiment, target)
        return gpu.name if gpu else None

    assert planned("runpod") == "A100"
    assert planned("runpod", "targets.runpod.gpus=H200,L40S") == "L40S"
    assert planned("slurm", "targets.slurm.gpu_type=h100") == "H100"
    assert planned("kubernetes", "targets.kubernetes.gpu=h200") == "H200"
    assert planned("slurm", "targets.slurm.gpu_type=h100", "resources.gpu=B200") == "B200"
    assert planned("local") is None
    assert planned(None) is None
