"""A small Hugging Face hub on this machine: what `datasets` and `huggingface_hub` ask when they stream a data set.

    GET  /api/datasets/NAME[/revision/REV]          facts and file list
    GET  /api/datasets/NAME/tree/REV[/FOLDER]       the files of a folder
    POST /api/datasets/NAME/paths-info/REV          facts about some files
    HEAD, GET /datasets/NAME/resolve/REV/FILE       the bytes, with ranges

Every request is kept in `requests` with its authorization, so that tests can say what was asked. `faults` are played
once each, in order, when the bytes of a file (by the end of its name) are asked for.
"""

import hashlib
import io
import json
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import PurePosixPath
from urllib.parse import parse_qs, unquote, urlsplit

import pyarrow as pa
from pyarrow import parquet

CARD = b"""---
configs:
- config_name: default
  data_files: [{split: train, path: "data/*/*"}]
- config_name: sample-10BT
  data_files: [{split: train, path: "sample/10BT/*"}]
---
"""
OLD, NEW = "a" * 40, "b" * 40


def parquet_bytes(texts: list[str | None], column: str = "text") -> bytes:
    """Return a parquet file with some of FineWeb's columns."""
    table = {column: texts, "id": [str(index) for index in range(len(texts))], "token_count": list(range(len(texts)))}
    buffer = io.BytesIO()
    parquet.write_table(pa.table(table), buffer, row_group_size=50)
    return buffer.getvalue()


@dataclass
class Dataset:
    """One data set: its commits (newest last), each a table of file name -> bytes."""

    commits: dict[str, dict[str, bytes]]
    token: str | None = None
    """Answer 401 without this token, as a gated data set does."""

    def commit(self, revision: str) -> str | None:
        if revision in ("main", ""):
            return list(self.commits)[-1]
        return revision if revision in self.commits else None


@dataclass
class Hub:
    """The state of the server, shared with the tests."""

    datasets: dict[str, Dataset]
    requests: list[tuple[str, str, str | None]] = field(default_factory=list)
    faults: dict[str, list[str]] = field(default_factory=dict)
    """End of a path -> `429`, `503`, `cut` (the connection ends half-way) or `wrong` (other bytes of the same size)."""

    def fault(self, path: str) -> str | None:
        left = next((faults for end, faults in self.faults.items() if path.endswith(end) and faults), None)
        return left.pop(0) if left else None

    def start(self) -> "Running":
        handler = type("Handler", (_Handler,), {"hub": self})
        server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        return Running(self, server, thread)


@dataclass
class Running:
    hub: Hub
    server: ThreadingHTTPServer
    thread: threading.Thread

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.server_address[1]}"

    def stop(self) -> None:
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()


