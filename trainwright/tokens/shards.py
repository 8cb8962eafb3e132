"""Token shards: the files, their manifest, and the windows that become samples. A batch starts here.

The files are the layouts that other projects read and write: a header of 256 little-endian int32 (magic, version,
token count), then the tokens. Version 1 holds uint16 (llm.c, modded-nanogpt), version 7 uint32 for vocabularies
above 65,535 (llm.c's Llama 3 variant); files without a header are uint16 (nanoGPT). The manifest beside them is ours:
sizes, hashes, and the tokenizer and text that they were made from.
"""

import os
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from trainwright.spec.canonical import sha256_json
from trainwright.spec.exits import UserError
from trainwright.spec.paths import MANIFEST
from trainwright.store.files import FileEntry, atomic_writer, read_json, verify_entry, write_json
from trainwright.tokens.order import Indices

Tokens = npt.NDArray[np.uint16] | npt.NDArray[np.uint32]

HEADER_BYTES = 1024
LAYOUTS = {2: (20240520, 1), 4: (20240801, 7)}
"""Bytes of a token -> (magic, version) of its header."""
MAX_SHARD_TOKENS = 2**31 - 1
"""The header counts tokens in an int32."""
IGNORED = -100
"""The target of a padded position: torch's cross-entropy leaves it out."""
MAX_OPEN_SHARDS = 64


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
    dtype = token_dtype(vocab_size)
    num_tokens = sum(len(piece) for piece in pieces)
    if num_tokens > MAX_SHARD_TOKENS:
        raise UserError(f"{path}: {num_tokens} tokens do not fit one shard; lower data.documents_per_shard")
    magic, version = LAYOUTS[dtype.itemsize]
    header = np.zeros(256, dtype="<i4")
    header[:3] = magic, version, num_tokens
    with atomic_writer(path) as file:
        file.write(header.tobytes())
        for piece in pieces:
            if len(piece) and int(piece.max()) >= vocab_size:
                raise UserError(f"{path}: token {int(piece.max())} is outside the vocabulary of {vocab_size}")
            file.write(piece.astype(dtype, copy=False).tobytes())
    entry = file.entry(path.name)
    return ShardEntry(entry.path, entry.bytes, entry.sha256, num_tokens, num_documents)


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

    Reads with `pread` rather than a memory map: a file that shrinks under the run then gives a short read, which is
    reported, instead of a SIGBUS, which is not.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.manifest = TokenManifest.read(folder)
        if not self.manifest.complete or self.manifest.num_tokens < 2:
            what = "is not complete" if not self.manifest.complete else "holds no sample (fewer than 2 tokens)"
            raise UserError(f"{folder}: the corpus {what}; run the tokenizer stage")
        verify_shards(folder, self.manifest.shards, hashes=False)
        self._ends = np.cumsum([shard.num_tokens for shard in self.manifest.shards])
        self._open: OrderedDict[int, tuple[int, Layout, tuple[int, int]]] = OrderedDict()

    @property
    def shard_tokens(self) -> tuple[int, ...]:
        """Return the tokens of each shard in manifest order."""
        return tuple(shard.num_tokens for shard in self.manifest.shards)

    def windows(self, samples: Indices, seq_len_tokens: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Return inputs and targets of samples, each of shape (samples, seq_len); padding has the target IGNORED."""
        inputs = np.zeros((len(samples), seq_len_tokens), dtype=np.int64)
        targets = np.full((len(samples), seq_len_tokens), IGNORED, dtype=np.int64)
        for row, sample in enumerate(samples):
            start = int(sample) * seq_len_tokens
            tokens = self.read(start, min(start + seq_len_tokens + 1, self.manifest.num_tokens))
            inputs[row, : len(tokens) - 1] = tokens[:-1]
            targets[row, : len(tokens) - 1] = tokens[1:]
        return inputs, targets

    def num_targets(self, samples: Indices, seq_len_tokens: int) -> int:
        """Return how many positions of these samples have a target: all but the padding of an epoch's last sample."""
        ends = np.minimum((samples + 1) * seq_len_tokens, self.manifest.num_tokens - 1)
        return int((ends - samples * seq_len_tokens).sum())

    def read(self, start: int, stop: int) -> npt.NDArray[Any]:
        """Return the tokens [start, stop) of the concatenated shards."""
        pieces = []
        index = int(np.searchsorted(self._ends, start, side="right"))
        while start < stop:
            shard_start = int(self._ends[index]) - self.manifest.shards[index].num_tokens
            end = min(stop, int(self._ends[index]))
            pieces.append(self._read_shard(index, start - shard_start, end - shard_start))
            start, index = end, index + 1
        tokens = pieces[0] if len(pieces) == 1 else np.concatenate(pieces)
        if int(tokens.max()) >= self.manifest.vocab_size:
            raise UserError(f"{self.folder}: token {int(tokens.max())} is outside {self.manifest.vocab_size}")
        return tokens

    def _read_shard(self, index: int, start: int, stop: int) -> Tokens:
        descriptor, layout, stamp = self._descriptor(index)
        wanted = (stop - start) * layout.token_bytes
        data = os.pread(descriptor, wanted, layout.header_bytes + start * layout.token_bytes)
        if len(data) != wanted or _stamp(descriptor) != stamp:
            path = self.folder / self.manifest.shards[index].path
            way = "restore the file and run boot again, or boot --redo tokenizer"
            raise UserError(f"{path}: changed under the run, which has read it in another state; {way}")
        return np.frombuffer(data, dtype=layout.dtype)

    def _descriptor(self, index: int) -> tuple[int, Layout, tuple[int, int]]:
        if index not in self._open:
            path = self.folder / self.manifest.shards[index].path
            layout = read_layout(path)
            if layout.num_tokens != self.manifest.shards[index].num_tokens:
                raise UserError(f"{path}: holds {layout.num_tokens} tokens, but its manifest says otherwise")
            descriptor = os.open(path, os.O_RDONLY)
            self._open[index] = (descriptor, layout, _stamp(descriptor))
            if len(self._open) > MAX_OPEN_SHARDS:
                os.close(self._open.popitem(last=False)[1][0])
        self._open.move_to_end(index)
        return self._open[index]


def _stamp(descriptor: int) -> tuple[int, int]:
    """Return size and time of change of an open file: equal stamps, equal bytes, short of malice."""
    found = os.fstat(descriptor)
    return found.st_size, found.st_mtime_ns
