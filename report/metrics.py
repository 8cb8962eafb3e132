"""Reads `metrics.jsonl` into the figures that count: one row a step, one row an evaluation.

A run that is killed and resumed writes some steps twice: everything after the checkpoint it went on from is done
again. The rows of the abandoned stretch are left out here and counted, so that a curve shows the run that led to the
final weights.
"""

import json
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar


@dataclass(frozen=True, slots=True)
class TrainRow:
    """The figures of one finished update; None is a figure that the row does not have."""

    step: int
    loss: float | None
    lr: float | None
    grad_norm: float | None
    tokens: float | None
    step_seconds: float | None
    tokens_per_second: float | None
    mfu: float | None
    time: float | None


@dataclass(frozen=True, slots=True)
class EvalRow:
    """The figures of one evaluation, made after `step` updates."""

    step: int
    eval_loss: float | None
    bits_per_byte: float | None
    eval_tokens: float | None
    eval_seconds: float | None


@dataclass(frozen=True, slots=True)
class Metrics:
    """The figures of a run in order of step, and how many rows were left out."""

    train: tuple[TrainRow, ...] = ()
    evaluations: tuple[EvalRow, ...] = ()
    num_broken: int = 0
    """Lines that are no JSON object of a known kind."""
    num_abandoned: int = 0
    """Rows of steps that a resumed run did again."""

    @property
    def last_step(self) -> int:
        """Return the number of finished updates."""
        return self.train[-1].step if self.train else 0


@dataclass(frozen=True, slots=True)
class Series:
    """The finite values of one figure, and the steps they belong to."""

    steps: tuple[int, ...]
    values: tuple[float, ...]

    @property
    def last(self) -> float | None:
        """Return the newest value."""
        return self.values[-1] if self.values else None


Row = TypeVar("Row", TrainRow, EvalRow)


def series(rows: Iterable[Row], value: Callable[[Row], float | None]) -> Series:
    """Return one figure of every row in which it is a finite number."""
    found = [(row.step, number) for row in rows if (number := value(row)) is not None and math.isfinite(number)]
    return Series(tuple(step for step, _ in found), tuple(number for _, number in found))


def read_metrics(path: Path) -> Metrics:
    """Read a metrics file; lines that cannot be read are counted, never fatal."""
    with path.open("rb") as file:
        return parse_metrics(file)


def parse_metrics(lines: Iterable[bytes]) -> Metrics:
    """Return the figures in lines of JSON, in the order in which they were written."""
    train: list[TrainRow] = []
    evaluations: list[EvalRow] = []
    num_broken = num_abandoned = 0
    for line in lines:
        if not line.strip():
            continue
        row = parse_row(line)
        if row is None:
            num_broken += 1
        elif isinstance(row, TrainRow):
            # The updates from this step on are done again: nothing recorded at or after it led to what follows.
            num_abandoned += _drop_from(train, row.step) + _drop_from(evaluations, row.step)
            train.append(row)
        else:
            num_abandoned += _drop_from(evaluations, row.step)
            evaluations.append(row)
    return Metrics(tuple(train), tuple(evaluations), num_broken, num_abandoned)


def parse_row(line: bytes) -> TrainRow | EvalRow | None:
    """Return the row that one line holds, or None when it holds none."""
    try:
        value = json.loads(line)
        if not isinstance(value, dict):
            return None
        step = value.get("step")
        if type(step) is not int or step < 0:
            return None
        return _row(step, value)
    except (ValueError, OverflowError, RecursionError):
        return None


def _row(step: int, value: dict[str, Any]) -> TrainRow | EvalRow | None:
    def number(key: str) -> float | None:
        found = value.get(key)
        if found is None:
            return None
        if isinstance(found, bool) or not isinstance(found, int | float):
            raise ValueError(key)  # noqa: TRY004 - a broken row, like every other
        return float(found)

    if "loss" in value:
        return TrainRow(
            step,
            loss=number("loss"),
            lr=number("lr"),
            grad_norm=number("grad_norm"),
            tokens=number("tokens"),
            step_seconds=number("step_seconds"),
            tokens_per_second=number("tokens_per_second"),
            mfu=number("mfu"),
            time=number("time"),
        )
    if "eval_loss" in value or "bits_per_byte" in value:
        return EvalRow(
            step,
            eval_loss=number("eval_loss"),
            bits_per_byte=number("bits_per_byte"),
            eval_tokens=number("eval_tokens"),
            eval_seconds=number("eval_seconds"),
        )
    return None


def _drop_from(rows: list[TrainRow] | list[EvalRow], step: int) -> int:
    before = len(rows)
    while rows and rows[-1].step >= step:
        rows.pop()
    return before - len(rows)


def debiased_ema(values: Sequence[float], beta: float) -> list[float]:
    """Return the exponential moving average of every prefix, divided by the weight it has gathered so far.

    Without the division an average that starts at zero is too low until about 1 / (1 - beta) values have passed.
    """
    average, weight, averages = 0.0, 0.0, []
    for value in values:
        average = beta * average + (1 - beta) * value
        weight = beta * weight + (1 - beta)
        averages.append(average / weight)
    return averages
