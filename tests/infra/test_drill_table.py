"""A drill on paper: short settings, verdicts on what came of each blow, and a table that fits a terminal."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
import signal

from hypothesis import given
from hypothesis import strategies as st
import pytest

from infra.drill_table import BLOWS, Blow, Outcome, Pace, Struck, advice, as_json, compare, pace, reasons, shortened
from infra.drill_table import SEGMENT_S, table
from trainwright.spec.exits import UserError
from trainwright.spec.experiment import Experiment
from trainwright.spec.load import load_experiment, validate
from trainwright.spec.paths import Places
from trainwright.spec.resolved import flat, plain

WriteExperiment = Callable[..., Path]

ASKED = Blow("asked", (("boot", signal.SIGTERM),), 75, 5.0)
KILLED = Blow("killed", (("all", signal.SIGKILL),), -9)
SAVED = Struck(ASKED, 31, 75, 0.4, cut_off=False, newest=33, finished=33, left=0, resumed=33)
LOST = Struck(KILLED, 31, -9, None, cut_off=False, newest=30, finished=32, left=0, resumed=30)
FREE = {
    *("name", "data.name", "tokenizer.name", "train.steps", "train.tokens", "evaluation.every_steps"),
    *("evaluation.max_tokens", "checkpoint.dump.every_steps", "checkpoint.dump.every_minutes", "checkpoint.dump.keep"),
    *("checkpoint.eval.every_steps", "logging.num_samples", "resources.walltime_minutes", "restart.losses"),
    *("restart.failures", "restart.same_step"),
}
"""What a short run may differ in."""


def loaded(write: WriteExperiment, *overrides: str) -> Experiment:
    return load_experiment(write(), overrides, {}).experiment


def short(experiment: Experiment, root: Path) -> Experiment:
    return validate(shortened(experiment, Places(root, experiment), Pace(60, 5)), "test")


# --- the blows -------------------------------------------------------------------------------------------------------


def test_every_target_takes_the_machine_away_and_every_notice_is_one_that_boot_obeys() -> None:
    for target, blows in BLOWS.items():
        assert any(blow.sends == (("all", signal.SIGKILL),) for blow in blows), target
        assert any(blow.asks for blow in blows), target
        for blow in blows:
            numbers = {number for _, number in blow.sends}
            assert blow.asks == (signal.SIGKILL not in numbers)
            assert len(blow.what) <= 28


# --- short settings --------------------------------------------------------------------------------------------------


@given(step_seconds=st.floats(1e-4, 100), num_blows=st.integers(1, 9))
def test_there_is_room_for_every_blow_after_a_save_of_its_own(step_seconds: float, num_blows: int) -> None:
    cut = pace(step_seconds, num_blows)
    # Each blow comes one step after the next save, and takes 0.3 s and two steps at most to be heard.
    heard = num_blows * (cut.save_every + 1 + max(2.0, 0.3 / step_seconds))
    assert cut.save_every >= 2
    assert heard < cut.steps
    assert cut.steps <= max(8, SEGMENT_S / step_seconds + 1) * (num_blows + 1)


def test_a_short_run_differs_in_nothing_that_matters_to_preemption(
    experiment_file: WriteExperiment, tmp_path: Path
) -> None:
    words = ("train.steps=null", "train.tokens=5e9", "resources.walltime_minutes=60", "train.compile=true")
    before = loaded(experiment_file, *words, "checkpoint.eval.every_steps=7", "checkpoint.dump.every_minutes=3")
    after = short(before, tmp_path)
    now = dict(flat(plain(after)))
    assert {path for path, value in flat(plain(before)) if now[path] != value} <= FREE
    assert (after.train.steps, after.train.tokens, after.checkpoint.dump.every_steps) == (60, None, 5)
    assert (after.data_name, after.tokenizer_name, after.name) == ("small", "small", "small-drill")
    assert after.evaluation.max_tokens == 8 * 32


def test_a_warm_up_longer_than_the_short_run_is_cut_to_it(experiment_file: WriteExperiment, tmp_path: Path) -> None:
    long = loaded(experiment_file, "train.steps=9000", "schedule.warmup_steps=2000")
    assert short(long, tmp_path).schedule.warmup_steps == 60
    brief = loaded(experiment_file, "train.steps=9000", "schedule.warmup_steps=20")
    assert short(brief, tmp_path).schedule.warmup_steps == 20


def test_the_longest_name_has_room_for_the_drills_own(experiment_file: WriteExperiment, tmp_path: Path) -> None:
    name = "a" * 45 + "-b-cdef"
    assert short(loaded(experiment_file, f"name={name}"), tmp_path).name == "a" * 45 + "-drill"


def test_initial_weights_are_found_from_the_drills_folder(experiment_file: WriteExperiment, tmp_path: Path) -> None:
    named = loaded(experiment_file, "train.init_from=other")
    assert short(named, tmp_path).train.init_from == str(tmp_path / "runs" / "other")
    folder = loaded(experiment_file, f"train.init_from={tmp_path}")
    assert short(folder, tmp_path).train.init_from == str(tmp_path)


def test_several_machines_are_refused_with_the_way_out(experiment_file: WriteExperiment, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"resources.nodes=2: .*; add resources.nodes=1"):
        short(loaded(experiment_file, "resources.nodes=2"), tmp_path)


# --- verdicts --------------------------------------------------------------------------------------------------------


def test_a_save_in_time_and_a_kill_are_right() -> None:
    assert reasons(SAVED, 10) == reasons(LOST, 10) == []


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (replace(SAVED, code=1), "boot ended with 1, not 75"),
        (replace(SAVED, code=-9), "boot ended with -9, not 75"),
        (replace(LOST, code=0), "boot ended with 0, not -9"),
        (replace(SAVED, left=2), "2 processes outlived boot"),
        (replace(SAVED, newest=30, resumed=30), "3 steps were lost, although the run was asked to save"),
        (replace(LOST, newest=20, resumed=20), "12 steps were lost, with a checkpoint every 10"),
        (replace(SAVED, resumed=30), "the next boot went on from step 30, not from 33"),
        (replace(LOST, resumed=None), "the next boot went on from step None, not from 30"),
    ],
)
def test_whatever_is_not_right_is_said(row: Struck, reason: str) -> None:
    assert reasons(row, 10) == [reason]


def test_a_save_that_the_notice_cut_off_is_right_and_worth_a_note(experiment_file: WriteExperiment) -> None:
    late = replace(SAVED, code=-9, cut_off=True, saved_s=None, newest=30, resumed=30)
    assert reasons(late, 10) == []
    notes = advice([late], "runpod", loaded(experiment_file), 2.0)
    late_note = "the save was not committed and runpod gives 5 s: only the newest committed checkpoint counts"
    assert notes == [
        f"{late_note} (3 steps lost here)",
        "without notice the real run loses up to 1,000 steps, about 33 minutes (checkpoint.dump.every_steps)",
    ]


def test_a_run_that_saves_only_at_its_end_is_told_so(experiment_file: WriteExperiment) -> None:
    never = loaded(experiment_file, "checkpoint.dump.every_steps=null")
    assert advice([SAVED], "local", never, 1.0) == [
        "without notice the real run loses everything: set checkpoint.dump.every_minutes"
    ]


# --- the comparison --------------------------------------------------------------------------------------------------

CALM = Outcome({"rank_00000.safetensors": "ab"}, {1: (5.0, 1.0), 2: (4.0, 1.0)}, (), on_gpu=False)


def test_equal_bits_are_the_same_anywhere() -> None:
    for gpu in (False, True):
        same, said = compare(CALM, replace(CALM, on_gpu=gpu), deterministic=False)
        assert same
        assert said.endswith("bit for bit")


def test_other_bits_are_the_same_only_where_kernels_need_not_repeat() -> None:
    close = replace(CALM, weights={"rank_00000.safetensors": "cd"}, figures={1: (5.0, 1.0), 2: (4.0001, 1.0)})
    assert not compare(CALM, close, deterministic=False)[0]
    assert "from step 2 on" in compare(CALM, close, deterministic=False)[1]
    assert compare(CALM, replace(close, on_gpu=True), deterministic=False)[0]
    assert not compare(CALM, replace(close, on_gpu=True), deterministic=True)[0]
    far = replace(close, on_gpu=True, figures={1: (5.0, 1.0), 2: (4.2, 1.0)})
    assert not compare(CALM, far, deterministic=False)[0]


def test_weights_alone_can_differ() -> None:
    assert "only the final weights differ" in compare(CALM, replace(CALM, weights={}), deterministic=True)[1]


def test_a_step_that_is_missing_or_told_twice_is_never_the_same() -> None:
    for odd in (replace(CALM, figures={1: (5.0, 1.0)}), replace(CALM, repeated=(2,))):
        assert compare(CALM, odd, deterministic=False) == (
            False,
            "NOT THE SAME: 1 steps are missing or on file twice, the first is 2",
        )


# --- the table -------------------------------------------------------------------------------------------------------


def test_the_table_is_aligned_and_fits_eighty_columns() -> None:
    rows = [
        replace(SAVED, blow=blow, step=10_031, newest=10_033, finished=10_040, resumed=10_033, saved_s=123.4)
        for blow in BLOWS["local"] + BLOWS["kubernetes"]
    ]
    lines = table(rows, 10).splitlines()
    assert len(lines) == 1 + len(rows)
    assert max(map(len, lines)) <= 80
    assert len({line.index("10031") for line in lines[1:]}) == 1


def test_a_row_says_the_same_to_programs() -> None:
    found = as_json(replace(LOST, resumed=20), 10)
    assert (found["steps_lost"], found["resumed_step"], found["exit_code"]) == (2, 20, -9)
    assert found["wrong"] == ["the next boot went on from step 20, not from 30"]
