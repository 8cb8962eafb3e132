"""What a source is asked and what it gives: files in a fixed order, and the rows of each from any row on."""

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from trainwright.spec.canonical import sha256_json
from trainwright.spec.data import Source
from trainwright.spec.exits import UserError
from trainwright.store.files import sha256_file
from trainwright.store.text_shards import Drops

ENDS_BYTES = 64 << 10
LOOK_EVERY_ROWS = 4096
"""Rows after which it is looked whether a file is still as long as it was."""
EMPTY_FILE, DUPLICATE_FILE = "empty file", "duplicate file"
ANOTHER_KIND = "another kind of file"
SPACES = b" \t\n\r\x0b\x0c\x1c\x1d\x1e\x1f"
"""The bytes below 128 that `str.isspace` calls space."""


class CorpusError(UserError):
    """The corpus as a whole cannot be used as the experiment asks, whatever is read of it again."""


class SourceAbsentError(UserError):
    """The local files of a source are not on this machine."""


@dataclass(frozen=True, slots=True)
class Request:
    """What a source needs to open: its settings, where to read, where hub libraries may cache.

    `earlier` are the inputs of work that exists already: a source that must choose (a revision) chooses the same.
    """

    settings: Source
    path: Path | None
    field: str
    hf_cache: Path
    earlier: Mapping[str, Any]
    validation: bool = False
    """Open the files that a data set sets apart for validation."""
    only_inputs: bool = False
    """Only `inputs` will be asked of the corpus, or files that a plan lists: nothing need be looked up for more."""


@dataclass(frozen=True, slots=True)
class InputFile:
    """One file of a source; `checksum` is its hash as the place that keeps it says it (`sha256:...`), when it does."""

    name: str
    bytes: int
    checksum: str | None = None


@dataclass(frozen=True, slots=True)
class NoText:
    """A row that holds no document: the reason under which it is counted, and where it is."""

    reason: str
    where: str = ""


Row = bytes | NoText


class Corpus(Protocol):
    """An opened source: it can be sent to another process, and its files and rows never change their order."""

    @property
    def inputs(self) -> Mapping[str, Any]:
        """Return the facts by which its documents can be told from others, by dotted field."""

    @property
    def files(self) -> tuple[InputFile, ...]:
        """Return what is read, in order."""

    @property
    def left_out(self) -> Mapping[str, int]:
        """Return how many files are left out, by reason."""

    def fetch(self, file: InputFile, temporary: Path) -> None:
        """Bring a file here, verified, so that its rows are near; doing it twice does it once."""

    def rows(self, file: InputFile, start: int, temporary: Path) -> Iterator[Row]:
        """Yield the rows of a file from row `start` on: the bytes of a text, or why there is none."""

    def release(self, file: InputFile, temporary: Path) -> None:
        """Forget what `fetch` brought."""


Reader = Callable[[Path, Any, int], Iterator[Row]]
"""Yields the rows of one local file, with the source's settings, from a row on."""


@dataclass(frozen=True, slots=True)
class LocalFiles:
    """Files below one path, in sorted order of their names relative to it."""

    root: Path
    files: tuple[InputFile, ...]
    left_out: Mapping[str, int] = field(default_factory=dict)

    def path(self, file: InputFile) -> Path:
        """Return where a file lies."""
        return self.root if self.root.is_file() else self.root / file.name

    @property
    def fingerprint(self) -> str:
        """Return a hash of the listing: relative names and sizes."""
        return sha256_json([[file.name, file.bytes] for file in self.files])


@dataclass(frozen=True, slots=True)
class LocalCorpus:
    """Files of this machine, the settings they are read with, and what reads them."""

    listing: LocalFiles
    settings: Source
    read: Reader

    @property
    def inputs(self) -> Mapping[str, Any]:
        """Return the fingerprint of the listing."""
        return {"data.files": self.listing.fingerprint}

    @property
    def files(self) -> tuple[InputFile, ...]:
        """Return the listed files."""
        return self.listing.files

    @property
    def left_out(self) -> Mapping[str, int]:
        """Return the listed files that are not read, by reason."""
        return self.listing.left_out

    def fetch(self, file: InputFile, temporary: Path) -> None:
        """Do nothing: the files are here."""

    def release(self, file: InputFile, temporary: Path) -> None:
        """Do nothing: the files are not ours."""

    def rows(self, file: InputFile, start: int, temporary: Path) -> Iterator[Row]:
        """Yield the rows of a file; raise `UserError` when it is not as long as it was when it was listed."""
        del temporary
        path = self.listing.path(file)
        _demand_size(path, file)
        for number, row in enumerate(self.read(path, self.settings, start), 1):
            if number % LOOK_EVERY_ROWS == 0:
                # A file that somebody writes as fast as we read has no end.
                _demand_size(path, file)
            yield row
        _demand_size(path, file)


