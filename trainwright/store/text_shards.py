"""Text shards: the files, their manifest, the writer that rolls them and the reader of every form of them.

A shard is `train_00000.jsonl.zst`, one `{"text": ...}` a line, one document a line; newlines inside a document are
escaped and so kept. The manifest beside the shards says what they were made from and lists them with hashes; it is
written again after each shard, and `complete` only after the last. Plain text files (one line, one document) and gzip
are read too, because other tools write them.
"""

import gzip
import json
import zlib
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Self

from pydantic import TypeAdapter
from pydantic_core import from_json

from trainwright.spec.canonical import sha256_json
from trainwright.spec.data import Compression
from trainwright.spec.exits import UserError
from trainwright.spec.paths import MANIFEST, Split, shard_name
from trainwright.store.compression import CHUNK_BYTES, ZstdDamageError, compressor, open_binary
from trainwright.store.files import FileEntry, atomic_writer, read_json, sha256_file, verify_entry, write_json

FORMAT = "text shards 1"
ENDINGS = (".jsonl.zst", ".jsonl.gz", ".jsonl", ".txt.zst", ".txt.gz", ".txt")
"""What `read_documents` reads; the writer writes the first."""
JSON_ENDINGS = ENDINGS[:3]
ENDING_OF: Mapping["Compression", str] = {"zstd": ".jsonl.zst", "gzip": ".jsonl.gz", "none": ".jsonl"}
"""How shards are called by their compression."""
TEXT_KEYS = ("text", "content")
"""Keys of a JSON object that may hold the text, in the order tried."""
IMPORTED = "imported"
"""The mode of a corpus that came as tokens and has no text: its only input, of this name, is its identity."""
MAX_LINE_BYTES = 256 << 20
"""No document is this long; a longer line is a broken file or an attack on our memory."""

_AS_JSON = TypeAdapter(bytes).serializer.to_json

Drops = Counter[str]
"""How many documents or lines were left out, by reason."""


@dataclass(frozen=True, slots=True)
class TextShard:
    """One text shard as its manifest lists it; `text_bytes` is the UTF-8 length of its documents."""

    path: str
    num_documents: int
    bytes: int
    text_bytes: int
    sha256: str

    @property
    def file(self) -> FileEntry:
        """Return the part that says how to verify the file."""
        return FileEntry(self.path, self.bytes, self.sha256)


@dataclass(frozen=True, slots=True)
class TextManifest:
    """What a folder of text shards holds and what it was made from.

    `inputs` maps dotted fields to values; `mode` is `fraction` (validation chosen by hash), `separate` (two corpora),
    `adopted` (files that were already there) or `imported` (tokens without text). What one reading of a source dropped
    is counted in its train manifest.
    """

    split: Split
    mode: str
    seed: int | None
    inputs: Mapping[str, Any]
    complete: bool = False
    drops: Mapping[str, int] = field(default_factory=dict)
    shards: tuple[TextShard, ...] = ()
    ended: str | None = None
    """What ended the reading before the source's end: a limit that was asked for, the disk, a stop request."""

    @property
    def num_documents(self) -> int:
        """Return the documents of all shards."""
        return sum(shard.num_documents for shard in self.shards)

    @property
    def num_bytes(self) -> int:
        """Return the bytes of all shards on disk."""
        return sum(shard.bytes for shard in self.shards)

    @property
    def text_bytes(self) -> int:
        """Return the UTF-8 bytes of all documents."""
        return sum(shard.text_bytes for shard in self.shards)

    @property
    def sha256(self) -> str:
        """Return the identity of the text: the shards in order, whatever they were made from."""
        if self.mode == IMPORTED:
            return str(self.inputs[IMPORTED])
        return sha256_json([[shard.path, shard.sha256] for shard in self.shards])

    def write(self, folder: Path) -> None:
        """Write the manifest atomically."""
        totals = {"num_documents": self.num_documents, "num_bytes": self.num_bytes, "text_bytes": self.text_bytes}
        drops = dict(sorted(self.drops.items()))
        write_json(folder / MANIFEST, {"format": FORMAT, **totals, **asdict(self), "drops": drops})

    @classmethod
    def read(cls, folder: Path) -> "TextManifest":
        """Read the manifest of a folder; raise `UserError` when it is missing or not one of ours."""
        path = folder / MANIFEST
        try:
            value = read_json(path)
        except FileNotFoundError:
            raise UserError(f"{path}: missing; there are no text shards here, run the shard stage") from None
        try:
            shards = tuple(TextShard(**shard) for shard in value["shards"])
            names = ("split", "mode", "seed", "inputs", "complete", "drops")
            manifest = cls(**{name: value[name] for name in names}, shards=shards, ended=value.get("ended"))
        except (KeyError, TypeError, ValueError) as error:
            raise UserError(f"{path}: not a manifest of text shards ({error})") from None
        if value.get("format") != FORMAT:
            raise UserError(f"{path}: its format is {value.get('format')}; this version reads {FORMAT}")
        return manifest

    def verify(self, folder: Path, *, hashes: bool) -> None:
        """Raise `UserError` naming every listed shard that is missing, cut or (with `hashes`) changed."""
        found = [verify_entry(folder, shard.file, hashes=hashes) for shard in self.shards]
        if wrong := [problem for problem in found if problem]:
            raise UserError(f"{'; '.join(wrong)}; restore the files, or run boot --redo shard")


