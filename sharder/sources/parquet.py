"""The source `parquet`: parquet files, read row group by row group in small batches."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sharder.sources.corpus import LocalFiles, Request, keep, local_files
from trainwright.spec.data import ParquetSource
from trainwright.spec.exits import UserError
from trainwright.store.text_shards import TEXT_KEYS, Drops

ENDINGS = (".parquet",)
BATCH_ROWS = 1024


@dataclass(frozen=True, slots=True)
class ParquetCorpus:
    """Parquet files and the column that holds the text."""

    listing: LocalFiles
    column: str | None

    @property
    def inputs(self) -> Mapping[str, Any]:
        """Return the fingerprint of the listing."""
        return {"data.files": self.listing.fingerprint}

    def documents(self, drops: Drops) -> Iterator[str]:
        """Yield the texts of the column, file after file."""
        for path in self.listing.files:
            for text in _texts(path, self.column):
                if text is None:
                    drops["no text"] += 1
                elif keep(text, drops):
                    yield text


def _texts(path: Path, wanted: str | None) -> Iterator[str | None]:
    import pyarrow as pa
    from pyarrow.parquet import ParquetFile

    try:
        with ParquetFile(path) as file:
            column = text_column(file.schema_arrow, wanted, str(path))
            for group in range(file.num_row_groups):
                for batch in file.iter_batches(batch_size=BATCH_ROWS, row_groups=[group], columns=[column]):
                    yield from batch.column(0).to_pylist()
    except UnicodeDecodeError:
        raise UserError(f"{path}: its texts are not UTF-8; write the file again") from None
    except (pa.ArrowException, OSError) as error:
        first_line = str(error).partition("\n")[0]
        raise UserError(f"{path}: damaged, or no parquet file ({first_line}); copy it again") from None


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


def open_parquet(request: Request) -> ParquetCorpus:
    """Return the parquet files that the request names."""
    assert isinstance(request.settings, ParquetSource)
    return ParquetCorpus(local_files(request, ENDINGS), request.settings.column)
