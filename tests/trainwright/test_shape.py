"""Counts by arithmetic: the ladders of the guides. The real modules are held in tests/trainer/test_models.py."""

from dataclasses import replace

import pytest

from trainwright.spec.model import Enoki, Llama, Nanochat, Qwen3

ENOKI = {
    # heads: (layers, width, weights of the blocks and of all matrices, in millions, as the ladder's authors print them)
    3: (2, 192, 0.885, 20.2),
    6: (4, 384, 7.08, 45.7),
    8: (6, 512, 18.9, 70.4),
    10: (7, 640, 34.4, 98.8),
    12: (9, 768, 63.7, 141),
    16: (12, 1024, 151, 254),
    24: (18, 1536, 510, 664),
    36: (27, 2304, 1720, 1950),
    48: (36, 3072, 4080, 4390),
}


@pytest.mark.parametrize("heads", ENOKI)
def test_the_enoki_ladder_is_its_authors(heads: int) -> None:
    chosen = Enoki(heads=heads)
    layers, width, blocks, everything = ENOKI[heads]
    assert (chosen.num_layers, chosen.dim, chosen.head_dim, chosen.mlp_dim) == (layers, width, 64, 4 * width)
    assert chosen.shape.block_matrices == 12 * width**2 * layers
    assert chosen.shape.block_matrices / 1e6 == pytest.approx(blocks, rel=5e-3)
    total = chosen.shape.block_matrices + 2 * 50304 * width
    assert total / 1e6 == pytest.approx(everything, rel=5e-3)
    assert chosen.num_parameters(50257) == total + layers * (2 * width + 2 * 64) + width


def test_the_gated_qwen3_has_14_squares_a_layer() -> None:
    chosen = Qwen3(heads=4)
    assert (chosen.num_layers, chosen.dim, chosen.head_dim, chosen.mlp_dim) == (8, 512, 128, 1536)
    assert chosen.shape.block_matrices == 14 * 512**2 * 8


NANOCHAT = {4: (256, 11.5), 8: (512, 41.9), 12: (768, 110.1), 20: (1280, 435.2), 24: (1536, 729.8), 26: (1664, 918.4)}


@pytest.mark.parametrize("depth", NANOCHAT)
def test_the_depth_dial_has_the_matrix_weights_that_its_author_counts(depth: int) -> None:
    chosen, (width, millions) = Nanochat(depth=depth), NANOCHAT[depth]
    assert (chosen.dim, chosen.num_heads) == (width, width // 128)
    assert chosen.matrix_parameters(32_768) / 1e6 == pytest.approx(millions, abs=0.06)


def test_an_odd_depth_is_rounded_up_to_whole_heads() -> None:
    assert [Nanochat(depth=depth).dim for depth in (1, 2, 3, 5)] == [128, 128, 256, 384]


def test_nanochats_flops_of_a_token_are_those_that_were_published() -> None:
    # 3.49 GFLOP at depth 20 with attention counted in full; here a causal mask halves it.
    chosen = Nanochat(depth=20)
    full = chosen.flops_per_token(65_536, 2048) + 6 * 20 * 2048 * 1280
    assert full / 1e9 == pytest.approx(3.49, abs=0.01)


def test_what_a_choice_adds_is_counted() -> None:
    plain = Llama(dim=64, num_layers=3, num_heads=4).shape
    base = plain.num_parameters(100)
    assert replace(plain, gated=True).num_parameters(100) == base + 3 * 64 * 64
    assert replace(plain, bias="qkv").num_parameters(100) == base + 3 * 3 * 64
    assert replace(plain, norm="rms_bare").num_parameters(100) == base - 3 * 2 * 64 - 64
    assert replace(plain, norm_embedding=True).num_parameters(100) == base + 64
    assert replace(plain, qk_norm="after").num_parameters(100) == base + 3 * 2 * 16
    assert replace(plain, head_dim=32).num_parameters(100) == base + 3 * 4 * 64 * 64
    assert replace(plain, softcap=15.0).num_parameters(100) == base
