from typing import Any
from pathlib import Path
import pyarrow as pa
from pyarrow import parquet
import pytest

from hub import parquet_bytes
from made_corpus import documents
from sharder.sources.corpus import Request
from sharder.sources.parquet import open_parquet, text_column
from trainwright.spec.data import ParquetSource
from trainwright.spec.exits import UserError
from trainwright.store.text_shards import Drops


def read(path: Path, drops: Drops | None = None, **settings: Any) -> list[str]:
    request = Request(ParquetSource(**settings), path, "data.path", path, {})
    return documents(open_parquet(request), drops)


def test_texts_of_every_row_group_and_file_come_in_order(tmp_path: Path) -> None:
    texts = [f"document {number}\nof many" for number in range(120)]
    (tmp_path / "b.parquet").write_bytes(parquet_bytes(texts[60:], column="content"))
    (tmp_path / "a.parquet").write_bytes(parquet_bytes(texts[:60]))
    assert read(tmp_path) == texts


def test_rows_without_text_are_counted(tmp_path: Path) -> None:
    (tmp_path / "a.parquet").write_bytes(parquet_bytes(["a", None, "", "b"]))
    drops = Drops()
    assert read(tmp_path, drops) == ["a", "b"]
    assert drops == {"no text": 1, "empty": 1}


def test_the_column_may_be_named_and_large_strings_are_text(tmp_path: Path) -> None:
    parquet.write_table(pa.table({"body": pa.array(["a", "b"], pa.large_string())}), tmp_path / "a.parquet")
    assert read(tmp_path, column="body") == ["a", "b"]


def test_a_missing_column_is_refused_with_the_columns_there_are(tmp_path: Path) -> None:
    (tmp_path / "a.parquet").write_bytes(parquet_bytes(["a"], column="body"))
    with pytest.raises(UserError, match=r"no column text or content; .* one of body, id, token_count"):
        read(tmp_path)


def test_a_column_of_numbers_is_no_text() -> None:
    with pytest.raises(UserError, match="the column text holds int64, not text"):
        text_column(pa.schema([("text", pa.int64())]), None, "x.parquet")


@pytest.mark.parametrize("damage", ["cut", "words"])
def test_a_damaged_file_is_refused_by_name(tmp_path: Path, damage: str) -> None:
    data = parquet_bytes(["a"] * 100)
    (tmp_path / "a.parquet").write_bytes(data[:-20] if damage == "cut" else b"words " * 100)
    with pytest.raises(UserError, match=r"a\.parquet: damaged, or no parquet file"):
        read(tmp_path)