class _Handler(BaseHTTPRequestHandler):
    hub: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        length = int(self.headers.get("Content-Length", 0))
        self._answer(self.rfile.read(length))

    def _answer(self, body: bytes = b"") -> None:
        parts = urlsplit(self.path)
        path = unquote(parts.path)
        self.hub.requests.append((self.command, path, self.headers.get("Authorization")))
        for name, dataset in self.hub.datasets.items():
            if f"{path}/".startswith((f"/api/datasets/{name}/", f"/datasets/{name}/")):
                if dataset.token and self.headers.get("Authorization") != f"Bearer {dataset.token}":
                    self._json({"error": "Access to this dataset is restricted"}, 401, {"X-Error-Code": "GatedRepo"})
                    return
                if path.startswith("/api/"):
                    self._api(name, dataset, path.removeprefix(f"/api/datasets/{name}").strip("/"), parts.query, body)
                else:
                    self._resolve(dataset, path.removeprefix(f"/datasets/{name}/"))
                return
        self._json({"error": "Repository not found"}, 404, {"X-Error-Code": "RepoNotFound"})

    def _api(self, name: str, dataset: Dataset, rest: str, query: str, body: bytes) -> None:
        word, _, tail = rest.partition("/")
        revision, _, folder = tail.partition("/")
        commit = dataset.commit(revision)
        if commit is None:
            self._json({"error": f"Invalid rev id: {revision}"}, 404, {"X-Error-Code": "RevisionNotFound"})
            return
        files = dataset.commits[commit]
        match word:
            case "" | "revision":
                siblings = [{"rfilename": path} for path in sorted(files)]
                facts = {"id": name, "sha": commit, "private": False, "gated": False, "disabled": False}
                self._json({**facts, "tags": [], "siblings": siblings, "downloads": 0, "likes": 0})
            case "tree":
                self._json(_tree(files, folder, "recursive" in parse_qs(query)))
            case "paths-info":
                wanted = parse_qs(body.decode()).get("paths") or json.loads(body or b"{}").get("paths", [])
                self._json([entry for entry in _tree(files, "", recursive=True) if entry["path"] in wanted])
            case _:
                self._json({"error": "not found"}, 404, {"X-Error-Code": "EntryNotFound"})

    def _resolve(self, dataset: Dataset, rest: str) -> None:
        _, _, tail = rest.partition("/")
        revision, _, path = tail.partition("/")
        commit = dataset.commit(revision)
        data = dataset.commits[commit].get(path) if commit else None
        if commit is None or data is None:
            self._json({"error": "Entry not found"}, 404, {"X-Error-Code": "EntryNotFound"})
            return
        fault = self.hub.fault(path) if self.command == "GET" else None
        if fault in ("429", "503"):
            self._json({"error": "come back later"}, int(fault), {"Retry-After": "0"})
            return
        if fault == "wrong":
            data = bytes([data[0] ^ 1]) + data[1:-1] + bytes([data[-1] ^ 1])
        start, stop = 0, len(data)
        asked = self.headers.get("Range")
        if asked:
            first, _, last = asked.removeprefix("bytes=").partition("-")
            start, stop = int(first), min(len(data), int(last) + 1 if last else len(data))
        self.send_response(206 if asked else 200)
        self.send_header("ETag", f'"{hashlib.sha1(data).hexdigest()}"')
        self.send_header("X-Repo-Commit", commit)
        self.send_header("Accept-Ranges", "bytes")
        if asked:
            self.send_header("Content-Range", f"bytes {start}-{stop - 1}/{len(data)}")
        self.send_header("Content-Length", str(stop - start))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data[start : (start + stop) // 2 if fault == "cut" else stop])
            self.close_connection = fault == "cut"

    def _json(self, value: object, status: int = 200, headers: dict[str, str] | None = None) -> None:
        data = json.dumps(value).encode()
        self.send_response(status)
        for key, text in (headers or {}).items():
            self.send_header(key, text)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)


def _tree(files: dict[str, bytes], folder: str, recursive: bool) -> list[dict[str, object]]:
    entries: dict[str, dict[str, object]] = {}
    for path, data in sorted(files.items()):
        below = PurePosixPath(path)
        if folder and folder not in map(str, below.parents):
            continue
        oid = hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()
        entries[path] = {"type": "file", "path": path, "size": len(data), "oid": oid}
        if path.endswith((".parquet", ".zst")):
            # Large files are kept apart, and listed by the sha256 of their bytes.
            kept = {"oid": hashlib.sha256(data).hexdigest(), "size": len(data), "pointerSize": 134}
            entries[path] |= {"lfs": kept, "oid": "0" * 40}
        for parent in below.parents:
            if str(parent) not in (".", folder) and str(parent).startswith(folder):
                entries[str(parent)] = {"type": "directory", "path": str(parent), "oid": oid, "size": 0}
    depth = len(PurePosixPath(folder).parts) + 1
    chosen = [entry for path, entry in entries.items() if recursive or len(PurePosixPath(path).parts) == depth]
    return sorted(chosen, key=lambda entry: str(entry["path"]))