class TextShardWriter:
    """Writes the documents of one split as shards, going on where `manifest` says an earlier writer stopped.

    Every document of the split is passed to `add` in its fixed order each time, or reported to `pass_over`: those of
    committed shards are passed over by count. Use it in a `with` block, which drops the shard that is not full when
    something fails; call `commit_rest` and then `complete` at the end. `drops` go into each manifest.
    """

    def __init__(
        self,
        folder: Path,
        manifest: TextManifest,
        documents_per_shard: int,
        drops: Drops,
        compression: Compression = "zstd",
    ) -> None:
        self.folder = folder
        self.manifest = replace(manifest, complete=False)
        self.drops = drops
        self._documents_per_shard = documents_per_shard
        self._compression = compression
        self._to_pass = manifest.num_documents
        self._shard: ShardFile | None = None
        self._write_manifest()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._shard is not None:
            self._shard.abandon()
            self._shard = None

    @property
    def to_pass(self) -> int:
        """Return how many of the next documents are in committed shards already."""
        return self._to_pass

    def pass_over(self, num_documents: int) -> None:
        """Count documents that need not even be read, because committed shards hold them."""
        assert num_documents <= self._to_pass
        self._to_pass -= num_documents

    def add(self, text: str, text_bytes: int) -> None:
        """Take the next document of this split; `text_bytes` is the length of its UTF-8."""
        self.add_line(b"" if self._to_pass else json_line(text.encode()), text_bytes)

    def add_line(self, line: bytes, text_bytes: int) -> None:
        """Take the next document as the line that `json_line` made of it."""
        if self._to_pass:
            self._to_pass -= 1
            return
        if self._shard is None:
            name = shard_name(self.manifest.split, len(self.manifest.shards)) + ENDING_OF[self._compression]
            self._shard = ShardFile(self.folder / name, self._compression)
        self._shard.add_line(line, text_bytes)
        if self._shard.num_documents == self._documents_per_shard:
            self._commit()

    def commit_rest(self) -> None:
        """Commit the last shard; raise `UserError` when the source gave fewer documents than were written before."""
        if self._to_pass:
            what = f"the source now gives {self._to_pass} documents fewer than its shards hold; it has changed"
            raise UserError(f"{self.folder}: {what}; use another data.name, or run boot --redo shard")
        if self._shard is not None:
            self._commit()

    def complete(self) -> TextManifest:
        """Write the manifest that says that these are all shards, and return it."""
        self.manifest = replace(self.manifest, complete=True)
        self._write_manifest()
        return self.manifest

    def _commit(self) -> None:
        assert self._shard is not None
        entry = self._shard.commit()
        self._shard = None
        self.manifest = replace(self.manifest, shards=(*self.manifest.shards, entry))
        self._write_manifest()

    def _write_manifest(self) -> None:
        self.manifest = replace(self.manifest, drops=dict(self.drops))
        self.manifest.write(self.folder)


class ShardFile:
    """One shard being written under its temporary name; the same documents always make the same bytes.

    Compressed shards may be put one after the other: what reads one reads the whole.
    """

    def __init__(self, path: Path, compression: Compression = "zstd") -> None:
        self._path = path
        self._compressor = compressor(compression)
        self._writing = atomic_writer(path)
        self._file = self._writing.__enter__()
        self._lines: list[bytes] = []
        self._line_bytes = 0
        self.num_documents = 0
        self.text_bytes = 0

    def add_line(self, line: bytes, text_bytes: int) -> None:
        """Take a document as the line that `json_line` made of it."""
        self._lines.append(line)
        self._line_bytes += len(line)
        self.num_documents += 1
        self.text_bytes += text_bytes
        if self._line_bytes >= CHUNK_BYTES:
            self._compress()

    def commit(self) -> TextShard:
        """Flush, rename, and return the entry for the manifest."""
        self._compress()
        self._file.write(self._compressor.flush())
        self._writing.__exit__(None, None, None)
        entry = self._file.entry(self._path.name)
        return TextShard(entry.path, self.num_documents, entry.bytes, self.text_bytes, entry.sha256)

    def abandon(self) -> None:
        """Leave nothing behind."""
        self._writing.__exit__(RuntimeError, RuntimeError("shard abandoned"), None)

    def _compress(self) -> None:
        self._file.write(self._compressor.compress(b"".join(self._lines)))
        self._lines.clear()
        self._line_bytes = 0


