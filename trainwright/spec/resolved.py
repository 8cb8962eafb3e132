"""The files of a run folder that repeat its experiment: `experiment.yaml`, `training.yaml`, `training.toml`.

`experiment.yaml` is the resolved experiment with every default written out. `training.yaml` is what the trainer reads:
the experiment, the folders it needs, and a hash of it all, by which a hand-edited file is found and refused.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from trainwright.spec.canonical import sha256_json
from trainwright.spec.derived import Derived
from trainwright.spec.exits import UserError
from trainwright.spec.experiment import Experiment, default_value, is_free
from trainwright.spec.load import load_experiment, parse, read_source, validate

Plain = dict[str, Any]


def plain(experiment: Experiment) -> Plain:
    """Return an experiment as nested dicts of plain values, every default written out."""
    return experiment.model_dump(mode="json")


def experiment_hash(experiment: Experiment) -> str:
    """Return the sha256 of the experiment's canonical JSON."""
    return sha256_json(plain(experiment))


def flat(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield (dotted path, value) for every leaf of nested dicts."""
    for key, value in tree.items():
        if isinstance(value, Mapping):
            yield from flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def fixed_fields(experiment: Experiment) -> dict[str, Any]:
    """Return the fields that decide what is learned, by dotted path; a run refuses to change them."""
    return {path: value for path, value in flat(plain(experiment)) if not is_free(path)}


@dataclass(frozen=True, slots=True)
class Change:
    """One field that differs between a record and now."""

    field: str
    old: object
    new: object

    def __str__(self) -> str:
        return f"{self.field}: was {_shown(self.old)}, is now {_shown(self.new)}"


def changes(old: Mapping[str, object], new: Mapping[str, object]) -> list[Change]:
    """Return every field whose value differs, in sorted order.

    A field that the old record lacks is one that the code of its time did not have, and did by itself what the default
    does today: only another value is a change. A field that is recorded and not known any more is one.
    """
    before = {**{key: default_value(key, new) for key in new if key not in old}, **old}
    differing = [key for key in sorted(before.keys() | new.keys()) if before.get(key) != new.get(key)]
    return [Change(key, old.get(key), new.get(key)) for key in differing]


def experiment_text(experiment: Experiment, *, commit: str, image: str) -> str:
    """Return the text of `experiment.yaml`."""
    header = {"hash": experiment_hash(experiment), "commit": commit, "image": image}
    return "# The resolved experiment of this run, written by boot; edit the experiment file instead.\n" + dump(
        {**header, "experiment": plain(experiment)}
    )


def open_experiment(path: Path, overrides: Sequence[str] = ()) -> Experiment:
    """Return the experiment in a file of either form: written by a user, or resolved in a run folder."""
    tree, _ = parse(read_source(path), str(path))
    if "experiment" not in tree:
        return load_experiment(path, overrides).experiment
    if overrides:
        raise UserError(f"{path}: a resolved experiment takes no overrides; name the experiment file instead")
    return read_resolved(path)


def read_resolved(path: Path) -> Experiment:
    """Return the experiment in a run's `experiment.yaml`; raise `UserError` when it was edited."""
    source = read_source(path)
    tree, _ = parse(source, str(path))
    experiment = validate(tree.get("experiment", {}), str(path))
    written = _as_written(source)
    if written.get("hash") != _hash(written.get("experiment")):
        raise UserError(f"{path}: was edited by hand; edit the experiment file instead and delete this one")
    return experiment


def _as_written(source: str) -> Plain:
    """Return the values of a file that `dump` wrote, as they stand there; nothing when YAML cannot read them.

    A hash is held against these. What would be written now may have fields that came with a newer Trainwright.
    """
    try:
        value = yaml.safe_load(source)
    except (yaml.YAMLError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}


def _hash(value: object) -> str | None:
    """Return a value's hash; None for what only a hand can have written, such as a date."""
    try:
        return sha256_json(value)
    except (TypeError, ValueError):
        return None


@dataclass(frozen=True, slots=True)
class Training:
    """What the trainer needs: the experiment and the folders it reads and writes."""

    experiment: Experiment
    run: Path
    train_tokens: Path
    val_tokens: Path
    tokenizer: Path

    def to_plain(self) -> Plain:
        """Return the projection as plain values, its hash first."""
        body: Plain = {
            "run": str(self.run),
            "train_tokens": str(self.train_tokens),
            "val_tokens": str(self.val_tokens),
            "tokenizer": str(self.tokenizer),
            "derived": Derived(self.experiment).facts(),
            "experiment": plain(self.experiment),
        }
        return {"hash": sha256_json(body), "experiment_hash": experiment_hash(self.experiment), **body}

    def yaml_text(self) -> str:
        """Return the text of `training.yaml`."""
        return "# What the trainer reads, written by boot; edited by hand it is refused.\n" + dump(self.to_plain())

    def toml_text(self) -> str:
        """Return the text of `training.toml`; TOML has no null, so fields that are off are left out."""
        import tomli_w

        return "# The same as training.yaml, for people and tools.\n" + tomli_w.dumps(_without_nulls(self.to_plain()))


def read_training(path: Path) -> Training:
    """Return the projection in `training.yaml`; raise `UserError` when it was edited by hand."""
    source = read_source(path)
    tree, _ = parse(source, str(path))
    experiment = validate(tree.get("experiment", {}), str(path))
    try:
        folders = (Path(tree["run"]), Path(tree["train_tokens"]), Path(tree["val_tokens"]), Path(tree["tokenizer"]))
    except (KeyError, TypeError) as error:
        raise UserError(f"{path}: has no {error}; delete it and run boot again") from None
    refuse_edited(path, source)
    return Training(experiment, *folders)


def refuse_edited(path: Path, source: str) -> None:
    """Raise `UserError` when the text of a `training.yaml` is not what was written; its fields need not be known."""
    written = _as_written(source)
    body = {key: value for key, value in written.items() if key not in ("hash", "experiment_hash")}
    hashes = _hash(body), _hash(body.get("experiment"))
    if (written.get("hash"), written.get("experiment_hash")) != hashes:
        way = "edit the experiment file instead, delete this one, and run boot again"
        raise UserError(f"{path}: was edited by hand; {way}")


def dump(value: Plain) -> str:
    """Return plain values as YAML, in the order given."""
    return yaml.safe_dump(value, sort_keys=False, allow_unicode=True, width=120, default_flow_style=False)


def _shown(value: object) -> str:
    return "not there" if value is None else str(value)


def _without_nulls(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nulls(item) for key, item in value.items() if item is not None}
    return [_without_nulls(item) for item in value] if isinstance(value, list) else value
