"""Token shards: the files, their manifest, and the windows that become samples. A batch starts here.

The files are the layouts that other projects read and write: a header of 256 little-endian int32 (magic, version,
token count), then the tokens. Version 1 holds uint16 (llm.c, modded-nanogpt), version 7 uint32 for vocabularies
above 65,535 (llm.c's Llama 3 variant); files without a header are uint16 (nanoGPT). The manifest beside them is ours:
sizes, hashes, and the tokenizer and text that they were made from.
"""

import mmap
import os
import resource
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import numpy.typing as npt
from numpy.lib.stride_tricks import sliding_window_view

from trainwright.spec.canonical import sha256_json
from trainwright.spec.exits import UserError
from trainwright.spec.paths import MANIFEST
from trainwright.store.files import (
    FileEntry,
    fsync_folder,
    naming,
    read_json,
    sha256_file,
    temporary_name,
    verify_entry,
    write_json,
)
from trainwright.tokens.order import Indices

Tokens = npt.NDArray[np.uint16] | npt.NDArray[np.uint32]

HEADER_BYTES = 1024
LAYOUTS = {2: (20240520, 1), 4: (20240801, 7)}
"""Bytes of a token -> (magic, version) of its header."""
MAX_SHARD_TOKENS = 2**31 - 1
"""The header counts tokens in an int32."""
IGNORED = -100
"""The target of a padded position: torch's cross-entropy leaves it out."""
MAX_OPEN_SHARDS = 4096
BUFFER_TOKENS = 1 << 20
"""Tokens that a shard being written keeps in memory."""


@dataclass(frozen=True, slots=True)
class Layout:
    """Where the tokens of one file start, how wide they are, and how many there are."""

    header_bytes: int
    token_bytes: int
    num_tokens: int

    @property
    def dtype(self) -> np.dtype[Any]:
        """Return the little-endian type of one token."""
        return np.dtype(f"<u{self.token_bytes}")


@dataclass(frozen=True, slots=True)
class ShardEntry:
    """One token shard as its manifest lists it."""

    path: str
    bytes: int
    sha256: str
    num_tokens: int
    num_documents: int

    @property
    def file(self) -> FileEntry:
        """Return the part that says how to verify the file."""
        return FileEntry(self.path, self.bytes, self.sha256)


@dataclass(frozen=True, slots=True)
class TokenManifest:
    """What a folder of token shards holds; written again after each shard, `complete` after the last."""

    tokenizer_hash: str
    vocab_size: int
    separator: int
    text_sha256: str
    complete: bool
    shards: tuple[ShardEntry, ...] = ()

    @property
    def num_tokens(self) -> int:
        """Return the tokens of all shards."""
        return sum(shard.num_tokens for shard in self.shards)

    @property
    def num_documents(self) -> int:
        """Return the documents of all shards."""
        return sum(shard.num_documents for shard in self.shards)

    @property
    def identity(self) -> str:
        """Return a hash of everything that decides which sample is which; checkpoints remember it."""
        return sha256_json([self.tokenizer_hash, self.separator, [shard.sha256 for shard in self.shards]])

    def write(self, folder: Path) -> None:
        """Write the manifest atomically."""
        totals = {"num_tokens": self.num_tokens, "num_documents": self.num_documents}
        write_json(folder / MANIFEST, {"format": "token shards 1", **totals, **asdict(self)})

    @classmethod
    def read(cls, folder: Path) -> "TokenManifest":
        """Read the manifest of a folder; raise `UserError` when it is missing, broken or empty."""
        path = folder / MANIFEST
        try:
            value = read_json(path)
        except FileNotFoundError:
            raise UserError(f"{path}: missing; there are no token shards here, run the tokenizer stage") from None
        try:
            shards = tuple(ShardEntry(**shard) for shard in value["shards"])
            return cls(
                value["tokenizer_hash"],
                int(value["vocab_size"]),
                int(value["separator"]),
                value["text_sha256"],
                bool(value["complete"]),
                shards,
            )
        except (KeyError, TypeError, ValueError) as error:
            raise UserError(f"{path}: not a manifest of token shards ({error})") from None


