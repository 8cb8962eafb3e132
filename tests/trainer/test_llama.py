"""The model: causal, rotated by relative positions, and the same whichever way its choices are written."""

from dataclasses import replace
from itertools import product

from hypothesis import given
from hypothesis import strategies as st
import pytest
import torch
from torch import Tensor
import torch.nn.functional as F  # noqa: N812 - torch's own name for it

from families import FAMILIES, lively
from trainer.initialise import initialise
from trainer.models.llama import Attention, LlamaModel, rotate, rotation_table
from trainwright.spec.exits import UserError
from trainwright.spec.model import Llama, Qwen3
from trainwright.spec.shape import Rope
from trainwright.tokens.shards import IGNORED

VOCABULARY, SEQ_LEN = 48, 12
CPU = torch.device("cpu")
TOKENS = torch.randint(VOCABULARY, (3, SEQ_LEN), generator=torch.Generator().manual_seed(1))
TARGETS = torch.randint(VOCABULARY, (3, SEQ_LEN), generator=torch.Generator().manual_seed(2))


def made(**choices: object) -> LlamaModel:
    """Return a small model with weights large enough that every part of it matters."""
    given_choices = {"dim": 32, "num_layers": 2, "num_heads": 4, "init_std": 0.3, **choices}
    model = LlamaModel(Llama.model_validate(given_choices), VOCABULARY, SEQ_LEN)
    initialise(model, 3)
    return model


def of_family(family: str) -> torch.nn.Module:
    return lively(FAMILIES[family], VOCABULARY, SEQ_LEN)


EVERY_CHOICE = [
    {"norm": norm, "mlp": mlp, "qk_norm": qk_norm, "bias": bias}
    for norm, mlp, (qk_norm, bias) in product(
        ["rms", "layer"], ["swiglu", "gelu", "silu", "relu2"], [(False, False), (True, True)]
    )
]


@pytest.mark.parametrize("choices", EVERY_CHOICE, ids=str)
@torch.no_grad()
def test_every_choice_is_causal(choices: dict[str, object]) -> None:
    model, changed = made(num_kv_heads=2, **choices), TOKENS.clone()
    changed[:, 7] = (changed[:, 7] + 1) % VOCABULARY
    before, after = model(TOKENS), model(changed)
    assert torch.equal(before[:, :7], after[:, :7])
    assert (before[:, 7:] != after[:, 7:]).any(dim=-1).all()


@pytest.mark.parametrize("choices", EVERY_CHOICE, ids=str)
def test_every_choice_gives_every_parameter_a_gradient(choices: dict[str, object]) -> None:
    model = made(num_kv_heads=2, **choices)
    model(TOKENS, TARGETS).backward()
    without = [name for name, each in model.named_parameters() if each.grad is None or not each.grad.any()]
    assert not without


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_is_causal_and_gives_every_parameter_a_gradient(family: str) -> None:
    model, changed = of_family(family), TOKENS.clone()
    changed[:, 7] = (changed[:, 7] + 1) % VOCABULARY
    before, after = model(TOKENS), model(changed)
    assert torch.equal(before[:, :7], after[:, :7])
    assert (before[:, 7:] != after[:, 7:]).any(dim=-1).all()
    model(TOKENS, TARGETS).backward()
    assert not [name for name, each in model.named_parameters() if each.grad is None or not each.grad.any()]


@pytest.mark.parametrize("family", FAMILIES)
def test_the_loss_and_the_gradients_of_every_family_are_those_of_its_logits(family: str) -> None:
    model, wanted = of_family(family), TARGETS.clone()
    wanted[0, :4] = IGNORED
    logits = model(TOKENS)
    expected = F.cross_entropy(logits.flatten(0, 1), wanted.flatten(), ignore_index=IGNORED, reduction="none")
    expected.sum().backward()
    plain = {name: each.grad for name, each in model.named_parameters()}
    assert torch.allclose(model(TOKENS, wanted, each_token=True), expected.view_as(wanted), atol=1e-5)
    model.zero_grad()
    loss = model(TOKENS, wanted)
    assert loss.item() == pytest.approx(expected.sum().item(), rel=1e-5)
    loss.backward()
    for name, each in model.named_parameters():
        torch.testing.assert_close(each.grad, plain[name], rtol=1e-4, atol=1e-5 * plain[name].abs().max(), msg=name)


@torch.no_grad()
def test_a_gate_of_zero_halves_what_attention_adds() -> None:
    model = lively(Qwen3(heads=1), VOCABULARY, SEQ_LEN)
    attention = model.blocks[0].attention
    hidden = torch.randn((1, SEQ_LEN, 128), generator=torch.Generator().manual_seed(1))
    table = rotation_table(SEQ_LEN, 128, Rope(), CPU)
    query, gate = attention.query.weight.view(1, 2, 128, 128).unbind(1)
    gate.zero_()
    halved = attention(hidden, table)
    plain = Attention(replace(Qwen3(heads=1).shape, gated=False))
    state = {**attention.state_dict(), "query.weight": query.flatten(0, 1)}
    plain.load_state_dict(state)
    torch.testing.assert_close(plain(hidden, table), 2 * halved)


