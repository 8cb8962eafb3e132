from report.curves import CUT, LONG_RUN, curves
from report.document import Curve, Table
from report.facts import Facts
from report.metrics import EvalRow, Metrics, TrainRow
from report.corpus import Corpus


def facts(num_steps: int, losses: tuple[float, float]) -> Facts:
    """Return the facts of a run with one loss in its first steps and another after them."""
    rows = tuple(
        TrainRow(step, losses[step > 20], None, None, None, None, None, None, None) for step in range(1, num_steps + 1)
    )
    evaluations = tuple(EvalRow(step, 3.0, 1.5, None, None) for step in range(0, num_steps + 1, 10))
    return Facts("x", None, None, Metrics(rows, evaluations), (), (), (), None, Corpus(), ())


def loss_curve(num_steps: int, losses: tuple[float, float]) -> Curve:
    first = curves(facts(num_steps, losses)).blocks[0]
    assert isinstance(first, Curve)
    return first


def test_a_long_run_says_that_its_start_lies_above_the_axis() -> None:
    assert CUT in loss_curve(LONG_RUN, (50.0, 3.0)).caption
    assert CUT not in loss_curve(LONG_RUN, (3.0, 3.0)).caption
    assert CUT not in loss_curve(LONG_RUN - 10, (50.0, 3.0)).caption


def test_an_axis_is_called_logarithmic_only_when_it_is() -> None:
    assert "Logarithmic" in loss_curve(100, (9.0, 3.0)).caption
    assert "Logarithmic" not in loss_curve(100, (4.0, 3.0)).caption
    assert "Logarithmic" not in loss_curve(100, (9.0, 0.0)).caption


def test_figures_that_were_not_recorded_are_not_drawn() -> None:
    blocks = curves(facts(100, (4.0, 3.0))).blocks
    assert [block.title for block in blocks if isinstance(block, Curve)] == ["Loss", "Bits per byte"]


def test_the_table_of_evaluations_is_bounded_and_keeps_both_ends() -> None:
    table = curves(facts(1000, (4.0, 3.0))).blocks[-1]
    assert isinstance(table, Table)
    steps = [row[0] for row in table.rows]
    assert (len(steps), len(set(steps)), steps[0], steps[-1]) == (24, 24, "0", "1,000")
    assert table.summary == "24 of 101 evaluations"
