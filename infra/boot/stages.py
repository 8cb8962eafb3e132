"""The stages of boot in their order, each with what it is made from, the command that does it, and what it makes.

A stage here names files and fields; the work is a room's, started as a command.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from infra.rooms import room_command
from trainwright.spec.derived import Derived
from trainwright.spec.exits import UserError
from trainwright.spec.experiment import Experiment
from trainwright.spec.paths import MANIFEST, SPLITS, Places, step_name
from trainwright.spec.resolved import changes, fixed_fields
from trainwright.store.files import read_json, set_aside, sha256_file

STAGES = ("prepare", "shard", "tokenizer", "train", "report")
SHARD_FIELDS = (
    "data.source.",
    "data.validation_fraction",
    "data.documents_per_shard",
    "data.compression",
    "data.shuffle_documents",
    "seed",
)
TOKENIZER_FIELDS = ("tokenizer.",)


@dataclass(frozen=True, slots=True)
class Stage:
    """One stage of work: pure functions of the experiment's places, evaluated when the stage's turn comes."""

    name: str
    inputs: Callable[[Experiment, Places], Mapping[str, Any]]
    commands: Callable[[Experiment, Places], list[list[str]]]
    outputs: Callable[[Experiment, Places], list[Path]]
    facts: Callable[[Experiment, Places], Mapping[str, Any]]
    set_aside: Callable[[Experiment, Places], list[Path]]
    """What a redo moves out of the way; missing ones are passed over."""
    follows: bool = False
    """Whether new inputs simply mean doing it again; otherwise they are refused."""
    is_enough: Callable[[Experiment, Mapping[str, Any]], bool] = lambda _experiment, _facts: True
    """Whether a finished stage is enough for the experiment as it is now."""


def _fields(experiment: Experiment, *starts: str) -> dict[str, Any]:
    return {path: value for path, value in fixed_fields(experiment).items() if path.startswith(starts)}


def _text_manifests(_: Experiment, places: Places) -> list[Path]:
    return [places.text(split) / MANIFEST for split in SPLITS]


def tokenizer_hash(places: Places) -> str:
    """Return the hash of the tokenizer bundle in place."""
    return str(read_json(places.tokenizer / MANIFEST)["hash"])


def _token_folders(places: Places) -> list[Path]:
    return [places.tokens(split, tokenizer_hash(places)) for split in SPLITS]


def _token_manifests(_: Experiment, places: Places) -> list[Path]:
    return [folder / MANIFEST for folder in _token_folders(places)]


def _tokenizer_outputs(experiment: Experiment, places: Places) -> list[Path]:
    return [places.tokenizer / MANIFEST, *_token_manifests(experiment, places)]


def _tokenizer_inputs(experiment: Experiment, places: Places) -> Mapping[str, Any]:
    texts = _hashes("text shards", _text_manifests(experiment, places))
    return {**_fields(experiment, *TOKENIZER_FIELDS), **texts}


def _train_inputs(experiment: Experiment, places: Places) -> Mapping[str, Any]:
    earlier = (*SHARD_FIELDS, *TOKENIZER_FIELDS)
    kept = {path: value for path, value in fixed_fields(experiment).items() if not path.startswith(earlier)}
    tokens = _hashes("token shards", _token_manifests(experiment, places))
    return {**kept, "seed": experiment.seed, **tokens}


def _hashes(what: str, of_splits: list[Path]) -> dict[str, str]:
    """Return the hashes by split, without their folders: those may lie elsewhere next time."""
    return {f"{what} {split}": sha256_file(path) for split, path in zip(SPLITS, of_splits, strict=True)}


def _last_step(places: Places) -> int:
    """Return the step of the newest checkpoint; the train stage ends with one."""
    return max(int(path.name[5:]) for path in places.run.checkpoints.glob("step_????????"))


def _train_outputs(_: Experiment, places: Places) -> list[Path]:
    return [places.run.checkpoints / step_name(_last_step(places)) / MANIFEST]


def _sharder(word: str) -> Callable[[Experiment, Places], list[str]]:
    return lambda _, places: room_command("sharder", word, str(places.run.experiment))


def _text_facts(_: Experiment, places: Places) -> Mapping[str, Any]:
    manifests = {split: read_json(places.text(split) / MANIFEST) for split in SPLITS}
    return {f"{split}_shards": len(manifest["shards"]) for split, manifest in manifests.items()}


def _token_facts(_: Experiment, places: Places) -> Mapping[str, Any]:
    manifests = [read_json(folder / MANIFEST) for folder in _token_folders(places)]
    tokens = {f"{split}_tokens": one["num_tokens"] for split, one in zip(SPLITS, manifests, strict=True)}
    return {"tokenizer": tokenizer_hash(places)[:8], **tokens}


SHARD = Stage(
    "shard",
    inputs=lambda experiment, _: _fields(experiment, *SHARD_FIELDS),
    commands=lambda experiment, places: [_sharder("shard")(experiment, places)],
    outputs=_text_manifests,
    facts=_text_facts,
    set_aside=lambda _, places: [places.text(split) for split in SPLITS],
)

TOKENIZER = Stage(
    "tokenizer",
    inputs=_tokenizer_inputs,
    commands=lambda experiment, places: [_sharder(word)(experiment, places) for word in ("tokenizer", "encode")],
    outputs=_tokenizer_outputs,
    facts=_token_facts,
    set_aside=lambda _, places: (
        [places.tokenizer, places.run.path / "tokenizer"]
        + [folder for split in SPLITS for folder in sorted(places.text(split).glob("tokens-????????"))]
    ),
)

TRAIN = Stage(
    "train",
    inputs=_train_inputs,
    commands=lambda _experiment, _places: [],  # torchrun's arguments depend on the node: see `infra.boot.launch`
    outputs=_train_outputs,
    facts=lambda _, places: {"step": _last_step(places)},
    set_aside=lambda _, places: [
        places.run.checkpoints,
        places.run.metrics,
        places.run.tensorboard,
        places.run.samples,
        places.run.training_yaml,
        places.run.training_toml,
    ],
    is_enough=lambda experiment, facts: facts["step"] >= Derived(experiment).steps,
)

REPORT = Stage(
    "report",
    inputs=lambda _, places: {"metrics": sha256_file(places.run.metrics)},
    commands=lambda _, places: [room_command("report", str(places.run))],
    outputs=lambda _, places: [places.run.report_md, places.run.report_html],
    facts=lambda _experiment, _places: {},
    set_aside=lambda _, places: [places.run.report_md, places.run.report_html],
    follows=True,
)

WORK = (SHARD, TOKENIZER, TRAIN, REPORT)


def refuse_other_checkpoints(experiment: Experiment, places: Places) -> None:
    """Raise `UserError` when the newest checkpoint was made by an experiment that differs in what is learned."""
    folders = sorted(places.run.checkpoints.glob("step_????????"), reverse=True)
    try:
        stored = read_json(folders[0] / "train_state.json")["fixed"] if folders else None
    except (OSError, UserError, KeyError):
        return  # damaged: the trainer names the file and goes back to the one before
    found = changes(stored, fixed_fields(experiment)) if stored is not None else []
    if found:
        what = "; ".join(str(change) for change in found)
        way = "undo the change, choose another name, or boot --redo train"
        raise UserError(f"{folders[0]}: the run's checkpoints were made with other settings: {what}; {way}")


def bases(places: Places) -> dict[str, Path]:
    """Return the folders below which records name their files."""
    return {"run": places.run.path, "data": places.assets.parent}


def progress(places: Places) -> str:
    """Return what the run has done so far, to be compared for equality: records, shards, newest checkpoint.

    A checkpoint of step 0 is none: nothing has been learned by then.
    """
    records = len(list(places.run.stage("x").parent.glob("*.json")))
    shards = sum(len(list(places.text(split).glob(f"**/{split}_*"))) for split in SPLITS)
    step = max((int(path.name[5:]) for path in places.run.checkpoints.glob("step_????????")), default=0)
    return f"records={records} shards={shards} step={step}"


def move_aside(stage: Stage, experiment: Experiment, places: Places) -> list[Path]:
    """Move a stage's record and outputs out of the way for a redo; return the new paths. Nothing is deleted."""
    record = places.run.stage(stage.name)
    paths = [record, *stage.set_aside(experiment, places)]
    return [set_aside(path) for path in paths if path.exists()]
