"""The source `jsonl`: JSON Lines files, one object a line. Bad lines are dropped and counted, within a limit."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

from sharder.sources.corpus import CorpusError, LocalCorpus, NoText, Request, Row, local_files
from trainwright.spec.data import JsonlSource
from trainwright.store.text_shards import BadLineError, json_text, read_lines

ENDINGS = (".jsonl", ".jsonl.gz", ".jsonl.zst")
BAD = ("not JSON", "not a JSON object", "no text", "not UTF-8")
"""The reasons that speak of a broken file rather than of an empty document."""


def open_jsonl(request: Request) -> LocalCorpus:
    """Return the JSON Lines files that the request names."""
    assert isinstance(request.settings, JsonlSource)
    return LocalCorpus(local_files(request, ENDINGS), request.settings, read_jsonl)


def read_jsonl(path: Path, settings: Any, start: int) -> Iterator[Row]:
    """Yield the rows of a local file from line `start` on."""
    return jsonl_rows(path, settings.field, start)


def jsonl_rows(path: Path, field: str | None, start: int, opened: BinaryIO | None = None) -> Iterator[Row]:
    """Yield the text of every good line and the fault of every bad one; lines before `start` are not parsed."""
    for number, line in enumerate(read_lines(path, opened)):
        if number < start:
            continue
        if not line or line.isspace():
            # Between files that were put one after the other, and at their ends: nothing was lost there.
            yield NoText("empty")
            continue
        try:
            yield json_text(line, field).encode()
        except BadLineError as reason:
            yield NoText(str(reason), f"{path}:{number + 1}")
        except UnicodeEncodeError:
            # JSON can spell half of a surrogate pair, which is no character.
            yield NoText("not UTF-8", f"{path}:{number + 1}")


def refuse_bad(settings: Any, drops: Mapping[str, int], rows: int, first: str) -> None:
    """Raise `CorpusError` when more rows of JSON Lines were bad than the source's settings allow."""
    allowed = getattr(settings, "max_bad_share", None)
    bad = sum(drops.get(reason, 0) for reason in BAD)
    if allowed is None or not first or bad <= allowed * rows:
        return
    key = "field" if isinstance(settings, JsonlSource) else "column"
    wanted = getattr(settings, key) or "text or content"
    raise CorpusError(
        f"{first}; so are {bad} of {rows} lines, more than data.source.max_bad_share={allowed}: mend the lines, raise "
        f"that share, or name the key that holds the text in data.source.{key} (looked for {wanted})"
    )
