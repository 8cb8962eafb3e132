"""Names on the volume: other tools and older runs find files by them, so they are pinned here."""

from collections.abc import Callable
from pathlib import Path

import pytest

from trainwright.spec.load import load_experiment
from trainwright.spec.paths import Places, RunFolder, done_name, root_from, shard_name, step_name

Write = Callable[..., Path]
HASH = "0123456789abcdef"


def places(path: Path, *overrides: str) -> Places:
    return Places(Path("/v"), load_experiment(path, overrides, {}).experiment)


def test_everything_lies_below_the_root_under_its_name(experiment_file: Write) -> None:
    here = places(experiment_file())
    assert here.text("val") == Path("/v/datasets/val/small")
    assert here.tokens("train", HASH) == Path("/v/datasets/train/small/tokens-01234567")
    assert here.tokenizer == Path("/v/artifacts/tokenizer/small")
    assert here.assets == Path("/v/assets")
    assert here.run.path == Path("/v/runs/small")
    assert here.cache == Path("/v/cache/small")
    assert here.hf_cache == Path("/v/hf_cache")


def test_corpus_and_tokenizer_may_be_shared_by_name(experiment_file: Write) -> None:
    here = places(experiment_file(), "data.name=web", "tokenizer.kind=bpe", "tokenizer.name=32k")
    assert (here.text("train"), here.tokenizer) == (Path("/v/datasets/train/web"), Path("/v/artifacts/tokenizer/32k"))
    assert here.run.path == Path("/v/runs/small")


def test_paths_move_their_part_and_nothing_else(experiment_file: Write) -> None:
    here = places(experiment_file(), "paths.data=/d", "paths.runs=/r", "paths.cache=/c")
    assert (here.text("train"), here.assets) == (Path("/d/datasets/train/small"), Path("/d/assets"))
    assert here.tokenizer == Path("/d/artifacts/tokenizer/small")
    assert (here.run.path, here.cache) == (Path("/r/small"), Path("/c/small"))
    assert here.hf_cache == Path("/v/hf_cache")


def test_the_run_folder_has_the_names_of_the_design() -> None:
    run = RunFolder(Path("/r/x"))
    named = {
        "experiment.yaml": run.experiment,
        "training.yaml": run.training_yaml,
        "training.toml": run.training_toml,
        "stages/shard.json": run.stage("shard"),
        "checkpoints": run.checkpoints,
        "metrics.jsonl": run.metrics,
        "tensorboard": run.tensorboard,
        "heartbeat.json": run.heartbeat,
        "lease.json": run.lease,
        "ended.json": run.ended,
        "attempts": run.attempts,
        "logs": run.logs,
        "report.md": run.report_md,
        "report.html": run.report_html,
    }
    assert {name: path.relative_to("/r/x").as_posix() for name, path in named.items()} == {name: name for name in named}
    assert str(run) == "/r/x"


def test_numbered_names_sort_as_their_numbers() -> None:
    assert shard_name("train", 0) == "train_00000"
    assert step_name(1000) == "step_00001000"
    assert done_name(1000) == "checkpoint_00001000.done"


def test_the_root_is_the_variable_or_a_folder_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert root_from({"TRAINWRIGHT_ROOT": "/workspace"}) == Path("/workspace")
    assert root_from({"TRAINWRIGHT_ROOT": ""}) == tmp_path / "workspace"
    assert root_from({}) == tmp_path / "workspace"
