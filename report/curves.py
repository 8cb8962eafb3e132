"""The curves of a report: which figures are drawn over the steps, and what is said of each."""

from collections.abc import Callable
from dataclasses import dataclass
from statistics import median

from report.document import Block, Column, Curve, Key, Paragraph, Section, Table
from report.facts import Facts
from report.figures import NARROW, WIDE, Plot, Scale, draw, plain_tick, rate_tick
from report.metrics import EvalRow, Series, debiased_ema, series
from report.numbers import compact, fixed, grouped, scientific, sparkline

LONG_RUN = 5_000
"""Steps from which on the curves that start high leave their start out of the vertical axis."""
CUT_SHARE = 0.01
CUT = " The first 1% of the steps may lie above the axis."
MAX_EVALUATIONS = 24
"""Rows of the table of evaluations; longer runs show an even choice."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """One figure to draw, and the words around it."""

    name: str
    title: str
    caption: str
    lines: tuple[tuple[str, str, Series], ...]
    """(style, label in the legend, series); the last one is the one that plain text shows."""
    write: Callable[[float | None], str]
    tick: Callable[[float], str]
    scale: Scale = "fit"
    wide: bool = False


def curves(facts: Facts) -> Section:
    """Return every curve that has points, and the table of evaluations."""
    if not facts.metrics.train and not facts.metrics.evaluations:
        return Section("Curves", (Paragraph("No figures have been recorded, so there is nothing to draw."),))
    drawn = [curve(wanted) for wanted in _wanted(facts) if any(points.steps for _, _, points in wanted.lines)]
    blocks: list[Block] = [*drawn]
    if facts.metrics.evaluations:
        blocks.append(_evaluations(facts.metrics.evaluations))
    return Section("Curves", tuple(blocks))


def smoothed(points: Series) -> tuple[Series, float]:
    """Return the debiased moving average of a curve, and the beta that suits its length."""
    # About a hundredth of the run: longer averages lag behind the steep start.
    beta = 0.9 if len(points.steps) < 2_500 else 0.98 if len(points.steps) < 20_000 else 0.99
    return Series(points.steps, tuple(debiased_ema(points.values, beta))), beta


def beta_words(beta: float) -> str:
    """Return the name and value of beta, kept together on one line."""
    return f"β\N{NO-BREAK SPACE}=\N{NO-BREAK SPACE}{beta:g}"


def _wanted(facts: Facts) -> tuple[Wanted, ...]:
    train, evaluations = facts.metrics.train, facts.metrics.evaluations
    speed = series(train, lambda row: row.tokens_per_second)
    middle = median(speed.values) if speed.values else None
    lr, norm = series(train, lambda row: row.lr), series(train, lambda row: row.grad_norm)
    bits = series(evaluations, lambda row: row.bits_per_byte)
    bits_line = _one("evaluation", bits)
    speed_caption = f"Tokens of all ranks each second, median {compact(middle)}."
    lr_caption = "The schedule as it was applied." if lr.steps else ""
    norm_caption = "Norm of the whole gradient before clipping."
    return (
        _loss(facts),
        Wanted(
            "bits", "Bits per byte", "Validation; independent of the tokenizer.", bits_line, _four, plain_tick, "log"
        ),
        Wanted("speed", "Tokens per second", speed_caption, _smooth(speed), compact, compact, "zero"),
        Wanted("lr", "Learning rate", lr_caption, _one("plain", lr), scientific, rate_tick, "zero"),
        Wanted("norm", "Gradient norm", norm_caption, _smooth(norm), _four, plain_tick, "log"),
    )


def _loss(facts: Facts) -> Wanted:
    raw = series(facts.metrics.train, lambda row: row.loss)
    loss = series(facts.metrics.evaluations, lambda row: row.eval_loss)
    average, beta = smoothed(raw)
    lines = (
        ("raw", "each step", raw),
        ("evaluation", "validation", loss),
        ("smooth", f"moving average (debiased, {beta_words(beta)})", average),
    )
    caption = "Mean cross-entropy of a target, in nats."
    return Wanted("loss", "Loss", caption, lines, _four, plain_tick, "log", wide=True)


def _one(style: str, points: Series) -> tuple[tuple[str, str, Series], ...]:
    return ((style, "", points),)


def _smooth(points: Series) -> tuple[tuple[str, str, Series], ...]:
    average, beta = smoothed(points)
    return (("raw", "each step", points), ("smooth", f"moving average ({beta_words(beta)})", average))


def curve(wanted: Wanted) -> Curve:
    """Draw one figure, and say in words where its last line goes."""
    lines = [(style, label, points) for style, label, points in wanted.lines if points.steps]
    last = lines[-1][2]
    from_to = f"from {wanted.write(last.values[0])} at step {grouped(last.steps[0])}"
    from_to += f" to {wanted.write(last.values[-1])} at step {grouped(last.steps[-1])}"
    drawing = tuple((style, points) for style, _, points in lines)
    scale = _scale(wanted.scale, [points for _, _, points in lines])
    top = _top([points for _, _, points in lines]) if wanted.scale == "log" else None
    plot = Plot(wanted.name, drawing, wanted.tick, scale, top, f"{wanted.title} {from_to}")
    spark = f"{sparkline(last.values)}  {from_to}"
    return Curve(
        wanted.title,
        wanted.caption + (" Logarithmic axis." if scale == "log" else "") + (CUT if top is not None else ""),
        tuple(Key(style, label) for style, label, _ in lines if label),
        draw(plot, NARROW),
        draw(plot, WIDE) if wanted.wide else "",
        spark,
    )


def _scale(wanted: Scale, lines: list[Series]) -> Scale:
    """Return a linear axis where a logarithmic one is impossible, or would look the same."""
    if wanted != "log":
        return wanted
    values = [value for points in lines for value in points.values]
    low, high = min(values), _top(lines) or max(values)
    return "log" if low > 0 and high / low > 2 else "fit"


def _top(lines: list[Series]) -> float | None:
    """Return the largest value after the start of a long run, or None where nothing rises above it.

    A long run spends its first moments high above all that follows, and would leave no room for the rest.
    """
    last = max(points.steps[-1] for points in lines)
    later = [
        value
        for points in lines
        for step, value in zip(points.steps, points.values, strict=True)
        if step >= last * CUT_SHARE
    ]
    whole = [value for points in lines for value in points.values]
    return max(later) if last >= LONG_RUN and max(later) < max(whole) else None


def _evaluations(rows: tuple[EvalRow, ...]) -> Table:
    count = min(len(rows), MAX_EVALUATIONS)
    # Evenly chosen, the first and the last always among them.
    chosen = [rows[index * (len(rows) - 1) // max(1, count - 1)] for index in range(count)]
    titles = ("step", "loss", "bits per byte", "targets")
    shown = f"{count} of {len(rows)}" if count < len(rows) else f"All {count}" if count > 1 else "The"
    return Table(
        tuple(Column(title, right=True) for title in titles),
        tuple(
            (grouped(row.step), fixed(row.eval_loss, 4), fixed(row.bits_per_byte, 4), grouped(row.eval_tokens))
            for row in chosen
        ),
        summary=f"{shown} evaluation{'s' if len(rows) > 1 else ''}",
    )


def _four(value: float | None) -> str:
    return fixed(value, 4)
