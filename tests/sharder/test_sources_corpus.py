from pathlib import Path
import pytest

from sharder.sources.corpus import Request, SourceAbsentError, keep, local_files
from trainwright.spec.data import TextSource
from trainwright.spec.exits import UserError
from trainwright.store.text_shards import Drops


def request(path: Path, tmp_path: Path) -> Request:
    return Request(TextSource(), path, "data.path", tmp_path, {})


def test_files_are_found_below_a_folder_in_sorted_order(tmp_path: Path) -> None:
    for name in ("b.txt", "a/z.txt", "a.txt", "c.json", ".hidden/d.txt", ".e.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("x")
    listing = local_files(request(tmp_path, tmp_path), (".txt",))
    assert [listing.name(file) for file in listing.files] == ["a.txt", "a/z.txt", "b.txt"]


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
    assert [listing.name(file) for file in listing.files] == ["a.txt"]


def test_an_empty_folder_is_refused_naming_path_and_endings(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"data\.path=.*no file ends in \.txt \.txt\.gz"):
        local_files(request(tmp_path, tmp_path), (".txt", ".txt.gz"))


def test_a_missing_path_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(SourceAbsentError, match="nowhere: there is no such file or folder"):
        local_files(request(tmp_path / "nowhere", tmp_path), (".txt",))


def test_what_is_no_document_is_counted() -> None:
    drops = Drops()
    assert [keep(text, drops) for text in ("a", " \n", "half \ud83d of a pair")] == [True, False, False]
    assert drops == {"empty": 1, "not UTF-8": 1}
