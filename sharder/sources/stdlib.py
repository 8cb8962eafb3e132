"""The source `stdlib`: the `.py` files of Python's own standard library, one file a document."""

import os
import sysconfig
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sharder.sources.corpus import InputFile, LocalCorpus, LocalFiles, Request, Row
from trainwright.spec.canonical import sha256_json
from trainwright.store.files import sha256_file

LEFT_OUT = frozenset({"test", "tests", "idle_test", "__pycache__", "site-packages", "dist-packages"})
"""Folders that are tests, or not the standard library's."""


@dataclass(frozen=True, slots=True)
class StdlibCorpus(LocalCorpus):
    """The library's files below its folder."""

    @property
    def inputs(self) -> Mapping[str, Any]:
        """Return a hash of every file's name and content: the library differs between patch releases."""
        listing = self.listing
        return {"data.files": sha256_json([[file.name, sha256_file(listing.path(file))] for file in listing.files])}


def open_stdlib(request: Request) -> StdlibCorpus:
    """Return the standard library of the base interpreter, which is the same inside a virtual environment."""
    root = Path(sysconfig.get_path("stdlib"))
    names = sorted(path.relative_to(root).as_posix() for path in _python_files(root))
    files = tuple(InputFile(name, (root / name).stat().st_size) for name in names)
    return StdlibCorpus(LocalFiles(root, files), request.settings, read_whole)


def read_whole(path: Path, _settings: Any, start: int) -> Iterator[Row]:
    """Yield a file as one document."""
    if start == 0:
        yield path.read_bytes()


def _python_files(root: Path) -> Iterator[Path]:
    for folder, below, names in os.walk(root):
        # In place: os.walk does not enter what is taken out here, and installed packages can be many.
        below[:] = [name for name in below if name not in LEFT_OUT]
        yield from (Path(folder, name) for name in names if name.endswith(".py"))
