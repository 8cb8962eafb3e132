"""The source `jsonl`: JSON Lines files, one object a line. Bad lines are dropped and counted, within a limit."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from sharder.sources.corpus import CorpusError, LocalFiles, Request, keep, local_files
from trainwright.spec.data import JsonlSource
from trainwright.store.text_shards import BadLineError, Drops, json_text, read_lines

ENDINGS = (".jsonl", ".jsonl.gz", ".jsonl.zst")


@dataclass(frozen=True, slots=True)
class JsonlCorpus:
    """JSON Lines files and the key that holds the text."""

    listing: LocalFiles
    settings: JsonlSource

    @property
    def inputs(self) -> Mapping[str, Any]:
        """Return the fingerprint of the listing."""
        return {"data.files": self.listing.fingerprint}

    def documents(self, drops: Drops) -> Iterator[str]:
        """Yield the text of every good line; raise `CorpusError` at the end when too many were bad."""
        lines = bad = 0
        first = ""
        for path in self.listing.files:
            for number, line in enumerate(read_lines(path), 1):
                lines += 1
                try:
                    text = json_text(line, self.settings.field)
                except BadLineError as reason:
                    drops[str(reason)] += 1
                    bad += 1
                    first = first or f"{path}:{number}: {reason}"
                    continue
                if keep(text, drops):
                    yield text
        if bad > self.settings.max_bad_share * lines:
            wanted = self.settings.field or "text or content"
            raise CorpusError(
                f"{first}; so are {bad} of {lines} lines, more than data.source.max_bad_share="
                f"{self.settings.max_bad_share}: mend the lines, raise that share, or name the key that holds the text "
                f"in data.source.field (looked for {wanted})"
            )


def open_jsonl(request: Request) -> JsonlCorpus:
    """Return the JSON Lines files that the request names."""
    assert isinstance(request.settings, JsonlSource)
    return JsonlCorpus(local_files(request, ENDINGS), request.settings)
