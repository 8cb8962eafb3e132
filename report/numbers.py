"""How numbers are written in a report: for reading, with units, and never with more digits than mean something."""

from collections.abc import Sequence
from itertools import pairwise

ABSENT = "\N{EN DASH}"
"""Stands where a figure was not recorded."""

BLOCKS = "▁▂▃▄▅▆▇█"
_UNITS = ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k"))


def grouped(value: float | None) -> str:
    """Return a count with its digits in threes: 1,234,567."""
    return ABSENT if value is None else f"{value:,.0f}"


def compact(value: float | None) -> str:
    """Return a count in three digits: 124M, 2.5B, 950."""
    if value is None:
        return ABSENT
    for size, unit in _UNITS:
        # 999,950 would be written 1000k; it is 1M.
        if abs(value) >= size * 0.9995:
            return f"{_three_digits(value / size)}{unit}"
    return _three_digits(value)


def fixed(value: float | None, digits: int) -> str:
    """Return a number with a fixed count of decimals."""
    return ABSENT if value is None else f"{value:.{digits}f}"


def percent(share: float | None) -> str:
    """Return a share in percent with one decimal."""
    return ABSENT if share is None else f"{100 * share:.1f}%"


def scientific(value: float | None) -> str:
    """Return a number as a short power of ten: 3e-4, 1.25e18, 0."""
    if value is None:
        return ABSENT
    if value == 0:
        return "0"
    mantissa, exponent = f"{value:.2e}".split("e")
    return f"{mantissa.rstrip('0').rstrip('.')}e{int(exponent)}"


def duration(seconds: float | None) -> str:
    """Return a time span in its two largest units: 850 ms, 12.3 s, 4 min 05 s, 3 h 20 min, 2 d 04 h."""
    if seconds is None:
        return ABSENT
    if seconds < 0.9995:
        return f"{1000 * seconds:.0f} ms"
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    hours, minutes = divmod(round(seconds / 60), 60)
    if hours < 24:
        return f"{hours} h {minutes:02d} min"
    days, hours = divmod(round(seconds / 3600), 24)
    return f"{days} d {hours:02d} h"


def sparkline(values: Sequence[float], width: int = 60) -> str:
    """Return a curve as one line of blocks, from the smallest value to the largest, at most `width` characters."""
    if not values:
        return ""
    columns = min(width, len(values))
    edges = [len(values) * column // columns for column in range(columns + 1)]
    means = [sum(values[start:stop]) / (stop - start) for start, stop in pairwise(edges)]
    low, high = min(means), max(means)
    scale = (len(BLOCKS) - 1) / (high - low) if high > low else 0.0
    return "".join(BLOCKS[round((mean - low) * scale)] for mean in means)


def _three_digits(value: float) -> str:
    digits = 2 if abs(value) < 9.995 else 1 if abs(value) < 99.95 else 0
    text = f"{value:.{digits}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text
