"""Derived numbers: one definition of the batch, four ways to a horizon, counts that follow from shapes."""

from collections.abc import Callable
import math
from pathlib import Path

import pytest

from trainwright.spec.derived import Derived
from trainwright.spec.exits import UserError
from trainwright.spec.load import load_experiment

Write = Callable[..., Path]
NO_STEPS = "train.steps=null"


def derived(path: Path, *overrides: str) -> Derived:
    return Derived(load_experiment(path, overrides, {}).experiment)


@pytest.mark.parametrize(("nodes", "ranks", "accum"), [(1, 1, 4), (1, 2, 2), (2, 1, 2), (2, 2, 1)])
def test_accumulation_follows_the_ranks_and_nothing_else_changes(
    experiment_file: Write, nodes: int, ranks: int, accum: int
) -> None:
    one = derived(experiment_file())
    many = derived(experiment_file(), f"resources.nodes={nodes}", f"resources.ranks_per_node={ranks}")
    assert many.ranks == nodes * ranks
    assert many.grad_accum == accum
    assert many.global_batch_sequences == many.experiment.train.micro_batch * accum * many.ranks == 8
    assert (many.steps, many.tokens_per_step, many.warmup_steps) == (one.steps, one.tokens_per_step, one.warmup_steps)


def test_the_batch_may_be_given_in_tokens(experiment_file: Write) -> None:
    found = derived(experiment_file(), "train.global_batch_sequences=null", "train.tokens_per_step=256")
    assert (found.global_batch_sequences, found.tokens_per_step, found.grad_accum) == (8, 256, 4)


def test_more_ranks_than_sequences_are_refused(experiment_file: Write) -> None:
    with pytest.raises(UserError, match=r"not a multiple of micro_batch 2 x 16 ranks = 32; try 32$"):
        derived(experiment_file(), "resources.ranks_per_node=16", "train.global_batch_sequences=8")


@pytest.mark.parametrize(("tokens", "steps"), [(1, 1), (256, 1), (257, 2), (2560, 10), (2561, 11)])
def test_steps_from_tokens_spend_what_was_asked_for(experiment_file: Write, tokens: int, steps: int) -> None:
    assert derived(experiment_file(), NO_STEPS, f"train.tokens={tokens}").steps == steps


def test_steps_from_tokens_per_parameter(experiment_file: Write) -> None:
    found = derived(experiment_file(), NO_STEPS, "train.tokens_per_parameter=20")
    assert found.steps == math.ceil(20 * found.num_parameters / 256)
    assert derived(experiment_file(), NO_STEPS, "train.tokens_per_parameter=1e-9").steps == 1


def test_steps_from_flops(experiment_file: Write) -> None:
    found = derived(experiment_file(), NO_STEPS, "train.flops=1e12")
    assert (found.steps - 1) * 256 * found.flops_per_token < 1e12 <= found.steps * 256 * found.flops_per_token


def test_the_largest_numbers_that_are_accepted_do_not_overflow(experiment_file: Write) -> None:
    huge = ("model.dim=1e15", "model.num_heads=5e14", "model.num_layers=1e15", "model.hidden_dim=1e15")
    for horizon in ("train.steps=1e15", "train.tokens=1e15", "train.tokens_per_parameter=1e30", "train.flops=1e30"):
        found = derived(experiment_file(), *huge, NO_STEPS, horizon, "train.seq_len_tokens=1e15")
        assert all(math.isfinite(value) for value in found.facts().values())


def test_warmup_is_a_share_of_the_run_unless_given(experiment_file: Write) -> None:
    assert derived(experiment_file(), "train.steps=1000").warmup_steps == 20
    assert derived(experiment_file(), "schedule.warmup_fraction=0").warmup_steps == 0
    assert derived(experiment_file(), "schedule.warmup_fraction=1").warmup_steps == 10
    assert derived(experiment_file(), "schedule.warmup_steps=10").warmup_steps == 10


def test_counts_of_a_small_model_by_hand(experiment_file: Write) -> None:
    # Width 64, 2 layers, SwiGLU of width 192 (8/3 of 64 up to a multiple of 64), 265 tokens padded to 320.
    found = derived(experiment_file())
    matrices = 2 * (4 * 64 * 64 + 3 * 64 * 192) + 320 * 64
    assert found.vocab_size == 320
    assert found.num_parameters == matrices + 320 * 64 + 2 * 2 * 64 + 64
    assert found.flops_per_token == 6 * matrices + 6 * 2 * 32 * 64
    tied = derived(experiment_file(), "model.tie_embeddings=true")
    assert tied.num_parameters == found.num_parameters - 320 * 64
    assert tied.flops_per_token == found.flops_per_token


