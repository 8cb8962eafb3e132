"""Slices: what one piece gives between two positions in its files, committed together and never changed.

    a piece's folder in the work folder: train_00000.jsonl.zst  val_00000.jsonl.zst  slice_00000.json  train_00001...

The record of a slice is written last and says where its rows end, so work that was killed goes on at that file and row.
A slice ends where one of its files is full, where the piece ends, or where a limit was reached.
"""

import hashlib
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Protocol, Self

from sharder import stop
from sharder.plan import PLAN, Piece, Plan
from sharder.runs import Buckets, RunFiles
from sharder.sources.corpus import Corpus, NoText, Row, no_document
from trainwright.spec.data import Compression
from trainwright.spec.exits import UserError
from trainwright.spec.paths import SPLITS, Split, shard_name
from trainwright.store.files import read_json, remove_temporaries, write_json
from trainwright.store.text_shards import ENDING_OF, Drops, ShardFile, TextShard, json_line

LOOK_EVERY_ROWS = 64


@dataclass(frozen=True, slots=True)
class Limit:
    """How much may still be taken; None is without end."""

    documents: int | None = None
    text_bytes: int | None = None

    def less(self, documents: int, text_bytes: int) -> "Limit":
        """Return what is left of it after so much was taken."""
        return Limit(
            None if self.documents is None else max(0, self.documents - documents),
            None if self.text_bytes is None else max(0, self.text_bytes - text_bytes),
        )

    def refusal(self, documents: int, text_bytes: int) -> str | None:
        """Return which limit so much goes beyond."""
        if self.documents is not None and documents > self.documents:
            return "take"
        return "max_bytes" if self.text_bytes is not None and text_bytes > self.text_bytes else None


@dataclass(frozen=True, slots=True)
class Slice:
    """The record of one slice. `end` is the file of the piece and the row in it where the next slice begins."""

    index: int
    end: tuple[int, int]
    last: bool
    """Whether the piece ends here."""
    cut: str | None
    """The limit that ended it."""
    limit: Limit
    """What the limit was at its start."""
    rows: int
    drops: Mapping[str, int]
    first_bad: str
    shards: Mapping[Split, TextShard]
    buckets: Mapping[Split, Buckets] = field(default_factory=dict)
    """With a shuffle: what each bucket has of the file of a split."""

    @property
    def documents(self) -> int:
        """Return the documents of both splits."""
        return sum(shard.num_documents for shard in self.shards.values())

    @property
    def text_bytes(self) -> int:
        """Return the bytes of their text."""
        return sum(shard.text_bytes for shard in self.shards.values())

    @classmethod
    def read(cls, path: Path) -> Self | None:
        """Return the record in a file, or None when there is none."""
        try:
            value = read_json(path)
        except FileNotFoundError:
            return None
        try:
            shards = {split: TextShard(**shard) for split, shard in value["shards"].items()}
            buckets = {split: Buckets(**one) for split, one in value["buckets"].items()}
            limit, end = Limit(**value["limit"]), (value["end"][0], value["end"][1])
            return cls(**{**value, "shards": shards, "buckets": buckets, "limit": limit, "end": end})
        except (KeyError, TypeError) as error:
            raise UserError(f"{path}: not the record of a slice ({error}); run boot --redo shard") from None


@dataclass(frozen=True, slots=True)
class Job:
    """All that is needed to work on any piece, in any process."""

    work: Path
    temporary: Path
    plan: Plan
    corpora: Mapping[Split, Corpus]
    seed: int
    fraction: float
    """The share of validation; 0 when it has a corpus of its own."""
    documents_per_shard: int
    compression: Compression
    memory_bytes: int = 0
    reserve_bytes: int = 0

    def folder(self, piece: Piece) -> Path:
        """Return where a piece's slices lie."""
        return self.work / f"{piece.index:05d}"


class DiskReserveError(Exception):
    """The disk has less free space than was to be kept free."""


class Files(Protocol):
    """The files of a slice that is being written."""

    @property
    def full(self) -> bool:
        """Return whether the slice should end."""

    def add(self, split: Split, text: bytes, digest: bytes) -> None:
        """Take a document."""

    def commit(self) -> tuple[dict[Split, TextShard], dict[Split, Buckets]]:
        """Finish the files; return their entries, and where buckets begin in them."""

    def abandon(self) -> None:
        """Leave nothing behind."""


def slice_path(folder: Path, index: int) -> Path:
    """Return the name of a slice's record."""
    return folder / f"slice_{index:05d}.json"


def read_slices(folder: Path) -> list[Slice]:
    """Return the committed slices of a piece, in order."""
    found: list[Slice] = []
    while (one := Slice.read(slice_path(folder, len(found)))) is not None:
        found.append(one)
    return found


def write_piece(job: Job, piece: Piece, limit: Limit, seen: Callable[[Slice], None]) -> None:
    """Write the slices of a piece that are missing, at most `limit` of the whole piece; `seen` is told of each."""
    folder = job.folder(piece)
    folder.mkdir(parents=True, exist_ok=True)
    remove_temporaries(folder)
    done = read_slices(folder)
    if done and done[-1].last:
        return
    for one in done:
        limit = limit.less(one.documents, one.text_bytes)
    reading = _Reading(job, piece, done[-1].end if done else (0, 0))
    rows = reading.rows()
    index = len(done)
    while True:
        if job.reserve_bytes and shutil.disk_usage(folder).free < job.reserve_bytes:
            raise DiskReserveError
        one = _write_slice(job, folder, index, limit, reading, rows)
        seen(one)
        if one.last:
            return
        limit = limit.less(one.documents, one.text_bytes)
        index += 1


