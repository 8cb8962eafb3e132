from typing import Any
from pathlib import Path
import json

import pytest

from sharder.sources.corpus import CorpusError, Request
from sharder.sources.jsonl import open_jsonl
from trainwright.spec.data import JsonlSource
from trainwright.store.text_shards import Drops


def read(path: Path, drops: Drops, **settings: Any) -> list[str]:
    return list(open_jsonl(Request(JsonlSource(**settings), path, "data.path", path, {})).documents(drops))


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


def test_too_many_bad_lines_are_refused_with_the_first_of_them_and_the_counts(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"text": "a"}\n' * 7)
    (tmp_path / "b.jsonl").write_text('{"text": "a"}\n{"text"\nnot json\n')
    with pytest.raises(CorpusError) as error:
        read(tmp_path, Drops(), max_bad_share=0.1)
    sentence = str(error.value)
    for part in (f"{tmp_path / 'b.jsonl'}:2: not JSON", "2 of 10 lines", "max_bad_share=0.1", "data.source.field"):
        assert part in sentence


def test_as_many_bad_lines_as_allowed_are_accepted(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"text": "a"}\n' * 9 + "bad\n")
    assert len(read(tmp_path, Drops(), max_bad_share=0.1)) == 9
