"""From slices to shards: which slices count, and how they become the files of a corpus and its manifests.

Slices that follow one another share a shard while it does not get more than `documents_per_shard`: a slice alone is
linked (or copied, onto another disk), several are put one after the other. What is published follows from the slices
alone, so it can be done again at any time; work files go only after the hash of every shard was verified.
"""

import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from sharder import stop
from sharder.plan import Piece
from sharder.runs import read_bucket
from sharder.slices import Job, Limit, Slice, read_slices, rewrite_slice
from trainwright.spec.exits import UserError
from trainwright.spec.paths import MANIFEST, SPLITS, Split, shard_name
from trainwright.store.compression import CHUNK_BYTES
from trainwright.store.files import HashingWriter, atomic_writer, fsync_folder, temporary_name, verify_entry
from trainwright.store.text_shards import ENDING_OF, Drops, TextManifest, TextShard, TextShardWriter

Manifests = dict[Split, TextManifest]
Placed = tuple[Path, Slice]
"""A slice and the folder of its piece."""


@dataclass(slots=True)
class Ledger:
    """The slices of all pieces; those of finished pieces are read once."""

    job: Job
    _finished: dict[int, list[Slice]] = field(default_factory=dict)
    _totals: dict[int, tuple[int, int]] = field(default_factory=dict)

    def slices(self, piece: Piece) -> list[Slice]:
        """Return the committed slices of a piece."""
        if piece.index in self._finished:
            return self._finished[piece.index]
        found = read_slices(self.job.folder(piece))
        if found and found[-1].last:
            self._finished[piece.index] = found
        return found

    def left(self, limit: Limit, piece: Piece) -> Limit:
        """Return what the pieces before this one leave of a limit, as far as that is known; exact when all are done."""
        if piece.corpus == "val" or limit == Limit():
            return Limit()
        for earlier in self.job.plan.pieces[: piece.index]:
            documents, text_bytes = self._taken(earlier) if earlier.corpus == piece.corpus else (0, 0)
            limit = limit.less(documents, text_bytes)
        return limit

    def _taken(self, piece: Piece) -> tuple[int, int]:
        """Return the documents and bytes of text of a piece, so far."""
        if piece.index not in self._totals:
            slices = self.slices(piece)
            taken = sum(one.documents for one in slices), sum(one.text_bytes for one in slices)
            if piece.index not in self._finished:
                return taken
            self._totals[piece.index] = taken
        return self._totals[piece.index]

    def rewrite(self, piece: Piece, index: int, limit: Limit) -> None:
        """Write a slice again under the limit that turned out to hold."""
        self._finished.pop(piece.index, None)
        self._totals.pop(piece.index, None)
        rewrite_slice(self.job, piece, index, limit)


@dataclass(frozen=True, slots=True)
class Settled:
    """The slices that count, in order; `finished` when no more can follow, and the limit that says so."""

    slices: tuple[Placed, ...]
    finished: bool
    cut: str | None

    @property
    def drops(self) -> Drops:
        """Return what reading them left out."""
        return sum((Drops(one.drops) for _, one in self.slices), Drops())


def settle(ledger: Ledger, limit: Limit) -> Settled:
    """Return the slices up to the limit, or up to the first that is missing; cut the one that the limit falls into."""
    chosen: list[Placed] = []
    cut = None
    for piece in ledger.job.plan.pieces:
        left = limit if piece.corpus == "train" else Limit()
        slices = ledger.slices(piece)
        for index, found in enumerate(slices):
            one = found
            ends = left.documents is not None and one.documents >= left.documents
            if ends or one.cut or left.refusal(0, one.text_bytes):
                if one.limit != left:
                    ledger.rewrite(piece, index, left)
                    one = ledger.slices(piece)[index]
                cut = one.cut
            chosen.append((ledger.job.folder(piece), one))
            left = left.less(one.documents, one.text_bytes)
            if cut is not None:
                return Settled(tuple(chosen), finished=True, cut=cut)
        if not (slices and slices[-1].last):
            return Settled(tuple(chosen), finished=False, cut=None)
        limit = left if piece.corpus == "train" else limit
    return Settled(tuple(chosen), finished=True, cut=None)


