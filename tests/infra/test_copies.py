"""A copy is whole and verified, goes on where it stopped, and deletes nothing. Real S3: tests/engines/test_s3.py."""

from collections.abc import Callable
import io
import json
from pathlib import Path

import pytest

from infra.buckets import Folder, Seen, place
from infra.copies import RECORD, copy_all
from trainwright.spec.exits import MissingError, UserError

Said = Callable[..., tuple[int, str, str]]
FILES = {"a.txt": b"alpha", "deep/er/b.bin": b"\x00" * 3_000_000, "empty": b"", "manifest.json": b"{}"}


def make(folder: Path) -> Path:
    for name, data in FILES.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in Folder(folder).files() if name != RECORD}


def test_everything_arrives_once(said: Said, tmp_path: Path) -> None:
    source, target = make(tmp_path / "from"), tmp_path / "to"
    assert (
        said("copy", str(source), str(target))[1]
        == "4 files, 3,000,007 bytes: 4 copied and verified, 0 there already\n"
    )
    assert contents(target) == FILES
    assert "0 copied and verified, 4 there already" in said("copy", str(source), str(target))[1]


def test_what_changed_on_either_side_is_copied_again_and_nothing_is_deleted(said: Said, tmp_path: Path) -> None:
    source, target = make(tmp_path / "from"), tmp_path / "to"
    said("copy", str(source), str(target))
    (source / "a.txt").write_bytes(b"ALPHA")
    (target / "empty").unlink()
    (target / "mine").write_bytes(b"stays")
    assert ": 2 copied and verified, 2 there already" in said("copy", str(source), str(target))[1]
    assert contents(target) == {**FILES, "a.txt": b"ALPHA", "mine": b"stays"}


class Torn(Folder):
    """A target that breaks after some files, or keeps other bytes than it was given."""

    left = 2
    lies = False

    def write(self, name: str, stream: object) -> None:
        if name != RECORD:
            if Torn.left == 0:
                raise OSError("the line went dead")
            Torn.left -= 1
        data = stream.read() if hasattr(stream, "read") else b""
        super().write(name, io.BytesIO(b"x" + data[1:] if Torn.lies and name != RECORD else data))


def test_a_copy_that_was_cut_off_vouches_for_nothing_it_has_not_copied(tmp_path: Path) -> None:
    source = Folder(make(tmp_path / "from"))
    with pytest.raises(OSError, match="dead"):
        copy_all(source, Torn(tmp_path / "to"), source.files())
    assert sorted(contents(tmp_path / "to")) == ["a.txt", "deep/er/b.bin"]
    assert "manifest.json" not in contents(tmp_path / "to")
    assert copy_all(source, Folder(tmp_path / "to"), source.files())[0] >= 2
    assert contents(tmp_path / "to") == FILES


def test_what_is_read_back_otherwise_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Torn, "lies", True)
    monkeypatch.setattr(Torn, "left", 9)
    source = Folder(make(tmp_path / "from"))
    with pytest.raises(UserError, match=r"a\.txt: what was read back is not what was written"):
        copy_all(source, Torn(tmp_path / "to"), source.files())


@pytest.mark.parametrize("note", ["", "[]", '{"a.txt": 3}', '{"a.txt": {"bytes": 5}}'])
def test_a_note_that_says_nothing_only_costs_time(note: str, tmp_path: Path) -> None:
    source, target = Folder(make(tmp_path / "from")), Folder(tmp_path / "to")
    target.write(RECORD, io.BytesIO(note.encode()))
    assert copy_all(source, target, source.files()) == (4, 0)
    assert set(json.loads((tmp_path / "to" / RECORD).read_text())) >= set(FILES)


def test_a_name_that_leads_out_of_the_folder_is_not_written(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="leads out of"):
        Folder(tmp_path / "in").write("../out", io.BytesIO(b""))


def test_links_are_left_out(tmp_path: Path) -> None:
    make(tmp_path / "from")
    (tmp_path / "from/link").symlink_to("/etc/passwd")
    assert "link" not in Folder(tmp_path / "from").files()
    assert Folder(tmp_path / "from").files()["a.txt"] == Seen(5, str((tmp_path / "from/a.txt").stat().st_mtime_ns))


def test_wrong_places_are_sentences(said: Said, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert "holds no files" in said("copy", str(tmp_path / "empty"), str(tmp_path / "to"))[2]
    with pytest.raises(UserError, match="expected a folder"):
        place("gs://bucket/x")
    with pytest.raises(UserError, match="names no bucket"):
        place("s3:///x")
    with pytest.raises(MissingError, match="RUNPOD_S3_ACCESS_KEY and RUNPOD_S3_SECRET_KEY: not set"):
        place("volume:transformer-shared", {})
