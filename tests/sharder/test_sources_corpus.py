from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st
import pytest

from sharder.sources.corpus import LocalCorpus, Request, SourceAbsentError, local_files, no_document
from sharder.sources.text import read_text_file
from trainwright.spec.data import TextSource
from trainwright.spec.exits import UserError


def request(path: Path, tmp_path: Path) -> Request:
    return Request(TextSource(), path, "data.path", tmp_path, {})


def test_files_are_found_below_a_folder_in_sorted_order(tmp_path: Path) -> None:
    for name in ("b.txt", "a/z.txt", "a.txt", "c.json", ".hidden/d.txt", ".e.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(name)
    listing = local_files(request(tmp_path, tmp_path), (".txt",))
    assert [file.name for file in listing.files] == ["a.txt", "a/z.txt", "b.txt"]


def test_the_fingerprint_follows_names_and_sizes_not_the_place(tmp_path: Path) -> None:
    prints = set()
    for place in ("one", "two"):
        (tmp_path / place).mkdir()
        (tmp_path / place / "a.txt").write_text("same size")
        prints.add(local_files(request(tmp_path / place, tmp_path), (".txt",)).fingerprint)
    assert len(prints) == 1
    (tmp_path / "two" / "a.txt").write_text("other size")
    assert local_files(request(tmp_path / "two", tmp_path), (".txt",)).fingerprint not in prints


def test_one_file_may_be_named_itself(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("x")
    listing = local_files(request(tmp_path / "a.txt", tmp_path), (".txt",))
    assert [file.name for file in listing.files] == ["a.txt"]


def test_an_empty_folder_is_refused_naming_path_and_endings(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"data\.path=.*no file ends in \.txt \.txt\.gz"):
        local_files(request(tmp_path, tmp_path), (".txt", ".txt.gz"))


def test_a_missing_path_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(SourceAbsentError, match="nowhere: there is no such file or folder"):
        local_files(request(tmp_path / "nowhere", tmp_path), (".txt",))


def test_what_is_no_document_has_a_reason() -> None:
    reasons = {
        b"a": None,
        b" \n": "empty",
        b"": "empty",
        " \u3000\x1c\u00a0".encode(): "empty",
        b"\x1c\x1f": "empty",
        b"\xffa": "not UTF-8",
        b"a\0b": "NUL bytes",
        "語".encode(): None,
    }
    assert {text: no_document(text) for text in reasons} == reasons


@given(st.text())
def test_a_document_is_what_a_shard_gives_back(text: str) -> None:
    try:
        encoded = text.encode()
    except UnicodeEncodeError:
        return
    assert (no_document(encoded) is None) == (bool(text.strip()) and "\0" not in text)


def test_empty_and_duplicate_files_are_left_out_and_counted(tmp_path: Path) -> None:
    for name, text in {"a": "same", "b": "same", "c": "", "d": "emas"}.items():
        (tmp_path / f"{name}.txt").write_text(text)
    listing = local_files(request(tmp_path, tmp_path), (".txt",))
    assert [file.name for file in listing.files] == ["a.txt", "d.txt"]
    assert listing.left_out == {"duplicate file": 1, "empty file": 1}


def test_files_of_other_kinds_are_counted(tmp_path: Path) -> None:
    for name in ("a.txt", "b.csv", "c/d.json", ".hidden"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(name)
    assert local_files(request(tmp_path, tmp_path), (".txt",)).left_out == {"another kind of file": 2}


def test_linked_folders_are_entered_once_even_in_a_loop(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "a.txt").write_text("x")
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "link").symlink_to(tmp_path / "real")
    (tmp_path / "data" / "loop").symlink_to(tmp_path / "data")
    listing = local_files(request(tmp_path / "data", tmp_path), (".txt",))
    assert [file.name for file in listing.files] == ["link/a.txt"]
    assert listing.left_out == {"folder linked again": 1}


def test_a_link_that_leads_nowhere_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "a.txt").symlink_to(tmp_path / "a.txt")
    with pytest.raises(UserError, match=r"a\.txt: cannot be read"):
        local_files(request(tmp_path, tmp_path), (".txt",))


def test_a_file_that_grows_is_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("one\ntwo\n")
    asked = request(path, tmp_path)
    corpus = LocalCorpus(local_files(asked, (".txt",)), asked.settings, read_text_file)
    rows = corpus.rows(corpus.files[0], 0, tmp_path)
    assert next(rows) == b"one\ntwo"
    with path.open("a") as file:
        file.write("\nthree\n")
    with pytest.raises(UserError, match=r"a\.txt: had 8 bytes when it was listed and has 15 now"):
        list(rows)
