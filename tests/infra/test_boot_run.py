"""The life of a run from text to report: what is done stays done, what is fixed stays fixed, nothing is deleted."""

from pathlib import Path
import re
import shutil

import pytest

from staged_runs import Staged
from infra.boot.stages import STAGES
from tiny_boot import STEPS, TWO_RANKS, Done, Place, attempts, checkpoints, copy_place, digests, end, last_step
from tiny_boot import losses, make_place, read, stages
from trainwright.spec.resolved import read_resolved, read_training


@pytest.mark.slow
def test_boot_takes_text_to_a_report(staged: Staged) -> None:
    run = staged.place.run
    assert last_step(run) == STEPS
    assert "tiny" in run.report_md.read_text()
    assert run.report_html.read_text().lstrip().lower().startswith("<!doctype html>")
    assert end(run)["code"] == 0
    assert end(run)["reason"] == "complete"
    assert read_resolved(run.experiment) == read_training(run.training_yaml).experiment
    assert run.training_toml.is_file()


@pytest.mark.slow
def test_until_stops_after_each_stage_and_the_next_boot_goes_on(staged: Staged) -> None:
    for number, stage in enumerate(STAGES):
        assert staged.records[stage] == set(STAGES[: number + 1])
        said = staged.done[stage].lines
        assert [line for line in said if re.fullmatch(r"stage=\w+ start", line)] == (
            [f"stage={stage} start"] if stage != "prepare" else []
        )


@pytest.mark.slow
def test_a_stage_record_names_its_inputs_and_its_outputs(staged: Staged) -> None:
    run = staged.place.run
    for stage in STAGES:
        record = read(run.stage(stage))
        assert record["stage"] == stage
        assert record["inputs"]
        assert record["outputs"]
        assert all(len(digest) == 64 for digest in record["outputs"].values())


@pytest.mark.slow
def test_a_boot_of_a_finished_run_says_only_that_it_is_done_and_starts_nothing(staged: Staged, tmp_path: Path) -> None:
    place = copy_place(staged.place, tmp_path / "again", trained=True)
    # A room that were started would fail on these.
    for name in ("sharder", "trainer", "report"):
        (tmp_path / "again" / f"{name}.py").write_text("raise SystemExit('a room was started')")
    before = digests(place.run.path)
    done = place.boot(PYTHONPATH=str(tmp_path / "again"))
    assert done.code == 0, done.said
    source, head, run_folder, prepare, *others = done.lines
    assert re.fullmatch(rf"boot: source={re.escape(str(place.file))} sha256=[0-9a-f]{{12}} overrides=2", source)
    assert head.startswith("boot: experiment=tiny hash=")
    assert run_folder == f"boot: run folder {place.run}"
    assert prepare == "stage=prepare done"
    assert [re.sub(r" \(.*", "", line) for line in others] == [f"stage={stage} done already" for stage in STAGES[1:]]
    after = digests(place.run.path)
    changed = {name for name in after if after[name] != before.get(name)}
    assert all(name.startswith(("attempts/", "experiment.yaml", "stages/prepare")) for name in changed), changed


@pytest.mark.slow
def test_a_room_put_before_ours_on_the_path_would_be_seen(sharded: Staged, tmp_path: Path) -> None:
    place = copy_place(sharded.place, tmp_path / "new", trained=False)
    place.run.stage("shard").unlink()
    (tmp_path / "new" / "sharder.py").write_text("raise SystemExit('a room was started')")
    done = place.boot("--until", "shard", PYTHONPATH=str(tmp_path / "new"))
    assert done.code == 1
    assert "a room was started" in done.said


FIXED = [
    ("model.dim=64", "model.dim: was 32, is now 64"),
    ("data.documents_per_shard=9", "data.documents_per_shard: was 8, is now 9"),
    ("tokenizer.kind=gpt2", "tokenizer.kind: was bytes, is now gpt2"),
    ("seed=43", "seed: was 42, is now 43"),
    ("optimizer.lr=1e-3", "optimizer.lr: was 0.003, is now 0.001"),
    ("train.global_batch_sequences=16", "train.global_batch_sequences: was 8, is now 16"),
]


