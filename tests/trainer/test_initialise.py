"""Initial weights: a function of seed, name and row, on any number of ranks."""

from itertools import pairwise
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st
import pytest
import torch

from tiny_run import Finished, blank_model, checkpoint_tensors, tiny_experiment
from trainer.initialise import BLOCK_ROWS, _rows, initialise
from trainer.models.llama import LlamaModel
from trainwright.spec.derived import Derived
from trainwright.spec.model import Llama
from trainwright.spec.paths import RunFolder


@given(cuts=st.lists(st.integers(1, 3 * BLOCK_ROWS - 1), max_size=4, unique=True))
def test_rows_do_not_depend_on_how_they_are_split(cuts: list[int]) -> None:
    total = 3 * BLOCK_ROWS
    edges = [0, *sorted(cuts), total]
    parts = [_rows(1, "x", at, until - at, (3,)) for at, until in pairwise(edges)]
    assert torch.equal(torch.cat(parts), _rows(1, "x", 0, total, (3,)))


def test_seeds_names_and_blocks_have_rows_of_their_own() -> None:
    drawn = [_rows(seed, name, start, 8, (4,)) for seed in (1, 2) for name in "ab" for start in (0, BLOCK_ROWS)]
    assert len({tuple(rows.ravel().tolist()) for rows in drawn}) == len(drawn)


def test_values_are_what_the_model_asks_for() -> None:
    settings = Llama(dim=64, num_layers=8, num_heads=4, bias=True, qk_norm=True, init_std=0.05)
    model = LlamaModel(settings, 512, 16)
    initialise(model, 7)
    shrunk = 0.05 / (2 * 8) ** 0.5
    for name, parameter in model.named_parameters():
        if "norm" in name:
            assert torch.equal(parameter, torch.ones_like(parameter)), name
        elif name.endswith("bias"):
            assert not parameter.any(), name
        else:
            into_stream = name.endswith(("attention.output.weight", "down.weight"))
            assert parameter.std().item() == pytest.approx(shrunk if into_stream else 0.05, rel=0.05), name
            assert abs(parameter.mean().item()) < 0.05 * 5 / parameter.numel() ** 0.5, name


@pytest.mark.slow
def test_two_ranks_start_with_the_weights_of_one_bit_for_bit(
    stopped_by_one_rank: tuple[RunFolder, Finished], tmp_path: Path
) -> None:
    run, done = stopped_by_one_rank
    experiment = tiny_experiment(tmp_path)
    model = blank_model(Derived(experiment))
    initialise(model, experiment.seed)
    saved = checkpoint_tensors(run, 0)
    assert set(saved) == {f"model/{name}" for name, _ in model.named_parameters()}, done.said
    for name, parameter in model.named_parameters():
        assert torch.equal(saved[f"model/{name}"], parameter), name