def rewrite_slice(job: Job, piece: Piece, index: int, limit: Limit) -> None:
    """Write a slice again under the limit that turned out to hold, as the last of its piece."""
    folder = job.folder(piece)
    before = read_slices(folder)
    # The records go first, from the end: whoever finds some missing goes on behind the others.
    for one in reversed(before[index:]):
        slice_path(folder, one.index).unlink()
    reading = _Reading(job, piece, before[index - 1].end if index else (0, 0))
    _write_slice(job, folder, index, limit, reading, reading.rows())


class _Reading:
    """Goes through the rows of a piece; `at` is the file and row that come next."""

    def __init__(self, job: Job, piece: Piece, at: tuple[int, int]) -> None:
        self.corpus = piece.corpus
        self._corpus = job.corpora[piece.corpus]
        self._piece = piece
        self._temporary = job.temporary
        self._file, self._row = at

    @property
    def at(self) -> tuple[int, int]:
        return self._file, self._row

    def rows(self) -> Iterator[Row]:
        for number in range(self._file, len(self._piece.files)):
            file = self._piece.files[number]
            if number != self._file:
                self._file, self._row = number, 0
            self._corpus.fetch(file, self._temporary)
            for row in self._corpus.rows(file, self._row, self._temporary):
                self._row += 1
                yield row
            self._corpus.release(file, self._temporary)


def _write_slice(job: Job, folder: Path, index: int, limit: Limit, reading: _Reading, rows: Iterator[Row]) -> Slice:
    split_of = _chooser(job, reading.corpus)
    files = _files(job, folder, index)
    drops, first_bad = Drops(), ""
    num_rows = documents = text_bytes = 0
    last, cut = True, None
    try:
        for row in rows:
            num_rows += 1
            if num_rows % LOOK_EVERY_ROWS == 0:
                stop.check()
            reason = row.reason if isinstance(row, NoText) else no_document(row)
            if reason is not None or isinstance(row, NoText):
                drops[str(reason)] += 1
                first_bad = first_bad or _where(row)
                continue
            cut = limit.refusal(documents + 1, text_bytes + len(row))
            if cut is not None:
                break
            documents += 1
            text_bytes += len(row)
            digest = digest_of(row, job.seed)
            files.add(split_of(digest), row, digest)
            cut = limit.refusal(documents + 1, 0)
            if cut is not None or files.full:
                last = cut is not None
                break
        shards, buckets = files.commit()
    except BaseException:
        files.abandon()
        raise
    if not (job.work / PLAN).exists():
        # Slices without their plan would be taken for those of the next one.
        raise UserError(f"{job.work}: was taken away while it was worked in; start again")
    one = Slice(index, reading.at, last, cut, limit, num_rows, dict(sorted(drops.items())), first_bad, shards, buckets)
    write_json(slice_path(folder, index), asdict(one))
    return one


def _where(row: Row) -> str:
    return f"{row.where}: {row.reason}" if isinstance(row, NoText) and row.where else ""


def _chooser(job: Job, corpus: Split) -> Callable[[bytes], Split]:
    """Return what says, from the digest of a document, which split it is for."""
    if corpus == "val":
        return lambda _: "val"
    return lambda digest: "val" if is_validation(digest, job.fraction) else "train"


def digest_of(text: bytes, seed: int) -> bytes:
    """Return the sha256 of seed and content, which decides where a document goes."""
    return hashlib.sha256(b"%d\0" % seed + text).digest()


def is_validation(digest: bytes, fraction: float) -> bool:
    """Return whether a document is for validation: by its content, so equal texts stay together."""
    return int.from_bytes(digest[:8], "big") < fraction * 2**64


def _files(job: Job, folder: Path, index: int) -> Files:
    if job.plan.num_buckets:
        return RunFiles(folder, index, job.plan.num_buckets, job.memory_bytes)
    return _ShardFiles(folder, index, job.documents_per_shard, job.compression)


class _ShardFiles:
    """The files of a slice in the order of the source: one shard a split, full when one of them is."""

    def __init__(self, folder: Path, index: int, documents_per_shard: int, compression: Compression) -> None:
        self._folder = folder
        self._index = index
        self._documents_per_shard = documents_per_shard
        self._compression = compression
        self._open: dict[Split, ShardFile] = {}
        self.full = False

    def add(self, split: Split, text: bytes, digest: bytes) -> None:
        del digest
        shard = self._open.get(split)
        if shard is None:
            name = shard_name(split, self._index) + ENDING_OF[self._compression]
            shard = self._open[split] = ShardFile(self._folder / name, self._compression)
        shard.add_line(json_line(text), len(text))
        self.full = shard.num_documents == self._documents_per_shard

    def commit(self) -> tuple[dict[Split, TextShard], dict[Split, Buckets]]:
        return {split: self._open.pop(split).commit() for split in SPLITS if split in self._open}, {}

    def abandon(self) -> None:
        for shard in self._open.values():
            shard.abandon()
