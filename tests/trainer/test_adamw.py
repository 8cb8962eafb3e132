"""AdamW moves as torch's plain one does, and decays matrices alone."""

import torch
from torch import nn

from trainer.optim.adamw import build_adamw
from trainer.optim.groups import Horizon
from trainwright.spec.optimizers import AdamW

SETTINGS = AdamW(lr=0.05, beta1=0.8, beta2=0.9, eps=1e-3, weight_decay=0.2)
HORIZON = Horizon(steps=40, lr=0.05)


def toy() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, 7), nn.LayerNorm(7), nn.Linear(7, 3))


def test_norms_and_biases_are_not_decayed() -> None:
    model = toy()
    names = {parameter: name for name, parameter in model.named_parameters()}
    groups = build_adamw(SETTINGS, model, HORIZON).param_groups
    decayed = {names[each]: group["weight_decay"] for group in groups for each in group["params"]}
    assert {name for name, decay in decayed.items() if decay} == {"0.weight", "2.weight"}
    assert set(decayed) == set(names.values())
    assert {decay for decay in decayed.values() if decay} == {SETTINGS.weight_decay}


def test_an_update_is_that_of_torch_unfused() -> None:
    ours, plain = toy(), toy()
    matrices = [each for each in plain.parameters() if each.dim() >= 2]
    others = [each for each in plain.parameters() if each.dim() < 2]
    optimizers = (
        build_adamw(SETTINGS, ours, HORIZON),
        torch.optim.AdamW(
            [{"params": matrices}, {"params": others, "weight_decay": 0.0}],
            lr=SETTINGS.lr,
            betas=(SETTINGS.beta1, SETTINGS.beta2),
            eps=SETTINGS.eps,
            weight_decay=SETTINGS.weight_decay,
            foreach=False,
            fused=False,
        ),
    )
    for step in range(5):
        batch = torch.randn((4, 5), generator=torch.Generator().manual_seed(step))
        for model, optimizer in zip((ours, plain), optimizers, strict=True):
            model(batch).square().sum().backward()
            optimizer.step()
            optimizer.zero_grad()
    for found, expected in zip(ours.parameters(), plain.parameters(), strict=True):
        assert torch.allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_a_model_without_norms_and_biases_has_one_group() -> None:
    assert len(build_adamw(SETTINGS, nn.Linear(3, 3, bias=False), HORIZON).param_groups) == 1


def test_log_time_decay_follows_the_update_and_not_the_rate() -> None:
    settings = SETTINGS.model_copy(update={"decay": "log_time", "omega": 2.0})
    decayed, plain = toy(), toy()
    optimizers = (
        build_adamw(settings, decayed, HORIZON),
        build_adamw(SETTINGS.model_copy(update={"weight_decay": 0.0}), plain, HORIZON),
    )
    for model, optimizer in zip((decayed, plain), optimizers, strict=True):
        model(torch.ones(2, 5)).square().sum().backward()
        for group in optimizer.param_groups:
            group["lr"] = HORIZON.lr / 2
        optimizer.step()
    for (name, found), expected in zip(decayed.named_parameters(), plain.parameters(), strict=True):
        # Half the peak rate, log-time decay starts as if 40 / 10 steps had passed.
        factor = 1 - 0.5 * 2.0 / (4 + 1) if expected.dim() == 2 else 1
        assert torch.allclose(found, expected * factor, atol=1e-7), name


def test_averages_may_be_kept_in_bf16_and_move_weights_alike() -> None:
    ours, plain = toy(), toy()
    bf16 = SETTINGS.model_copy(update={"moments": "bf16"})
    optimizers = (build_adamw(bf16, ours, HORIZON), build_adamw(SETTINGS, plain, HORIZON))
    for _ in range(3):
        for model, optimizer in zip((ours, plain), optimizers, strict=True):
            model(torch.ones(2, 5)).square().sum().backward()
            optimizer.step()
            optimizer.zero_grad()
    kept = {str(value.dtype) for state in optimizers[0].state.values() for value in state.values() if value.dim()}
    assert kept == {"torch.bfloat16"}
    for found, expected in zip(ours.parameters(), plain.parameters(), strict=True):
        assert torch.allclose(found, expected, atol=5e-3)
        assert found.dtype == torch.float32
