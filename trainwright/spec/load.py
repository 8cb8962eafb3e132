"""Reads an experiment file: layers of text in, a checked `Experiment` out, or every mistake at once.

A launch starts here. Layers, weakest first: defaults of the models < site profile < the user's own values for that
site < the file < `dotted.key=value` on the command line < boot variables. All values stay text until pydantic reads
them by annotation, so YAML's guesses never apply. Aliases and tags are refused: they are how small files become large
objects.
"""

import difflib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import yaml
from pydantic import ValidationError

from trainwright.spec.derived import cross_problems
from trainwright.spec.exits import UserError
from trainwright.spec.experiment import Experiment, default_kind, kinds, walk_problems
from trainwright.spec.settings import ABSENT, Problem
from trainwright.spec.sites import site_values
from trainwright.spec.variables import RUN_CONFIG, RUN_CONFIG_TEXT, boot_values

MAX_FILE_BYTES = 1 << 20
OF_DEFAULT_KIND = ("model", "optimizer", "schedule")
"""Sections whose `kind` may be left out of the file."""
MAX_DEPTH = 16
"""Levels of nesting; PyYAML's time grows with their square, and its stack with each."""

PATTERN_HINTS = {
    "name": "use lower-case letters, digits and dashes, at most 52 characters",
    "image": "expected an image such as registry/name@sha256:...; `make push` prints it",
    "secrets": "expected names of environment variables in capitals, such as HF_TOKEN; values never stand here",
}

Tree = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Loaded:
    """A checked experiment, the origin of each value that is no default, and what it was made from."""

    experiment: Experiment
    origins: Mapping[str, str]
    source: str
    overrides: tuple[str, ...]

    def origin(self, path: str) -> str:
        """Return where the value at a dotted path came from."""
        return self.origins.get(path, "default")


CARRIED = Path(__file__).resolve().parents[2] / "experiments"
"""The experiments that travel with this code."""
CARRIED_TO = "/opt/trainwright/experiments"
"""The same folder in the image."""


class ExperimentError(UserError):
    """Every mistake found in an experiment, one line each."""

    def __init__(self, where: str, lines: Sequence[str]) -> None:
        self.lines = tuple(lines)
        super().__init__(f"{where}: {lines[0]}" if len(lines) == 1 else "\n  ".join([f"{where}:", *lines]))


def find_experiment(name: str | None, environ: Mapping[str, str] = os.environ) -> Path:
    """Return the experiment file for a path, or for a name in `./experiments`; `RUN_CONFIG` when none is given.

    A name is looked for beside this code too: the image carries the experiments, and starts in any folder.
    """
    given = name or environ.get(RUN_CONFIG)
    if not given and environ.get(RUN_CONFIG_TEXT):
        return _in_scratch(environ[RUN_CONFIG_TEXT])
    if not given:
        raise UserError(f"no experiment given: name a file, or set {RUN_CONFIG}")
    path = Path(given)
    if path.is_file():
        return path
    folders = (Path("experiments"), CARRIED)
    for named in (folder / f"{given}.yaml" for folder in folders if path.suffix == ""):
        if named.is_file():
            return named
    known = next((names for folder in folders if (names := sorted(file.stem for file in folder.glob("*.yaml")))), [])
    ways = f"; experiments here: {', '.join(known)}" if known else ""
    raise UserError(f"{given}: no such experiment file{ways}")


def _in_scratch(text: str) -> Path:
    """Write an experiment that came as text into scratch; its size is judged where it is read, as any file's is."""
    path = Path(mkdtemp(prefix="experiment-")) / "experiment.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def split_words(words: Sequence[str]) -> tuple[str | None, tuple[str, ...]]:
    """Return the experiment (None when the first word is an override) and the overrides of a command line."""
    if words and "=" not in words[0]:
        return words[0], tuple(words[1:])
    return None, tuple(words)


def load_experiment(
    path: Path,
    overrides: Sequence[str] = (),
    environ: Mapping[str, str] = os.environ,
    sites: Path | None = None,
) -> Loaded:
    """Read an experiment file with overrides and boot variables on top; raise `ExperimentError` with every mistake.

    `sites` is the folder of site profiles, for words that render or send; boot runs where there are none.
    """
    source = read_source(path)
    tree, lines = parse(source, str(path))
    origins = {key: f"{path}:{line}" for key, line in lines.items()}
    _add_default_kinds(tree, lines)
    # A kind comes before the settings of that kind, in whatever order they were given.
    split = [(*_split_override(override), override) for override in overrides]
    for key, text, override in sorted(split, key=lambda one: not one[0].endswith(".kind")):
        _assign(tree, origins, key, text, override)
    _add_default_kinds(tree, lines)
    for key, (variable, text) in boot_values(environ).items():
        _assign(tree, origins, key, text, variable)
    of_sites: dict[str, int | str] = {}
    if sites is not None:
        found = site_values(tree, sites, lambda file: parse(read_source(file), str(file)))
        of_sites = {key: origin for key, value, origin in list(found) if _give(tree, origins, key, value, origin)}
    written: dict[str, int | str] = {key: line for key, line in lines.items() if origins.get(key) == f"{path}:{line}"}
    return Loaded(validate(tree, str(path), written | of_sites), origins, source, tuple(overrides))


