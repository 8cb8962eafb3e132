"""`copy SRC DST`: files between a folder, `s3://` and `volume:NAME`; a copy is read back to be sure.

What was copied and verified is noted beside the copy (`.copied.json`), so that a copy that was cut off goes on where it
stopped. Nothing is ever deleted.
"""

import argparse
import hashlib
import io
import json
import sys
from collections.abc import Sequence
from typing import Any, BinaryIO

from infra.buckets import CHUNK_BYTES, Place, Seen, explaining, place
from infra.parsers import word_parser
from trainwright.spec.exits import Exit, UserError

RECORD = ".copied.json"
SAVE_EVERY = 64 << 20
"""Bytes copied between two notes: what is not noted is copied once more."""
LAST = ("manifest.json", ".done")
"""Endings of files that vouch for others, which they must not come before."""


def copy(argv: Sequence[str]) -> int:
    """Copy everything below one place to another."""
    parser = word_parser("copy", "Copy everything below SRC to DST: folders, s3://BUCKET/PREFIX, volume:NAME/PATH.")
    parser.add_argument("source", metavar="SRC", help="where the files are")
    parser.add_argument("destination", metavar="DST", help="where they go; what is there already stays")
    arguments = parser.parse_args(argv)
    return explaining(lambda: _copy(arguments))


def _copy(arguments: argparse.Namespace) -> int:
    source, target = place(arguments.source), place(arguments.destination)
    files = {name: size for name, size in source.files().items() if name != RECORD}
    if not files:
        raise UserError(f"{arguments.source}: holds no files; nothing to copy")
    copied, skipped = copy_all(source, target, files)
    total = sum(seen.num_bytes for seen in files.values())
    print(f"{len(files)} files, {total:,} bytes: {copied} copied and verified, {skipped} there already")
    return Exit.OK


def copy_all(source: Place, target: Place, files: dict[str, Seen]) -> tuple[int, int]:
    """Copy files that the target does not hold yet; return how many were copied and how many were there."""
    from tqdm import tqdm

    there, notes = target.files(), _notes(target)
    copied = since = 0
    names = sorted(files, key=lambda name: (name.endswith(LAST), name))
    total = sum(seen.num_bytes for seen in files.values())
    with tqdm(total=total, unit="B", unit_scale=True, disable=not sys.stderr.isatty()) as bar:
        for name in names:
            seen = files[name]
            if not _is_there(seen, there.get(name), notes.get(name)):
                notes[name] = {**_copy_one(source, target, name), "from": seen.stamp}
                copied, since = copied + 1, since + seen.num_bytes
            if since >= SAVE_EVERY:
                _save(target, notes)
                since = 0
            bar.update(seen.num_bytes)
    _save(target, notes)
    return copied, len(files) - copied


def _is_there(seen: Seen, copy_: Seen | None, note: Any) -> bool:
    """Return whether a file was copied and verified before, and neither side has changed since."""
    if copy_ is None or not isinstance(note, dict):
        return False
    return bool(copy_.num_bytes == seen.num_bytes == note.get("bytes") and note.get("from") == seen.stamp)


def _copy_one(source: Place, target: Place, name: str) -> dict[str, Any]:
    with source.reading(name) as stream:
        counted = _Hashing(stream)
        # It has of a stream what a target asks for: `read`.
        target.write(name, counted)  # type: ignore[arg-type]
    found = _hash(target, name)
    if found != counted.digest.hexdigest():
        raise UserError(f"{name}: what was read back is not what was written; run the same command again")
    return {"bytes": counted.num_bytes, "sha256": found}


class _Hashing(io.RawIOBase):
    """A stream that hashes what is read from it."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self.digest = hashlib.sha256()
        self.num_bytes = 0

    def readable(self) -> bool:
        """Return that it can be read."""
        return True

    def read(self, size: int = -1) -> bytes:
        """Return the next bytes."""
        data = self._stream.read(size) if size >= 0 else self._stream.read()
        self.digest.update(data)
        self.num_bytes += len(data)
        return data


def _hash(where: Place, name: str) -> str:
    digest = hashlib.sha256()
    with where.reading(name) as stream:
        while chunk := stream.read(CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def _notes(target: Place) -> dict[str, Any]:
    """Return what an earlier copy has noted; a note that cannot be read only costs time."""
    if RECORD not in target.files():
        return {}
    with target.reading(RECORD) as stream:
        try:
            found = json.loads(stream.read())
        except ValueError:
            return {}
    return found if isinstance(found, dict) else {}


def _save(target: Place, notes: dict[str, Any]) -> None:
    target.write(RECORD, io.BytesIO(json.dumps(notes, indent=0, sort_keys=True).encode()))
