"""Steps are traced where that was asked for, and nowhere else."""

import json
from pathlib import Path

import pytest
import torch

from trainer.profiling import TRACED_STEPS, profiling


@pytest.mark.parametrize(("first", "start"), [(1, 0), (3, 0), (12, 9)])
def test_three_steps_are_traced_from_the_one_that_was_named(tmp_path: Path, first: int, start: int) -> None:
    with profiling(tmp_path / "profile", first, start) as advance:
        for step in range(start + 1, first + 6):
            torch.ones(step + 100).cumsum(0)
            advance()
    (path,) = (tmp_path / "profile").iterdir()
    assert path.name == f"steps_{max(first, start + 2):08d}.json"
    events = json.loads(path.read_text())["traceEvents"]
    assert sum(event.get("name") == "aten::cumsum" for event in events) == TRACED_STEPS


@pytest.mark.parametrize(("first", "start"), [(None, 0), (5, 5), (5, 9)])
def test_nothing_is_written_where_nothing_is_to_be_traced(tmp_path: Path, first: int | None, start: int) -> None:
    with profiling(tmp_path / "profile", first, start) as advance:
        advance()
    assert list(tmp_path.iterdir()) == []
