"""The source `stdlib`: the `.py` files of Python's own standard library, one file a document."""

import hashlib
import os
import sysconfig
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sharder.sources.corpus import Request, keep
from trainwright.spec.canonical import sha256_json
from trainwright.store.text_shards import Drops

LEFT_OUT = frozenset({"test", "tests", "idle_test", "__pycache__", "site-packages", "dist-packages"})
"""Folders that are tests, or not the standard library's."""


@dataclass(frozen=True, slots=True)
class StdlibCorpus:
    """The library's files below `root`, in sorted order."""

    root: Path
    files: tuple[Path, ...]

    @property
    def inputs(self) -> Mapping[str, Any]:
        """Return a hash of every file's name and content: the library differs between patch releases."""
        hashes = [[_name(path, self.root), hashlib.sha256(path.read_bytes()).hexdigest()] for path in self.files]
        return {"data.files": sha256_json(hashes)}

    def documents(self, drops: Drops) -> Iterator[str]:
        """Yield each file's text."""
        for path in self.files:
            try:
                text = path.read_bytes().decode("utf-8")
            except UnicodeDecodeError:
                drops["not UTF-8"] += 1
                continue
            if keep(text, drops):
                yield text


def open_stdlib(_request: Request) -> StdlibCorpus:
    """Return the standard library of the base interpreter, which is the same inside a virtual environment."""
    root = Path(sysconfig.get_path("stdlib"))
    return StdlibCorpus(root, tuple(sorted(_python_files(root), key=lambda path: _name(path, root))))


def _python_files(root: Path) -> Iterator[Path]:
    for folder, below, names in os.walk(root):
        # In place: os.walk does not enter what is taken out here, and installed packages can be many.
        below[:] = [name for name in below if name not in LEFT_OUT]
        yield from (Path(folder, name) for name in names if name.endswith(".py"))


def _name(path: Path, root: Path) -> str:
    return path.relative_to(root).as_posix()
