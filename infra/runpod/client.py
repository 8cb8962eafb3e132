"""RunPod's REST API, version 2: one request at a time, within its rate limit, its refusals as sentences.

What may be asked twice (GET, PUT, DELETE) is asked again after a lost answer or a 5xx; a create never is: the caller
looks whether it happened (`LostAnswerError`). A 429 was not carried out, so any request is repeated after its time.
"""

import os
import re
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from infra.runpod.clock import Clock
from infra.runpod.key import Key, find_key
from trainwright.spec.exits import MissingError, UserError

if TYPE_CHECKING:
    import requests

BASE_VARIABLE = "RUNPOD_API_URL"
BASE = "https://api.runpod.io"
TIMEOUT_S = (10.0, 60.0)
"""To connect, and between two bytes of an answer."""
TRIES = 5
LONGEST_WAIT_S = 300.0
REPEATABLE = ("GET", "PUT", "DELETE")
LOOK = "`trainwright runpod get pods` shows it, and try again"
MEANINGS = {
    400: "RunPod cannot do this",
    401: "RunPod does not accept the API key",
    402: "the balance at RunPod is too low; add credit at runpod.io under Billing",
    403: "the API key may not do this",
    404: "RunPod knows nothing of this name",
    405: "RunPod does not offer this",
    409: "not possible in its present state",
    413: "the request is larger than RunPod takes (100 KiB, environment included); shorten the experiment",
    422: "RunPod does not accept the request",
    429: "too many requests, and waiting did not help; try again in a few minutes",
}


class RunpodError(UserError):
    """RunPod said no; `status` is its HTTP status, `detail` its own words."""

    def __init__(self, status: int, what: str, detail: str) -> None:
        self.status, self.detail = status, detail
        meaning = MEANINGS.get(status, f"RunPod has a problem (HTTP {status}); try again later")
        super().__init__(f"{what}: {meaning}{f' ({detail})' if detail else ''}")


class LostAnswerError(MissingError):
    """A request that must not be repeated blindly was sent, and no answer came: it may have been carried out."""


class Client:
    """A connection with a key; every method of the product goes through `ask` or `stream`."""

    def __init__(self, key: Key, base: str, clock: Clock) -> None:
        import requests

        self.clock = clock
        self._key, self._base = key, base.rstrip("/")
        self._session = requests.Session()
        self._session.headers["Authorization"] = f"Bearer {key.value}"
        self._session.trust_env = False  # a netrc must not replace the key
        self._session.proxies = requests.utils.get_environ_proxies(self._base)
        self._not_before = 0.0

    def ask(self, method: str, path: str, body: Any = None, query: Mapping[str, str] | None = None) -> Any:
        """Send a request and return its JSON (None when there is none); raise `RunpodError` for a refusal."""
        what = f"{method} {path}"
        for attempt in range(1, TRIES + 1):
            last = attempt == TRIES
            self._keep_to_the_limit()
            answer = self._sent(method, path, body, query)
            if answer is None or answer.status_code >= 500:
                if method not in REPEATABLE:
                    raise LostAnswerError(f"{what}: RunPod gave no answer that says whether it was done; {LOOK}")
                if last:
                    said = "cannot be reached" if answer is None else f"answers with HTTP {answer.status_code}"
                    raise MissingError(f"{self._base}: {said}; check the network and status.runpod.io, then try again")
                self.clock.wait(2.0**attempt)
            elif answer.status_code == 429 and not last:
                self.clock.wait(_retry_after(answer))
            elif answer.status_code >= 400:
                raise self._refusal(answer, what)
            else:
                return _json(answer, self._base)
        raise AssertionError

    def stream(self, path: str, query: Mapping[str, str], headers: Mapping[str, str], idle_s: float) -> Iterator[str]:
        """Yield the lines of a text/event-stream until it ends or says nothing for `idle_s`.

        A broken one, and one that RunPod cannot serve just now, raises `LostAnswerError`.
        """
        import requests

        self._keep_to_the_limit()
        headers = {"Accept": "text/event-stream", **headers}
        try:
            with self._session.get(
                self._base + path, params=dict(query), headers=headers, stream=True, timeout=(TIMEOUT_S[0], idle_s)
            ) as answer:
                self._heed(answer)
                if answer.status_code == 429:
                    self._not_before = self.clock.now() + _retry_after(answer)
                if answer.status_code == 429 or answer.status_code >= 500:
                    raise LostAnswerError(f"{self._base}: answers with HTTP {answer.status_code}; try again later")
                if answer.status_code >= 400:
                    raise self._refusal(answer, f"GET {path}")
                for line in answer.iter_lines(chunk_size=1):
                    yield line.decode("utf-8", errors="replace")
        except requests.exceptions.ConnectionError as error:
            if "Read timed out" in str(error):
                return
            raise LostAnswerError(f"{self._base}: the connection was lost; run the same command again") from None
        except requests.exceptions.RequestException:
            raise LostAnswerError(f"{self._base}: the connection was lost; run the same command again") from None

    def _sent(self, method: str, path: str, body: Any, query: Mapping[str, str] | None) -> "requests.Response | None":
        """Return an answer, or None when none came."""
        import requests

        try:
            answer = self._session.request(
                method,
                self._base + path,
                json=body,
                params=dict(query or {}),
                timeout=TIMEOUT_S,
                allow_redirects=False,
            )
        except requests.exceptions.RequestException:
            return None
        self._heed(answer)
        return answer

    def _heed(self, answer: "requests.Response") -> None:
        """Note when a window of the rate limit is used up, and until when."""
        left = re.findall(r'"\w+";\s*r=(\d+);\s*t=(\d+)', answer.headers.get("RateLimit", ""))
        used_up = [int(seconds) for remaining, seconds in left if int(remaining) == 0]
        if used_up:
            self._not_before = self.clock.now() + min(max(used_up), LONGEST_WAIT_S)

    def _keep_to_the_limit(self) -> None:
        if (pause := self._not_before - self.clock.now()) > 0:
            self.clock.wait(pause)

    def _refusal(self, answer: "requests.Response", what: str) -> UserError:
        error = RunpodError(answer.status_code, what, _detail(answer))
        if answer.status_code == 401:
            return MissingError(f"{error}; it came from {self._key.origin}")
        return error


def connect(environ: Mapping[str, str] = os.environ, clock: Clock | None = None) -> Client:
    """Return a client with the user's key."""
    return Client(find_key(environ), environ.get(BASE_VARIABLE) or BASE, clock or Clock())


def _json(answer: "requests.Response", base: str) -> Any:
    """Return what an answer holds; None when that is nothing. A door between us and RunPod answers in its own way."""
    if not answer.content:
        return None
    try:
        return answer.json()
    except ValueError:
        said = f"answers with HTTP {answer.status_code} and no JSON"
        raise MissingError(f"{base}: {said}; is a proxy or a login page in between?") from None


def _retry_after(answer: "requests.Response") -> float:
    text = answer.headers.get("Retry-After", "")
    return min(max(1.0, float(text) if text.isdigit() else 10.0), LONGEST_WAIT_S)


def _detail(answer: "requests.Response") -> str:
    """Return RunPod's own words: a problem document (RFC 9457), or what else it says."""
    try:
        tree = answer.json()
    except ValueError:
        return ""
    if not isinstance(tree, dict):
        return ""
    said = [str(tree.get("detail") or tree.get("title") or tree.get("message") or tree.get("error") or "")]
    said += [str(one) for one in tree.get("errors") or () if isinstance(one, str)]
    return "; ".join(text.strip() for text in said if text.strip())[:600]
