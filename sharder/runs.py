"""Shuffling documents with the memory of one bucket: sorted runs on disk, then bucket after bucket out of all of them.

Documents are ordered by a key that seed and content decide, equal keys by content, so the order depends neither on the
files they came from nor on the number of buckets, parts or runs. A bucket is a range of keys; a run is the file of one
slice, sorted, with a compressed frame for each bucket.
"""

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from trainwright.spec.exits import UserError
from trainwright.spec.paths import SPLITS, Split, shard_name
from trainwright.store.compression import zstd
from trainwright.store.files import atomic_writer
from trainwright.store.text_shards import TextShard, json_line

HEAD = struct.Struct("<QII")
"""Before each line: its key, its length, and the bytes of its text."""
OVERHEAD_BYTES = 200
"""What Python adds to a line that waits in memory."""

Keyed = tuple[int, bytes, int]
"""A key, the line of a document, and the bytes of its text."""


@dataclass(frozen=True, slots=True)
class Buckets:
    """Where each bucket begins in a run's file (and the last one ends), and how many documents it has there."""

    offsets: list[int]
    counts: list[int]


class RunFiles:
    """The documents of a slice, gathered in memory and written sorted; full when a quarter of the memory is."""

    def __init__(self, folder: Path, index: int, num_buckets: int, memory_bytes: int) -> None:
        self._folder = folder
        self._index = index
        self._num_buckets = num_buckets
        self._room = memory_bytes // 4
        self._gathered: dict[Split, list[Keyed]] = {}

    @property
    def full(self) -> bool:
        """Return whether the run should be written."""
        return self._room <= 0

    def add(self, split: Split, text: bytes, digest: bytes) -> None:
        """Take a document; bytes of the digest that did not choose its split are its key."""
        line = json_line(text)
        self._gathered.setdefault(split, []).append((int.from_bytes(digest[8:16], "big"), line, len(text)))
        self._room -= len(line) + OVERHEAD_BYTES

    def commit(self) -> tuple[dict[Split, TextShard], dict[Split, Buckets]]:
        """Write a run for each split; return their entries and buckets."""
        shards: dict[Split, TextShard] = {}
        buckets: dict[Split, Buckets] = {}
        for split in SPLITS:
            if split in self._gathered:
                path = self._folder / f"{shard_name(split, self._index)}.run"
                shards[split], buckets[split] = write_run(path, self._gathered.pop(split), self._num_buckets)
        return shards, buckets

    def abandon(self) -> None:
        """Forget what was gathered."""
        self._gathered.clear()


def bucket_of(key: int, num_buckets: int) -> int:
    """Return the bucket of a 64-bit key; greater keys are in the same or later ones."""
    return key * num_buckets >> 64


def write_run(path: Path, documents: list[Keyed], num_buckets: int) -> tuple[TextShard, Buckets]:
    """Write documents sorted by key and content, a frame for each bucket."""
    documents.sort()
    parts: list[list[bytes]] = [[] for _ in range(num_buckets)]
    for key, line, text_bytes in documents:
        parts[bucket_of(key, num_buckets)] += (HEAD.pack(key, len(line), text_bytes), line)
    compressor = zstd()
    offsets = [0]
    with atomic_writer(path) as file:
        for part in parts:
            if part:
                file.write(compressor.compress(b"".join(part)))
            offsets.append(file.num_bytes)
    entry = file.entry(path.name)
    total = sum(text_bytes for _, _, text_bytes in documents)
    shard = TextShard(entry.path, len(documents), entry.bytes, total, entry.sha256)
    return shard, Buckets(offsets, [len(part) // 2 for part in parts])


def read_bucket(runs: Sequence[tuple[Path, Buckets]], bucket: int) -> list[Keyed]:
    """Return the documents of one bucket out of all runs, in their final order."""
    found: list[Keyed] = []
    for path, buckets in runs:
        start, stop = buckets.offsets[bucket : bucket + 2]
        if start == stop:
            continue
        with path.open("rb") as file:
            file.seek(start)
            found += _unpacked(path, file.read(stop - start))
    found.sort()
    return found


def _unpacked(path: Path, frame: bytes) -> Iterator[Keyed]:
    import zstandard

    try:
        data = zstandard.ZstdDecompressor().decompress(frame)
    except zstandard.ZstdError as error:
        raise UserError(f"{path}: damaged ({error}); run boot --redo shard") from None
    at = 0
    while at < len(data):
        key, length, text_bytes = HEAD.unpack_from(data, at)
        at += HEAD.size
        yield key, data[at : at + length], text_bytes
        at += length
