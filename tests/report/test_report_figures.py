import math
import re
from xml.etree import ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st

from report.figures import NARROW, WIDE, Plot, Scale, draw, log_ticks, plain_tick, thin
from report.metrics import Series

LOSS = Series(tuple(range(1, 5001)), tuple(2.0 + 6.0 * math.exp(-step / 300) for step in range(5000)))


def plot(points: Series, scale: Scale = "fit", name: str = "loss") -> Plot:
    return Plot(name, (("raw", points),), plain_tick, scale, label='falls from "8" to <2>')


@pytest.mark.parametrize("size", [NARROW, WIDE])
@pytest.mark.parametrize("scale", ["fit", "zero", "log"])
def test_a_drawing_is_one_svg_element_without_references_outside(scale: Scale, size: tuple[int, int]) -> None:
    svg = draw(plot(LOSS, scale), size)
    assert ET.fromstring(svg).tag == "svg"
    assert "http" not in svg
    assert "<style" not in svg
    assert all(target.startswith("#loss-") for target in re.findall(r'href="([^"]*)"', svg))


def test_the_same_numbers_draw_the_same_bytes() -> None:
    assert draw(plot(LOSS), NARROW) == draw(plot(LOSS), NARROW)


def test_colours_are_the_pages_own() -> None:
    svg = draw(plot(LOSS), NARROW)
    assert "var(--first" in svg
    assert set(re.findall(r"#[0-9a-f]{6}\b", svg)) <= {"#5c6470", "#d9dce1", "#2f5fa8", "#b5542a"}


def test_ids_of_two_drawings_on_a_page_differ() -> None:
    ids = [set(re.findall(r' id="([^"]*)"', draw(plot(LOSS, name=name), NARROW))) for name in ("loss", "bits")]
    assert ids[0]
    assert not ids[0] & ids[1]


@pytest.mark.parametrize("values", [(3.0,), (0.0, 0.0), (-1.0, 2.0), (1e-30, 1e30), (5.0, 5.0, 5.0)])
def test_odd_curves_are_drawn_too(values: tuple[float, ...]) -> None:
    steps = tuple(range(1, len(values) + 1))
    assert "<path" in draw(plot(Series(steps, values), "zero"), NARROW)


@given(st.lists(st.floats(-10, 10), min_size=61, max_size=200), st.integers(8, 60))
def test_a_thinned_curve_keeps_its_ends_and_its_extremes(values: list[float], max_points: int) -> None:
    points = Series(tuple(range(len(values))), tuple(values))
    kept = thin(points, max_points)
    assert len(kept.steps) <= max_points
    assert (kept.steps[0], kept.steps[-1]) == (0, len(values) - 1)
    assert (min(kept.values), max(kept.values)) == (min(values), max(values))
    assert set(zip(kept.steps, kept.values, strict=True)) <= set(zip(points.steps, points.values, strict=True))


@given(st.floats(1e-6, 1e6), st.floats(1.5, 1e9))
def test_ticks_of_a_logarithmic_axis_lie_on_it_and_apart(low: float, ratio: float) -> None:
    ticks = log_ticks(low, low * ratio, closest=0.07)
    assert len(ticks) <= 8
    assert all(low <= tick <= low * ratio for tick in ticks)
    assert ticks == sorted(set(ticks))