def read_source(path: Path) -> str:
    """Return an experiment file's text; its size is bounded."""
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            raise UserError(f"{path}: larger than 1 MiB; this is no experiment file")
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: byte {error.start} is not UTF-8; save the file as UTF-8") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None


def parse(source: str, where: str) -> tuple[Tree, dict[str, int]]:
    """Return YAML text as nested dicts of text, and the line of every key; refuse duplicates, aliases and tags."""
    depth = 0
    try:
        for event in yaml.parse(source, Loader=yaml.SafeLoader):
            at = event.start_mark.line + 1 if event.start_mark else 1
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            if depth > MAX_DEPTH:
                raise UserError(f"{where}:{at}: nested deeper than {MAX_DEPTH} levels; this is no experiment file")
            if isinstance(event, yaml.AliasEvent):
                raise UserError(f"{where}:{at}: aliases (*{event.anchor}) are not read; write the value out")
            if tag := getattr(event, "tag", None):
                raise UserError(f"{where}:{at}: tags ({tag}) are not read; write the plain value")
        node = yaml.compose(source, Loader=yaml.SafeLoader)
    except yaml.YAMLError as error:
        raise UserError(_yaml_problem(error, where)) from None
    if node is None:
        return {}, {}
    if not isinstance(node, yaml.MappingNode):
        raise UserError(f"{where}: holds no keys; an experiment starts with `name: ...`")
    lines: dict[str, int] = {}
    return _mapping(node, "", where, lines), lines


def _yaml_problem(error: yaml.YAMLError, where: str) -> str:
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark is not None:
        return f"{where}:{error.problem_mark.line + 1}: not valid YAML ({error.problem})"
    return f"{where}: not valid YAML ({str(error).splitlines()[0]})"


def _mapping(node: yaml.MappingNode, prefix: str, where: str, lines: dict[str, int]) -> Tree:
    tree: Tree = {}
    for key_node, value_node in node.value:
        line = key_node.start_mark.line + 1
        if not isinstance(key_node, yaml.ScalarNode):
            raise UserError(f"{where}:{line}: a key must be a word")
        key = key_node.value
        path = f"{prefix}{key}"
        if key in tree:
            raise UserError(f"{where}:{line}: {path} is given twice (first on line {lines[path]}); keep one")
        lines[path] = line
        tree[key] = _value(value_node, path, where, lines)
    return tree


def _value(node: yaml.Node, path: str, where: str, lines: dict[str, int]) -> Any:
    if isinstance(node, yaml.MappingNode):
        return _mapping(node, f"{path}.", where, lines)
    if isinstance(node, yaml.SequenceNode):
        return [_value(item, path, where, lines) for item in node.value]
    assert isinstance(node, yaml.ScalarNode)
    return node.value


def validate(tree: Tree, where: str, lines: Mapping[str, int | str] | None = None) -> Experiment:
    """Return the experiment that a tree of text describes; raise with all field errors, else all cross-field errors."""
    try:
        experiment = Experiment.model_validate(tree)
    except ValidationError as error:
        problems = [_field_problem(details, tree) for details in error.errors(include_url=False)]
        raise ExperimentError(where, [_located(problem, lines) for problem in problems]) from None
    found = list(walk_problems(experiment))
    if not found:
        found = list(cross_problems(experiment))
    if found:
        raise ExperimentError(where, [_located(problem, lines) for problem in found])
    return experiment


def _located(problem: Problem, lines: Mapping[str, int | str] | None) -> str:
    """Return a problem with its line, or with the other file and line that its value comes from."""
    line = lines.get(problem.path) if lines else None
    return f"{problem} ({f'line {line}' if isinstance(line, int) else line})" if line else str(problem)


def _split_override(override: str) -> tuple[str, str]:
    key, equals, text = override.partition("=")
    if not equals or not all(part.strip() for part in key.split(".")):
        raise UserError(f"{override}: an override is written dotted.key=value, such as train.steps=100")
    return key.strip(), text


def _add_default_kinds(tree: Tree, lines: Mapping[str, int]) -> None:
    """Let an override reach into a block that the file leaves to its default: that block keeps its default kind.

    Where one kind is what nearly all runs want, a block that is written without a kind has that one too.
    """
    for section in ("tokenizer", "data.source", *OF_DEFAULT_KIND):
        *parents, last = section.split(".")
        here: Any = tree
        for parent in parents:
            here = here.get(parent, {}) if isinstance(here, dict) else {}
        block = here.get(last) if isinstance(here, dict) else None
        if isinstance(block, dict) and (section not in lines or section in OF_DEFAULT_KIND):
            block.setdefault("kind", default_kind(section))


