"""The sections of an experiment: its kinds, its own checks, and what may change on resume."""

from collections.abc import Callable
from pathlib import Path
from typing import Literal

from pydantic import BaseModel
import pytest

from trainwright.spec.exits import UserError
from trainwright.spec.experiment import FREE_ON_RESUME, Experiment, _default, default_value, is_free, kinds
from trainwright.spec.load import load_experiment
from trainwright.spec.resolved import flat, plain

Write = Callable[..., Path]


def test_kinds_are_read_from_the_schema() -> None:
    assert kinds("data.source") == ("stdlib", "text", "jsonl", "parquet", "fineweb", "hub", "s3")
    assert kinds("tokenizer") == ("bpe", "gpt2", "bytes")
    assert kinds("model") == ("llama", "enoki", "qwen3", "nanochat")
    assert kinds("optimizer") == ("adamw", "adana", "dana-mk4", "dana-star", "dana-star-mk4", "muon")
    assert kinds("schedule") == ("cosine", "cos_inf", "linear", "wsd", "constant")


class Red(BaseModel):
    kind: Literal["red"] = "red"
    depth: int = 1


class Blue(BaseModel):
    kind: Literal["blue"] = "blue"
    depth: int = 2


class Whole(BaseModel):
    size: int
    names: tuple[str, ...] = ("a", "b")
    paint: Red | Blue = Red(depth=7)
    more: Red | None = None


@pytest.mark.parametrize(
    ("path", "kind", "default"),
    [
        ("size", "red", None),
        ("names", "red", ["a", "b"]),
        ("nothing", "red", None),
        ("paint.nothing", "red", None),
        # The section's own default goes before that of its class; of another kind it says nothing of its fields.
        ("paint.depth", "red", 7),
        ("paint.depth", "blue", 2),
        ("paint.kind", "blue", "red"),
        # A section that is off by default: whatever is in it has been turned on.
        ("more.depth", "red", None),
    ],
)
def test_the_default_of_a_field_is_that_of_the_kind_that_was_chosen(path: str, kind: str, default: object) -> None:
    assert _default(Whole, None, "", path, {"paint.kind": kind, "more.kind": kind}) == default


def test_defaults_of_the_experiment_are_found_by_path() -> None:
    values = {"optimizer.kind": "muon", "data.source.kind": "hub"}
    assert default_value("seed", values) == 42
    assert default_value("name", values) is None
    assert default_value("optimizer.kind", values) == "adamw"
    assert default_value("data.source.max_bad_share", values) == 0.001
    assert default_value("data.source.max_bad_share", {"data.source.kind": "text"}) is None


def test_what_is_free_on_resume_is_what_decides_nothing_that_is_learned() -> None:
    free = (
        "train.steps",
        "train.micro_batch",
        "checkpoint.dump.keep",
        "resources.nodes",
        "paths.runs",
        "logging.tensorboard",
    )
    fixed = ("seed", "train.global_batch_sequences", "train.seq_len_tokens", "model.dim", "optimizer.lr", "data.name")
    assert all(is_free(path) for path in free)
    assert not any(is_free(path) for path in fixed)
    assert not is_free("train.steps_of_another_name")


def test_every_free_field_exists(experiment_file: Write) -> None:
    # Each kind of source has fields of its own.
    files = [experiment_file(), experiment_file("data: {source: {kind: fineweb}}\n")]
    paths = {path for file in files for path, _ in flat(plain(load_experiment(file, (), {}).experiment))}
    assert all(any(path == free or path.startswith(f"{free}.") for path in paths) for free in FREE_ON_RESUME)


def test_an_experiment_cannot_be_changed_once_read(experiment_file: Write) -> None:
    experiment = load_experiment(experiment_file(), (), {}).experiment
    with pytest.raises(ValueError, match="frozen"):
        experiment.seed = 3


def test_names_of_corpus_and_tokenizer_follow_the_experiment(experiment_file: Write) -> None:
    def names(*overrides: str) -> tuple[str, str]:
        experiment: Experiment = load_experiment(experiment_file(), overrides, {}).experiment
        return experiment.data_name, experiment.tokenizer_name

    assert names() == ("small", "small")
    assert names("data.name=web", "tokenizer.kind=bytes", "tokenizer.name=t") == ("web", "t")


@pytest.mark.parametrize(
    ("overrides", "wrong"),
    [
        (("data.validation=/v",), "data.validation=/v: the source stdlib reads no local files"),
        (("data.validation_fraction=0",), "data.validation_fraction=0.0: without a separate data.validation"),
        (("data.validation_fraction=1",), "data.validation_fraction=1.0: without a separate data.validation"),
        (("tokenizer.kind=bpe", "tokenizer.vocab_size=265"), "tokenizer.vocab_size=265: 256 bytes and 9 special"),
        (("optimizer.beta2=1",), "optimizer.beta2=1.0: an average that forgets nothing"),
        (("model.num_heads=64",), "model.num_heads=64: the head dimension 1 is odd"),
        (("model.num_kv_heads=3",), "model.num_kv_heads=3: model.num_heads 2 is not divisible by it; try 1 or 2"),
    ],
)
def test_each_section_checks_its_own_fields(experiment_file: Write, overrides: tuple[str, ...], wrong: str) -> None:
    with pytest.raises(UserError) as caught:
        load_experiment(experiment_file(), overrides, {})
    assert wrong in str(caught.value)


@pytest.mark.parametrize(
    "overrides",
    [
        ("data.validation_fraction=0", "data.source.kind=text", "data.path=/t", "data.validation=/v"),
        ("data.shard=false", "data.source.kind=text"),
        ("tokenizer.kind=bpe", "tokenizer.vocab_size=266"),
        ("model.num_kv_heads=1",),
        (
            "train.grad_clip=null",
            "evaluation.every_steps=null",
            "checkpoint.dump.every_steps=null",
        ),
    ],
)
def test_sound_settings_at_the_edge_are_accepted(experiment_file: Write, overrides: tuple[str, ...]) -> None:
    assert load_experiment(experiment_file(), overrides, {}).experiment


def test_a_vocabulary_is_as_large_as_its_tokenizer_may_get(experiment_file: Write) -> None:
    sizes = {"bytes": 265, "gpt2": 50_257, "bpe": 32_768}
    for kind, size in sizes.items():
        experiment = load_experiment(experiment_file(), (f"tokenizer.kind={kind}",), {}).experiment
        assert experiment.tokenizer.max_vocab_size == size
