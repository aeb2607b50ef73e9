"""The service on a socket of its own, in a thread, for what can only be seen on the wire."""

from __future__ import annotations

import asyncio
import re
import socket
import threading

from winspect.service.serving import Server


class Live:
    """Use it in a with-block. ``host`` and ``port`` are where it listens, ``said`` is what it told its operator."""

    def __init__(self, backend, settings):
        self.backend, self.said = backend, []
        self.has_begun = threading.Event()
        self.server = Server(backend, settings, say=self.say)
        self.thread = threading.Thread(target=self.run, daemon=True)
        self.mistake = None

    def run(self):
        try:
            self.server.listen_and_run()
        except BaseException as error:
            self.mistake = error
            self.has_begun.set()

    def say(self, text):
        self.said.append(text)
        self.has_begun.set()

    def __enter__(self):
        self.thread.start()
        assert self.has_begun.wait(10)
        if self.mistake:
            raise self.mistake
        self.host, port = re.search(r"://([\d.]+):(\d+)", self.said[0]).groups()
        self.port, self.url = int(port), f"http://{self.host}:{port}"
        while not self.server.started:
            assert self.thread.is_alive()
        self.loop = self.server.servers[0].get_loop()
        return self

    def __exit__(self, *_):
        self.loop.call_soon_threadsafe(self.server.end)
        self.thread.join(10)
        assert not self.thread.is_alive()

    def do(self, action, *arguments):
        """Call something in the service's own thread."""
        done = asyncio.run_coroutine_threadsafe(called(action, arguments), self.loop)
        return done.result(10)

    def connect(self):
        connection = socket.create_connection((self.host, self.port), timeout=10)
        return connection

    def raw(self, request, *, shut=False):
        """Send bytes and return all that comes back until the service closes."""
        with self.connect() as connection:
            connection.sendall(request)
            if shut:
                connection.shutdown(socket.SHUT_WR)
            return read_all(connection)


async def called(action, arguments):
    return action(*arguments)


def read_all(connection):
    answer = b""
    while piece := connection.recv(65536):
        answer += piece
    return answer


def read_answer(connection, answer=b""):
    """One answer with a Content-Length, on a connection that may stay open."""
    while b"\r\n\r\n" not in answer:
        answer += connection.recv(65536)
    head, _, body = answer.partition(b"\r\n\r\n")
    length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
    while len(body) < length:
        body += connection.recv(65536)
    return head + b"\r\n\r\n" + body
