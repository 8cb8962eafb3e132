"""The settings that a run changed, and the whole experiment as a file that can be run again."""

from collections.abc import Iterator
from typing import Any

from report.document import Block, Code, Column, Paragraph, Section, Table
from report.facts import Facts
from trainwright.spec.experiment import Experiment
from trainwright.spec.resolved import dump, plain
from trainwright.spec.settings import Settings

REQUIRED = "required"
"""Shown as the default of a field that has none."""


def configuration(facts: Facts) -> Section:
    """Return the settings: those that differ from the defaults first, then all of them."""
    if facts.experiment is None:
        return Section("Configuration", (Paragraph("The experiment of this run is not known."),))
    rows = tuple((path, shown(value), shown(default)) for path, value, default in changed(facts.experiment))
    columns = (Column("setting", code=True), Column("this run", code=True), Column("default", code=True))
    blocks: tuple[Block, ...] = (
        Paragraph("Settings that differ from the defaults; a default of another kind is that kind's own."),
        Table(columns, rows),
        Code(experiment_source(facts.experiment), "yaml", summary="The resolved experiment, every default written out"),
    )
    return Section("Configuration", blocks)


def experiment_source(experiment: Experiment) -> str:
    """Return an experiment file that makes this very experiment, with the same hash."""
    return dump(plain(experiment))


def changed(settings: Settings, prefix: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Yield (dotted path, value, default) where a value is not the default of its own kind of settings.

    A field without a default, and the choice of another kind, count as changed.
    """
    for name, field in type(settings).model_fields.items():
        value = getattr(settings, name)
        default = REQUIRED if field.is_required() else field.default
        if isinstance(value, Settings):
            kind, usual = getattr(value, "kind", None), getattr(default, "kind", None)
            if kind != usual:
                yield f"{prefix}{name}.kind", kind, usual
            yield from changed(value, f"{prefix}{name}.")
        elif value != default:
            yield f"{prefix}{name}", value, default


def shown(value: Any) -> str:
    """Return a value as YAML writes it in one line."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return str(value)
