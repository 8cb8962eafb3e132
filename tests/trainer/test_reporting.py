"""What a run says: its first lines state the batch and how it is cut, and every save and score has a line."""

from pathlib import Path
import logging
import re

import pytest

from tiny_run import Ground, copy_run, make_run, train_here
from trainer.checkpoint import Committed, read_train_state
from trainwright.spec.exits import Exit
from trainwright.spec.paths import RunFolder, step_name


class Kept(logging.Handler):
    """Keeps every message."""

    def __init__(self) -> None:
        super().__init__()
        self.messages: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.messages.append(record.getMessage())


@pytest.fixture(scope="module")
def said(ground: Ground, tmp_path_factory: pytest.TempPathFactory) -> tuple[RunFolder, list[str]]:
    """Return a run that keeps one checkpoint, and what it said."""
    folder = tmp_path_factory.mktemp("reporting") / "run"
    run = make_run(ground, folder, "logging.print_every_steps=5", "checkpoint.dump.keep=1")
    log, kept = logging.getLogger("trainer"), Kept()
    before = log.level
    log.addHandler(kept)
    log.setLevel(logging.INFO)
    try:
        assert train_here(run) == Exit.OK
    finally:
        log.removeHandler(kept)
        log.setLevel(before)
    return run, kept.messages


def test_the_first_lines_state_what_is_trained(said: tuple[RunFolder, list[str]]) -> None:
    run, messages = said
    text = "\n".join(messages)
    assert f"run: tiny attempt=by hand folder={run}" in text
    assert "heads=4 kv_heads=2" in text
    assert "batch: 8 sequences = micro 4 x accum 2 x ranks 1; 512 tokens" in text
    assert "steps: 20 (10,240 tokens" in text
    assert "3 of them warm-up" in text
    assert "fp32, one rank, unsharded" in text
    assert "holds no checkpoint" in text


def test_every_step_that_is_asked_for_every_save_and_every_score_has_a_line(said: tuple[RunFolder, list[str]]) -> None:
    _, messages = said
    assert steps_in(messages, r"step=(\d+)/20 loss=") == [1, 5, 10, 15, 20]
    assert steps_in(messages, r"step=(\d+) checkpoint saved") == [10, 20]
    assert steps_in(messages, r"step=(\d+) eval_loss=") == [0, 10, 20]
    assert messages[-1] == "stage=train complete at step 20"


def steps_in(messages: list[str], pattern: str) -> list[int]:
    return [int(found.group(1)) for message in messages if (found := re.search(pattern, message))]


def test_old_checkpoints_go_and_time_adds_up_over_attempts(
    ground: Ground, said: tuple[RunFolder, list[str]], tmp_path: Path
) -> None:
    run = copy_run(ground, said[0], tmp_path / "run")
    assert [path.name for path in run.checkpoints.glob("step_*")] == [step_name(20)]
    first = read_train_state(Committed(20, run.checkpoints / step_name(20))).train_seconds
    assert first > 0
    make_run(ground, run.path, "train.steps=24", "checkpoint.dump.keep=1")
    assert train_here(run) == Exit.OK
    assert read_train_state(Committed(24, run.checkpoints / step_name(24))).train_seconds > first
