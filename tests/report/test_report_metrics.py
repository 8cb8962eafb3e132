import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from report.metrics import EvalRow, TrainRow, debiased_ema, parse_metrics, parse_row, series


def train(step: int, loss: object = 3.0) -> bytes:
    return json.dumps({"step": step, "loss": loss}).encode()


def evaluation(step: int, bits: float = 1.5) -> bytes:
    return json.dumps({"step": step, "eval_loss": 3.0, "bits_per_byte": bits}).encode()


def test_the_debiased_average_of_a_constant_is_that_constant() -> None:
    assert debiased_ema([5.0] * 20, 0.98) == pytest.approx([5.0] * 20)


def test_the_debiased_average_weighs_each_value_by_its_age() -> None:
    # Weights 0.25, 0.5, 1 for beta 0.5, divided by their sum.
    assert debiased_ema([8.0, 4.0, 2.0], 0.5) == pytest.approx(
        [8.0, (4 + 0.5 * 8) / 1.5, (2 + 0.5 * 4 + 0.25 * 8) / 1.75]
    )


@given(st.lists(st.floats(-1e6, 1e6), min_size=1), st.floats(0, 0.999))
def test_the_average_stays_between_the_values_it_averages(values: list[float], beta: float) -> None:
    for count, average in enumerate(debiased_ema(values, beta), 1):
        assert min(values[:count]) - 1e-3 <= average <= max(values[:count]) + 1e-3


def test_every_broken_line_is_counted() -> None:
    broken = [b"{", b"[1]", b'{"loss": 1}', b'{"step": -1, "loss": 1}', b'{"step": 1.5, "loss": 1}', b"\xff\xfe"]
    broken += [b'{"step": 2}', b'{"step": 2, "loss": "low"}', b'{"step": true, "loss": 1}', b"9" * 5000, b"[" * 9999]
    metrics = parse_metrics([train(1), *broken, b"\n", train(2)])
    assert metrics.num_broken == len(broken)
    assert [row.step for row in metrics.train] == [1, 2]


@given(st.binary())
def test_no_line_is_fatal(line: bytes) -> None:
    assert parse_row(line) is None or isinstance(parse_row(line), TrainRow | EvalRow)


def test_steps_that_were_done_again_are_left_out_and_counted() -> None:
    first = [evaluation(0), train(1), train(2, 9.0), evaluation(2), train(3, 9.0)]
    metrics = parse_metrics([*first, train(2, 2.0)])
    assert [(row.step, row.loss) for row in metrics.train] == [(1, 3.0), (2, 2.0)]
    assert [row.step for row in metrics.evaluations] == [0]
    assert metrics.num_abandoned == 3
    assert metrics.last_step == 2


def test_an_evaluation_made_again_replaces_the_earlier_one() -> None:
    metrics = parse_metrics([evaluation(0, 3.0), evaluation(0, 2.0)])
    assert [row.bits_per_byte for row in metrics.evaluations] == [2.0]


def test_a_series_holds_only_finite_values() -> None:
    metrics = parse_metrics([train(1), train(2, math.nan), train(3, None), train(4, math.inf), train(5)])
    assert series(metrics.train, lambda row: row.loss).steps == (1, 5)