@pytest.mark.slow
@pytest.mark.parametrize(("override", "words"), FIXED)
def test_a_changed_fixed_field_of_a_finished_run_is_refused_and_nothing_is_touched(
    staged: Staged, tmp_path: Path, override: str, words: str
) -> None:
    place = copy_place(staged.place, tmp_path / "fixed", trained=True)
    refused(place, override, words)


@pytest.mark.slow
def test_a_changed_fixed_field_is_refused_by_the_checkpoints_of_a_run_that_is_not_finished(
    staged: Staged, tmp_path: Path
) -> None:
    place = copy_place(staged.place, tmp_path / "fixed", trained=True)
    place.run.stage("train").unlink()
    place.run.stage("report").unlink()
    refused(place, "model.dim=64", "model.dim: was 32, is now 64")


def refused(place: Place, override: str, words: str) -> None:
    before = digests(place.run.path)
    done = place.boot(override)
    assert done.code == 78
    assert words in done.last
    assert "choose another name" in done.last
    assert "--redo" in done.last
    assert "Traceback" not in done.said
    after = digests(place.run.path)
    new = {name for name in after if after[name] != before.get(name)}
    assert all(name.startswith("attempts/") for name in new), new
    assert before.keys() <= after.keys()


@pytest.mark.slow
def test_what_is_free_to_change_is_taken_up_and_training_goes_on(staged: Staged, tmp_path: Path) -> None:
    place = copy_place(staged.place, tmp_path / "more", trained=True)
    more = (f"train.steps={STEPS + 6}", "evaluation.every_steps=3", "train.micro_batch=2")
    done = place.boot("--until", "train", *more)
    assert done.code == 0, done.said
    assert f"resume: from step_{STEPS:08d}, the newest checkpoint that verifies" in done.said
    assert losses(place.run)[:STEPS] == losses(staged.place.run)
    assert [step for step, _ in losses(place.run)] == list(range(1, STEPS + 7))
    assert f"stage=train step={STEPS + 2} eval_loss" in done.said
    assert read(place.run.stage("train"))["facts"] == {"step": STEPS + 6}


@pytest.mark.slow
def test_redo_moves_the_old_outputs_aside_and_trains_again(staged: Staged, tmp_path: Path) -> None:
    place = copy_place(staged.place, tmp_path / "redo", trained=True)
    before = digests(place.run.path)
    done = place.boot("--redo", "train", "--until", "train", "train.steps=4", "optimizer.lr=1e-3")
    assert done.code == 0, done.said
    assert "starting from step 0" in done.said
    assert [step for step, _ in losses(place.run)] == [1, 2, 3, 4]
    assert checkpoints(place.run) == [4]
    after = digests(place.run.path)
    kept = {name.replace(".old-1", ""): digest for name, digest in after.items() if ".old-1" in name}
    moved = ("checkpoints/", "metrics.jsonl", "samples.jsonl", "report.", "stages/train", "stages/report", "training.")
    assert kept == {name: digest for name, digest in before.items() if name.startswith(moved)}


@pytest.mark.slow
def test_fresh_moves_the_whole_run_aside(staged: Staged, tmp_path: Path) -> None:
    place = copy_place(staged.place, tmp_path / "fresh", trained=True)
    before = digests(place.run.path)
    done = place.boot("--fresh", "--until", "prepare", "model.dim=64")
    assert done.code == 0, done.said
    assert stages(place.run) == {"prepare"}
    aside = place.run.path.with_name("tiny.old-1")
    assert f"the old run was moved aside, to {aside}" in done.said
    assert {name: digest for name, digest in digests(aside).items() if not name.startswith("attempts")} == before


@pytest.mark.slow
def test_a_run_moves_to_another_root_with_its_data(staged: Staged, sharded: Staged, tmp_path: Path) -> None:
    root = tmp_path / "elsewhere"
    shutil.copytree(sharded.place.root, root)
    shutil.copytree(staged.place.run.path, root / "runs" / "tiny", dirs_exist_ok=True)
    done = Place(root, staged.place.corpus).boot()
    assert done.code == 0, done.said
    assert sum("done already" in line for line in done.lines) == 4


