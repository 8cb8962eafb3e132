from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
import pytest

from trainwright.spec.slurm import SlurmTarget


@pytest.mark.parametrize(
    ("settings", "path"),
    [
        ({"gpu_type": "h200", "gpu_types": "h100,a100"}, "gpu_type"),
        ({"options": "comment=preempt"}, "options"),
        ({"walltime_minutes": 5, "signal_lead_seconds": 300}, "signal_lead_seconds"),
    ],
)
def test_what_does_not_fit_together_is_named(settings: dict[str, Any], path: str) -> None:
    assert [problem.path for problem in SlurmTarget(**settings).problems()] == [path]


def test_lists_may_be_written_in_one_word() -> None:
    assert SlurmTarget(hosts="a*,b*").hosts == SlurmTarget(hosts="a* b*").hosts == ("a*", "b*")


@given(st.text(max_size=20))
def test_no_word_reaches_a_script_that_could_be_more_than_a_word(text: str) -> None:
    try:
        found = SlurmTarget(account=text).account
    except ValidationError:
        return
    assert found is None or not set(found) & set(" \t\n'\"\\#$`;<>")


@pytest.mark.parametrize("place", ["relative", "$(x)", "/a b", "/a;b", "$HOME and more", "`x`"])
def test_a_place_is_a_path_or_below_a_variable(place: str) -> None:
    with pytest.raises(ValidationError):
        SlurmTarget(scratch=place)
    assert SlurmTarget(scratch="$SLURM_TMPDIR/x").scratch == "$SLURM_TMPDIR/x"
