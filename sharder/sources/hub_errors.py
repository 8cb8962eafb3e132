"""What the hub libraries raise, in our words: which errors may pass, and what a user can do about the others."""

import os
from typing import Any

from sharder.sources.corpus import CorpusError
from trainwright.spec.exits import MissingError, UserError

TOKEN_VARIABLES = ("HUGGINGFACEHUB_API_TOKEN", "HF_TOKEN")
PASSING_STATUS = frozenset({408, 425, 429, 500, 502, 503, 504})


def token() -> str | None:
    """Return the hub token, by the order of `TOKEN_VARIABLES`."""
    return next((value for name in TOKEN_VARIABLES if (value := os.environ.get(name))), None)


def is_passing(error: Exception) -> bool:
    """Return whether an error of the network may be gone at the next attempt."""
    if isinstance(error, UserError):
        return False
    status = _status(error)
    if status is not None:
        return status in PASSING_STATUS
    # What is not there now will not be there in a second: a data set without files that are known as data.
    return isinstance(error, (OSError, _http_error())) and not isinstance(error, FileNotFoundError)


def _status(error: Exception) -> int | None:
    response: Any = getattr(error, "response", None)
    status = getattr(response, "status_code", None)
    return status if isinstance(status, int) else None


def _http_error() -> type[Exception]:
    """Return the base of the errors of the HTTP library under huggingface_hub, which has changed between versions."""
    from huggingface_hub import errors

    found = next((base for base in errors.HfHubHTTPError.__mro__ if base.__name__ == "HTTPError"), OSError)
    assert issubclass(found, Exception)
    return found


def explained(error: Exception, where: str) -> Exception:
    """Return what to raise for an error of the hub libraries: a sentence for what users meet, else the error itself."""
    from datasets.exceptions import DatasetNotFoundError
    from huggingface_hub import errors

    first_line = str(error).strip().partition("\n")[0]
    said = "a token is set" if token() else f"no token is set in {' or '.join(TOKEN_VARIABLES)}"
    found = error
    match error:
        case UserError():
            pass
        case errors.RevisionNotFoundError():
            found = UserError(f"{where}: the hub has no such revision; correct data.source.revision")
        case errors.RepositoryNotFoundError() | DatasetNotFoundError():
            # The hub gives one answer for what is private, gated or not there at all.
            way = "correct data.source.dataset or data.source.revision, or accept its terms on the hub and give a token"
            found = MissingError(f"{where}: is not on the hub, or not open to us ({said}); {way}")
        case _ if _status(error) in (401, 403):
            way = "accept its terms on the hub, and give a token that may read it"
            found = MissingError(f"{where}: the hub refuses us ({said}); {way}")
        case FileNotFoundError():
            found = CorpusError(f"{where}: {first_line}; name its files in data.source.files")
        case _ if isinstance(error, (_http_error(), OSError)):
            endpoint = os.environ.get("HF_ENDPOINT", "https://huggingface.co")
            what = f"reading from {endpoint} failed ({first_line or type(error).__name__})"
            found = MissingError(f"{where}: {what}; what is written stays, run again")
        case ValueError():
            found = CorpusError(f"{where}: {first_line}; correct data.source.config or data.source.split")
    return found
