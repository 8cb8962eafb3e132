"""Checkpoints: whole or refused, kept as asked, and never lost to a kill."""

import json
from pathlib import Path
import shutil

from hypothesis import given
from hypothesis import strategies as st
import pytest
import torch
from torch import Tensor

from trainer import checkpoint
from trainer.checkpoint import HIDDEN, Committed, TrainState
from trainer.ranks import Ranks
from trainwright.spec.exits import UserError
from trainwright.spec.paths import done_name, step_name
from trainwright.spec.training import Checkpoint, DumpRetention, EvalRetention

FILES = ("rank_00000.safetensors", "index.json", "train_state.json", "manifest.json")


def tensors(seed: int = 0) -> dict[str, Tensor]:
    draw = torch.Generator().manual_seed(seed)
    return {
        "model/matrix": torch.randn((3, 2), generator=draw),
        "model/half": torch.randn(5, generator=draw).bfloat16(),
        "optimizer/matrix/step": torch.tensor(7.0),
    }


def state_at(step: int) -> TrainState:
    return TrainState(step, step * 8, "corpus", {"seed": 1, "optimizer.lr": 0.1}, 1.5, (8, 24), 1)


def saved(folder: Path, one: Ranks, step: int = 3) -> Committed:
    checkpoint.save(folder, tensors(), state_at(step), one)
    return checkpoint.committed(folder)[0]


def test_what_was_saved_is_loaded_to_the_last_bit(tmp_path: Path, one: Ranks) -> None:
    found = saved(tmp_path, one)
    assert found == Committed(3, tmp_path / step_name(3))
    assert checkpoint.verify(found, one) is None
    loaded = {name: torch.full_like(tensor, -1) for name, tensor in tensors().items()}
    checkpoint.load(found, loaded)
    for name, tensor in tensors().items():
        assert torch.equal(loaded[name], tensor), name
    assert checkpoint.read_train_state(found) == state_at(3)


def test_a_checkpoint_is_marked_for_others_and_holds_what_its_manifest_lists(tmp_path: Path, one: Ranks) -> None:
    found = saved(tmp_path, one)
    assert {path.name for path in found.folder.iterdir()} == set(FILES)
    assert {path.name for path in tmp_path.iterdir()} == {step_name(3), done_name(3)}
    listed = json.loads((found.folder / "manifest.json").read_text())
    assert {entry["path"] for entry in listed["files"]} == set(FILES) - {"manifest.json"}


def test_a_view_is_saved_without_the_rest_of_its_storage(tmp_path: Path, one: Ranks) -> None:
    big = torch.arange(100_000.0).view(1000, 100)
    checkpoint.save(tmp_path, {"a": big[3:5, ::2], "b": big[:2].T}, state_at(1), one)
    folder = checkpoint.committed(tmp_path)[0].folder
    assert (folder / "rank_00000.safetensors").stat().st_size < 4000


@pytest.mark.parametrize("name", FILES)
def test_a_flipped_bit_in_any_byte_is_noticed(tmp_path: Path, one: Ranks, name: str) -> None:
    found = saved(tmp_path, one)
    path = found.folder / name
    sound = path.read_bytes()
    passed = []
    for at in range(len(sound)):
        path.write_bytes(sound[:at] + bytes([sound[at] ^ 1 << at % 8]) + sound[at + 1 :])
        if checkpoint.verify(found, one) is None:
            passed.append(at)
    assert not passed


