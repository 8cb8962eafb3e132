"""The source `parquet`: parquet files, read row group by row group in small batches."""

from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from sharder.sources.corpus import LocalCorpus, NoText, Request, Row, local_files
from trainwright.spec.data import ParquetSource
from trainwright.spec.exits import UserError
from trainwright.store.text_shards import TEXT_KEYS

ENDINGS = (".parquet",)
BATCH_ROWS = 1024
BUFFER_BYTES = 1 << 20
"""Read so much of a column at a time: a row group may be larger than the memory."""


def open_parquet(request: Request) -> LocalCorpus:
    """Return the parquet files that the request names."""
    assert isinstance(request.settings, ParquetSource)
    return LocalCorpus(local_files(request, ENDINGS), request.settings, read_parquet)


def read_parquet(path: Path, settings: Any, start: int) -> Iterator[Row]:
    """Yield the rows of a local file from row `start` on."""
    return parquet_rows(path, settings.column, start, str(path))


def parquet_rows(file: Path | IO[bytes], wanted: str | None, start: int, where: str) -> Iterator[Row]:
    """Yield the texts of one column; row groups before `start` are not read at all."""
    import pyarrow as pa
    from pyarrow.parquet import ParquetFile

    try:
        with ParquetFile(file, buffer_size=BUFFER_BYTES, pre_buffer=False) as parquet:
            column = text_column(parquet.schema_arrow, wanted, where)
            first = 0
            for group in range(parquet.num_row_groups):
                num_rows = parquet.metadata.row_group(group).num_rows
                if first + num_rows > start:
                    yield from _group_rows(parquet, group, column, max(0, start - first))
                first += num_rows
    except pa.ArrowException as error:
        first_line = str(error).partition("\n")[0]
        raise UserError(f"{where}: damaged, or no parquet file ({first_line}); copy it again") from None
    except OSError as error:
        if error.errno is not None:
            raise
        # Arrow reports broken pages as an error of input and output that no system call made.
        raise UserError(f"{where}: damaged ({str(error).partition(chr(10))[0]}); copy it again") from None


def _group_rows(parquet: Any, group: int, column: str, skip: int) -> Iterator[Row]:
    import pyarrow as pa

    for batch in parquet.iter_batches(batch_size=BATCH_ROWS, row_groups=[group], columns=[column]):
        if skip >= batch.num_rows:
            skip -= batch.num_rows
            continue
        texts = batch.column(0)[skip:]
        skip = 0
        # As bytes: they are hashed and written as they are, and one text that is not UTF-8 does not hide the others.
        for text in texts.cast(pa.large_binary()).to_pylist():
            yield NoText("no text") if text is None else text


def text_column(schema: Any, wanted: str | None, where: str) -> str:
    """Return the name of the column that holds the text; raise `UserError` listing the columns when there is none."""
    from pyarrow import types

    for name in (wanted,) if wanted else TEXT_KEYS:
        if name in schema.names:
            kind = schema.field(name).type
            if types.is_string(kind) or types.is_large_string(kind):
                return name
            raise UserError(f"{where}: the column {name} holds {kind}, not text; name another in data.source.column")
    known = ", ".join(schema.names[:20])
    missing = wanted or " or ".join(TEXT_KEYS)
    raise UserError(f"{where}: no column {missing}; set data.source.column to one of {known}")
