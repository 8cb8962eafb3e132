"""Devices are chosen by what was asked for, never by what happens to be there."""

from collections.abc import Iterator
import os
from pathlib import Path

import pytest
import torch

from tiny_run import tiny_experiment
from trainer.device import choose_device, describe_device, explaining_memory, peak_flops, peak_memory_gib
from trainer.device import power_watts, prepare_device
from trainwright.spec.derived import Derived
from trainwright.spec.exits import Exit, MissingError, UserError
from trainwright.spec.experiment import Resources

CPU = torch.device("cpu")


@pytest.fixture
def _own_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def have(patch: pytest.MonkeyPatch, num_gpus: int) -> None:
    patch.setattr(torch.cuda, "is_available", lambda: num_gpus > 0)
    patch.setattr(torch.cuda, "device_count", lambda: num_gpus)


@pytest.mark.parametrize("num_gpus", [0, 1, 8])
def test_a_cpu_that_was_asked_for_is_taken_beside_gpus(monkeypatch: pytest.MonkeyPatch, num_gpus: int) -> None:
    have(monkeypatch, num_gpus)
    assert choose_device(Resources(device="cpu", ranks_per_node=8), 3) == CPU


def test_gpus_that_were_asked_for_are_taken_by_local_rank_or_missed(monkeypatch: pytest.MonkeyPatch) -> None:
    have(monkeypatch, 4)
    assert choose_device(Resources(device="cuda", ranks_per_node=4), 3) == torch.device("cuda", 3)
    with pytest.raises(MissingError, match=r"4 GPUs are here, but resources\.ranks_per_node=5") as caught:
        choose_device(Resources(device="cuda", ranks_per_node=5), 0)
    assert caught.value.exit == Exit.MISSING


def test_auto_takes_gpus_only_when_every_rank_has_one(monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = Resources(device="auto", ranks_per_node=2)
    have(monkeypatch, 2)
    assert choose_device(wanted, 1) == torch.device("cuda", 1)
    have(monkeypatch, 1)
    # Both ranks choose alike, though one of them could have a GPU.
    assert [choose_device(wanted, rank) for rank in (0, 1)] == [CPU, CPU]


@pytest.mark.usefixtures("_own_threads")
def test_ranks_share_the_cores_of_a_machine() -> None:
    cores = len(os.sched_getaffinity(0))
    prepare_device(CPU, deterministic=True, local_ranks=1)
    assert torch.get_num_threads() == cores
    prepare_device(CPU, deterministic=True, local_ranks=10 * cores)
    assert torch.get_num_threads() == 1
    assert not torch.are_deterministic_algorithms_enabled()


def test_nothing_is_made_up_about_a_cpu() -> None:
    assert peak_flops(CPU) is None
    assert peak_memory_gib(CPU) is None
    assert power_watts(CPU) is None
    assert "CPU" in describe_device(CPU)


@pytest.mark.parametrize(
    ("name", "peak"),
    [("NVIDIA H100 80GB HBM3", 989e12), ("NVIDIA A100-SXM4-40GB", 312e12), ("Some GPU of next year", None)],
)
def test_a_peak_is_known_by_the_devices_name_or_not_at_all(
    monkeypatch: pytest.MonkeyPatch, name: str, peak: float | None
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _device: name)
    assert peak_flops(torch.device("cuda", 0)) == peak


def test_a_device_without_room_is_refused_with_the_next_smaller_micro_batch(tmp_path: Path) -> None:
    def refusal(*overrides: str) -> str:
        derived = Derived(tiny_experiment(tmp_path, "train.global_batch_sequences=12", *overrides))
        with pytest.raises(UserError) as caught, explaining_memory(derived, CPU):
            raise torch.OutOfMemoryError("tried to allocate")
        assert caught.value.exit == Exit.REFUSED
        return str(caught.value)

    ran_out = "the device's memory ran out; try"
    said = f"train.micro_batch=6: {ran_out} train.micro_batch=4 or train.recompute=full or more ranks"
    assert refusal("train.micro_batch=6") == said
    said = f"train.micro_batch=1: {ran_out} more ranks"
    assert refusal("train.micro_batch=1", "train.recompute=full") == said


def test_a_host_without_room_is_told_alike_and_other_errors_are_left_alone(tmp_path: Path) -> None:
    derived = Derived(tiny_experiment(tmp_path))
    sentence = r"train\.micro_batch=4: the device's memory ran out; try train\.micro_batch=2 or train\.recompute=full"
    with pytest.raises(UserError, match=sentence), explaining_memory(derived, CPU):
        torch.empty(1 << 50)
    with pytest.raises(RuntimeError, match="something else"), explaining_memory(derived, CPU):
        raise RuntimeError("something else")


def test_power_is_not_guessed_where_the_library_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(device: torch.device) -> int:
        raise ModuleNotFoundError(f"pynvml for {device}")

    monkeypatch.setattr(torch.cuda, "power_draw", missing)
    assert power_watts(torch.device("cuda", 0)) is None


@pytest.mark.gpu
def test_a_gpu_trains_with_a_known_memory() -> None:
    device = choose_device(Resources(device="cuda"), 0)
    prepare_device(device, deterministic=False, local_ranks=1)
    torch.ones(1 << 20, device=device)
    assert (peak_memory_gib(device) or 0) >= 4 / 1024
    assert describe_device(device)