def test_logits_stay_under_the_soft_cap() -> None:
    model = of_family("nanochat")
    with torch.no_grad():
        model.output.weight.mul_(100)
        assert 14 < model(TOKENS).abs().max() <= 15


def test_slowed_frequencies_are_those_below_and_the_fast_ones_are_left() -> None:
    plain, slowed = (rotation_table(2, 64, Rope(5e5, factor), CPU)[1] for factor in (None, 8.0))
    angles, slow = (torch.atan2(each[1], each[0]) for each in (plain, slowed))
    assert torch.equal(angles[:8], slow[:8])
    torch.testing.assert_close(slow[-8:], angles[-8:] / 8)
    assert (slow <= angles + 1e-7).all()


def test_a_text_longer_than_the_context_is_refused() -> None:
    with pytest.raises(UserError, match="13 tokens do not fit the model's context of 12; cut them"):
        made()(torch.zeros((1, SEQ_LEN + 1), dtype=torch.int64))


@torch.no_grad()
def test_a_prefix_has_the_logits_of_its_part() -> None:
    model = made()
    assert torch.allclose(model(TOKENS[:, :5]), model(TOKENS)[:, :5], atol=1e-5)


@torch.no_grad()
def test_losses_are_those_of_the_logits() -> None:
    model, wanted = made(), TARGETS.clone()
    wanted[0, :4] = IGNORED
    logits = model(TOKENS)
    expected = F.cross_entropy(logits.flatten(0, 1), wanted.flatten(), ignore_index=IGNORED, reduction="none")
    each = model(TOKENS, wanted, each_token=True)
    assert torch.allclose(each, expected.view_as(wanted), atol=1e-5)
    assert model(TOKENS, wanted).item() == pytest.approx(each.sum().item(), rel=1e-5)


@torch.no_grad()
def test_grouped_queries_are_repeated_keys_and_values() -> None:
    grouped, repeated = made(num_kv_heads=2), made(num_kv_heads=4)
    state = grouped.state_dict()
    for name in [name for name in state if ".key." in name or ".value." in name]:
        heads = state[name].unflatten(0, (2, -1))
        state[name] = heads.repeat_interleave(2, dim=0).flatten(0, 1)
    repeated.load_state_dict(state)
    assert torch.allclose(grouped(TOKENS), repeated(TOKENS), atol=1e-5)


def test_a_tied_model_has_one_matrix_and_it_learns_from_both_ends() -> None:
    model = made(tie_embeddings=True)
    assert [name for name, each in model.named_parameters() if each.shape == (VOCABULARY, 32)] == ["embedding.weight"]
    model(TOKENS, torch.full_like(TOKENS, IGNORED)).backward()
    assert not model.embedding.weight.grad.any()
    model.zero_grad()
    model(TOKENS[:1, :1], TARGETS[:1, :1]).backward()
    # The output side reaches rows that no input has named.
    assert model.embedding.weight.grad.any(dim=1).all()


def heads(seed: int, positions: int, width: int) -> Tensor:
    return torch.randn((1, 1, positions, width), generator=torch.Generator().manual_seed(seed))


@given(seed=st.integers(0, 1000), half=st.integers(1, 16), positions=st.integers(1, 32))
def test_a_rotation_keeps_lengths(seed: int, half: int, positions: int) -> None:
    plain = heads(seed, positions, 2 * half)
    turned = rotate(plain, rotation_table(positions, 2 * half, Rope(), CPU))
    assert torch.allclose(turned.norm(dim=-1), plain.norm(dim=-1), rtol=1e-5)
    assert torch.equal(turned[..., 0, :], plain[..., 0, :])


@given(seed=st.integers(0, 1000), left=st.integers(0, 99), right=st.integers(0, 99), shift=st.integers(0, 28))
def test_a_rotated_product_depends_on_the_distance_alone(seed: int, left: int, right: int, shift: int) -> None:
    table = rotation_table(128, 16, Rope(), CPU)
    query, key = heads(seed, 1, 16), heads(seed + 1, 1, 16)

    def score(at: int, of: int) -> float:
        return (rotate(query, table[at : at + 1]) * rotate(key, table[of : of + 1])).sum().item()

    assert score(left, right) == pytest.approx(score(left + shift, right + shift), abs=2e-5)


def test_a_rotation_keeps_the_type_and_turns_in_fp32() -> None:
    table = rotation_table(8, 16, Rope(), CPU)
    turned = rotate(heads(0, 8, 16).bfloat16(), table)
    assert turned.dtype == torch.bfloat16
    assert torch.equal(turned, rotate(heads(0, 8, 16).bfloat16().float(), table).bfloat16())
    assert table.dtype == torch.float32


def test_positions_matter() -> None:
    model = made(num_layers=1)
    first, second = TOKENS[:1, :3], TOKENS[:1, [1, 0, 2]]
    with torch.no_grad():
        assert not torch.allclose(model(first)[:, -1], model(second)[:, -1], atol=1e-4)
