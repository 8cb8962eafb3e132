"""The source `fineweb`: a data set of the Hugging Face hub, streamed by the `datasets` library.

The revision is resolved once to a commit, which the manifest keeps, so that a run that goes on later or elsewhere
reads the same data set. Nothing is downloaded whole.
"""

import logging
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sharder.sources.corpus import CorpusError, Request, keep
from trainwright.spec.data import FinewebSource
from trainwright.spec.exits import MissingError, UserError
from trainwright.store.text_shards import TEXT_KEYS, Drops

COMMIT = "data.source.commit"
TOKEN_VARIABLES = ("HUGGINGFACEHUB_API_TOKEN", "HF_TOKEN")

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class HubCorpus:
    """One split of a data set at one commit."""

    settings: FinewebSource
    commit: str

    @property
    def inputs(self) -> Mapping[str, Any]:
        """Return the commit."""
        return {COMMIT: self.commit}

    def documents(self, drops: Drops) -> Iterator[str]:
        """Yield the texts in the order of the data set's files, at most `take` of them."""
        import datasets

        where = f"{self.settings.dataset} ({self.settings.config}, {self.settings.split})"
        given = 0
        try:
            stream = datasets.load_dataset(
                self.settings.dataset,
                self.settings.config,
                split=self.settings.split,
                streaming=True,
                revision=self.commit,
                token=_token(),
            )
            column = None
            for row in stream:
                if given == self.settings.take:
                    return
                column = column or _column(row, self.settings.column, where)
                text = row[column]
                if not isinstance(text, str):
                    drops["no text"] += 1
                elif keep(text, drops):
                    given += 1
                    yield text
        except Exception as error:
            # Three libraries fail here, each in its own classes; what is not of the hub comes back as it was.
            raise _explained(error, where) from error


def open_fineweb(request: Request) -> HubCorpus:
    """Return the data set at the commit of the shards that exist, else at the one its revision names now."""
    settings = request.settings
    assert isinstance(settings, FinewebSource)
    _set_caches(request.hf_cache)
    if settings.revision and re.fullmatch(r"[0-9a-f]{40}", settings.revision):
        return HubCorpus(settings, settings.revision)
    same = all(
        request.earlier.get(f"data.source.{key}") == getattr(settings, key) for key in ("dataset", "config", "revision")
    )
    if same and COMMIT in request.earlier:
        return HubCorpus(settings, request.earlier[COMMIT])
    return HubCorpus(settings, _resolve(settings))


def _resolve(settings: FinewebSource) -> str:
    import huggingface_hub

    try:
        info = huggingface_hub.HfApi().dataset_info(settings.dataset, revision=settings.revision, token=_token())
    except Exception as error:
        # As above: the classes change with the hub library's version, the meaning does not.
        raise _explained(error, settings.dataset) from error
    if not info.sha:
        raise MissingError(f"{settings.dataset}: the hub names no commit; give one in data.source.revision")
    log.info("stage=shard dataset=%s revision=%s", settings.dataset, info.sha)
    return info.sha


def _set_caches(hf_cache: Path) -> None:
    # The libraries read these when they are imported.
    os.environ.setdefault("HF_HOME", str(hf_cache))
    os.environ.setdefault("HF_DATASETS_CACHE", str(Path(os.environ["HF_HOME"]) / "datasets"))
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")


def _token() -> str | None:
    return next((value for name in TOKEN_VARIABLES if (value := os.environ.get(name))), None)


def _column(row: Mapping[str, Any], wanted: str | None, where: str) -> str:
    for name in (wanted,) if wanted else TEXT_KEYS:
        if name in row:
            return name
    missing = wanted or " or ".join(TEXT_KEYS)
    raise CorpusError(f"{where}: no column {missing}; set data.source.column to one of {', '.join(row)}")


def _explained(error: Exception, where: str) -> Exception:
    """Return what to raise for an error of the hub libraries: a sentence for what users meet, else the error itself."""
    from datasets.exceptions import DatasetNotFoundError
    from huggingface_hub import errors
    from pyarrow import ArrowException

    # The HTTP library under huggingface_hub has changed its name between versions; its errors share this base.
    http_error = next(base for base in errors.HfHubHTTPError.__mro__ if base.__name__ == "HTTPError")
    first_line = str(error).strip().partition("\n")[0]
    token = "a token is set" if _token() else f"no token is set in {' or '.join(TOKEN_VARIABLES)}"
    found = error
    match error:
        case UserError():
            pass
        case errors.RevisionNotFoundError():
            found = UserError(f"{where}: the hub has no such revision; correct data.source.revision")
        case errors.RepositoryNotFoundError() | DatasetNotFoundError():
            # The hub gives one answer for what is private, gated or not there at all.
            way = "correct data.source.dataset or data.source.revision, or accept its terms on the hub and give a token"
            found = MissingError(f"{where}: is not on the hub, or not open to us ({token}); {way}")
        case errors.HfHubHTTPError() if error.response.status_code in (401, 403):
            way = "accept its terms on the hub, and give a token that may read it"
            found = MissingError(f"{where}: the hub refuses us ({token}); {way}")
        case _ if isinstance(error, (http_error, OSError, ArrowException)):
            endpoint = os.environ.get("HF_ENDPOINT", "https://huggingface.co")
            what = f"reading from {endpoint} failed ({first_line or type(error).__name__})"
            found = MissingError(f"{where}: {what}; the shards that are written stay, run again")
        case ValueError():
            found = CorpusError(f"{where}: {first_line}; correct data.source.config or data.source.split")
    return found