def test_each_choice_of_the_model_is_counted(experiment_file: Write) -> None:
    base = derived(experiment_file()).num_parameters
    counts = {
        "model.num_kv_heads=1": base - 2 * 2 * 64 * 32,
        "model.qk_norm=true": base + 2 * 2 * 32,
        "model.mlp=gelu": base - 2 * 3 * 64 * 192 + 2 * 2 * 64 * 256,
        "model.hidden_dim=100": base - 2 * 3 * 64 * 192 + 2 * 3 * 64 * 100,
        "model.bias=true": base + 2 * (4 * 64 + 2 * 192 + 64),
        "model.norm=layer": base,
        "model.vocab_multiple=1": base - 2 * (320 - 265) * 64,
    }
    assert {override: derived(experiment_file(), override).num_parameters for override in counts} == counts


def test_the_first_loss_is_that_of_random_weights(experiment_file: Write) -> None:
    assert derived(experiment_file(), "model.init_std=0").expected_first_loss == math.log(320)
    assert derived(experiment_file()).expected_first_loss == pytest.approx(math.log(320) + 64 * 0.02**2 / 2)


def test_facts_hold_every_number_that_show_prints(experiment_file: Write) -> None:
    found = derived(experiment_file())
    facts = found.facts()
    assert facts["total_tokens"] == 10 * 256
    assert facts["total_flops"] == 10 * 256 * found.flops_per_token
    assert {name: facts[name] for name in ("ranks", "grad_accum", "steps", "warmup_steps", "tokens_per_step")} == {
        "ranks": 1,
        "grad_accum": 4,
        "steps": 10,
        "warmup_steps": 0,
        "tokens_per_step": 256,
    }


REAL_MODULE = (
    "real module: 70,393,088 parameters, 18,881,792 of them outside embedding and output; 7,424 are norms and biases, "
    "which the two counts above leave out"
)


def test_enoki_with_eight_heads_is_printed_as_its_guide_expects(experiment_file: Write) -> None:
    tokenizer = ("tokenizer.kind=gpt2", "optimizer.lr=1e-3")
    lines = derived(experiment_file(), *tokenizer, "model.kind=enoki", "model.heads=8").dimension_lines()
    assert lines == [
        "n_head=8, n_layer=6, n_embd=512",
        "mlp_hidden_dim=2048, qkv_dim=64",
        "non_emb_params=18,874,368 (18.9M)",
        "total_params=70,385,664 (70.4M)",
        REAL_MODULE,
    ]


def test_a_tied_table_is_counted_once_in_both_totals(experiment_file: Write) -> None:
    found = derived(experiment_file(), "model.tie_embeddings=true")
    lines = found.dimension_lines()
    by_rule = found.num_parameters - found.experiment.model.shape.vectors
    assert lines[3].startswith(f"total_params={by_rule:,} ")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("train.precision=fp8",), "no matrix of the model's blocks has two sides of at least 128, both multiples"),
        (("model.dim=120", "train.precision=fp8"), "train.precision=fp8: no matrix of the model's blocks"),
        (
            ("model.dim=128", "train.precision=fp8", "train.seq_len_tokens=33"),
            "train.seq_len_tokens=33: with train.precision=fp8 it must be a multiple of 16; try 48",
        ),
    ],
)
def test_fp8_wants_large_matrices_and_whole_tiles(experiment_file: Write, words: tuple[str, ...], said: str) -> None:
    assert derived(experiment_file(), "model.dim=128", "train.precision=fp8").experiment.model.shape.float8_matrices
    with pytest.raises(UserError) as caught:
        derived(experiment_file(), *words)
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("model.kind=enoki", "model.heads=1"), "model.heads=1: makes no layer"),
        (("model.kind=nanochat", "model.head_width=63"), "model.head_width=63: is odd"),
        (("model.bias=true", "model.qkv_bias=true"), "model.bias covers these already"),
        (("model.rope_low=4",), "model.rope_high=4.0: must be above model.rope_low 4"),
        (("model.kind=moon",), "model.kind=moon: choose one of llama, enoki, qwen3, nanochat"),
        (("model.kind=enoki", "model.dim=3"), "model.dim: unknown key"),
    ],
)
def test_wrong_choices_of_a_family_are_named(experiment_file: Write, words: tuple[str, ...], said: str) -> None:
    with pytest.raises(UserError) as caught:
        derived(experiment_file(), *words)
    assert said in str(caught.value)
