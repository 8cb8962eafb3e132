"""Groups of parameters: patterns that match nothing are refused, and decay is what its kind says."""

import pytest
from torch import nn

from trainer.optim.groups import Horizon, named_groups, parameter_groups, shrink
from trainwright.spec.exits import UserError
from trainwright.spec.optimizers import AdamW, Group

HORIZON = Horizon(steps=200, lr=0.5)


def toy() -> nn.Module:
    return nn.Sequential(nn.Embedding(4, 3), nn.Linear(3, 3), nn.LayerNorm(3))


def test_a_pattern_that_matches_nothing_is_refused_by_name() -> None:
    with pytest.raises(UserError, match=r"match=lm_head\.\*: it matches no parameter; .* 0\.weight, 1\.weight"):
        named_groups(toy(), (Group(match="lm_head.*"),))


def test_a_pattern_whose_parameters_are_all_taken_is_refused_too() -> None:
    with pytest.raises(UserError, match=r"match=0\.weight: all that it matches belongs to an earlier group"):
        named_groups(toy(), (Group(match="0.*"), Group(match="0.weight")))


def test_a_parameter_belongs_to_the_first_group_that_matches() -> None:
    first, second = Group(match="1.*", lr_scale=2), Group(match="*.weight", decay=False)
    found = named_groups(toy(), (first, second))
    assert found == {"0.weight": second, "1.weight": first, "1.bias": first, "2.weight": second, "2.bias": None}


def test_groups_scale_the_rate_and_choose_what_decays() -> None:
    model = toy()
    settings = AdamW(weight_decay=0.2, groups=(Group(match="0.*", lr_scale=0.5, decay=False),))
    names = {parameter: name for name, parameter in model.named_parameters()}
    found = {
        names[each]: (group["lr"], group["lr_scale"], group["weight_decay"])
        for group in parameter_groups(model, settings, HORIZON)
        for each in group["params"]
    }
    plain = (0.5, 1.0, 0.0)
    assert found == {
        "0.weight": (0.25, 0.5, 0.0),
        "1.weight": (0.5, 1.0, 0.2),
        "1.bias": plain,
        "2.weight": plain,
        "2.bias": plain,
    }


@pytest.mark.parametrize("scale", [1.0, 0.5])
def test_independent_decay_is_omega_over_the_steps_whatever_the_rate(scale: float) -> None:
    settings = AdamW(decay="independent", omega=4.0, groups=(Group(match="1.weight", lr_scale=scale),))
    group = next(each for each in parameter_groups(toy(), settings, HORIZON) if each["lr_scale"] == scale)
    group["lr"] *= 0.25
    assert shrink(group, 7) == pytest.approx(1 - 0.25 * 4.0 / 200)


def test_log_time_decay_starts_a_tenth_of_the_run_in() -> None:
    (group, *_) = parameter_groups(toy(), AdamW(decay="log_time", omega=4.0), HORIZON)
    group["lr"] *= 0.25
    assert shrink(group, 7) == pytest.approx(1 - 0.25 * 4.0 / (20 + 7))
    (group, *_) = parameter_groups(toy(), AdamW(decay="log_time", decay_start_steps=1), HORIZON)
    assert shrink(group, 7) == pytest.approx(1 - 4.0 / (1 + 7))


def test_coupled_decay_goes_with_the_rate() -> None:
    (group, *_) = parameter_groups(toy(), AdamW(weight_decay=0.1), HORIZON)
    assert shrink(group, 7) == pytest.approx(1 - 0.5 * 0.1)
