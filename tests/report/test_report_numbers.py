import pytest
from hypothesis import given
from hypothesis import strategies as st

from report.numbers import BLOCKS, compact, duration, grouped, percent, scientific, sparkline


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (950, "950"), (999.96, "1k"), (9861, "9.86k"), (124_439_808, "124M"), (2.5e9, "2.5B"), (1e13, "10T")],
)
def test_compact_counts_have_three_digits(value: float, text: str) -> None:
    assert compact(value) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.02, "20 ms"),
        (0.9999, "1.0 s"),
        (59.94, "59.9 s"),
        (59.99, "1 min 00 s"),
        (3599.6, "1 h 00 min"),
        (12_000, "3 h 20 min"),
        (86_399, "1 d 00 h"),
        (190_000, "2 d 05 h"),
    ],
)
def test_durations_carry_into_the_larger_unit(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_scientific_numbers_have_no_empty_digits() -> None:
    assert [scientific(value) for value in (0, 3e-4, 1.97e14, 2e-3)] == ["0", "3e-4", "1.97e14", "2e-3"]


def test_what_was_not_recorded_is_a_dash() -> None:
    assert {write(None) for write in (compact, duration, grouped, percent, scientific)} == {"\N{EN DASH}"}


def test_a_sparkline_rises_with_its_values() -> None:
    assert sparkline(list(range(8))) == BLOCKS
    assert sparkline([]) == ""


@given(st.lists(st.floats(-1e9, 1e9), min_size=1, max_size=300), st.integers(1, 80))
def test_a_sparkline_fits_its_width(values: list[float], width: int) -> None:
    line = sparkline(values, width)
    assert len(line) == min(width, len(values))
    assert set(line) <= set(BLOCKS)
