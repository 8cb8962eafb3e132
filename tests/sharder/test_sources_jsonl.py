from typing import Any
from pathlib import Path
import json

import pytest

from made_corpus import documents
from sharder.sources.corpus import CorpusError, NoText, Request
from sharder.sources.jsonl import jsonl_rows, open_jsonl, refuse_bad
from trainwright.spec.data import HubSource, JsonlSource, ParquetSource
from trainwright.store.text_shards import Drops


def read(path: Path, drops: Drops, **settings: Any) -> list[str]:
    corpus = open_jsonl(Request(JsonlSource(**settings), path, "data.path", path, {}))
    return documents(corpus, drops)


def test_every_drop_is_counted_by_its_reason(tmp_path: Path) -> None:
    lines = [
        b'{"text": "good"}',
        b"{",
        b"[1]",
        b'{"id": 1}',
        b'{"text": "\xff"}',
        b'{"text": " "}',
        b'{"text": "\\udc00"}',
    ]
    (tmp_path / "a.jsonl").write_bytes(b"\n".join(lines))
    drops = Drops()
    assert read(tmp_path, drops, max_bad_share=1) == ["good"]
    expected = {"not JSON": 1, "not a JSON object": 1, "no text": 1, "not UTF-8": 2, "empty": 1}
    assert drops == expected
    assert drops.total() == len(lines) - 1


def test_text_comes_from_text_else_content_else_the_key_that_is_named(tmp_path: Path) -> None:
    rows = [{"text": "a", "content": "b", "body": "c"}, {"content": "d", "body": "e"}]
    (tmp_path / "a.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    assert read(tmp_path, Drops()) == ["a", "d"]
    assert read(tmp_path, Drops(), field="body") == ["c", "e"]


FIRST = "b.jsonl:2: not JSON"


def test_too_many_bad_lines_are_refused_with_the_first_of_them_and_the_counts() -> None:
    with pytest.raises(CorpusError) as error:
        refuse_bad(JsonlSource(max_bad_share=0.1), {"not JSON": 1, "no text": 1, "empty": 5}, 10, FIRST)
    for part in (FIRST, "2 of 10 lines", "max_bad_share=0.1", "data.source.field (looked for text or content)"):
        assert part in str(error.value)
    with pytest.raises(CorpusError, match=r"data\.source\.column \(looked for body\)"):
        refuse_bad(HubSource(dataset="a/b", column="body"), {"not JSON": 1}, 2, FIRST)


def test_as_many_bad_lines_as_allowed_are_accepted_and_other_sources_have_no_limit() -> None:
    refuse_bad(JsonlSource(max_bad_share=0.1), {"not JSON": 1}, 10, FIRST)
    refuse_bad(ParquetSource(), {"no text": 9}, 10, FIRST)


def test_reading_goes_on_at_any_line_and_bad_lines_say_where_they_are(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"text": "a"}\nbad\n{"text": "b"}\n')
    assert list(jsonl_rows(path, None, 1)) == [NoText("not JSON", f"{path}:2"), b"b"]
    assert list(jsonl_rows(path, None, 3)) == []
