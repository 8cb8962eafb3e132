"""Profiles of sites: what one SLURM site or cluster needs, kept beside the experiments and named by them.

    experiments/sites/NAME.yaml    TARGET: {setting: value, ...}, committed
    experiments/sites/local.yaml   NAME: {setting: value, ...}, a user's own account, mail and folders; git ignores it

An experiment names its site in `targets.TARGET.site`. Both files give values below `targets.TARGET` that the experiment
and the command line leave open; the user's own go before the profile's.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from trainwright.spec.exits import UserError

SITES = Path("experiments") / "sites"
LOCAL = "local.yaml"

Parse = Callable[[Path], tuple[dict[str, Any], dict[str, int]]]
"""Reads a YAML file: its tree of text, and the line of each dotted key."""


def site_values(tree: Mapping[str, Any], folder: Path, parse: Parse) -> Iterator[tuple[str, Any, str]]:
    """Yield (dotted path, value, origin) of each value that the named sites give, the strongest first."""
    targets = tree.get("targets")
    for target, settings in targets.items() if isinstance(targets, dict) else ():
        name = settings.get("site") if isinstance(settings, dict) else None
        if not isinstance(name, str) or not name:
            continue
        known = sorted(file.stem for file in folder.glob("*.yaml") if file.name != LOCAL)
        if name not in known:
            here = ", ".join(known) or "none"
            raise UserError(f"targets.{target}.site={name}: no such site in {folder}; sites here: {here}")
        if (folder / LOCAL).is_file():
            _refuse_unknown(folder / LOCAL, known, parse)
            yield from _values(folder / LOCAL, name, f"targets.{target}", parse)
        path = folder / f"{name}.yaml"
        found = list(_values(path, target, f"targets.{target}", parse))
        if not found:
            raise UserError(f"{path}: has no block `{target}:`; this site is not for that target")
        yield from found


def _refuse_unknown(local: Path, known: Sequence[str], parse: Parse) -> None:
    """Hold that a user's own file names sites that exist: what stands under a misspelt one would never be used."""
    tree, lines = parse(local)
    for name in tree:
        if name not in known:
            raise UserError(f"{local}:{lines[name]}: {name}: no such site; sites here: {', '.join(known)}")


def _values(path: Path, key: str, prefix: str, parse: Parse) -> Iterator[tuple[str, Any, str]]:
    tree, lines = parse(path)
    block = tree.get(key)
    if block is None:
        return
    if not isinstance(block, dict):
        raise UserError(f"{path}:{lines[key]}: {key} must be a block of keys")
    yield from _flat(block, key, prefix, path, lines)


def _flat(
    block: Mapping[str, Any], key: str, prefix: str, path: Path, lines: Mapping[str, int]
) -> Iterator[tuple[str, Any, str]]:
    for name, value in block.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{key}.{name}", f"{prefix}.{name}", path, lines)
        else:
            yield f"{prefix}.{name}", value, f"{path}:{lines[f'{key}.{name}']}"
