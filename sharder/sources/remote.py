"""Files that lie elsewhere: how the name of one says how its rows are read, and how a local copy of it is kept."""

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from sharder.sources.corpus import InputFile, Row
from sharder.sources.jsonl import jsonl_rows
from sharder.sources.parquet import parquet_rows
from sharder.sources.text import Document, text_rows
from trainwright.spec.exits import UserError
from trainwright.store.files import CHUNK_BYTES, sha256_file

JSONL_ENDINGS = (".jsonl", ".jsonl.gz", ".jsonl.zst", ".jsonl.zstd", ".json.gz")
TEXT_ENDINGS = (".txt", ".txt.gz", ".txt.zst")
READ_ENDINGS = (".parquet", *JSONL_ENDINGS, *TEXT_ENDINGS)


def remote_rows(
    path: Path, column: str | None, document: Document, start: int, opened: BinaryIO | None = None
) -> Iterator[Row]:
    """Yield the rows of a file from row `start` on, by the ending of its name; from `opened` when it is not here."""
    if path.name.endswith(".parquet"):
        return parquet_rows(opened or path, column, start, str(path))
    if path.name.endswith(JSONL_ENDINGS):
        return jsonl_rows(path, column, start, opened)
    if path.name.endswith(TEXT_ENDINGS):
        return text_rows(path, document, start, opened)
    raise UserError(f"{path.name}: files of this kind are not read here ({' '.join(READ_ENDINGS)})")


def local_name(file: InputFile, temporary: Path) -> Path:
    """Return where a copy of a file lies: its own name, in a folder for its path, so that no two meet."""
    folder = hashlib.sha256(f"{file.name}\0{file.checksum}".encode()).hexdigest()[:16]
    return temporary / folder / Path(file.name).name


def wrong(path: Path, file: InputFile) -> str | None:
    """Return in which way a downloaded file is not the one that was listed, or None."""
    if (size := path.stat().st_size) != file.bytes:
        return f"has {size} bytes instead of {file.bytes}"
    kind, _, expected = (file.checksum or "").partition(":")
    if kind == "sha256" and sha256_file(path) != expected:
        return "does not have the sha256 that its data set lists"
    if kind == "git" and git_hash(path) != expected:
        return "does not have the git hash that its data set lists"
    return None


def git_hash(path: Path) -> str:
    """Return the name that git gives to a file's contents, which is how the hub lists small files."""
    digest = hashlib.sha1(b"blob %d\0" % path.stat().st_size, usedforsecurity=False)
    with path.open("rb") as file:
        while data := file.read(CHUNK_BYTES):
            digest.update(data)
    return digest.hexdigest()
