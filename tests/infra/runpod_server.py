"""RunPod's REST API v2 as far as it is known: the fake RunPod of `runpod_state` behind HTTP.

Bodies are judged by the published OpenAPI document where there is one (`TRAINWRIGHT_TEST_DATA`).
"""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
import json
import os
from pathlib import Path
import threading
from typing import Any
from urllib.parse import parse_qs, urlsplit

from runpod_state import KEY, FakePod, FakeRunPod, stamp

# Read now: the tests of boot run without any variable of ours.
DOCUMENT = Path(os.environ.get("TRAINWRIGHT_TEST_DATA", "/nowhere")) / "schemas/runpod-v2-openapi.json"


@cache
def published() -> dict[str, Any] | None:
    """Return RunPod's own document, where these tests have it."""
    return json.loads(DOCUMENT.read_text()) if DOCUMENT.is_file() else None


def wrong_with(body: Any, name: str) -> list[str]:
    """Return what the published document has against a body."""
    judge = _judge(name)
    return [error.message for error in judge.iter_errors(body)] if judge is not None else []


@cache
def _judge(name: str) -> Any:
    document = published()
    if document is None:
        return None
    from jsonschema import Draft202012Validator

    return Draft202012Validator({"$ref": f"#/components/schemas/{name}", "components": document["components"]})


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    fake: FakeRunPod

    def do_GET(self) -> None:
        self._serve()

    do_POST = do_DELETE = do_GET  # noqa: N815 - the names of http.server

    def log_message(self, *_: object) -> None:
        pass

    def _serve(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        body = json.loads(self.rfile.read(length) or b"null")
        url = urlsplit(self.path)
        with self.fake.lock:
            self.fake.requests.append((self.command, url.path, body))
            answer = self._before() or self._route(url.path.split("/")[2:], body, parse_qs(url.query))
        if answer is not None:
            self._send(*answer)

    def _before(self) -> tuple[int, Any] | None:
        """Refuse what never reaches the API itself."""
        fake = self.fake
        key = self.headers.get("Authorization", "")
        if not key.startswith("Bearer "):
            return problem(401, "no bearer token")
        if key.removeprefix("Bearer ") not in (KEY, "scoped"):
            return problem(401, "unknown key")
        left, seconds = fake.limit()
        self.extra = {"RateLimit": f'"minute";r={max(0, left)};t={seconds}', "RateLimit-Policy": '"minute";q=60;w=60'}
        if left < 0:
            fake.refused += 1
            self.extra["Retry-After"] = str(seconds)
            return problem(429, "slow down")
        for fault in list(fake.faults):
            method, path, status, headers, tree = fault
            if self.command == method and self.path.startswith(path):
                fake.faults.remove(fault)
                self.extra |= headers
                return status, tree
        return None

    def _route(self, parts: list[str], body: Any, query: dict[str, list[str]]) -> tuple[int, Any] | None:
        match parts:
            case ["pods", identity, *more] if identity in self.fake.pods:
                return self._one_pod(self.fake.pods[identity], more, body, query)
            case ["pods" | "clusters" as kind] if self.command == "POST":
                return self._create(body, "CreatePodRequest" if kind == "pods" else "CreateClusterRequest")
            case ["clusters", identity, *_] if identity in self.fake.clusters:
                return self._one_cluster(identity)
        return self._listed(parts, query) if self.command == "GET" else self._volume(parts, body)

    def _listed(self, parts: list[str], query: dict[str, list[str]]) -> tuple[int, Any]:
        fake = self.fake
        if parts == ["catalog", "gpus"] and "include" in query and "product" not in query:
            return problem(400, "product is required with include")
        whole = query.get("includeClusterPods") == ["true"]
        lists = {
            "pods": lambda: {"pods": [fake.shown(pod) for pod in fake.pods.values() if whole or not pod.cluster]},
            "clusters": lambda: {"clusters": list(fake.clusters.values())},
            "network-volumes": lambda: {
                "networkVolumes": [{"type": "STANDARD", **one} for one in fake.volumes.values()]
            },
            "registries": lambda: {"registries": fake.registries},
            "catalog/gpus": lambda: {"gpus": fake.catalogue()},
        }
        made = lists.get("/".join(parts))
        return (200, made()) if made else problem(404, "not found")

    def _one_cluster(self, identity: str) -> tuple[int, Any]:
        if self.command == "DELETE":
            self.fake.remove_cluster(identity)
            return 204, None
        members = [pod for pod in self.fake.pods.values() if pod.cluster == identity]
        return 200, {"pods": [self.fake.shown(pod) for pod in members]}

    def _one_pod(self, pod: FakePod, more: list[str], body: Any, query: dict[str, list[str]]) -> tuple[int, Any] | None:
        match self.command, more:
            case "DELETE", []:
                if not self._may("DELETE"):
                    return problem(403, "this key may not delete")
                if pod.cluster:
                    return problem(409, "a member of a cluster")
                del self.fake.pods[pod.id]
                return 204, None
            case "POST", ["action"]:
                return self._act(pod, body)
            case "GET", ["logs"]:
                return self._stream(pod, query)
        return 200, self.fake.shown(pod)

    def _act(self, pod: FakePod, body: Any) -> tuple[int, Any]:
        if found := wrong_with(body, "PodActionRequest"):
            return problem(422, "invalid", found)
        if not self._may(body["action"]):
            return problem(403, f"this key may not {body['action']}")
        status = self.fake.act(pod, body["action"])
        if status == 409:
            return problem(409, f"cannot {body['action']} now")
        return status, self.fake.shown(pod) if status == 200 else None

    def _may(self, what: str) -> bool:
        return "scoped" not in self.headers["Authorization"] or what in self.fake.scoped_may

    def _volume(self, parts: list[str], body: Any) -> tuple[int, Any]:
        if self.command != "POST" or parts != ["network-volumes"]:
            return problem(404, "not found")
        if found := wrong_with(body, "CreateNetworkVolumeRequest"):
            return problem(422, "invalid", found)
        identity = f"vol{len(self.fake.volumes) + 1}"
        self.fake.volumes[identity] = {"id": identity, **body}
        return 201, self.fake.volumes[identity]

    def _create(self, body: Any, schema: str) -> tuple[int, Any] | None:
        fake = self.fake
        if found := wrong_with(body, schema):
            return problem(422, "the body is invalid", found)
        if len(json.dumps(body)) > 102_400:
            return problem(413, "too large")
        if fake.lose_requests > 0:
            fake.lose_requests -= 1
            return self._hang_up()
        made = fake.create_cluster(body) if "compute" in body else fake.create(body)
        if isinstance(made, str):
            return problem(400, made)
        if fake.lose_replies > 0:
            fake.lose_replies -= 1
            return self._hang_up()
        return 201, fake.shown(made) if isinstance(made, FakePod) else made

    def _hang_up(self) -> None:
        self.close_connection = True

    def _stream(self, pod: FakePod, query: dict[str, list[str]]) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Connection", "close")
        self.end_headers()
        last = self.headers.get("Last-Event-ID")
        events = [(stamp(moment), source, line) for moment, source, line in pod.log]
        shown = [one for one in events if one[0] >= last] if last else events[-int(query.get("tail", ["100"])[0]) :]
        cut, self.fake.drop_logs_after = self.fake.drop_logs_after, None
        for at, source, line in shown[:cut]:
            data = json.dumps({"ts": at, "source": source, "line": line})
            self.wfile.write(f"id: {at}\ndata: {data}\n\n".encode())
        self.close_connection = True

    def _send(self, status: int, tree: Any) -> None:
        data = b"" if tree is None else json.dumps(tree).encode()
        data = b"<html>log in</html>" if self.fake.as_text else data
        self.send_response(status)
        self.send_header("Content-Type", "application/problem+json" if status >= 400 else "application/json")
        self.send_header("Content-Length", str(len(data)))
        for name, value in getattr(self, "extra", {}).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)


def problem(status: int, detail: str, errors: list[str] | None = None) -> tuple[int, Any]:
    return status, {"title": "Problem", "status": status, "detail": detail, **({"errors": errors} if errors else {})}


@contextmanager
def fake_runpod(speed: float | None = None) -> Iterator[FakeRunPod]:
    """Run a fake RunPod on a port of this machine."""
    fake = FakeRunPod(speed)
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Bound", (Handler,), {"fake": fake}))
    server.daemon_threads = True
    fake.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield fake
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
