"""Whole runs: the same learning on any number of ranks, and through any interruption."""

from pathlib import Path

import pytest

from tiny_run import STEPS, TWO_RANKS, Ground, checkpoint_bytes, copy_run, drop_after, losses, make_run, rows
from tiny_run import saved_steps, scores, steps, tiny_experiment, train_here, train_in_processes
from trainwright.spec.derived import Derived
from trainwright.spec.exits import Exit
from trainwright.spec.paths import RunFolder

EVERY_STEP = list(range(1, STEPS + 1))


def test_the_first_loss_is_the_one_that_random_weights_imply(one_rank: RunFolder, tmp_path: Path) -> None:
    expected = Derived(tiny_experiment(tmp_path)).expected_first_loss
    assert losses(one_rank)[1] == pytest.approx(expected, rel=0.02)


def test_a_run_learns_and_writes_each_step_once(one_rank: RunFolder) -> None:
    found = losses(one_rank)
    assert [row["step"] for row in steps(one_rank)] == EVERY_STEP
    assert found[STEPS] < found[1] - 1
    assert list(scores(one_rank)) == [0, 10, STEPS]
    assert saved_steps(one_rank) == [10, STEPS]


@pytest.mark.slow
def test_two_ranks_learn_what_one_rank_learns(one_rank: RunFolder, two_ranks: RunFolder) -> None:
    assert losses(two_ranks) == pytest.approx(losses(one_rank), rel=2e-5)
    assert scores(two_ranks) == pytest.approx(scores(one_rank), rel=1e-5)


@pytest.mark.slow
def test_accumulation_over_passes_changes_nothing(two_ranks_in_four_passes: RunFolder, one_rank: RunFolder) -> None:
    assert losses(two_ranks_in_four_passes) == pytest.approx(losses(one_rank), rel=2e-5)
    assert scores(two_ranks_in_four_passes) == pytest.approx(scores(one_rank), rel=1e-5)


@pytest.mark.slow
def test_the_norm_of_a_sharded_gradient_is_that_of_the_whole(two_ranks: RunFolder, one_rank: RunFolder) -> None:
    norms = [{row["step"]: row["grad_norm"] for row in steps(run)} for run in (two_ranks, one_rank)]
    assert norms[0] == pytest.approx(norms[1], rel=1e-4)


def test_one_rank_resumes_bit_for_bit(ground: Ground, one_rank: RunFolder, tmp_path: Path) -> None:
    run = copy_run(ground, one_rank, tmp_path / "run")
    drop_after(run, 10)
    assert train_here(run) == Exit.OK
    assert_same_run(run, one_rank)


def assert_same_run(run: RunFolder, undisturbed: RunFolder) -> None:
    """Hold that every figure but the clock's, and every byte of weights and optimizer, is the same."""
    assert figures(run) == figures(undisturbed)
    assert [row["step"] for row in steps(run)] == EVERY_STEP
    assert checkpoint_bytes(run, STEPS) == checkpoint_bytes(undisturbed, STEPS)


def figures(run: RunFolder) -> list[dict[str, float]]:
    clock = {"time", "step_seconds", "tokens_per_second", "tokens_per_second_per_device", "eval_seconds", "eta_seconds"}
    clock |= {"data_wait_seconds", "save_seconds"}
    return [{name: value for name, value in row.items() if name not in clock} for row in rows(run)]


