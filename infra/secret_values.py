"""Values of secrets, which exist in the environment or in `.env` and nowhere else."""

import os
import stat
from collections.abc import Mapping, Sequence
from pathlib import Path

from trainwright.spec.exits import MissingError, UserError

ENV_FILE = Path(".env")
KEPT_THERE = ("kubernetes", "runpod")
"""Targets that keep secrets themselves: whoever launches needs no values."""


def values_for(target: str, names: Sequence[str]) -> dict[str, str]:
    """Return the values that a target must be given."""
    return {} if target in KEPT_THERE else secret_values(names)


def secret_values(
    names: Sequence[str], environ: Mapping[str, str] = os.environ, path: Path = ENV_FILE
) -> dict[str, str]:
    """Return the value of every named secret: the environment's, else the file's.

    Raises `MissingError` that lists all that are missing, before anything is created, and `UserError` for a file that
    others may read. Messages name names, never values.
    """
    kept = _read(path) if any(not environ.get(name) for name in names) else {}
    found = {name: environ.get(name) or kept.get(name) or "" for name in names}
    if missing := [name for name, value in found.items() if not value]:
        way = "add NAME=value there, or set it in the environment"
        raise MissingError(f"{path}: no value for {', '.join(missing)}; {way}")
    return found


def _read(path: Path) -> dict[str, str | None]:
    from dotenv import dotenv_values

    if not path.exists():
        return {}
    mode = stat.S_IMODE(path.stat().st_mode)
    if mode & 0o077:
        raise UserError(f"{path}: others may read it (mode {mode:04o}); run chmod 600 {path}")
    try:
        return dotenv_values(path, interpolate=False)
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: byte {error.start} is not UTF-8; save the file as UTF-8") from None
