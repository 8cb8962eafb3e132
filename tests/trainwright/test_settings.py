"""Scalars read from text, and how a mistake is worded."""

from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError
import pytest

from trainwright.spec.settings import ABSENT, MAX_COUNT, Count, CountOrZero, Name, OptionalCount, OptionalText, Problem


@pytest.mark.parametrize(
    ("text", "number"), [("8", 8), ("1e4", 10_000), ("250_000", 250_000), ("20.0", 20), (" 7 ", 7), ("2.5e1", 25)]
)
def test_whole_numbers_may_be_written_in_several_ways(text: str, number: int) -> None:
    assert TypeAdapter(Count).validate_python(text) == number


@pytest.mark.parametrize("text", ["0", "-1", "1.5", "1e-1", "0x10", "", "abc", "1e400", "nan", str(MAX_COUNT + 1)])
def test_what_is_no_count_is_refused(text: str) -> None:
    with pytest.raises(ValidationError):
        TypeAdapter(Count).validate_python(text)


@given(st.integers(0, MAX_COUNT))
def test_every_whole_number_comes_back_exactly(number: int) -> None:
    assert TypeAdapter(CountOrZero).validate_python(str(number)) == number


@pytest.mark.parametrize("text", ["", "~", "null", "None", " NULL "])
def test_nothing_is_none_where_none_is_allowed(text: str) -> None:
    assert TypeAdapter(OptionalCount).validate_python(text) is None
    assert TypeAdapter(OptionalText).validate_python(text) is None


@pytest.mark.parametrize("name", ["a", "a-1", "0", "a" * 52])
def test_names_are_valid_everywhere(name: str) -> None:
    assert TypeAdapter(Name).validate_python(name) == name


@pytest.mark.parametrize("name", ["", "-a", "a-", "A", "a_b", "a.b", "a/b", "..", "a\n", "\u00e9", "a" * 53])
def test_names_that_would_fail_somewhere_are_refused(name: str) -> None:
    with pytest.raises(ValidationError):
        TypeAdapter(Name).validate_python(name)


def test_a_problem_reads_as_path_value_and_way_out() -> None:
    assert str(Problem("lr", 3, "try 1").below("optimizer").below("x")) == "x.optimizer.lr=3: try 1"
    assert str(Problem("", None, "try 1").below("train")) == "train=null: try 1"
    assert str(Problem("train", ABSENT, "add it")) == "train: add it"
    assert str(Problem("a", "1\n2", "no")) == r"a='1\n2': no"
    assert str(Problem("a", "9" * 500, "no")) == f"a={'9' * 77}...: no"
