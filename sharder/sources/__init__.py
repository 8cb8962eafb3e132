"""Where text comes from: one file a source, and the table that finds it by `kind`."""

from collections.abc import Callable

from sharder.sources.corpus import Corpus, Request
from sharder.sources.fineweb import open_fineweb
from sharder.sources.jsonl import open_jsonl
from sharder.sources.parquet import open_parquet
from sharder.sources.stdlib import open_stdlib
from sharder.sources.text import open_text

SOURCES: dict[str, Callable[[Request], Corpus]] = {
    "stdlib": open_stdlib,
    "text": open_text,
    "jsonl": open_jsonl,
    "parquet": open_parquet,
    "fineweb": open_fineweb,
}
"""`data.source.kind` -> how to open it."""

__all__ = ["SOURCES", "Corpus", "Request"]
