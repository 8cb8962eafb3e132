"""The API key: RUNPOD_API_KEY, else what `runpod config` wrote."""

import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from trainwright.spec.exits import MissingError, UserError

VARIABLE = "RUNPOD_API_KEY"
FILE = Path(".runpod") / "config.toml"
"""Below the home folder; a table a profile, each with an api_key. RunPod's two programs both keep theirs there."""


@dataclass(frozen=True, slots=True)
class Key:
    """A key and where it came from; printing it shows neither more."""

    value: str
    origin: str

    def __repr__(self) -> str:
        return f"Key(from {self.origin})"


def find_key(environ: Mapping[str, str] = os.environ, home: Path | None = None) -> Key:
    """Return the key; raise `MissingError` that names both places."""
    if environ.get(VARIABLE):
        return Key(environ[VARIABLE], VARIABLE)
    path = (home or Path.home()) / FILE
    if value := _from_file(path):
        return Key(value, str(path))
    way = "make one at RunPod under Settings, API Keys, and export it"
    raise MissingError(f"{VARIABLE}: is not set, and {path} holds no api_key; {way}")


def _from_file(path: Path) -> str | None:
    try:
        tree = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: is not valid TOML ({error}); run `runpod config`, or set {VARIABLE}") from None
    profile = tree.get("default", tree)
    for table in (profile, tree):
        for name in ("api_key", "apikey", "apiKey"):
            if isinstance(table, dict) and isinstance(table.get(name), str) and table[name]:
                return str(table[name])
    return None
