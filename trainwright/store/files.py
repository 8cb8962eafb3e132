"""Bytes that survive: everything another process reads is written under a temporary name, flushed, then renamed.

A reader therefore sees the whole old file or the whole new one. After a rename the folder is flushed too; without that
a power cut may undo it.
"""

import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from trainwright.spec.exits import UserError

CHUNK_BYTES = 1 << 20
MAX_JSON_BYTES = 256 << 20


@dataclass(frozen=True, slots=True)
class FileEntry:
    """One file as a manifest lists it; `path` is relative to the manifest's folder, with forward slashes."""

    path: str
    bytes: int
    sha256: str


class HashingWriter:
    """A binary file that counts and hashes what passes through; `path` is its name in errors."""

    def __init__(self, file: BinaryIO, path: Path | None = None) -> None:
        self._file = file
        self._path = path
        self._hash = hashlib.sha256()
        self.num_bytes = 0

    def write(self, data: bytes) -> int:
        """Write all of `data`."""
        with naming(self._path):
            self._file.write(data)
        self._hash.update(data)
        self.num_bytes += len(data)
        return len(data)

    def flush(self) -> None:
        """Pass buffered bytes on to the operating system."""
        self._file.flush()

    def entry(self, path: str) -> FileEntry:
        """Return what a manifest says of the bytes written so far."""
        return FileEntry(path, self.num_bytes, self._hash.hexdigest())


@contextmanager
def naming(path: Path | None) -> Iterator[None]:
    """Give an `OSError` the name of the file that it is about: writing to an open file fails without one.

    The temporary name of that file, which is gone by the time anybody reads it, gives way to the real one.
    """
    try:
        yield
    except OSError as error:
        if path is not None and error.filename in (None, str(temporary_name(path))):
            error.filename = str(path)
        raise


def temporary_name(path: Path) -> Path:
    """Return the name under which this process writes `path` before the rename; clean-up finds it by the suffix."""
    return path.with_name(f".{path.name}.{os.getpid()}.tmp")


@contextmanager
def atomic_writer(path: Path, *, private: bool = False) -> Iterator[HashingWriter]:
    """Write `path` through a temporary file; on any exception nothing stays behind and the old file is untouched.

    A `private` file has mode 0600 from its first byte on: at no time can anybody else read it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = temporary_name(path)
    try:
        with naming(path), _opened(temporary, private) as file:
            yield HashingWriter(file, path)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    fsync_folder(path.parent)


def _opened(path: Path, private: bool) -> BinaryIO:
    if not private:
        return path.open("wb")
    # What a killed writer has left may be open to others, and somebody may have it open.
    path.unlink(missing_ok=True)
    return os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb")


def write_private(path: Path, text: str) -> None:
    """Write a text file atomically that only its owner may read."""
    with atomic_writer(path, private=True) as file:
        file.write(text.encode("utf-8"))


def write_bytes(path: Path, data: bytes) -> FileEntry:
    """Write a whole file atomically and return its entry."""
    with atomic_writer(path) as file:
        file.write(data)
    return file.entry(path.name)


def write_text(path: Path, text: str) -> FileEntry:
    """Write a whole text file atomically, as UTF-8."""
    return write_bytes(path, text.encode("utf-8"))


def write_json(path: Path, value: object) -> FileEntry:
    """Write a JSON document atomically, indented, with a final newline; key order is kept."""
    return write_text(path, json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n")


def read_json(path: Path, max_bytes: int = MAX_JSON_BYTES) -> dict[str, Any]:
    """Return the JSON object in a file; raise `UserError` naming the file when it is no bounded JSON object."""
    if path.stat().st_size > max_bytes:
        raise UserError(f"{path}: larger than {max_bytes} bytes; this is not a file of ours")
    try:
        value = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: not valid JSON ({error})") from None
    if not isinstance(value, dict):
        raise UserError(f"{path}: expected a JSON object")
    return value


def sha256_file(path: Path) -> str:
    """Return the sha256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def verify_entry(folder: Path, entry: FileEntry, *, hashes: bool) -> str | None:
    """Return what is wrong with one listed file, or None; `hashes=False` compares sizes only."""
    path = folder / entry.path
    if Path(entry.path).is_absolute() or ".." in Path(entry.path).parts:
        return f"{entry.path}: lies outside the folder"
    try:
        size = path.stat().st_size
    except FileNotFoundError:
        return f"{path}: missing"
    if size != entry.bytes:
        return f"{path}: {size} bytes, but its manifest says {entry.bytes}"
    if hashes and sha256_file(path) != entry.sha256:
        return f"{path}: its sha256 is not the one in its manifest"
    return None


def fsync_file(path: Path) -> None:
    """Flush a file that another library wrote."""
    with path.open("rb") as file:
        os.fsync(file.fileno())


def fsync_folder(path: Path) -> None:
    """Flush a folder's entries, so that renames in it survive a power cut."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def remove_temporaries(folder: Path) -> None:
    """Delete what killed writers left under temporary names; call only where no other process writes."""
    for path in folder.glob(".*.tmp"):
        path.unlink(missing_ok=True)


def set_aside(path: Path) -> Path:
    """Rename a file or folder to the first free `NAME.old-N` beside it and return the new path; deletes nothing."""
    number = 1
    while (aside := path.with_name(f"{path.name}.old-{number}")).exists():
        number += 1
    path.rename(aside)
    fsync_folder(path.parent)
    return aside
