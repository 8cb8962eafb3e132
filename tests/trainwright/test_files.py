"""Files that survive: readers see the old bytes or the new ones, and what a manifest lists is what lies there."""

from dataclasses import replace
import hashlib
import json
import os
from pathlib import Path
import signal
import stat
import subprocess
import sys
import time

from hypothesis import given
from hypothesis import strategies as st
import pytest

from trainwright.spec.exits import UserError
from trainwright.store.files import (
    FileEntry,
    HashingWriter,
    atomic_writer,
    fsync_file,
    fsync_folder,
    read_json,
    remove_temporaries,
    set_aside,
    sha256_file,
    temporary_name,
    verify_entry,
    write_bytes,
    write_json,
    write_private,
    write_text,
)


def test_a_written_file_is_whole_and_its_entry_verifies(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "er" / "x.bin"
    entry = write_bytes(path, b"abc")
    assert path.read_bytes() == b"abc"
    assert entry == FileEntry("x.bin", 3, hashlib.sha256(b"abc").hexdigest())
    assert verify_entry(path.parent, entry, hashes=True) is None
    assert sha256_file(path) == entry.sha256
    assert [file.name for file in path.parent.iterdir()] == ["x.bin"]


def test_an_exception_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "x"
    write_bytes(path, b"old")
    for error in (RuntimeError, KeyboardInterrupt):
        with pytest.raises(error):
            _write_half(path, error)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def _write_half(path: Path, error: type[BaseException]) -> None:
    with atomic_writer(path) as file:
        file.write(b"new")
        file.flush()
        raise error


def test_nobody_sees_the_new_bytes_before_the_end(tmp_path: Path) -> None:
    path = tmp_path / "x"
    write_bytes(path, b"old")
    with atomic_writer(path) as file:
        file.write(b"new")
        file.flush()
        assert path.read_bytes() == b"old"
        assert temporary_name(path).exists()
    assert path.read_bytes() == b"new"


def test_a_private_file_is_private_from_its_first_byte_on_whatever_was_there(tmp_path: Path) -> None:
    path = tmp_path / "x"
    for left in (path, temporary_name(path)):
        left.write_text("old")
        left.chmod(0o644)
    with atomic_writer(path, private=True) as file:
        assert stat.S_IMODE(temporary_name(path).stat().st_mode) == 0o600
        file.write(b"new")
    assert (path.read_text(), stat.S_IMODE(path.stat().st_mode)) == ("new", 0o600)
    write_private(path, "newer")
    assert (path.read_text(), stat.S_IMODE(path.stat().st_mode)) == ("newer", 0o600)
    assert list(tmp_path.iterdir()) == [path]


ENDLESS_WRITER = """
import itertools, sys
from pathlib import Path
from trainwright.store.files import write_bytes
for number in itertools.count():
    write_bytes(Path(sys.argv[1]), (b"%08d" % number) * 50_000)
    print(number, flush=True)
"""


def test_a_writer_killed_at_any_moment_leaves_a_whole_file(tmp_path: Path) -> None:
    path = tmp_path / "x"
    for delay in (0.0, 0.003, 0.011, 0.03):
        process = subprocess.Popen([sys.executable, "-c", ENDLESS_WRITER, str(path)], stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        process.stdout.readline()
        time.sleep(delay)
        process.send_signal(signal.SIGKILL)
        finished = process.stdout.read().split()
        process.wait()
        process.stdout.close()
        data = path.read_bytes()
        assert len(data) == 400_000
        assert data == data[:8] * 50_000
        # What was reported as written is there: nothing older than the last report.
        assert int(data[:8]) >= int(finished[-1] if finished else 0)
    remove_temporaries(tmp_path)
    assert list(tmp_path.iterdir()) == [path]


PRINT_NAME = "from pathlib import Path; from trainwright.store.files import *; print(temporary_name(Path('x')))"
WRITE_TEXT = "import sys; from trainwright.store.files import *; write_text(Path(sys.argv[1]), '\\u00e9\\n')"


def test_two_processes_write_under_different_temporary_names() -> None:
    other = subprocess.run(
        [sys.executable, "-c", PRINT_NAME], capture_output=True, text=True, check=True
    ).stdout.strip()
    assert other != str(temporary_name(Path("x")))
    assert other.startswith(".x.")
    assert other.endswith(".tmp")


def test_remove_temporaries_touches_nothing_else(tmp_path: Path) -> None:
    kept = [tmp_path / name for name in ("x", ".hidden", "x.tmp")]
    for path in [*kept, temporary_name(tmp_path / "x")]:
        path.write_bytes(b"")
    remove_temporaries(tmp_path)
    assert sorted(tmp_path.iterdir()) == sorted(kept)


def test_the_hashing_writer_knows_what_passed(tmp_path: Path) -> None:
    with (tmp_path / "x").open("wb") as file:
        writer = HashingWriter(file)
        assert [writer.write(b"ab"), writer.write(b"c")] == [2, 1]
        writer.flush()
        assert (tmp_path / "x").read_bytes() == b"abc"
    assert writer.num_bytes == 3
    assert writer.entry("y") == FileEntry("y", 3, hashlib.sha256(b"abc").hexdigest())


def test_damage_is_told_by_file_and_kind(tmp_path: Path) -> None:
    path = tmp_path / "x"
    entry = write_bytes(path, b"abcd")
    path.write_bytes(b"abce")
    assert verify_entry(tmp_path, entry, hashes=True) == f"{path}: its sha256 is not the one in its manifest"
    assert verify_entry(tmp_path, entry, hashes=False) is None
    path.write_bytes(b"abc")
    assert verify_entry(tmp_path, entry, hashes=False) == f"{path}: 3 bytes, but its manifest says 4"
    path.unlink()
    assert verify_entry(tmp_path, entry, hashes=False) == f"{path}: missing"


@pytest.mark.parametrize("outside", ["../x", "/etc/passwd", "a/../../x"])
def test_an_entry_outside_its_folder_is_never_read(tmp_path: Path, outside: str) -> None:
    entry = replace(write_bytes(tmp_path / "x", b""), path=outside)
    assert verify_entry(tmp_path / "folder", entry, hashes=True) == f"{outside}: lies outside the folder"


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda below: st.lists(below, max_size=3) | st.dictionaries(st.text(), below, max_size=3),
    max_leaves=10,
)


@given(st.dictionaries(st.text(), JSON, max_size=4))
def test_json_comes_back_with_its_order(tmp_path_factory: pytest.TempPathFactory, value: dict[str, object]) -> None:
    path = tmp_path_factory.getbasetemp() / "round-trip.json"
    write_json(path, value)
    assert read_json(path) == value
    assert list(read_json(path)) == list(value)


def test_json_is_written_for_people_too(tmp_path: Path) -> None:
    write_json(tmp_path / "x", {"b": 1, "a": "\u00e9"})
    assert (tmp_path / "x").read_text(encoding="utf-8") == '{\n "b": 1,\n "a": "\u00e9"\n}\n'
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "y", {"a": float("inf")})
    assert not (tmp_path / "y").exists()


