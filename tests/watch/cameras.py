"""A camera for tests: MJPEG over HTTP, with a password, that can hang up, freeze, and go away."""

from __future__ import annotations

import base64
import io
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from PIL import Image

USER, PASSWORD = "operator", "s3cr3t-pa55"
SIZE_WH = (64, 48)


def jpeg(brightness: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", SIZE_WH, (brightness,) * 3).save(buffer, format="JPEG")
    return buffer.getvalue()


class MjpegCamera(ThreadingHTTPServer):
    """``frozen``: sends one picture over and over. ``hang_up``: ends all connections. ``away``: refuses new ones.

    The brightness of a frame is its number, from 0 to 249 and again; ``sent`` is the number of the last one.
    """

    daemon_threads = True
    per_second = 50

    def __init__(self, port: int = 0) -> None:
        super().__init__(("127.0.0.1", port), _Handler)
        self.frozen, self.hang_up, self.away = threading.Event(), threading.Event(), threading.Event()
        self.sent = self.connections = 0

    @property
    def url(self) -> str:
        return f"http://{USER}:{PASSWORD}@127.0.0.1:{self.server_port}/video.mjpg?token={PASSWORD}"

    def handle_error(self, *_: object) -> None:
        """A client that hangs up is no error."""


class _Handler(BaseHTTPRequestHandler):
    server: MjpegCamera

    def do_GET(self) -> None:
        expected = "Basic " + base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
        if self.headers.get("Authorization") != expected:
            self.send_response(401)
            self.send_header("WWW-Authenticate", 'Basic realm="camera"')
            self.end_headers()
            return
        if self.server.away.is_set():
            self.send_error(503)
            return
        self.server.connections += 1
        self.send_response(200)
        self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
        self.end_headers()
        while not self.server.hang_up.is_set():
            if not self.server.frozen.is_set():
                self.server.sent += 1
            data = jpeg(self.server.sent % 250)
            self.wfile.write(b"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: %d\r\n\r\n" % len(data))
            self.wfile.write(data + b"\r\n")
            time.sleep(1 / self.server.per_second)

    def log_message(self, *_: object) -> None:
        """Nothing on the terminal."""


@contextmanager
def mjpeg_camera() -> Iterator[MjpegCamera]:
    """A camera that is switched on."""
    camera = MjpegCamera()
    thread = threading.Thread(target=camera.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield camera
    finally:
        camera.hang_up.set()
        camera.shutdown()
        thread.join()
        camera.server_close()