@pytest.mark.parametrize("name", FILES)
def test_a_cut_or_missing_file_is_named(tmp_path: Path, one: Ranks, name: str) -> None:
    found = saved(tmp_path, one)
    path = found.folder / name
    sound = path.read_bytes()
    for length in (0, 1, len(sound) // 2, len(sound) - 2):
        path.write_bytes(sound[:length])
        assert str(path) in (checkpoint.verify(found, one) or "")
    path.unlink()
    assert checkpoint.verify(found, one) == f"{path}: missing"


def test_a_folder_under_the_name_of_another_step_is_refused(tmp_path: Path, one: Ranks) -> None:
    saved(tmp_path, one).folder.rename(tmp_path / step_name(9))
    assert "is of ('checkpoint 1', 3), not of ('checkpoint 1', 9)" in (
        checkpoint.verify(checkpoint.committed(tmp_path)[0], one) or ""
    )


def test_only_folders_of_steps_count_and_the_newest_comes_first(tmp_path: Path, one: Ranks) -> None:
    for step in (3, 12, 7):
        saved(tmp_path, one, step)
    (tmp_path / step_name(99)).write_text("a file")
    (tmp_path / f"{step_name(98)}.old-1").mkdir()
    (tmp_path / "step_97").mkdir()
    assert [each.step for each in checkpoint.committed(tmp_path)] == [12, 7, 3]
    assert checkpoint.committed(tmp_path / "nowhere") == []


def test_saving_over_a_damaged_folder_sets_it_aside(tmp_path: Path, one: Ranks) -> None:
    folder = saved(tmp_path, one).folder
    (folder / "index.json").write_text("damaged")
    found = saved(tmp_path, one)
    assert checkpoint.verify(found, one) is None
    assert (tmp_path / f"{step_name(3)}.old-1" / "index.json").read_text() == "damaged"


def test_a_kill_before_the_rename_leaves_the_old_one_in_use(tmp_path: Path, one: Ranks) -> None:
    saved(tmp_path, one, 3)
    # What such a kill leaves is the whole folder under its hidden name.
    saved(tmp_path, one, 4).folder.rename(tmp_path / HIDDEN)
    assert [each.step for each in checkpoint.committed(tmp_path)] == [3]
    (tmp_path / HIDDEN / "rank_00099.safetensors").write_text("of a larger run")
    found = saved(tmp_path, one, 4)
    assert checkpoint.verify(found, one) is None
    assert {path.name for path in found.folder.iterdir()} == set(FILES)
    assert not (tmp_path / HIDDEN).exists()


def test_tensors_that_are_missing_or_of_another_shape_are_named(tmp_path: Path, one: Ranks) -> None:
    found = saved(tmp_path, one)
    with pytest.raises(UserError, match=r"model/other is not in it, not \[2\]"):
        checkpoint.load(found, {"model/other": torch.zeros(2)})
    with pytest.raises(UserError, match=r"model/matrix has the shape \[3, 2\] in it, not \[2, 3\]"):
        checkpoint.load(found, {"model/matrix": torch.zeros(2, 3)})


def test_pieces_that_leave_a_gap_are_refused(tmp_path: Path, one: Ranks) -> None:
    found = saved(tmp_path, one)
    index = json.loads((found.folder / "index.json").read_text())
    index["model/matrix"]["pieces"][0]["shape"] = [2, 2]
    (found.folder / "index.json").write_text(json.dumps(index))
    with pytest.raises(UserError, match="the pieces of model/matrix do not cover it"):
        checkpoint.load(found, tensors())


def test_every_difference_of_another_run_is_named() -> None:
    stored, found = state_at(3), Committed(3, Path("there"))
    other = TrainState(0, 0, "another", {"seed": 2, "optimizer.lr": 0.1, "model.dim": 8})
    with pytest.raises(UserError) as caught:
        checkpoint.check_same_run(found, stored, other)
    for part in (
        "there",
        "seed: was 1, is now 2",
        "model.dim: was not there, is now 8",
        "were corpus, are now another",
    ):
        assert part in str(caught.value)
    assert "optimizer.lr" not in str(caught.value)
    checkpoint.check_same_run(found, stored, TrainState(0, 0, "corpus", dict(stored.fixed)))


@given(
    steps=st.lists(st.integers(0, 60), min_size=1, unique=True),
    keep=st.integers(1, 5),
    every=st.sampled_from([None, 1, 4, 10]),
    study=st.sampled_from([None, 1, 3]),
)
def test_what_is_kept_is_the_newest_and_as_many_as_asked(
    steps: list[int], keep: int, every: int | None, study: int | None
) -> None:
    policy = Checkpoint(dump=DumpRetention(keep=keep), eval=EvalRetention(every_steps=every, keep=study))
    kept = checkpoint.retained(steps, policy)
    newest = sorted(steps, reverse=True)
    studied = [step for step in newest if every and step % every == 0]
    assert kept <= set(steps)
    assert set(newest[:keep]) <= kept
    assert set(studied[:study]) <= kept
    # Beyond the newest `keep`, each kind keeps no more than its own count.
    assert len(kept - set(studied)) <= keep
    assert len(kept & set(studied[study:] if study else ())) <= keep
    assert checkpoint.retained(list(kept), policy) == kept


def test_pruning_deletes_what_is_let_go_and_its_marker(tmp_path: Path, one: Ranks) -> None:
    for step in (1, 2, 3, 4):
        saved(tmp_path, one, step)
    # A kill in the middle of a deletion left this.
    shutil.copytree(tmp_path / step_name(1), tmp_path / ".deleting-step_00000000")
    checkpoint.prune(tmp_path, Checkpoint(dump=DumpRetention(keep=2)))
    left = {step_name(3), step_name(4), done_name(3), done_name(4)}
    assert {path.name for path in tmp_path.iterdir()} == left


def test_pruning_survives_a_folder_that_cannot_be_deleted(
    tmp_path: Path, one: Ranks, caplog: pytest.LogCaptureFixture
) -> None:
    for step in (1, 2, 3):
        saved(tmp_path, one, step)
    # A folder cannot take the place of a file, whoever runs this.
    (tmp_path / f".deleting-{step_name(1)}").write_text("in the way")
    checkpoint.prune(tmp_path, Checkpoint(dump=DumpRetention(keep=1)))
    assert [each.step for each in checkpoint.committed(tmp_path)] == [3, 1]
    assert {path.name for path in tmp_path.glob("*.done")} == {done_name(1), done_name(3)}
    assert "step_00000001 cannot be deleted" in caplog.text


def test_a_deletion_that_was_cut_short_is_finished_by_the_next_one(tmp_path: Path, one: Ranks) -> None:
    for step in (1, 2, 3):
        saved(tmp_path, one, step)
    # Killed when the folder was out of sight, and the marker still there; step 2 was made again since.
    (tmp_path / step_name(1)).rename(tmp_path / ".deleting-step_00000001")
    shutil.copytree(tmp_path / step_name(2), tmp_path / ".deleting-step_00000002")
    checkpoint.prune(tmp_path, Checkpoint(dump=DumpRetention(keep=2)))
    left = {step_name(2), step_name(3), done_name(2), done_name(3)}
    assert {path.name for path in tmp_path.iterdir()} == left