@given(st.binary(max_size=60))
def test_any_bytes_are_a_json_object_or_one_of_our_errors(
    tmp_path_factory: pytest.TempPathFactory, data: bytes
) -> None:
    path = tmp_path_factory.getbasetemp() / "any.json"
    path.write_bytes(data)
    try:
        assert isinstance(read_json(path), dict)
    except UserError as error:
        if not str(error).startswith(str(path)):
            pytest.fail(f"names no file: {error}")


def test_json_that_is_deep_or_huge_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_text("[" * 100_000)
    with pytest.raises(UserError, match="not valid JSON"):
        read_json(path)
    path.write_text(json.dumps({"a": "b" * 100}))
    with pytest.raises(UserError, match="larger than 100 bytes"):
        read_json(path, max_bytes=100)
    with pytest.raises(FileNotFoundError):
        read_json(tmp_path / "absent")


def test_text_is_utf8_on_every_machine(tmp_path: Path) -> None:
    environ = {**os.environ, "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    subprocess.run([sys.executable, "-c", WRITE_TEXT, str(tmp_path / "x")], check=True, env=environ)
    assert (tmp_path / "x").read_bytes() == "\u00e9\n".encode()
    assert write_text(tmp_path / "y", "\u00e9").bytes == 2


def test_set_aside_deletes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "x"
    for content in ("1", "2"):
        path.mkdir()
        (path / "f").write_text(content)
        set_aside(path)
    assert not path.exists()
    assert [(tmp_path / f"x.old-{n}" / "f").read_text() for n in (1, 2)] == ["1", "2"]


def test_flushing_works_on_files_and_folders_and_names_what_is_absent(tmp_path: Path) -> None:
    write_text(tmp_path / "x", "a")
    fsync_file(tmp_path / "x")
    fsync_folder(tmp_path)
    with pytest.raises(FileNotFoundError):
        fsync_folder(tmp_path / "absent")