def local_files(request: Request, endings: Iterable[str]) -> LocalFiles:
    """Return the file, or the files below the folder, that `data.path` (or `data.validation`) names."""
    assert request.path is not None, "the experiment's checks give these sources a path"
    root, looked_for = request.path, tuple(endings)
    if not root.exists():
        raise SourceAbsentError(f"{request.field}={root}: there is no such file or folder; correct the path")
    if not (root.is_file() or root.is_dir()):
        raise UserError(f"{request.field}={root}: is neither a file nor a folder; correct the path")
    left_out = Drops()
    found = (
        {root.name: root}
        if root.is_file()
        else {path.relative_to(root).as_posix(): path for path in _walk(root, left_out)}
    )
    chosen = {name: found[name] for name in sorted(found) if name.endswith(looked_for)}
    if not chosen:
        raise UserError(f"{request.field}={root}: no file ends in {' '.join(looked_for)}; correct the path or the kind")
    if len(chosen) < len(found):
        left_out[ANOTHER_KIND] += len(found) - len(chosen)
    files = []
    seen: dict[int, list[Path]] = {}
    for name, path in chosen.items():
        if fault := no_document(os.fsencode(name)):
            raise UserError(f"{root}: the name {os.fsencode(name)!r} is {fault}; rename the file")
        size = _size(path)
        if not size:
            left_out[EMPTY_FILE] += 1
        elif any(_equal(path, other) for other in seen.get(size, [])):
            left_out[DUPLICATE_FILE] += 1
        else:
            seen.setdefault(size, []).append(path)
            files.append(InputFile(name, size))
    return LocalFiles(root, tuple(files), left_out)


def no_document(text: bytes) -> str | None:
    """Return why bytes are no document, or None when they are one."""
    if b"\0" in text:
        # No text has them, and files that a crash left full of zeros do.
        return "NUL bytes"
    if text.isascii():
        # Most texts begin with a letter, and need no copy to be told from space.
        return None if text[:1] > b" " or text.strip(SPACES) else "empty"
    try:
        return "empty" if text.decode().isspace() else None
    except UnicodeDecodeError:
        return "not UTF-8"


def _walk(root: Path, left_out: Drops) -> Iterator[Path]:
    """Yield the files below a folder, links followed, hidden ones left out; a folder is entered once."""
    entered: set[tuple[int, int]] = set()
    for folder, below, names in os.walk(root, followlinks=True, onerror=_refuse):
        here = Path(folder)
        status = here.stat()
        if (status.st_dev, status.st_ino) in entered:
            left_out["folder linked again"] += 1
            below.clear()
            continue
        entered.add((status.st_dev, status.st_ino))
        # In place: os.walk enters what is left, in this order.
        below[:] = sorted(name for name in below if not name.startswith("."))
        yield from (here / name for name in sorted(names) if not name.startswith("."))


def _refuse(error: OSError) -> None:
    raise UserError(f"{error.filename}: {error.strerror}; make the folder readable, or move it elsewhere") from None


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); mend it, or move it elsewhere") from None


def _demand_size(path: Path, file: InputFile) -> None:
    if (now := _size(path)) != file.bytes:
        what = f"had {file.bytes} bytes when it was listed and has {now} now; what changes cannot be read exactly"
        raise UserError(f"{path}: {what}: wait until it is whole, then use another data.name or boot --redo shard")


def _equal(one: Path, other: Path) -> bool:
    """Return whether two files of the same size hold the same bytes; those that differ mostly do so at an end."""
    with suppress(FileNotFoundError):
        return _ends(one) == _ends(other) and sha256_file(one) == sha256_file(other)
    return False


def _ends(path: Path) -> tuple[bytes, bytes]:
    with path.open("rb") as file:
        first = file.read(ENDS_BYTES)
        file.seek(max(0, path.stat().st_size - ENDS_BYTES))
        return first, file.read(ENDS_BYTES)
