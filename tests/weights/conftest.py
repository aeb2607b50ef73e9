"""Pretrained tags of a small architecture, and a file server that misbehaves."""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace

import open_clip
import pytest
from small_clip import SMALL, checkpoint, original, small_architecture, small_config

__all__ = ["checkpoint", "original", "small_architecture", "small_config"]


@pytest.fixture
def small_tag(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Make open_clip list a pretrained tag of the small architecture."""

    def add(name: str, **config: object) -> None:
        full = {"url": "", "hf_hub": "", "mean": (0.1, 0.2, 0.3), "std": (0.4, 0.5, 0.6), **config}
        known = open_clip.pretrained._PRETRAINED
        monkeypatch.setitem(known, SMALL, {**known.get(SMALL, {}), name: full})

    return add


class FileServer(ThreadingHTTPServer):
    """Serves ``content`` at any path. The attributes say how it misbehaves; ``requests`` records what it was asked.

    Attributes:
        ranges: whether it honours Range; if not, it always sends the whole file.
        send_length: whether it says how long the file is.
        claimed_length: what it says instead of the file's length.
        cut_after: for each request to come, after how many bytes to cut the connection (None: not).
        stall_s: how long it then keeps a cut connection open without a word.
        statuses: for each request to come, the status to answer with (200: serve; 0: hang up; 1: nonsense).
    """

    def __init__(self, content: bytes) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.content = content
        self.ranges = True
        self.send_length = True
        self.claimed_length: int | None = None
        self.cut_after: list[int | None] = []
        self.stall_s = 0.0
        self.statuses: list[int] = []
        self.requests: list[SimpleNamespace] = []

    def handle_error(self, *_: object) -> None:
        """A client that hung up is what some tests are about."""

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.content).hexdigest()

    def url(self, name: str) -> str:
        return f"http://127.0.0.1:{self.server_port}/{name}"


class _Handler(BaseHTTPRequestHandler):
    server: FileServer

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        server, asked = self.server, self.headers.get("Range")
        server.requests.append(SimpleNamespace(path=self.path, range=asked))
        status = server.statuses.pop(0) if server.statuses else 200
        if status < 2:
            self.wfile.write(b"HTTP nonsense\r\n\r\n" * status)
            return
        if status != 200:
            self.send_error(status)
            return
        body, total = server.content, len(server.content)
        start = int(asked.removeprefix("bytes=").removesuffix("-")) if asked and server.ranges else 0
        if start >= total > 0:
            self.send_error(416)
            return
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{total - 1}/{total}")
        if server.send_length:
            self.send_header("Content-Length", str(server.claimed_length or total - start))
        self.end_headers()
        cut = server.cut_after.pop(0) if server.cut_after else None
        self.wfile.write(body[start:] if cut is None else body[start : start + cut])
        if cut is not None:
            time.sleep(server.stall_s)


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[bytes], FileServer]]:
    """Start a file server; retries do not wait."""
    monkeypatch.setattr("winspect.weights.fetching.BACKOFF_S", 0.0)
    servers: list[tuple[FileServer, threading.Thread]] = []

    def start(content: bytes) -> FileServer:
        server = FileServer(content)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        servers.append((server, thread))
        return server

    yield start
    for server, thread in servers:
        server.shutdown()
        server.server_close()
        thread.join()


class _Hub(BaseHTTPRequestHandler):
    """A hub that has ``files`` in every repository; ``asked`` holds the paths of the downloads."""

    files: dict[str, bytes]
    asked: list[str]
    etag: str | None = None
    down = False

    def log_message(self, *_: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self.answer(with_body=False)

    def do_GET(self) -> None:
        self.answer(with_body=True)

    def answer(self, *, with_body: bool) -> None:
        name = self.path.partition("/resolve/main/")[2]
        content = self.files.get(name)
        if self.down or content is None:
            self.send_response(500 if self.down else 404)
            if not self.down:
                self.send_header("X-Error-Code", "EntryNotFound")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        self.send_response(200)
        self.send_header("X-Repo-Commit", "c" * 40)
        self.send_header("ETag", f'"{self.etag or hashlib.sha256(content).hexdigest()}"')
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if with_body:
            self.asked.append(self.path)
            self.wfile.write(content)


@pytest.fixture
def fake_hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[_Hub]]:
    """A hub on this machine: a class whose attributes say what it has."""
    handler = type("Hub", (_Hub,), {"files": {}, "asked": []})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    endpoint = f"http://127.0.0.1:{server.server_port}"
    template = endpoint + "/{repo_id}/resolve/{revision}/{filename}"
    for name, value in (
        ("constants.ENDPOINT", endpoint),
        ("constants.HUGGINGFACE_CO_URL_TEMPLATE", template),
        ("file_download.HUGGINGFACE_CO_URL_TEMPLATE", template),  # where releases before 1.0 keep a copy
    ):
        monkeypatch.setattr(f"huggingface_hub.{name}", value, raising=False)
    handler.endpoint = endpoint
    yield handler
    server.shutdown()
    server.server_close()
    thread.join()
