"""The plan of a corpus: its input files cut into pieces, written once, before anything is read.

A piece is a run of consecutive files, and the shards of a corpus are made of what each piece gives by itself, so they
depend neither on who works on which piece nor on when. Parts on several machines share one work folder and one plan.
"""

import os
import shutil
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from sharder.sources.corpus import Corpus, InputFile
from trainwright.spec.exits import UserError
from trainwright.spec.paths import SPLITS, Split
from trainwright.store.files import fsync_folder, read_json, remove_temporaries, temporary_name, write_json

PLAN = "plan.json"
LEASE = "lease.json"
FORMAT = "text work 1"
MIN_PIECE_BYTES, MAX_PIECE_BYTES = 1 << 20, 256 << 20
PIECES_AIMED_AT = 64
"""A small corpus makes about so many pieces, so that several machines have something to share."""
PACKED, UNPACKED = (".parquet", ".gz", ".zst"), 6
"""Endings of compressed files, and how many times their size their text may have."""


@dataclass(frozen=True, slots=True)
class Piece:
    """Consecutive files of one corpus; `corpus` is the split whose source they belong to."""

    index: int
    corpus: Split
    files: tuple[InputFile, ...]

    @property
    def num_bytes(self) -> int:
        """Return the size of its files as they lie there, compressed or not."""
        return sum(file.bytes for file in self.files)


@dataclass(frozen=True, slots=True)
class Plan:
    """All pieces in their order, what they are made into, and how many files were left out."""

    inputs: Mapping[Split, Mapping[str, Any]]
    pieces: tuple[Piece, ...]
    left_out: Mapping[str, int]
    num_buckets: int = 0
    """Buckets of a shuffle; 0 keeps the order of the source."""


@dataclass(frozen=True, slots=True)
class Part:
    """One worker's share of the pieces: every `of`-th one; `number` counts from 1."""

    number: int = 1
    of: int = 1

    @classmethod
    def parse(cls, text: str) -> "Part":
        """Read `i/K`; raise `UserError` when it is not that."""
        number, slash, of = text.partition("/")
        if not (slash and number.isdecimal() and of.isdecimal() and 1 <= int(number) <= int(of)):
            way = "give i/K with i from 1 to K, such as --part $((SLURM_ARRAY_TASK_ID + 1))/8"
            raise UserError(f"--part {text}: is no part; {way}")
        return cls(int(number), int(of))

    def owns(self, piece: Piece) -> bool:
        """Return whether this part works on a piece."""
        return piece.index % self.of == self.number - 1


def make_plan(
    opened: Mapping[Split, Corpus], inputs: Mapping[Split, Mapping[str, Any]], shuffle_bytes: int = 0
) -> Plan:
    """Cut the files of each corpus into pieces, validation first; with a shuffle a bucket has about `shuffle_bytes`."""
    pieces: list[Piece] = []
    left_out: dict[str, int] = {}
    # What is stopped half-way should have validation too.
    for split in reversed(SPLITS):
        if split in opened:
            pieces += _cut(split, opened[split].files, len(pieces))
            for reason, count in opened[split].left_out.items():
                left_out[reason] = left_out.get(reason, 0) + count
    num_buckets = 1 + sum(_text_bytes(piece) for piece in pieces) // shuffle_bytes if shuffle_bytes else 0
    return Plan(inputs, tuple(pieces), left_out, num_buckets)


def _text_bytes(piece: Piece) -> int:
    """Return about how much text a piece holds, rather too much than too little."""
    return sum(file.bytes * (UNPACKED if file.name.endswith(PACKED) else 1) for file in piece.files)


def _cut(corpus: Split, files: Sequence[InputFile], first: int) -> list[Piece]:
    total = sum(file.bytes for file in files)
    wanted = min(max(total // PIECES_AIMED_AT, MIN_PIECE_BYTES), MAX_PIECE_BYTES)
    pieces: list[Piece] = []
    gathered: list[InputFile] = []
    room = wanted
    for file in files:
        gathered.append(file)
        room -= file.bytes
        if room <= 0:
            pieces.append(Piece(first + len(pieces), corpus, tuple(gathered)))
            gathered, room = [], wanted
    if gathered:
        pieces.append(Piece(first + len(pieces), corpus, tuple(gathered)))
    return pieces


def keep_plan(work: Path, plan: Plan, *, shared: bool) -> Plan:
    """Write the plan unless another part was first; return the one that holds."""
    work.mkdir(parents=True, exist_ok=True)
    path = work / PLAN
    draft = temporary_name(path)
    write_json(draft, {"format": FORMAT, **asdict(plan)})
    try:
        # A link is made only where there is none: of several parts, one writes the plan.
        os.link(draft, path)
    except FileExistsError:
        pass
    except OSError as error:
        if shared:
            what = f"parts agree on a plan by a hard link, which this file system refuses ({error.strerror})"
            raise UserError(f"{work}: {what}; put data.work elsewhere, or work without --part") from None
        draft.replace(path)
    draft.unlink(missing_ok=True)
    fsync_folder(work)
    kept = read_plan(work)
    assert kept is not None, "it was written above"
    return kept


def read_plan(work: Path) -> Plan | None:
    """Return the plan in a work folder, or None when there is none."""
    try:
        value = read_json(work / PLAN)
    except FileNotFoundError:
        return None
    if value.get("format") != FORMAT:
        raise UserError(f"{work / PLAN}: its format is {value.get('format')}; run boot --redo shard")
    try:
        pieces = tuple(
            Piece(piece["index"], piece["corpus"], tuple(InputFile(**file) for file in piece["files"]))
            for piece in value["pieces"]
        )
        return Plan(value["inputs"], pieces, value["left_out"], value["num_buckets"])
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{work / PLAN}: not a plan ({error}); run boot --redo shard") from None


def forget_work(work: Path) -> None:
    """Delete a work folder, the plan last: while it stands, whoever looks finds work to go on with."""
    if not work.exists():
        return
    remove_temporaries(work)
    for path in work.iterdir():
        if path.is_dir():
            # Another part, which a limit has made needless, may be writing: it takes away the rest when it sees that.
            shutil.rmtree(path, ignore_errors=True)
    for path in work.iterdir():
        if not path.is_dir():
            path.unlink()
    with suppress(OSError):
        work.rmdir()
