from pathlib import Path
from typing import Literal
import pytest
import gzip

import zstandard

from made_corpus import documents
from sharder.sources import text as text_source
from sharder.sources.corpus import Request
from sharder.sources.text import open_text, text_rows
from trainwright.spec.data import TextSource
from trainwright.spec.exits import UserError
from trainwright.store.text_shards import Drops

BYTES = b"first line\nsecond line\n\n \nthird paragraph\n\xff broken\n\nlast"


def read(tmp_path: Path, document: str) -> tuple[list[str], dict[str, int]]:
    drops = Drops()
    corpus = open_text(Request(TextSource(document=document), tmp_path, "data.path", tmp_path, {}))
    return documents(corpus, drops), dict(drops)


@pytest.mark.parametrize(
    ("document", "expected", "drops"),
    [
        ("line", ["first line", "second line", "third paragraph", "last"], {"empty": 3, "not UTF-8": 1}),
        ("blank_line", ["first line\nsecond line", "last"], {"not UTF-8": 1}),
        ("file", [], {"not UTF-8": 1}),
    ],
)
def test_a_document_is_a_line_a_paragraph_or_a_file(
    tmp_path: Path, document: str, expected: list[str], drops: dict[str, int]
) -> None:
    (tmp_path / "a.txt").write_bytes(BYTES)
    assert read(tmp_path, document) == (expected, drops)


def test_compressed_files_are_read_among_the_plain_ones(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"one\ntwo")
    (tmp_path / "b.txt.gz").write_bytes(gzip.compress(b"three\n"))
    (tmp_path / "c.txt.zst").write_bytes(zstandard.compress(b"four\n"))
    assert read(tmp_path, "file") == (["one\ntwo", "three", "four"], {})


def test_a_document_without_end_is_refused_with_the_way_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text_source, "MAX_LINE_BYTES", 1000)
    (tmp_path / "a.txt").write_bytes(b"words\n" * 1000)
    with pytest.raises(UserError, match=r"a\.txt: a document of more than .* set data\.source\.document=line"):
        read(tmp_path, "file")


@pytest.mark.parametrize("document", ["line", "blank_line", "file"])
def test_reading_goes_on_at_any_document(tmp_path: Path, document: Literal["line", "blank_line", "file"]) -> None:
    (tmp_path / "a.txt").write_bytes(BYTES)
    whole = list(text_rows(tmp_path / "a.txt", document, 0))
    for start in range(len(whole) + 1):
        assert list(text_rows(tmp_path / "a.txt", document, start)) == whole[start:]
