"""New experiment files: every field with its documentation, or a copy of another experiment under a new name."""

import re
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel

from trainwright.spec.exits import UserError
from trainwright.spec.experiment import Experiment
from trainwright.spec.layouts import read_config, settings_of
from trainwright.spec.load import load_experiment, read_source
from trainwright.store.files import read_json
from trainwright.store.weights import CONFIG, MAX_CONFIG_BYTES

ACTIVE = {"name", "data", "data.source", "data.source.kind", "train", "train.global_batch_sequences", "train.steps"}
"""Written out; every other field stands as a comment with its default."""
STARTING_VALUES = {"train.global_batch_sequences": 64, "train.steps": 1000, "data.source.kind": "stdlib"}


def commented_experiment(name: str) -> str:
    """Return the text of an experiment with all fields documented; only what must be given is active."""
    lines = [
        "# A Trainwright experiment. Lines that are commented out show the defaults.",
        f"# `trainwright show {name}` prints what follows from it; `trainwright boot {name}` runs it here.",
        "",
        f"name: {name}",
    ]
    defaults = Experiment.model_validate({"name": name, "train": {"steps": 1, "global_batch_sequences": 8}})
    for field in Experiment.model_fields:
        if field != "name":
            lines += _field_lines(Experiment, defaults, field, "", 0)
    return "\n".join(lines) + "\n"


def _field_lines(owner: type[BaseModel], holder: BaseModel, field: str, prefix: str, depth: int) -> list[str]:
    path = f"{prefix}{field}"
    value = STARTING_VALUES.get(path, getattr(holder, field))
    indent = "  " * depth
    mark = "" if path in ACTIVE else "# "
    if not isinstance(value, BaseModel):
        about = _about(owner, field)
        note = f"  # {about}" if about else ""
        return [f"{indent}{mark}{field}: {_scalar(value)}{note}"]
    head = ["", f"# {_about(owner, field)}"] if depth == 0 else []
    # A block whose every field is a comment must be a comment itself: an empty block is no value.
    inner = [
        line
        for name in type(value).model_fields
        for line in _field_lines(type(value), value, name, f"{path}.", depth + 1)
    ]
    return [*head, f"{indent}{mark}{field}:", *inner]


def _about(owner: type[BaseModel], field: str) -> str:
    """Return a field's documentation on one line, as a comment takes it."""
    return " ".join((owner.model_fields[field].description or "").split())


def _scalar(value: Any) -> str:
    return yaml.safe_dump(value, default_flow_style=True).removesuffix("\n").removesuffix("\n...")


def for_checkpoint(name: str, folder: Path) -> str:
    """Return an experiment that goes on training a Hugging Face checkpoint on text of one's own."""
    folder = folder.absolute()
    if not (folder / CONFIG).is_file():
        raise UserError(f"{folder}: holds no {CONFIG}; give the folder of a Hugging Face checkpoint")
    stored = read_config(read_json(folder / CONFIG, MAX_CONFIG_BYTES), str(folder / CONFIG))
    tree = {
        "name": name,
        "data": {"path": "TEXT", "source": {"kind": "jsonl"}},
        "tokenizer": {"kind": "bpe", "path": str(folder / "tokenizer.json"), "vocab_size": stored.rows},
        "model": settings_of(stored),
        "train": {
            "init_from": str(folder),
            "seq_len_tokens": min(stored.context_tokens, 2048),
            "micro_batch": 1,
            "global_batch_sequences": 32,
            "steps": 1000,
        },
        "optimizer": {"lr": 1e-5, "weight_decay": 0.0},
    }
    head = (
        f"# Goes on training the checkpoint in {folder}.\n"
        "# Put the folder of your text where TEXT stands; the model section and the tokenizer are the checkpoint's.\n"
    )
    return head + yaml.safe_dump(tree, sort_keys=False)


def renamed(source: Path, name: str) -> str:
    """Return another experiment's text, comments and all, under a new name."""
    load_experiment(source, environ={})
    text, count = re.subn(r"(?m)^name:[ \t]*[^\s#]+", f"name: {name}", read_source(source), count=1)
    if count != 1:
        raise UserError(f"{source}: has no line `name: ...` to change")
    return text
