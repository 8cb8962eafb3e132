from collections.abc import Callable
import json
from pathlib import Path

import pytest

from infra.boot.stages import SHARD, STAGES, TOKENIZER, TRAIN, WORK, move_aside, progress
from infra.boot.stages import refuse_other_checkpoints, tokenizer_hash
from trainwright.spec.exits import UserError
from trainwright.spec.load import load_experiment
from trainwright.spec.paths import SPLITS, Places
from trainwright.spec.resolved import fixed_fields


@pytest.fixture
def places(experiment_file: Callable[..., Path], tmp_path: Path) -> Places:
    """Return places in which text, tokenizer and token shards seem to be there."""
    found = Places(tmp_path / "root", load_experiment(experiment_file(), (), {}).experiment)
    put(found.tokenizer / "manifest.json", json.dumps({"hash": "abcdef0123456789"}))
    for split in SPLITS:
        put(found.text(split) / "manifest.json", split)
        put(found.tokens(split, "abcdef01") / "manifest.json", f"tokens of {split}")
    return found


def put(path: Path, text: str = "") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def put_checkpoint(places: Places, step: int, fixed: object) -> None:
    folder = places.run.checkpoints / f"step_{step:08d}"
    put(folder / "train_state.json", json.dumps({"fixed": fixed}))
    put(folder / "manifest.json")


def test_the_table_of_work_has_the_order_of_the_stages() -> None:
    assert ("prepare", *(stage.name for stage in WORK)) == STAGES


def test_every_fixed_field_decides_exactly_one_stage_or_all_that_follow(places: Places) -> None:
    experiment = places.experiment
    inputs = [set(stage.inputs(experiment, places)) for stage in (SHARD, TOKENIZER, TRAIN)]
    fixed = set(fixed_fields(experiment))
    assert fixed <= set().union(*inputs)
    twice = {field for field in fixed if sum(field in found for found in inputs) > 1}
    assert twice == {"seed"}


def test_a_stage_depends_on_what_the_stage_before_it_made(places: Places) -> None:
    for stage, earlier in ((TOKENIZER, places.text("train")), (TRAIN, places.tokens("val", "abcdef01"))):
        before = stage.inputs(places.experiment, places)
        put(earlier / "manifest.json", "other bytes")
        after = stage.inputs(places.experiment, places)
        assert sum(before[key] != after[key] for key in before) == 1


def test_the_tokenizers_hash_is_that_of_its_bundle(places: Places) -> None:
    assert tokenizer_hash(places) == "abcdef0123456789"


def test_training_is_enough_when_it_has_all_the_steps(places: Places) -> None:
    assert TRAIN.is_enough(places.experiment, {"step": 10})
    assert not TRAIN.is_enough(places.experiment, {"step": 9})


def test_training_stands_for_its_newest_checkpoint(places: Places) -> None:
    for step in (5, 10):
        put_checkpoint(places, step, {})
    assert TRAIN.facts(places.experiment, places) == {"step": 10}


def test_progress_changes_with_every_record_shard_and_checkpoint(places: Places) -> None:
    seen = [progress(places)]
    for made in (
        places.run.stage("shard"),
        places.text("train") / "train_00000.jsonl.zst",
        places.tokens("val", "abcdef01") / "val_00000.bin",
        places.run.checkpoints / "step_00000005" / "manifest.json",
        places.run.checkpoints / "step_00000010" / "manifest.json",
    ):
        put(made)
        seen.append(progress(places))
    assert len(set(seen)) == len(seen)
    put(places.run.metrics, "{}\n")
    assert progress(places) == seen[-1]


def test_a_checkpoint_of_step_0_is_no_progress(places: Places) -> None:
    before = progress(places)
    put(places.run.checkpoints / "step_00000000" / "manifest.json")
    assert progress(places) == before


def test_moving_aside_keeps_every_byte(places: Places) -> None:
    put_checkpoint(places, 10, {})
    put(places.run.metrics, "row\n")
    put(places.run.stage("train"), "record")
    moved = move_aside(TRAIN, places.experiment, places)
    assert not places.run.metrics.exists()
    assert not places.run.checkpoints.exists()
    assert not places.run.stage("train").exists()
    assert {path.name for path in moved} == {"checkpoints.old-1", "metrics.jsonl.old-1", "train.json.old-1"}
    assert places.run.metrics.with_name("metrics.jsonl.old-1").read_text() == "row\n"
    put(places.run.metrics, "new\n")
    assert [path.name for path in move_aside(TRAIN, places.experiment, places)] == ["metrics.jsonl.old-2"]


def test_checkpoints_of_other_settings_are_refused_by_field(places: Places) -> None:
    fixed = fixed_fields(places.experiment)
    put_checkpoint(places, 5, {**fixed, "model.dim": 32})
    with pytest.raises(UserError) as found:
        refuse_other_checkpoints(places.experiment, places)
    assert "model.dim: was 32, is now 64" in str(found.value)
    assert "--redo train" in str(found.value)
    put_checkpoint(places, 10, fixed)
    refuse_other_checkpoints(places.experiment, places)


@pytest.mark.parametrize("text", ["", "[]", "{}"])
def test_a_damaged_checkpoint_is_left_for_the_trainer_to_judge(places: Places, text: str) -> None:
    put(places.run.checkpoints / "step_00000005" / "train_state.json", text)
    refuse_other_checkpoints(places.experiment, places)
