from pathlib import Path
import zlib

import pytest
import zstandard

from trainwright.spec.data import Compression
from trainwright.store.compression import ZSTD_INPUT_BYTES, compressor, open_binary

ENDINGS: dict[Compression, str] = {"zstd": "x.zst", "gzip": "x.gz", "none": "x"}


def test_one_step_of_a_bomb_is_bounded(tmp_path: Path) -> None:
    bomb = tmp_path / "bomb.zst"
    bomb.write_bytes(zstandard.compress(bytes(1 << 28)))
    with open_binary(bomb) as file:
        assert file.read(10) == bytes(10)
        assert len(file.raw._output) <= (ZSTD_INPUT_BYTES // 4 + 1) * (128 << 10)


@pytest.mark.parametrize("compression", list(ENDINGS))
def test_what_is_written_comes_back_and_is_written_the_same_each_time(tmp_path: Path, compression: Compression) -> None:
    made = []
    for _ in range(2):
        writer = compressor(compression)
        made.append(writer.compress(b"some ") + writer.compress(b"words") + writer.flush())
    path = tmp_path / ENDINGS[compression]
    path.write_bytes(made[0])
    with open_binary(path) as file:
        assert file.read() == b"some words"
    assert made[0] == made[1]


def test_an_opened_file_is_read_instead_of_the_path(tmp_path: Path) -> None:
    (tmp_path / "y").write_bytes(zlib.compress(b"words", wbits=31))
    with (tmp_path / "y").open("rb") as opened, open_binary(Path("elsewhere.gz"), opened) as file:
        assert file.read() == b"words"


def test_zstd_is_known_by_both_endings_and_its_frames_may_have_others_between(tmp_path: Path) -> None:
    # As pzstd writes them: frames that say how long the next one is, and are to be skipped.
    between = (0x184D2A50).to_bytes(4, "little") + (4).to_bytes(4, "little") + b"1234"
    path = tmp_path / "x.zstd"
    path.write_bytes(between + zstandard.compress(b"some ") + between + zstandard.compress(b"words"))
    with open_binary(path) as file:
        assert file.read() == b"some words"
