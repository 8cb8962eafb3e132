"""Curves as SVG, drawn by matplotlib without its global state, ready to stand inside a page.

The colours are the page's own: every colour that matplotlib writes is one of the marks below, and is replaced by a CSS
variable, so that one drawing serves light and dark pages. Text stays text, in the page's font. The same numbers give
the same bytes: ids are hashed with a fixed salt, and no date is written.
"""

import io
import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Literal

from report.metrics import Series
from report.numbers import compact, scientific

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLOURS = {
    "#010101": "var(--muted, #5c6470)",
    "#020202": "var(--line, #d9dce1)",
    "#030303": "var(--first, #2f5fa8)",
    "#040404": "var(--second, #b5542a)",
}
"""What matplotlib is told -> what the page reads; the second value serves when a drawing leaves its page."""
MUTED, LINE, FIRST, SECOND = COLOURS

NARROW = (440, 250)
WIDE = (976, 340)
"""Sizes in pixels of the page, at which its text is as large as the text around it."""
FONT_PIXELS = 12
LEFT, BOTTOM = 48, 30
"""Pixels for the labels of the vertical and the horizontal axis."""


@dataclass(frozen=True, slots=True)
class Style:
    """How one kind of line is drawn."""

    colour: str
    width: float
    opacity: float = 1.0
    dots: bool = False


STYLES = {
    "raw": Style(FIRST, 1.0, opacity=0.35),
    "smooth": Style(FIRST, 1.8),
    "plain": Style(FIRST, 1.4),
    "evaluation": Style(SECOND, 1.4, dots=True),
    "other": Style(MUTED, 1.0, opacity=0.5),
}


Scale = Literal["fit", "zero", "log"]
"""A vertical axis that fits the values, starts at zero, or is logarithmic."""
LOG_TICKS = (
    (1, 1.2, 1.4, 1.6, 1.8, 2, 2.5, 3, 3.5, 4, 4.5, 5, 6, 7, 8, 9),
    (1, 1.5, 2, 2.5, 3, 4, 5, 6, 8),
    (1, 1.5, 2, 3, 4, 6),
    (1, 2, 5),
    (1, 3),
    (1,),
)
"""Leading digits of the ticks of a logarithmic axis, the densest choice first."""


@dataclass(frozen=True, slots=True)
class Plot:
    """One drawing: named lines over steps."""

    name: str
    """Unique on the page; ids in the drawing start with it."""
    lines: tuple[tuple[str, Series], ...]
    """(style, series), the ones behind first."""
    tick: Callable[[float], str]
    """Writes a value of the vertical axis."""
    scale: Scale = "fit"
    top: float | None = None
    """End the vertical axis here and cut what lies above; None shows everything."""
    label: str = ""
    """What the drawing shows, for those who cannot see it."""


