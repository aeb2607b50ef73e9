"""Other sides: an MQTT broker (amqtt) and an HTTP receiver, in processes that can be killed; certificates.

Both write each row to a file, through to the disk, before they acknowledge it: what is in the file has arrived.
"""

from __future__ import annotations

import datetime
import ipaddress
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def listens(port: int) -> bool:
    with socket.socket() as asking:
        return asking.connect_ex(("127.0.0.1", port)) == 0


def until(condition: Callable[[], Any], seconds: float = 30.0) -> Any:
    """Wait for something that must come true; gives it."""
    end = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < end, "still waiting"
        time.sleep(0.02)
    return value


class Other:
    """A process that receives rows. ``kill`` and ``start`` as often as needed."""

    def __init__(self, kind: str, folder: Path, **options: Any) -> None:
        self.port, self.file = free_port(), folder / f"{kind}.jsonl"
        self._arguments = [kind, str(self.port), str(self.file), json.dumps(options)]
        self.process: subprocess.Popen[bytes] | None = None

    def start(self, *, wait: bool = True) -> None:
        self.process = subprocess.Popen([sys.executable, __file__, *self._arguments], stderr=subprocess.DEVNULL)
        if wait:
            until(lambda: listens(self.port))

    def kill(self) -> None:
        if self.process is not None:
            self.process.send_signal(signal.SIGKILL)
            self.process.wait()
            self.process = None

    def received(self) -> list[dict[str, Any]]:
        """What has arrived, in order; each with ``topic`` or ``headers``, and the ``row``."""
        if not self.file.exists():
            return []
        lines = self.file.read_bytes().split(b"\n")[:-1]
        return [json.loads(line) for line in lines]

    def rows(self) -> list[dict[str, Any]]:
        return [entry["row"] for entry in self.received()]

    def ids(self) -> set[str]:
        return {row["id"] for row in self.rows()}


@contextmanager
def other(kind: str, folder: Path, **options: Any) -> Iterator[Other]:
    """A broker or a receiver that runs."""
    process = Other(kind, folder, **options)
    process.start()
    try:
        yield process
    finally:
        process.kill()


def unmarked_repeats(rows: list[dict[str, Any]]) -> int:
    """Rows that had arrived before and do not say that they may have."""
    seen: set[str] = set()
    count = 0
    for row in rows:
        count += row["id"] in seen and not row["repeat"]
        seen.add(row["id"])
    return count


def write_certificates(folder: Path, *, host: str = "127.0.0.1") -> tuple[Path, Path]:
    """A certificate that signs itself, and its key (PEM), for an address."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import rsa
    from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "winspect test")])
    now = datetime.datetime.now(datetime.timezone.utc)
    names = [x509.IPAddress(ipaddress.ip_address(host)), x509.UniformResourceIdentifier("urn:winspect")]
    usages = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
    allowed = dict.fromkeys(("key_agreement", "crl_sign", "encipher_only", "decipher_only"), False) | dict.fromkeys(
        ("digital_signature", "content_commitment", "key_encipherment", "data_encipherment"), True
    )
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=2))
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(x509.KeyUsage(key_cert_sign=True, **allowed), critical=False)
        .add_extension(x509.ExtendedKeyUsage(usages), critical=False)
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    plain = (pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    (folder / "cert.pem").write_bytes(certificate.public_bytes(pem))
    (folder / "key.pem").write_bytes(key.private_bytes(*plain))
    return folder / "cert.pem", folder / "key.pem"


# What runs in the processes.


def append(path: str, entry: dict[str, Any]) -> None:
    with open(path, "ab", buffering=0) as file:
        file.write(json.dumps(entry).encode() + b"\n")
        os.fsync(file.fileno())


def run_broker(port: int, path: str, options: dict[str, Any]) -> None:
    """amqtt, which writes each message of QoS 1 to the file before its PUBACK, as a broker with persistence does.

    ``user``, ``password``: who is let in. ``certificate``, ``key``: TLS.
    """
    import asyncio

    from amqtt.broker import Broker
    from amqtt.mqtt.protocol.handler import ProtocolHandler
    from amqtt.plugins.base import BaseAuthPlugin
    from amqtt.session import IncomingApplicationMessage

    acknowledge = ProtocolHandler._handle_qos1_message_flow

    async def keep(self: Any, message: Any) -> None:
        if isinstance(message, IncomingApplicationMessage):
            append(path, {"topic": message.topic, "row": json.loads(bytes(message.data))})
        await acknowledge(self, message)

    ProtocolHandler._handle_qos1_message_flow = keep  # type: ignore[method-assign]

    class Password(BaseAuthPlugin):
        async def authenticate(self, *, session: Any) -> bool:
            return (session.username, session.password) == (options["user"], options["password"])

    listener: dict[str, Any] = {"type": "tcp", "bind": f"127.0.0.1:{port}"}
    if "certificate" in options:
        listener.update(ssl=True, certfile=options["certificate"], keyfile=options["key"])
    plugins = {"amqtt.plugins.authentication.AnonymousAuthPlugin": {"allow_anonymous": True}}
    if "user" in options:
        sys.modules["password_plugin"] = type(sys)("password_plugin")
        sys.modules["password_plugin"].Password = Password  # type: ignore[attr-defined]
        plugins = {"password_plugin.Password": {}}

    async def serve() -> None:
        broker = Broker({"listeners": {"default": listener}, "plugins": plugins})
        await broker.start()
        await asyncio.Event().wait()

    asyncio.run(serve())


def run_receiver(port: int, path: str, options: dict[str, Any]) -> None:
    """An HTTP server that answers ``status`` (200), or that of the file ``status_file``, to every POST."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            status, more = options.get("status", 200), options.get("headers", {})
            if "status_file" in options:
                status = int(Path(options["status_file"]).read_text())
            if status < 300:
                headers = {key.lower(): value for key, value in self.headers.items()}
                append(path, {"headers": headers, "body": body.decode(), "row": json.loads(body)})
            self.send_response(status)
            for name, value in more.items():
                self.send_header(name, value)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
    server.serve_forever()


if __name__ == "__main__":
    {"broker": run_broker, "receiver": run_receiver}[sys.argv[1]](
        int(sys.argv[2]), sys.argv[3], json.loads(sys.argv[4])
    )
