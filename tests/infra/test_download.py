from collections.abc import Iterator
import hashlib
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
import threading

import pytest

from infra.download import TRIES, Download, download_all
from trainwright.store.files import FileEntry

DATA = bytes(range(256)) * 1000


class Server(ThreadingHTTPServer):
    """Serves DATA, cutting the first `cuts` answers short; `asked` holds the ranges."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.cuts = 0
        self.ranges = True
        self.asked: list[str | None] = []


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        given = self.headers.get("Range")
        self.server.asked.append(given)
        if self.path == "/absent":
            self.send_error(404)
            return
        begin = int(given[6:-1]) if given and self.server.ranges else 0
        self.send_response(206 if given and self.server.ranges else 200)
        self.send_header("Content-Length", str(len(DATA) - begin))
        self.end_headers()
        self.server.cuts -= 1
        cut = self.server.cuts >= 0
        self.wfile.write(DATA[begin : begin + 30_000] if cut else DATA[begin:])

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as running:
        thread = threading.Thread(target=running.serve_forever, args=(0.05,))
        thread.start()
        yield running
        running.shutdown()
        thread.join()


def a_file(server: Server, path: Path, name: str = "x", sha256: str = hashlib.sha256(DATA).hexdigest()) -> Download:
    return Download(f"http://127.0.0.1:{server.server_port}/{name}", path, FileEntry(path.name, len(DATA), sha256))


def test_files_come_whole(server: Server, tmp_path: Path) -> None:
    assert download_all([a_file(server, tmp_path / "new" / name) for name in "abcdef"]) == []
    assert all((tmp_path / "new" / name).read_bytes() == DATA for name in "abcdef")
    assert len(list((tmp_path / "new").iterdir())) == 6


def test_a_connection_that_ends_early_is_taken_up_where_it_ended(server: Server, tmp_path: Path) -> None:
    server.cuts = 2
    assert download_all([a_file(server, tmp_path / "x")], pause_s=0.01) == []
    assert server.asked == [None, "bytes=30000-", "bytes=60000-"]
    assert (tmp_path / "x").read_bytes() == DATA


def test_a_server_without_ranges_sends_it_all_again(server: Server, tmp_path: Path) -> None:
    server.cuts, server.ranges = 1, False
    assert download_all([a_file(server, tmp_path / "x")], pause_s=0.01) == []
    assert (tmp_path / "x").read_bytes() == DATA


def test_what_came_before_a_failure_is_kept_for_the_next_fetch(server: Server, tmp_path: Path) -> None:
    server.cuts = TRIES
    (problem,) = download_all([a_file(server, tmp_path / "x")], pause_s=0.01)
    assert problem.endswith(f"the connection ended after 150000 of {len(DATA)} bytes; tried {TRIES} times")
    assert not (tmp_path / "x").exists()
    assert download_all([a_file(server, tmp_path / "x")], pause_s=0.01) == []
    assert server.asked[-1] == "bytes=150000-"


def test_another_file_than_the_one_meant_is_never_kept(server: Server, tmp_path: Path) -> None:
    (problem,) = download_all([a_file(server, tmp_path / "x", sha256="0" * 64)], pause_s=0.01)
    assert "what came is not the file that is meant" in problem
    assert list(tmp_path.iterdir()) == []


def test_what_is_not_there_is_not_asked_for_again(server: Server, tmp_path: Path) -> None:
    (problem,) = download_all([a_file(server, tmp_path / "x", "absent")], pause_s=0.01)
    assert problem.endswith("tried 1 times")