def json_line(text: bytes) -> bytes:
    """Return the line of a document: `{"text":...}` as Python's own encoder writes it, from valid UTF-8.

    pydantic's encoder takes the bytes as they are; decoding, Python's encoder and encoding take four times as long.
    """
    return b'{"text":%b}\n' % _AS_JSON(text)


def describe_file(path: Path, name: str, drops: Drops) -> TextShard:
    """Return the entry of a shard file that another tool wrote, by reading all of it."""
    documents = text_bytes = 0
    for text, data in read_encoded(path, drops):
        documents += 1
        text_bytes += len(data)
        if "\0" in text:
            what = "holds NUL bytes, as a file does whose writer was killed"
            raise UserError(f"{path}: document {documents} {what}; write the file again")
    return TextShard(name, documents, path.stat().st_size, text_bytes, sha256_file(path))


def read_documents(path: Path, drops: Drops | None = None) -> Iterator[str]:
    """Yield the documents of a shard in any of the `ENDINGS`; raise `UserError` naming file and line when it is broken.

    Lines without text are no documents: they are left out and counted in `drops` as `empty`.
    """
    for text, _ in read_encoded(path, drops):
        yield text


def read_encoded(path: Path, drops: Drops | None = None) -> Iterator[tuple[str, bytes]]:
    """Yield what `read_documents` does, each document with its UTF-8."""
    counted = Drops() if drops is None else drops
    is_json = path.name.endswith(JSON_ENDINGS)
    for number, line in enumerate(read_lines(path), 1):
        try:
            text = json_text(line) if is_json else line.decode("utf-8")
            data = text.encode("utf-8")
        except UnicodeError:
            raise UserError(f"{path}:{number}: not UTF-8; write the file again as UTF-8") from None
        except BadLineError as error:
            raise UserError(f"{path}:{number}: {error}; a shard has one object with a text on each line") from None
        if text and not text.isspace():
            yield text, data
        else:
            counted["empty"] += 1


class BadLineError(ValueError):
    """A line that holds no document; its text is the reason under which it is counted."""


def json_text(line: bytes, key: str | None = None) -> str:
    """Return the text in a JSON line, from `key` or the first of `TEXT_KEYS`; raise `BadLineError` with the reason."""
    value = _parsed(line)
    if not isinstance(value, dict):
        raise BadLineError("not a JSON object")
    for candidate in (key,) if key else TEXT_KEYS:
        text = value.get(candidate)
        if isinstance(text, str):
            return text
    raise BadLineError("no text")


def _parsed(line: bytes) -> Any:
    try:
        return from_json(line, cache_strings="keys")
    except ValueError:
        # pydantic's parser takes a third of the time, but refuses lone surrogates and deep nesting.
        pass
    try:
        return json.loads(line.decode("utf-8"))
    except UnicodeDecodeError:
        raise BadLineError("not UTF-8") from None
    except (ValueError, RecursionError):
        raise BadLineError("not JSON") from None


def read_lines(path: Path, opened: BinaryIO | None = None) -> Iterator[bytes]:
    """Yield the lines of a plain, gzip or zstd file without their ends; raise `UserError` when it is damaged.

    `opened` is read instead of the file when the bytes come from elsewhere; `path` is then its name.
    """
    try:
        with open_binary(path, opened) as file:
            number = 0
            while line := file.readline(MAX_LINE_BYTES + 1):
                number += 1
                if len(line) > MAX_LINE_BYTES:
                    raise UserError(f"{path}:{number}: longer than {MAX_LINE_BYTES >> 20} MiB; no document is")
                yield line.removesuffix(b"\n").removesuffix(b"\r")
    except EOFError:
        raise UserError(f"{path}: cut short; copy or download it again") from None
    except (gzip.BadGzipFile, zlib.error, ZstdDamageError) as error:
        raise UserError(f"{path}: damaged, or not what its ending says ({error}); copy it again") from None
