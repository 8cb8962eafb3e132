"""The figures that a reader looks for first: four beside the title, and the table of all of them."""

from statistics import median

from report.curves import beta_words, smoothed
from report.document import Column, Highlight, Table
from report.facts import Facts
from report.metrics import Series, series
from report.numbers import ABSENT, compact, duration, fixed, grouped, percent, scientific
from report.verdict import bits_per_byte, share_of_start

TableRow = tuple[str, str, str]


def highlights(facts: Facts) -> tuple[Highlight, ...]:
    """Return the four figures beside the title."""
    bits, derived = bits_per_byte(facts), facts.derived
    share = share_of_start(bits)
    note = f"{percent(share)} of step 0" if share is not None else "validation"
    tokens = series(facts.metrics.train, lambda row: row.tokens).last
    of = f" of {grouped(facts.num_steps)}" if facts.num_steps is not None else ""
    steps = f"{grouped(facts.metrics.last_step)}{of} steps"
    return (
        Highlight("bits per byte", fixed(bits.last, 4), note),
        Highlight("parameters", compact(derived.num_parameters if derived else None), _shape(facts)),
        Highlight("tokens seen", compact(tokens), steps),
        Highlight("tokens per second", compact(_speed(facts)), "median"),
    )


def _shape(facts: Facts) -> str:
    if facts.experiment is None:
        return "model not known"
    model = facts.experiment.model
    return f"{model.kind}, {model.num_layers} layers of {model.dim}"


def _median(points: Series) -> float | None:
    return median(points.values) if points.values else None


def _speed(facts: Facts) -> float | None:
    return _median(series(facts.metrics.train, lambda row: row.tokens_per_second))


def numbers(facts: Facts) -> Table:
    """Return the table of headline numbers."""
    columns = (Column("figure"), Column("value", right=True), Column("note"))
    return Table(columns, (*_quality_rows(facts), *_size_rows(facts), *_speed_rows(facts)))


def _quality_rows(facts: Facts) -> tuple[TableRow, ...]:
    bits = bits_per_byte(facts)
    loss = series(facts.metrics.evaluations, lambda row: row.eval_loss)
    raw = series(facts.metrics.train, lambda row: row.loss)
    average, beta = smoothed(raw)
    best = min(bits.values, default=None)
    at = f"step {grouped(bits.steps[bits.values.index(best)])}" if best is not None else ""
    expected = facts.derived.expected_first_loss if facts.derived else None
    return (
        ("Bits per byte, final", fixed(bits.last, 4), f"step {grouped(bits.steps[-1])}" if bits.steps else ""),
        ("Bits per byte, best", fixed(best, 4), at),
        ("Validation loss, final", fixed(loss.last, 4), "nats a token"),
        ("Training loss, final", fixed(average.last, 4), f"moving average, {beta_words(beta)}"),
        ("Training loss, first", fixed(raw.values[0] if raw.values else None, 4), _expected(expected)),
    )


def _expected(loss: float | None) -> str:
    return f"random weights imply {loss:.2f}" if loss is not None else ""


def _size_rows(facts: Facts) -> tuple[TableRow, ...]:
    derived, tokens = facts.derived, series(facts.metrics.train, lambda row: row.tokens).last
    total = f"of {grouped(facts.num_steps)}" if facts.num_steps is not None else ""
    steps = ("Steps", grouped(facts.metrics.last_step), total)
    if derived is None:
        return (steps, ("Tokens seen", grouped(tokens), ""))
    parameters = derived.num_parameters
    ratio = f"{tokens / parameters:.3g} a parameter" if tokens is not None else ""
    batch = f"{grouped(derived.global_batch_sequences)} sequences of {grouped(_sequence(facts))}"
    flops = tokens * derived.flops_per_token if tokens is not None else None
    return (
        steps,
        ("Parameters", grouped(parameters), _shape(facts)),
        ("Tokens seen", grouped(tokens), ratio),
        ("Tokens per step", grouped(derived.tokens_per_step), batch),
        ("Training FLOPs", scientific(flops), f"{scientific(derived.flops_per_token)} a token"),
    )


def _sequence(facts: Facts) -> int | None:
    return facts.experiment.train.seq_len_tokens if facts.experiment is not None else None


def _speed_rows(facts: Facts) -> tuple[TableRow, ...]:
    seconds = series(facts.metrics.train, lambda row: row.step_seconds)
    evaluations = sum(series(facts.metrics.evaluations, lambda row: row.eval_seconds).values)
    mfu = _median(series(facts.metrics.train, lambda row: row.mfu))
    ranks = f"on {_device(facts)}" if facts.derived else ""
    return (
        ("Tokens per second", grouped(_speed(facts)), "median"),
        ("Time of a step", duration(_median(seconds)), "median"),
        ("MFU", percent(mfu), "median share of the device's dense bf16 peak" if mfu is not None else "not recorded"),
        ("Time in updates", duration(sum(seconds.values)), f"{duration(evaluations)} in evaluations"),
        ("Ranks", grouped(facts.derived.ranks if facts.derived else None), ranks),
    )


def _device(facts: Facts) -> str:
    return facts.experiment.resources.device if facts.experiment is not None else ABSENT