def _assign(tree: Tree, origins: dict[str, str], key: str, text: str, origin: str) -> None:
    *parents, last = key.split(".")
    here = tree
    for depth, parent in enumerate(parents):
        if not isinstance(here.setdefault(parent, {}), dict):
            owner = ".".join(parents[: depth + 1])
            raise UserError(f"{origin}: {owner} is a single value and has no {key.removeprefix(owner + '.')}")
        here = here[parent]
    if last == "kind" and here.get("kind") not in (None, text):
        # The settings of another kind would be unknown keys; choosing a kind anew starts from its defaults.
        here.clear()
        for stale in [path for path in origins if path.startswith(".".join(parents) + ".")]:
            del origins[stale]
    here[last] = text
    origins[key] = origin


def _give(tree: Tree, origins: dict[str, str], key: str, value: Any, origin: str) -> bool:
    """Set a value that nothing stronger has set; return whether it was set."""
    *parents, last = key.split(".")
    here: Any = tree
    for parent in parents:
        here = here.setdefault(parent, {})
        if not isinstance(here, dict):
            return False
    if last in here:
        return False
    here[last] = value
    origins[key] = origin
    return True


def _field_problem(details: Any, tree: Tree) -> Problem:
    """Say one of pydantic's findings in our own words."""
    location = [str(part) for part in details["loc"]]
    path = _without_tags(location, tree)
    kind, context, value = details["type"], details.get("ctx", {}), _written(path, tree, details["input"])
    shown = "a block of keys" if isinstance(value, dict) else "a list" if isinstance(value, list) else value
    match kind:
        case "extra_forbidden":
            shown, hint = ABSENT, f"unknown key{_did_you_mean(path, tree)}"
        case "missing":
            shown, hint = ABSENT, "is required; add it"
        case "union_tag_not_found":
            shown, hint = ABSENT, f"say which kind it is: kind: {' | '.join(kinds(path))}"
        case "union_tag_invalid":
            path, shown = f"{path}.kind", context.get("tag")
            hint = f"choose one of {context['expected_tags'].replace(chr(39), '')}"
        case "literal_error":
            hint = f"choose one of {context['expected'].replace(chr(39), '')}"
        case "model_type" | "model_attributes_type":
            hint = "expected a block of keys"
        case "string_pattern_mismatch":
            hint = PATTERN_HINTS.get(location[0], PATTERN_HINTS["name"])
        case _:
            hint = _expected(kind, context)
    # Whoever wrote a value there must not find it in a log.
    shown = ABSENT if location[0] == "secrets" else shown
    return Problem(path, shown, hint)


def _written(path: str, tree: Tree, read: object) -> object:
    """Return the value at a path as its author wrote it, rather than as a validator passed it on."""
    here: Any = tree
    for part in path.split("."):
        here = here.get(part) if isinstance(here, dict) else None
    return here if isinstance(here, str) else read


def _expected(kind: str, context: Mapping[str, Any]) -> str:
    if kind in ("greater_than", "greater_than_equal", "less_than", "less_than_equal"):
        words = {"gt": "above", "ge": "at least", "lt": "below", "le": "at most"}
        sign, bound = next(iter(context.items()))
        return f"must be {words[sign]} {bound}"
    for start, words_ in (
        ("int", "expected a whole number, such as 8 or 1e6"),
        ("float", "expected a number, such as 0.1 or 3e-4"),
        ("finite_number", "expected a finite number"),
        ("bool", "expected true or false"),
        ("string", "expected text"),
    ):
        if kind.startswith(start):
            return words_
    return f"is not valid here ({kind.replace('_', ' ')})"


def _without_tags(location: Sequence[str], tree: Tree) -> str:
    """Drop the variant names that pydantic puts into the location of a tagged union."""
    parts: list[str] = []
    here: Any = tree
    for index, part in enumerate(location):
        if isinstance(here, dict) and part not in here and here.get("kind") == part and index < len(location):
            continue
        parts.append(part)
        here = here.get(part) if isinstance(here, dict) else None
    return ".".join(parts)


def _did_you_mean(path: str, tree: Tree) -> str:
    *parents, last = path.split(".")
    siblings = _fields_of(parents, tree)
    close = difflib.get_close_matches(last, siblings, n=1, cutoff=0.6)
    if close:
        return f"; did you mean {'.'.join([*parents, close[0]])}?"
    return f"; known here: {', '.join(sorted(siblings))}" if siblings else ""


@cache
def _schema() -> Tree:
    return Experiment.model_json_schema()


def _fields_of(parents: Sequence[str], tree: Tree) -> list[str]:
    """Return the keys that the block at a path accepts, of the variant that its `kind` chose."""
    schema = _schema()
    block, here = schema, tree
    found: Tree = {}
    for parent in parents:
        # What is in a list is of one kind, so where in it does not matter.
        here = here.get(parent, {}) if isinstance(here, dict) else {}
        # A position in a list leads to what the list holds.
        found = found.get("items", {}) if parent.isdigit() else block["properties"].get(parent, {})
        names = [member["$ref"].rsplit("/", 1)[1] for member in (found, *found.get("oneOf", ())) if "$ref" in member]
        if found.get("type") == "array":
            continue
        variants = [schema["$defs"][name] for name in names]
        chosen = [one for one in variants if one["properties"].get("kind", {}).get("const") in (None, here.get("kind"))]
        if not variants:
            return []
        block = (chosen or variants)[0]
    return list(block.get("properties", {}))
