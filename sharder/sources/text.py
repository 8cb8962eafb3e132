"""The source `text`: plain text files, where a document is a line, a paragraph or a whole file."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from sharder.sources.corpus import LocalFiles, Request, keep, local_files
from trainwright.spec.data import TextSource
from trainwright.spec.exits import UserError
from trainwright.store.text_shards import MAX_LINE_BYTES, Drops, read_lines

ENDINGS = (".txt", ".txt.gz", ".txt.zst")


@dataclass(frozen=True, slots=True)
class TextCorpus:
    """Text files and how they are cut into documents."""

    listing: LocalFiles
    document: Literal["line", "blank_line", "file"]

    @property
    def inputs(self) -> Mapping[str, Any]:
        """Return the fingerprint of the listing."""
        return {"data.files": self.listing.fingerprint}

    def documents(self, drops: Drops) -> Iterator[str]:
        """Yield the documents, file after file; text that is not UTF-8 is dropped document by document."""
        for path in self.listing.files:
            for piece in self._pieces(path):
                try:
                    text = piece.decode("utf-8")
                except UnicodeDecodeError:
                    drops["not UTF-8"] += 1
                    continue
                if keep(text, drops):
                    yield text

    def _pieces(self, path: Path) -> Iterator[bytes]:
        if self.document == "line":
            yield from read_lines(path)
            return
        gathered: list[bytes] = []
        num_bytes = 0
        for line in read_lines(path):
            if self.document == "blank_line" and not line.strip():
                # A blank line ends a paragraph; it is no document itself, so several in a row drop nothing.
                if gathered:
                    yield b"\n".join(gathered)
                gathered, num_bytes = [], 0
                continue
            gathered.append(line)
            num_bytes += len(line) + 1
            if num_bytes > MAX_LINE_BYTES:
                way = "set data.source.document=line or blank_line" if self.document == "file" else "cut it up"
                raise UserError(f"{path}: a document of more than {MAX_LINE_BYTES >> 20} MiB; {way}")
        if gathered:
            yield b"\n".join(gathered)


def open_text(request: Request) -> TextCorpus:
    """Return the text files that the request names."""
    assert isinstance(request.settings, TextSource)
    return TextCorpus(local_files(request, ENDINGS), request.settings.document)
