"""What a run says: its first lines state the batch and how it is cut, and every save and score has a line."""

import json
from pathlib import Path
import logging
import re

import pytest

from tiny_run import TWO_RANKS, Ground, copy_run, make_run, steps, train_here, train_in_processes
from trainer.checkpoint import Committed, read_train_state
from trainer.profiling import TRACED_STEPS
from trainer.reporting import step_words
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
    words = ("logging.print_every_steps=6", "checkpoint.dump.keep=1", "logging.profile_step=3")
    run = make_run(ground, folder, *words)
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
    assert steps_in(messages, r"step=(\d+)/20 loss=") == [1, 6, 12, 18, 20]
    assert steps_in(messages, r"step=(\d+) checkpoint saved") == [10, 20]
    assert steps_in(messages, r"step=(\d+) eval_loss=") == [0, 10, 20]
    assert messages[-1] == "stage=train complete at step 20"


def test_a_line_tells_every_figure_that_its_row_has(said: tuple[RunFolder, list[str]]) -> None:
    run, messages = said
    last = next(message for message in reversed(messages) if "step=20/20" in message)
    names = [word.partition("=")[0] for word in last.split()]
    wanted = "stage step loss lr grad_norm tokens_per_second per_device data_wait save_stall eta_minutes"
    assert names == wanted.split(), "a CPU tells no utilisation, no memory and no power"
    row = {**steps(run)[-1], "mfu": 0.4321, "peak_memory_gib": 71.25, "power_watts": 689.7, "save_seconds": 1.5}
    assert {"mfu=43.2%", "memory=71.2GiB", "power=690W", "save_stall=1.50s"} <= set(step_words(row).split())


def test_steps_are_traced_where_that_was_asked_for(said: tuple[RunFolder, list[str]]) -> None:
    events = json.loads((said[0].path / "profile" / "steps_00000003.json").read_text())["traceEvents"]
    names = {event.get("name", "") for event in events}
    assert sum(name.startswith("ProfilerStep#") for name in names) == TRACED_STEPS
    assert "Optimizer.step#FusedAdamW.step" in names


def test_a_rate_from_off_the_grid_is_warned_of_once(ground: Ground, tmp_path: Path) -> None:
    words = ("model.kind=enoki", "model.heads=2", "optimizer.kind=adana", "optimizer.lr=null", TWO_RANKS)
    done = train_in_processes(make_run(ground, tmp_path / "run", *words, "train.steps=2", "schedule.warmup_steps=1"), 2)
    assert done.code == Exit.OK, done.said
    assert done.said.count("no fit was made for enoki with adana at a batch of 0.25 x 2,048 tokens") == 1


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
