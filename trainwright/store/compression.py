"""Compressed files: what writes them with the same bytes each time, and what reads them without trusting them."""

import gzip
import io
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, BinaryIO, assert_never

from trainwright.spec.data import Compression

if TYPE_CHECKING:
    from zstandard import ZstdCompressor

CHUNK_BYTES = 1 << 20
ZSTD = {"window_log": 17, "hash_log": 14, "chain_log": 13, "min_match": 6, "strategy": 1, "target_length": 0}
"""Level 1 (a tenth larger than level 3, in half the time) with a window and matches fit for prose: as small, in four
fifths of the time (`docs/LOG.md`, 2026-11-21)."""
GZIP_LEVEL = 6
ZSTD_INPUT_BYTES = 4 << 10
"""Compressed bytes decoded at once: zstd can make 128 KiB of 4 bytes, so this bounds what one step can fill."""


def compressor(compression: Compression) -> Any:
    """Return an object with `compress` and `flush`: one thread and fixed flags, and no time of day in the bytes."""
    match compression:
        case "zstd":
            return zstd().compressobj()
        case "gzip":
            return zlib.compressobj(GZIP_LEVEL, zlib.DEFLATED, 16 + zlib.MAX_WBITS)
        case "none":
            return _Uncompressed()
        case _:
            assert_never(compression)


def zstd() -> "ZstdCompressor":
    """Return the compressor of every zstd frame that we write."""
    import zstandard

    parameters = zstandard.ZstdCompressionParameters(**ZSTD, threads=0, write_checksum=True)
    return zstandard.ZstdCompressor(compression_params=parameters)


class _Uncompressed:
    def compress(self, data: bytes) -> bytes:
        return data

    def flush(self) -> bytes:
        return b""


def open_binary(path: Path, opened: BinaryIO | None = None) -> IO[bytes] | gzip.GzipFile:
    """Open a file for reading, decompressed by its ending; a cut one raises `EOFError` where it ends."""
    match path.suffix:
        case ".gz":
            return gzip.open(opened or path, "rb")
        case ".zst" | ".zstd":
            return io.BufferedReader(_ZstdFile(opened or path.open("rb")), CHUNK_BYTES)
        case _:
            return opened or path.open("rb")


class ZstdDamageError(ValueError):
    """What zstandard says of bytes that it cannot decode."""


class _ZstdFile(io.RawIOBase):
    """A zstd stream that raises `EOFError` when it is cut; zstandard's own reader ends in silence."""

    def __init__(self, file: BinaryIO) -> None:
        import zstandard

        self._file = file
        self._error = zstandard.ZstdError
        self._new: Callable[[], Any] = zstandard.ZstdDecompressor().decompressobj
        self._frame = self._new()
        self._inside = False
        self._input = b""
        self._output = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._output:
            if not self._step():
                return 0
        count = min(len(buffer), len(self._output))
        buffer[:count] = self._output[:count]
        self._output = self._output[count:]
        return count

    def close(self) -> None:
        self._file.close()
        super().close()

    def _step(self) -> bool:
        """Decode one piece of input; return False at a proper end."""
        data = self._input or self._file.read(ZSTD_INPUT_BYTES)
        self._input = b""
        if not data:
            if self._inside:
                raise EOFError
            return False
        try:
            self._output = memoryview(self._frame.decompress(data))
        except self._error as error:
            raise ZstdDamageError(error) from None
        self._inside = not self._frame.eof
        if self._frame.eof:
            self._input = self._frame.unused_data
            self._frame = self._new()
        return True