def test_a_run_stopped_after_each_of_its_steps_is_the_undisturbed_run(
    ground: Ground, one_rank: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stop = tmp_path / "stop"
    stop.touch()
    monkeypatch.setenv("TRAINWRIGHT_STOP_FILE", str(stop))
    run = make_run(ground, tmp_path / "run", "evaluation.every_steps=null")
    codes = [train_here(run) for _ in EVERY_STEP]
    assert codes == [Exit.INTERRUPTED] * STEPS
    stop.unlink()
    assert train_here(run) == Exit.OK
    assert [row["lr"] for row in steps(run)] == [row["lr"] for row in steps(one_rank)]
    assert losses(run) == losses(one_rank)
    assert scores(run)[STEPS] == scores(one_rank)[STEPS]
    assert checkpoint_bytes(run, STEPS) == checkpoint_bytes(one_rank, STEPS)


@pytest.mark.slow
def test_two_ranks_resume_bit_for_bit_past_a_damaged_checkpoint(
    ground: Ground, two_ranks: RunFolder, tmp_path: Path
) -> None:
    run = copy_run(ground, two_ranks, tmp_path / "run", TWO_RANKS)
    newest = run.checkpoints / f"step_{STEPS:08d}"
    flip_a_bit(newest / "rank_00001.safetensors")
    done = train_in_processes(run, 2)
    assert done.code == Exit.OK, done.said
    assert f"{newest.name} is refused: {newest / 'rank_00001.safetensors'}: its sha256 is not" in done.said
    assert "resume: from step_00000010" in done.said
    assert_same_run(run, two_ranks)
    # The damaged one stays for whoever wants to look at it.
    assert newest.with_name(f"{newest.name}.old-1").is_dir()


def flip_a_bit(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


@pytest.mark.slow
def test_what_two_ranks_saved_one_rank_continues(ground: Ground, two_ranks: RunFolder, tmp_path: Path) -> None:
    run = copy_run(ground, two_ranks, tmp_path / "run")
    drop_after(run, 10)
    assert train_here(run) == Exit.OK
    assert losses(run) == pytest.approx(losses(two_ranks), rel=1e-5)


@pytest.mark.slow
def test_what_one_rank_saved_two_ranks_continue(ground: Ground, one_rank: RunFolder, tmp_path: Path) -> None:
    run = copy_run(ground, one_rank, tmp_path / "run", TWO_RANKS)
    drop_after(run, 10)
    done = train_in_processes(run, 2)
    assert done.code == Exit.OK, done.said
    assert losses(run) == pytest.approx(losses(one_rank), rel=1e-5)


def test_bf16_trains_on_one_rank(ground: Ground, one_rank: RunFolder, tmp_path: Path) -> None:
    run = make_run(ground, tmp_path / "run", "train.precision=bf16")
    assert train_here(run) == Exit.OK
    assert losses(run)[1] == pytest.approx(losses(one_rank)[1], rel=1e-2)
    assert losses(run)[STEPS] < losses(run)[1] - 1


def test_more_steps_may_be_asked_of_a_finished_run(ground: Ground, one_rank: RunFolder, tmp_path: Path) -> None:
    run = copy_run(ground, one_rank, tmp_path / "run", "train.steps=24")
    assert train_here(run) == Exit.OK
    assert list(losses(run)) == list(range(1, 25))
    assert list(scores(run)) == [0, 10, 20, 24]


def test_a_finished_run_is_finished_again_without_a_step(ground: Ground, one_rank: RunFolder, tmp_path: Path) -> None:
    run = copy_run(ground, one_rank, tmp_path / "run")
    assert train_here(run) == Exit.OK
    assert figures(run) == figures(one_rank)
    assert saved_steps(run) == saved_steps(one_rank)


def test_fewer_steps_than_were_made_are_complete(ground: Ground, one_rank: RunFolder, tmp_path: Path) -> None:
    run = copy_run(ground, one_rank, tmp_path / "run", "train.steps=15")
    assert train_here(run) == Exit.OK
    assert saved_steps(run) == saved_steps(one_rank)


def test_a_run_that_is_stopped_twice_before_its_first_step_saves_once(
    ground: Ground, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "stop").touch()
    monkeypatch.setenv("TRAINWRIGHT_STOP_FILE", str(tmp_path / "stop"))
    run = make_run(ground, tmp_path / "run")
    assert [train_here(run), train_here(run)] == [Exit.INTERRUPTED] * 2
    assert [path.name for path in run.checkpoints.iterdir() if path.is_dir()] == ["step_00000000"]
