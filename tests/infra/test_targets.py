"""The table of targets, and what each of them must have."""

import inspect

import pytest

from infra.launches import Launch
from infra.targets import TARGETS, Target, target_of
from trainwright.spec.exits import UserError
from trainwright.spec.targets import Targets

FUNCTIONS = {name: function for name, function in vars(Target).items() if not name.startswith("_")}


@pytest.mark.parametrize("name", sorted(TARGETS))
def test_a_target_has_every_function_with_the_same_arguments(name: str) -> None:
    for word, function in FUNCTIONS.items():
        wanted = dict(inspect.signature(function).parameters)
        del wanted["self"]
        found = inspect.signature(getattr(TARGETS[name], word)).parameters
        assert [(each, found[each].kind) for each in found] == [(each, wanted[each].kind) for each in wanted], word


def test_every_target_has_its_settings() -> None:
    assert set(TARGETS) == set(Targets.model_fields)


def test_the_target_of_a_launch_is_found_by_its_record() -> None:
    for name, target in TARGETS.items():
        assert target_of(Launch("small", name, "1", "/root/launch/small", 0.0)) is target


def test_a_launch_on_a_target_of_another_version_is_refused_by_name() -> None:
    launch = Launch("small", "moon", "1", "/root/launch/small", 0.0)
    with pytest.raises(
        UserError, match=r"^/root/launch/small/launch.json: was sent to target moon, .* none of .*local"
    ):
        target_of(launch)
