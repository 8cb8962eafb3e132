"""Where text comes from: one file a source, and the table that finds it by `kind`."""

from collections.abc import Callable

from sharder.sources.corpus import Corpus, Request
from sharder.sources.hub import open_hub
from sharder.sources.jsonl import open_jsonl
from sharder.sources.parquet import open_parquet
from sharder.sources.s3 import open_s3
from sharder.sources.stdlib import open_stdlib
from sharder.sources.text import open_text

SOURCES: dict[str, Callable[[Request], Corpus]] = {
    "stdlib": open_stdlib,
    "text": open_text,
    "jsonl": open_jsonl,
    "parquet": open_parquet,
    "fineweb": open_hub,
    "hub": open_hub,
    "s3": open_s3,
}
"""`data.source.kind` -> how to open it."""

__all__ = ["SOURCES", "Corpus", "Request"]