@pytest.mark.slow
def test_a_training_yaml_that_was_edited_by_hand_is_refused(staged: Staged, tmp_path: Path) -> None:
    place = copy_place(staged.place, tmp_path / "edited", trained=True)
    training = place.run.training_yaml
    training.write_text(training.read_text().replace("micro_batch: 4", "micro_batch: 2"))
    edited = training.read_bytes()
    done = place.boot()
    assert done.code == 78
    assert str(training) in done.last
    assert "edited by hand" in done.last
    assert "delete this one, and run boot again" in done.last
    assert training.read_bytes() == edited
    training.unlink()
    assert place.boot().code == 0


def test_what_the_machine_refuses_to_boot_is_a_failure_with_a_record(sharded: Staged, tmp_path: Path) -> None:
    place = copy_place(sharded.place, tmp_path / "blocked", trained=False)
    (place.run.path / "training.toml" / "in the way").mkdir(parents=True)
    done = place.boot()
    assert done.code == 1
    assert "Traceback" not in done.said
    assert "training.toml" in done.last
    assert end(place.run)["code"] == 1


@pytest.mark.slow
def test_a_stage_is_done_again_to_the_same_bytes_when_its_record_is_lost(sharded: Staged, tmp_path: Path) -> None:
    place = make_place(tmp_path / "lost")
    assert place.boot("--until", "tokenizer").code == 0
    before = digests(place.root / "datasets")
    place.run.stage("shard").unlink()
    assert place.boot("--until", "tokenizer").code == 0
    assert digests(place.root / "datasets") == before == digests(sharded.place.root / "datasets")


@pytest.mark.slow
def test_redo_of_the_tokenizer_encodes_again_and_keeps_the_text(tmp_path: Path) -> None:
    place = make_place(tmp_path / "redo")
    assert place.boot("--until", "tokenizer").code == 0
    before = digests(place.root / "datasets")
    done = place.boot("--redo", "tokenizer", "--until", "tokenizer")
    assert done.code == 0, done.said
    after = digests(place.root / "datasets")
    old = {name.replace(".old-1", ""): digest for name, digest in after.items() if ".old-1" in name}
    assert {name: digest for name, digest in after.items() if ".old-1" not in name} == before
    assert old == {name: digest for name, digest in before.items() if "tokens-" in name}


@pytest.mark.slow
def test_the_first_lines_of_training_state_what_is_about_to_happen(calm: tuple[Place, Done]) -> None:
    place, done = calm
    digest = str(read_resolved_hash(place))[:12]
    said = "\n".join(done.lines)
    for line in (
        rf"boot: experiment=tiny hash={digest}",
        rf"run: tiny attempt=0001 folder={re.escape(str(place.run))}",
        rf"experiment: hash={digest}",
        r"model: llama dim=32 layers=1 heads=2 kv_heads=2 mlp=128 vocabulary=320 parameters=36,\d{3}",
        r"batch: 8 sequences = micro 4 x accum 1 x ranks 2; 512 tokens",
        rf"steps: {STEPS} \(51,200 tokens, [\d.e+]+ FLOPs\), 2 of them warm-up",
        r"learning rate: 0.003 peak \(.+\), cosine",
        r"device: CPU, \d+ threads a rank, fp32, FSDP2",
        rf"resume: starting from step 0, because {re.escape(str(place.run.checkpoints))} holds no checkpoint",
    ):
        assert re.search(rf"^{line}$", said, re.MULTILINE), line
    assert len(attempts(place.run)) == 1
    assert TWO_RANKS not in said


@pytest.mark.slow
def test_the_last_checkpoint_of_a_run_holds_the_optimizers_state_of_every_weight(calm: tuple[Place, Done]) -> None:
    # Its last step is on no cadence, so that the save comes right after an evaluation.
    index = read(calm[0].run.checkpoints / f"step_{STEPS:08d}" / "index.json")
    weights = [name.removeprefix("model/") for name in index if name.startswith("model/")]
    assert weights
    assert [name for name in weights if f"optimizer/{name}/exp_avg" not in index] == []


def read_resolved_hash(place: Place) -> str:
    found = re.search(r"^hash: (\w{64})$", place.run.experiment.read_text(), re.MULTILINE)
    assert found is not None
    return found[1]
