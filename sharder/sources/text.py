"""The source `text`: plain text files, where a document is a line, a paragraph or a whole file."""

from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO, Literal

from sharder.sources.corpus import LocalCorpus, Request, Row, local_files
from trainwright.spec.data import TextSource
from trainwright.spec.exits import UserError
from trainwright.store.text_shards import MAX_LINE_BYTES, read_lines

ENDINGS = (".txt", ".txt.gz", ".txt.zst")

Document = Literal["line", "blank_line", "file"]


def open_text(request: Request) -> LocalCorpus:
    """Return the text files that the request names."""
    assert isinstance(request.settings, TextSource)
    return LocalCorpus(local_files(request, ENDINGS), request.settings, read_text_file)


def read_text_file(path: Path, settings: Any, start: int) -> Iterator[Row]:
    """Yield the documents of a local file from number `start` on."""
    return text_rows(path, settings.document, start)


def text_rows(path: Path, document: Document, start: int, opened: BinaryIO | None = None) -> Iterator[Row]:
    """Yield the pieces that a file is cut into, from number `start` on."""
    lines = read_lines(path, opened)
    yield from islice(lines if document == "line" else _paragraphs(path, lines, document), start, None)


def _paragraphs(path: Path, lines: Iterator[bytes], document: Document) -> Iterator[bytes]:
    gathered: list[bytes] = []
    num_bytes = 0
    for line in lines:
        if document == "blank_line" and not line.strip():
            # A blank line ends a paragraph; it is no document itself, so several in a row drop nothing.
            if gathered:
                yield b"\n".join(gathered)
            gathered, num_bytes = [], 0
            continue
        gathered.append(line)
        num_bytes += len(line) + 1
        if num_bytes > MAX_LINE_BYTES:
            way = "set data.source.document=line or blank_line" if document == "file" else "cut it up"
            raise UserError(f"{path}: a document of more than {MAX_LINE_BYTES >> 20} MiB; {way}")
    if gathered:
        yield b"\n".join(gathered)
