import json
from pathlib import Path

import pytest

from report.document import Curve, Table
from report.metrics import parse_metrics
from report.sweep import Point, compose, main
from trainwright.spec.exits import UserError


def metrics_of(start: float, *, evaluated: bool) -> bytes:
    rows: list[dict[str, float]] = [{"step": step, "loss": start - step / 100} for step in range(1, 41)]
    if evaluated:
        rows.append({"step": 40, "eval_loss": start - 0.4, "bits_per_byte": start - 0.5})
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def a_point(number: int, start: float | None, *, evaluated: bool = True) -> Point:
    text = b"" if start is None else metrics_of(start, evaluated=evaluated)
    return Point(f"small-{number}", f"optimizer.lr={number}e-3", parse_metrics(text.splitlines()))


def names(points: list[Point]) -> list[str]:
    (table,) = compose("small-sweep", points).sections[0].blocks
    assert isinstance(table, Table)
    return [row[0] for row in table.rows]


def test_the_best_point_stands_first_and_the_ones_that_wait_last() -> None:
    points = [a_point(1, None), a_point(2, 5.0), a_point(3, 4.0)]
    assert names(points) == ["small-3", "small-2", "small-1"]
    document = compose("small-sweep", points)
    expected = "small-3 is the best by bits per byte of the last evaluation: optimizer.lr=3e-3."
    assert document.verdict == expected
    assert [block.title for block in document.sections[1].blocks if isinstance(block, Curve)] == [
        "Loss",
        "Bits per byte",
    ]


def test_points_that_nobody_has_evaluated_are_judged_by_their_loss() -> None:
    points = [a_point(1, 5.0, evaluated=False), a_point(2, 4.0, evaluated=False)]
    assert names(points) == ["small-2", "small-1"]
    assert "moving average of the loss" in compose("small-sweep", points).verdict


def test_a_sweep_that_has_recorded_nothing_says_so() -> None:
    document = compose("small-sweep", [a_point(1, None)])
    assert (document.tone, document.verdict) == ("warn", "No point has recorded a figure yet.")


def test_a_sweep_on_a_volume_that_is_not_here_is_not_said_to_wait(tmp_path: Path) -> None:
    words = [str(tmp_path / "page"), "small-sweep", str(tmp_path / "runs/small-1"), "optimizer.lr=1e-3"]
    assert main([*words, "--unseen"]) == 0
    page = (tmp_path / "page/report.md").read_text()
    assert "on a volume that is not visible from here" in page
    assert "Waiting" not in page
    assert main(words) == 0
    assert "No point has recorded a figure yet." in (tmp_path / "page/report.md").read_text()


def test_the_page_draws_every_point(tmp_path: Path) -> None:
    words = []
    for number, start in ((1, 5.0), (2, 4.0), (3, 4.5)):
        run = tmp_path / f"runs/small-{number}"
        run.mkdir(parents=True)
        (run / "metrics.jsonl").write_bytes(metrics_of(start, evaluated=True))
        words += [str(run), f"optimizer.lr={number}e-3"]
    assert main([str(tmp_path / "page"), "small-sweep", *words]) == 0
    page = (tmp_path / "page/report.html").read_text()
    assert "small-2: optimizer.lr=2e-3" in page
    assert "other points" in page
    assert page.count("stroke: var(--muted") >= 4
    assert "| `small-2` | `optimizer.lr=2e-3` |" in (tmp_path / "page/report.md").read_text()


def test_a_point_without_values_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"/b: has no values"):
        main([str(tmp_path), "small-sweep", "/a", "optimizer.lr=1e-3", "/b"])