def draw(plot: Plot, size: tuple[int, int]) -> str:
    """Return a plot as one `<svg>` element for inlining."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    width, height = size
    salt = f"trainwright-{plot.name}-{width}"
    # The defaults are spelled out, so that a matplotlibrc of this machine changes nothing.
    settings: dict[Any, Any] = {**mpl.rcParamsDefault, "svg.hashsalt": salt, "svg.fonttype": "none"}
    settings |= {"font.size": FONT_PIXELS, "font.family": "DejaVu Sans", "backend": "svg"}
    # 72 dots an inch make one point one pixel.
    with mpl.rc_context(settings):
        figure = Figure(figsize=(width / 72, height / 72), dpi=72, facecolor="none")
        axes = figure.add_axes(
            (LEFT / width, BOTTOM / height, (width - LEFT - 12) / width, (height - BOTTOM - 10) / height),
            facecolor="none",
        )
        _draw_lines(axes, plot, max_points=2 * width)
        _draw_frame(axes, plot, height)
        buffer = io.BytesIO()
        figure.savefig(buffer, format="svg", metadata=dict.fromkeys(("Date", "Creator", "Format", "Type")))
    return _inline(buffer.getvalue().decode("utf-8"), f"{plot.name}-{width}", plot.label)


def thin(points: Series, max_points: int) -> Series:
    """Return at most about `max_points` points that look the same: the extremes of equal stretches, and both ends."""
    total = len(points.steps)
    if total <= max_points:
        return points
    num_buckets = max(1, (max_points - 2) // 2)
    chosen = {0, total - 1}
    for bucket in range(num_buckets):
        stretch = range(total * bucket // num_buckets, total * (bucket + 1) // num_buckets)
        chosen.update((min(stretch, key=points.values.__getitem__), max(stretch, key=points.values.__getitem__)))
    kept = sorted(chosen)
    return Series(tuple(points.steps[i] for i in kept), tuple(points.values[i] for i in kept))


def _draw_lines(axes: "Axes", plot: Plot, max_points: int) -> None:
    for name, points in plot.lines:
        style = STYLES[name]
        shown = thin(points, max_points)
        # A single point draws no line, and few evaluations deserve to be seen one by one.
        dots = len(shown.steps) == 1 or (style.dots and len(shown.steps) <= 60)
        axes.plot(
            shown.steps,
            shown.values,
            color=style.colour,
            linewidth=style.width,
            alpha=style.opacity,
            marker="o" if dots else None,
            markersize=4,
            markeredgewidth=0,
            solid_joinstyle="round",
            clip_on=plot.top is not None,  # where the limits hold every point, clipping would halve those at the edges
        )


def _draw_frame(axes: "Axes", plot: Plot, height: int) -> None:
    from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator

    _set_limits(axes, plot)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True, steps=[1, 2, 2.5, 5, 10]))
    if plot.scale == "log":
        axes.yaxis.set_major_locator(FixedLocator(log_ticks(*axes.get_ylim(), closest=18 / height)))
        axes.yaxis.set_minor_locator(NullLocator())
    else:
        axes.yaxis.set_major_locator(MaxNLocator(nbins=6 if height < 300 else 7, steps=[1, 2, 2.5, 5, 10]))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: _step_tick(value)))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: plot.tick(value)))
    for side in ("top", "left", "right"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set_color(LINE)
    axes.grid(axis="y", color=LINE, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(axis="x", length=3, color=LINE, labelcolor=MUTED, pad=8)
    axes.tick_params(axis="y", length=0, labelcolor=MUTED, pad=6)
    # Level with the step's numbers, in the column of the values.
    axes.annotate("step", (0, 0), (-12, -11), "axes fraction", "offset points", ha="right", va="top", color=MUTED)


def _set_limits(axes: "Axes", plot: Plot) -> None:
    values = [value for _, points in plot.lines for value in points.values]
    steps = [step for _, points in plot.lines for step in points.steps]
    low, high = min(values), max(values) if plot.top is None else plot.top
    if plot.scale == "log":
        axes.set_yscale("log")
        room = (high / low) ** 0.05
        axes.set_ylim(low / room, high * room)
    else:
        # A flat curve still needs an axis of some height.
        room = 0.05 * (high - low) or 0.1 * abs(high) or 1.0
        axes.set_ylim(0.0 if plot.scale == "zero" and low >= 0 else low - room, high + room)
    first, last = min(steps), max(steps)
    # The first update is step 1 and the first evaluation step 0; both kinds of curves start at the same place.
    start = 0 if first <= 1 < last else first
    axes.set_xlim(start - (0.5 if start == last else 0.0), last + (0.5 if start == last else 0.0))


def log_ticks(low: float, high: float, closest: float) -> list[float]:
    """Return round numbers for a logarithmic axis, no two closer than a share of its length."""
    exponents = range(math.floor(math.log10(low)), math.floor(math.log10(high)) + 1)
    ticks: list[float] = []
    for digits in LOG_TICKS:
        ticks = [tick for exponent in exponents for digit in digits if low <= (tick := digit * 10.0**exponent) <= high]
        gaps = [math.log(after / before) / math.log(high / low) for before, after in pairwise(ticks)]
        if all(gap >= closest for gap in gaps) and len(ticks) <= 8:
            return ticks
    return ticks[:: math.ceil(len(ticks) / 8)]


def _step_tick(value: float) -> str:
    return f"{value:,.0f}" if abs(value) < 10_000 else compact(value)


def plain_tick(value: float) -> str:
    """Write a value of an axis of ordinary numbers, with the decimals that its ticks need."""
    return f"{round(value, 6):g}".replace("-", "\N{MINUS SIGN}") if abs(value) < 1000 else compact(value)


def rate_tick(value: float) -> str:
    """Write a value of an axis of small rates: 3e-4."""
    return scientific(value)


def _inline(svg: str, prefix: str, label: str) -> str:
    """Return the `<svg>` element alone, its ids made unique on the page and its colours the page's."""
    body = svg[svg.index("<svg") :]
    inner = body[body.index(">") + 1 :]
    view_box = re.search(r'viewBox="([^"]*)"', body)
    assert view_box is not None
    for mark, colour in COLOURS.items():
        inner = inner.replace(mark, colour)
    inner = re.sub(r'\bid="', f'id="{prefix}-', inner)
    inner = re.sub(r'(?:xlink:)?href="#', f'href="#{prefix}-', inner)
    inner = inner.replace("url(#", f"url(#{prefix}-")
    # Hundredths of a pixel are invisible, and rounding hides how machines differ in the last digit.
    inner = re.sub(r' d="[^"]*"', lambda found: re.sub(r"-?\d+\.\d+", _rounded, found.group()), inner)
    # A style element would reach the whole page, and groups are never referred to.
    inner = re.sub(r"<!--.*?-->|<style.*?</style>", "", inner, flags=re.DOTALL)
    inner = re.sub(r'<g id="[^"]*"', "<g", inner)
    inner = re.sub(r" font-family: 'DejaVu Sans';| transform=\"rotate\(-0 [^)]*\)\"", "", inner)
    inner = re.sub(r"<g/>|<defs>\s*</defs>", "", inner)
    head = f'<svg viewBox="{view_box.group(1)}" role="img" aria-label="{_attribute(label)}">'
    return head + re.sub(r"\s*\n\s*", "\n", inner).strip()


def _rounded(found: re.Match[str]) -> str:
    number = round(float(found.group()), 2)
    return f"{number:g}" if math.isfinite(number) else "0"


def _attribute(text: str) -> str:
    return text.replace("&", "&amp;").replace('"', "&quot;").replace("<", "&lt;")