def publish(job: Job, folders: Mapping[Split, Path], begun: Manifests, settled: Settled, *, whole: bool) -> Manifests:
    """Make shards of settled slices and list them; return the manifests, not complete yet.

    Unless `whole`, what might still grow (the last shard of each split) is left for later.
    """
    drops = settled.drops + Drops(job.plan.left_out)
    made: Manifests = {}
    for split in SPLITS:
        if job.plan.num_buckets:
            made[split] = _shuffled(job, folders[split], replace(begun[split], drops=_drops(split, drops)), settled)
            continue
        groups = _groups(settled.slices, split, job.documents_per_shard)
        earlier = begun[split].shards
        shards = []
        for index, group in enumerate(groups if whole else groups[:-1]):
            target = folders[split] / (shard_name(split, index) + ENDING_OF[job.compression])
            known = earlier[index] if index < len(earlier) else None
            shards.append(_shard(target, group, known))
        made[split] = replace(begun[split], shards=tuple(shards), drops=_drops(split, drops))
        if made[split] != begun[split] or not (folders[split] / MANIFEST).exists():
            made[split].write(folders[split])
    return made


def complete(folders: Mapping[Split, Path], made: Manifests, ended: str | None) -> Manifests:
    """Verify the hash of every shard, then write the manifests that say that these are all, training last."""
    done: Manifests = {}
    for split in SPLITS:
        made[split].verify(folders[split], hashes=True)
        done[split] = replace(made[split], complete=True, ended=ended)
    for split in reversed(SPLITS):
        done[split].write(folders[split])
    return done


def _drops(split: Split, drops: Drops) -> dict[str, int]:
    """Return the drops that a manifest lists: what one reading dropped is counted in its train manifest."""
    return dict(drops) if split == "train" else {}


Group = list[tuple[Path, TextShard]]
"""The files, with their entries, that make one shard."""


def _groups(slices: Sequence[Placed], split: Split, documents_per_shard: int) -> list[Group]:
    groups: list[Group] = []
    room = 0
    for folder, one in slices:
        if (entry := one.shards.get(split)) is None:
            continue
        if not groups or entry.num_documents > room:
            groups.append([])
            room = documents_per_shard
        groups[-1].append((folder, entry))
        room -= entry.num_documents
    return groups


def _shard(target: Path, group: Group, known: TextShard | None) -> TextShard:
    documents = sum(entry.num_documents for _, entry in group)
    num_bytes = sum(entry.bytes for _, entry in group)
    text_bytes = sum(entry.text_bytes for _, entry in group)
    sums = (documents, num_bytes, text_bytes)
    listed = known is not None and (known.num_documents, known.bytes, known.text_bytes) == sums
    # A kill may have come between a file and its listing, so what is no link is hashed.
    if known is not None and listed and verify_entry(target.parent, known.file, hashes=len(group) > 1) is None:
        return known
    if len(group) == 1:
        folder, entry = group[0]
        if _link(folder / entry.path, target):
            return replace(entry, path=target.name)
    with atomic_writer(target) as file:
        for folder, entry in group:
            _append(folder / entry.path, entry, file)
    written = file.entry(target.name)
    return TextShard(target.name, documents, written.bytes, text_bytes, written.sha256)


def _link(source: Path, target: Path) -> bool:
    """Give a file a second name; return False where that cannot be."""
    temporary = temporary_name(target)
    temporary.unlink(missing_ok=True)
    try:
        os.link(source, temporary)
    except FileNotFoundError:
        raise UserError(f"{source}: missing; restore the work folder, or run boot --redo shard") from None
    except OSError:
        return False
    temporary.replace(target)
    # Where the target was this very file already, the rename did nothing.
    temporary.unlink(missing_ok=True)
    fsync_folder(target.parent)
    return True


def _append(source: Path, entry: TextShard, file: HashingWriter) -> None:
    digest = hashlib.sha256()
    with source.open("rb") as reading:
        while data := reading.read(CHUNK_BYTES):
            digest.update(data)
            file.write(data)
    if digest.hexdigest() != entry.sha256:
        raise UserError(f"{source}: its sha256 is not the one in its record; run boot --redo shard")


def _shuffled(job: Job, folder: Path, begun: TextManifest, settled: Settled) -> TextManifest:
    """Write the shards of a split bucket by bucket, going on behind those that are listed."""
    split = begun.split
    runs = [
        (place / one.shards[split].path, one.buckets[split]) for place, one in settled.slices if split in one.shards
    ]
    begun.verify(folder, hashes=True)
    for place, one in settled.slices:
        if split in one.shards and (problem := verify_entry(place, one.shards[split].file, hashes=True)):
            raise UserError(f"{problem}; run boot --redo shard")
    drops = Drops(begun.drops)
    with TextShardWriter(folder, begun, job.documents_per_shard, drops, job.compression) as writer:
        for bucket in range(job.plan.num_buckets):
            stop.check()
            count = sum(buckets.counts[bucket] for _, buckets in runs)
            if writer.to_pass >= count:
                writer.pass_over(count)
                continue
            for _, line, text_bytes in read_bucket(runs, bucket):
                writer.add_line(line, text_bytes)
        writer.commit_rest()
        return writer.manifest