def token_dtype(vocab_size: int) -> np.dtype[Any]:
    """Return the narrowest token type that holds a vocabulary."""
    return np.dtype("<u2") if vocab_size <= 1 << 16 else np.dtype("<u4")


def write_shard(path: Path, pieces: Sequence[Tokens], vocab_size: int, num_documents: int) -> ShardEntry:
    """Write token arrays, one after the other, as one shard file; return its entry."""
    with ShardWriter(path, vocab_size) as shard:
        for piece in pieces:
            shard.add(piece)
        return shard.commit(num_documents)


class ShardWriter:
    """Writes one shard as its tokens come, in little memory, under a temporary name until `commit`.

    The header counts the tokens, so it is written last and the file is hashed after that. Use it in a `with` block.
    """

    def __init__(self, path: Path, vocab_size: int) -> None:
        self._path = path
        self._vocab_size = vocab_size
        self._dtype = token_dtype(vocab_size)
        self._buffer = np.empty(BUFFER_TOKENS, dtype=np.uint32)
        self._used = 0
        self._num_tokens = 0
        self._temporary = temporary_name(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        with naming(path):
            self._file = self._temporary.open("wb")
            self._file.write(bytes(HEADER_BYTES))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with suppress(OSError):
            # Closing flushes, which a full disk refuses once more.
            self._file.close()
        self._temporary.unlink(missing_ok=True)

    def add(self, tokens: npt.NDArray[Any]) -> None:
        """Append tokens of any unsigned type."""
        for start in range(0, len(tokens), BUFFER_TOKENS):
            self._append(tokens[start : start + BUFFER_TOKENS])

    def _append(self, tokens: npt.NDArray[Any]) -> None:
        if self._used + len(tokens) > BUFFER_TOKENS:
            self._flush()
        self._buffer[self._used : self._used + len(tokens)] = tokens
        self._used += len(tokens)

    def commit(self, num_documents: int) -> ShardEntry:
        """Finish the file under its real name; return its entry."""
        self._flush()
        magic, version = LAYOUTS[self._dtype.itemsize]
        header = np.zeros(256, dtype="<i4")
        header[:3] = magic, version, self._num_tokens
        with naming(self._path):
            self._file.seek(0)
            self._file.write(header.tobytes())
            self._file.flush()
            os.fsync(self._file.fileno())
        sha256 = sha256_file(self._temporary)
        self._temporary.replace(self._path)
        fsync_folder(self._path.parent)
        num_bytes = HEADER_BYTES + self._dtype.itemsize * self._num_tokens
        return ShardEntry(self._path.name, num_bytes, sha256, self._num_tokens, num_documents)

    def _flush(self) -> None:
        tokens, self._used = self._buffer[: self._used], 0
        self._num_tokens += len(tokens)
        if len(tokens) and int(tokens.max()) >= self._vocab_size:
            raise UserError(f"{self._path}: token {tokens.max()} is outside the vocabulary of {self._vocab_size}")
        if self._num_tokens > MAX_SHARD_TOKENS:
            what = f"more than {MAX_SHARD_TOKENS} tokens do not fit one shard"
            raise UserError(f"{self._path}: {what}; lower data.documents_per_shard")
        with naming(self._path):
            self._file.write(tokens.astype(self._dtype).tobytes())


def read_layout(path: Path) -> Layout:
    """Return the layout of a token file; its counts are held against the file's size before anything is read."""
    size = path.stat().st_size
    with path.open("rb") as file:
        header = np.frombuffer(file.read(HEADER_BYTES).ljust(HEADER_BYTES, b"\0"), dtype="<i4")
    for token_bytes, (magic, version) in LAYOUTS.items():
        if header[0] == magic:
            if header[1] != version:
                raise UserError(f"{path}: header version {header[1]} is not known; expected {version}")
            layout = Layout(HEADER_BYTES, token_bytes, int(header[2]))
            expected = HEADER_BYTES + token_bytes * layout.num_tokens
            if size != expected:
                raise UserError(f"{path}: {size} bytes, but its header's {layout.num_tokens} tokens need {expected}")
            return layout
    if size % 2 or size == 0:
        raise UserError(f"{path}: neither a known header nor a whole number of uint16 tokens")
    return Layout(0, 2, size // 2)


def read_tokens(path: Path) -> Tokens:
    """Return all tokens of one file."""
    layout = read_layout(path)
    with path.open("rb") as file:
        file.seek(layout.header_bytes)
        return np.frombuffer(file.read(), dtype=layout.dtype)


def verify_shards(folder: Path, shards: Iterable[ShardEntry], *, hashes: bool) -> None:
    """Raise `UserError` naming every listed shard that is missing, cut or changed."""
    found = [verify_entry(folder, shard.file, hashes=hashes) for shard in shards]
    wrong = [problem for problem in found if problem]
    if wrong:
        way = "restore the files, or run boot --redo tokenizer"
        raise UserError("; ".join(wrong) + f"; {way}")


class TokenCorpus:
    """The shards of one split read as one long sequence of tokens, window by window.

    Reads through memory maps, at less than half of the cost of `pread`. Touching what a file no longer has ends a
    process by SIGBUS, so each file is held against the state in which it was opened before it is touched, and after.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.manifest = TokenManifest.read(folder)
        if not self.manifest.complete or self.manifest.num_tokens < 2:
            what = "is not complete" if not self.manifest.complete else "holds no sample (fewer than 2 tokens)"
            raise UserError(f"{folder}: the corpus {what}; run the tokenizer stage")
        verify_shards(folder, self.manifest.shards, hashes=False)
        self._ends = np.cumsum([shard.num_tokens for shard in self.manifest.shards])
        self._open: OrderedDict[int, _Mapped] = OrderedDict()
        # A map holds a descriptor of its own.
        self._max_open = min(MAX_OPEN_SHARDS, resource.getrlimit(resource.RLIMIT_NOFILE)[0] // 8)

    @property
    def shard_tokens(self) -> tuple[int, ...]:
        """Return the tokens of each shard in manifest order."""
        return tuple(shard.num_tokens for shard in self.manifest.shards)

    def pairs(self, samples: Indices, seq_len_tokens: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Return inputs and targets of samples, each of shape (samples, seq_len); padding has the target IGNORED."""
        rows = np.empty((len(samples), seq_len_tokens + 1), dtype=self.dtype)
        filled = self.windows(samples, rows)
        padding = np.arange(seq_len_tokens) >= filled[:, None]
        inputs, targets = rows[:, :-1].astype(np.int64), rows[:, 1:].astype(np.int64)
        inputs[padding], targets[padding] = 0, IGNORED
        return inputs, targets

    @property
    def dtype(self) -> np.dtype[Any]:
        """Return the narrowest type of the corpus's tokens."""
        return token_dtype(self.manifest.vocab_size)

    def windows(self, samples: Indices, rows: npt.NDArray[Any]) -> Indices:
        """Read windows of one token more than a sample into `rows`; return how many targets each has.

        `rows` has this corpus's `dtype` and shape (samples, seq_len + 1); what the last sample lacks is filled with 0.
        """
        starts = samples * (rows.shape[1] - 1)
        stops = np.minimum(starts + rows.shape[1], self.manifest.num_tokens)
        first = np.searchsorted(self._ends, starts, side="right")
        crossing = np.searchsorted(self._ends, stops - 1, side="right") != first
        for row in np.flatnonzero(crossing | (stops - starts < rows.shape[1])).tolist():
            tokens = self._read(int(starts[row]), int(stops[row]))
            rows[row, : len(tokens)], rows[row, len(tokens) :] = tokens, 0
            first[row] = -1
        by_shard = np.argsort(first, kind="stable")
        for chosen in np.split(by_shard, np.flatnonzero(np.diff(first[by_shard])) + 1):
            index = int(first[chosen[0]]) if len(chosen) else -1
            if index >= 0:
                self._read_whole(index, starts[chosen] - self._start(index), chosen, rows)
        self._check_vocabulary(rows)
        return np.asarray(stops - starts - 1)

    def read(self, start: int, stop: int) -> npt.NDArray[Any]:
        """Return the tokens [start, stop) of the concatenated shards."""
        tokens = self._read(start, stop)
        self._check_vocabulary(tokens)
        return tokens

    def _read(self, start: int, stop: int) -> npt.NDArray[Any]:
        pieces = []
        index = int(np.searchsorted(self._ends, start, side="right"))
        while start < stop:
            end = min(stop, int(self._ends[index]))
            with self._mapped(index) as shard:
                pieces.append(np.array(shard.tokens[start - self._start(index) : end - self._start(index)]))
            start, index = end, index + 1
        return pieces[0] if len(pieces) == 1 else np.concatenate(pieces)

    def _start(self, index: int) -> int:
        return int(self._ends[index]) - self.manifest.shards[index].num_tokens

    def _check_vocabulary(self, tokens: npt.NDArray[Any]) -> None:
        if tokens.size and int(tokens.max()) >= self.manifest.vocab_size:
            raise UserError(f"{self.folder}: token {int(tokens.max())} is outside {self.manifest.vocab_size}")

    def _read_whole(self, index: int, starts: Indices, chosen: Indices, rows: npt.NDArray[Any]) -> None:
        """Copy windows that lie in one shard into the chosen rows."""
        with self._mapped(index) as shard:
            # All of them in one call, which takes a quarter of the time of one call each.
            rows[chosen] = shard.windows(rows.shape[1])[starts]

    def _changed(self, index: int) -> UserError:
        path = self.folder / self.manifest.shards[index].path
        way = "restore the file and run boot again, or boot --redo tokenizer"
        return UserError(f"{path}: changed under the run, which has read it in another state; {way}")

    @contextmanager
    def _mapped(self, index: int) -> "Iterator[_Mapped]":
        """Lend a shard; its file must be the same before and after."""
        if index not in self._open:
            self._open[index] = _Mapped.of(self.folder, self.manifest.shards[index])
            if len(self._open) > self._max_open:
                os.close(self._open.popitem(last=False)[1].descriptor)
        self._open.move_to_end(index)
        shard = self._open[index]
        for lent in (False, True):
            if _stamp(shard.descriptor) != shard.stamp:
                raise self._changed(index)
            if not lent:
                yield shard


@dataclass(frozen=True, slots=True)
class _Mapped:
    """An open shard."""

    descriptor: int
    stamp: tuple[int, int]
    tokens: Tokens
    _windows: dict[int, npt.NDArray[Any]] = field(default_factory=dict)

    def windows(self, width: int) -> npt.NDArray[Any]:
        """Return a view of all windows of a width, by the place of their first token."""
        if width not in self._windows:
            self._windows[width] = sliding_window_view(self.tokens, width)
        return self._windows[width]

    @classmethod
    def of(cls, folder: Path, entry: ShardEntry) -> Self:
        path = folder / entry.path
        layout = read_layout(path)
        if layout.num_tokens != entry.num_tokens:
            raise UserError(f"{path}: holds {layout.num_tokens} tokens, but its manifest says otherwise")
        descriptor = os.open(path, os.O_RDONLY)
        stamp = _stamp(descriptor)
        if stamp[0] < layout.header_bytes + layout.num_tokens * layout.token_bytes:
            raise UserError(f"{path}: was cut while it was opened; restore the file")
        memory = mmap.mmap(descriptor, 0, prot=mmap.PROT_READ)
        return cls(descriptor, stamp, np.frombuffer(memory, layout.dtype, layout.num_tokens, layout.header_bytes))


def _stamp(descriptor: int) -> tuple[int, int]:
    """Return size and time of change of an open file: equal stamps, equal bytes, short of malice."""
    found = os.fstat(descriptor)
    return found.st_size, found.st_mtime_ns
