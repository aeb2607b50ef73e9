"""The client against the service's own application, against one on a socket, and against one that is busy."""

from __future__ import annotations

import asyncio
import json
import re
import ssl
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

import httpx
import numpy as np
import pytest
from PIL import Image

from tests.service.asking import Service, encoded, picture, settings
from tests.service.fake_backend import FakeBackend
from tests.service.live import Live
from winspect.client import (
    AsyncClient,
    Client,
    ClientError,
    NoAnswerError,
    RefusedError,
    Retries,
    Row,
    asynchronous,
    synchronous,
)
from winspect.client import answers as client_answers
from winspect.errors import PictureError, SettingsError
from winspect.service.contract import Overloaded
from winspect.service.http import api_feedback, models

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/client.md").read_text(encoding="utf-8")
NO_WAIT = Retries(times=3, backoff_s=0.0, jitter=0.0)
GREY = encoded(picture(100))


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch):
    monkeypatch.setenv("NO_PROXY", "*")


@pytest.fixture
def service(tmp_path):
    service = Service(tmp_path)
    yield service
    service.close()


@pytest.fixture
def live(tmp_path):
    """The service on a socket, with the fake backend, ready."""
    backend = FakeBackend(settings(tmp_path))
    with Live(backend, settings(tmp_path)) as running:
        running.do(backend.set_ready)
        yield running


def ask(service, question, **options):
    """What a coroutine on an AsyncClient of the application gives."""

    async def run():
        transport = httpx.ASGITransport(service.app, raise_app_exceptions=False)
        async with AsyncClient("http://service", transport=transport, retries=NO_WAIT, **options) as client:
            return await question(client)

    return service.run(run())


# -- answers


def test_a_picture_gets_a_typed_row(service):
    row = ask(service, lambda client: client.predict(("part.png", GREY), "bolt", threshold=0.3))
    assert row == Row(
        path="part.png",
        class_name="bolt",
        anomaly_score=pytest.approx(100 / 255),
        verdict="anomalous",
        threshold=0.3,
        p_value=None,
        boxes=None,
        error=None,
        warning=None,
        size=(60, 40),
        shots=0,
        id=row.id,
    )
    assert len(row.id) == 32
    with pytest.raises(AttributeError):
        row.verdict = "normal"


def test_answers_have_the_fields_of_the_services_models():
    """Each field of the service's models is one of the dataclass, under the same name."""
    pairs = (
        (client_answers.Row, models.Row),
        (client_answers.Calibration, models.Calibration),
        (client_answers.ClassInfo, models.ClassAnswer),
        (client_answers.Reference, models.Reference),
        (client_answers.References, models.ReferencesAnswer),
        (client_answers.RowError, models.ErrorBody),
        (client_answers.Feedback, api_feedback.FeedbackAnswer),
        (client_answers.ReviewPicture, api_feedback.ReviewPicture),
        (client_answers.Rates, api_feedback.RatesAnswer),
    )
    for mine, theirs in pairs:
        assert set(mine.__dataclass_fields__) == set(theirs.model_fields), theirs


def test_every_endpoint_of_v1_has_a_method(service):
    """Those of the page's samples apart; by the paths that the requests module names."""
    text = Path(client_answers.__file__).with_name("requests.py").read_text()
    paths = [path for path in service.app.openapi()["paths"] if path.startswith("/v1") and "samples" not in path]
    assert len(paths) > 6
    assert [path for path in paths if f'"{path}"' not in text] == []


def test_a_map_and_an_overlay(service):
    row = ask(service, lambda client: client.predict(picture(100), "bolt", map=True, overlay=True))
    assert row.map.array().shape == row.map.shape and row.map.array().dtype == np.float32
    assert row.map.range == (0, 1)
    assert row.overlay_png.startswith(b"\x89PNG")


@pytest.mark.parametrize("form", ["path", "text", "bytes", "image", "array"])
def test_pictures_in_every_form_score_the_same(service, tmp_path, form):
    (tmp_path / "part.png").write_bytes(GREY)
    forms = {
        "path": tmp_path / "part.png",
        "text": str(tmp_path / "part.png"),
        "bytes": GREY,
        "image": Image.fromarray(picture(100)),
        "array": picture(100),
    }
    row = ask(service, lambda client: client.predict(forms[form]))
    assert row.anomaly_score == pytest.approx(100 / 255)
    assert row.path == ("part.png" if form in ("path", "text") else "picture-1.png" if form != "bytes" else "picture-1")


def test_many_pictures_keep_their_order_and_a_bad_one_is_a_row(service):
    levels = [200, 10, 90, 30, 60]
    pictures = [(f"{level}.png", encoded(picture(level))) for level in levels]
    pictures.insert(4, ("bad.png", b"no picture"))  # two per request: beside another
    pictures.append(("alone.png", b"no picture"))  # the last request has it alone

    async def all_of(client):
        return [row async for row in client.predict_many(iter(pictures), "bolt", per_request=2)]

    rows = ask(service, all_of)
    assert [row.path for row in rows] == [name for name, _ in pictures]
    assert [row.error and row.error.type for row in rows] == [None] * 4 + ["PictureError", None, "PictureError"]
    assert [round(row.anomaly_score * 255) for row in rows if row.error is None] == levels


def test_good_samples_and_a_calibration(service):
    async def session(client):
        shown = await client.set_references("bolt", [picture(10), picture(20)])
        kept = await client.references("bolt")
        left = await client.delete_references("bolt", sha256=kept.references[0].sha256)
        more = await client.set_references("bolt", [picture(30)], add=True)
        good = await client.add_good("bolt", [picture(level) for level in range(9)])
        classes = await client.classes()
        emptied = await client.delete_references("bolt")
        return shown, kept, left, more, good, classes, emptied

    shown, kept, left, more, good, classes, emptied = ask(service, session)
    assert [each.shots for each in (shown, left, more, emptied)] == [2, 1, 2, 0]
    assert kept.class_name == "bolt" and len({reference.sha256 for reference in kept.references}) == 2
    assert good == 9
    assert [(each.class_name, each.good_pictures) for each in classes] == [("bolt", 9)]


def test_the_service_itself(service):
    async def session(client):
        return await client.is_live(), await client.is_ready(), await client.model(), await client.server()

    is_live, is_ready, model, server = ask(service, session)
    assert is_live and is_ready
    assert isinstance(model, dict) and server["name"] == "winspect"


def test_calibrate_waits_for_the_threshold():
    """By a service of three answers: running, running, ready."""
    states = iter(["running", "running", "ready"])
    state = {"class": "bolt", "message": None, "max_false_alarms": 0.05, "done": 1, "total": 9, "date": None}

    def answer(request):
        if request.url.path.endswith("/pictures"):
            return httpx.Response(200, json={"class": "bolt", "good_pictures": 9})
        return httpx.Response(200, json={**state, "state": next(states), "threshold": 0.5, "pictures": 9})

    with Client(transport=httpx.MockTransport(answer)) as client:
        synchronous.requests.POLL_S, before = 0.0, synchronous.requests.POLL_S
        try:
            ready = client.calibrate("bolt", [GREY] * 9, max_false_alarms=0.05)
            states = iter(["failed"])
            with pytest.raises(ClientError, match="the calibration of 'bolt' is failed"):
                client.calibrate("bolt")
            states = iter(["running"] * 9)
            with pytest.raises(NoAnswerError, match="still runs"):
                client.calibrate("bolt", within_s=-1)
        finally:
            synchronous.requests.POLL_S = before
    assert (ready.state, ready.threshold) == ("ready", 0.5)


# -- refusals


@pytest.mark.parametrize(
    ("question", "status", "kind"),
    [
        (lambda client: client.predict(b"no picture"), 422, "PictureError"),
        (lambda client: client.predict(GREY, threshold="high"), 422, "BadValue"),
        (lambda client: client.calibration_document("nothing"), 404, "UnknownClass"),
        (lambda client: client.predict(GREY, "../etc"), 422, "ClassNameError"),
    ],
)
def test_refusals_are_errors_with_their_status(service, question, status, kind):
    with pytest.raises(RefusedError) as refused:
        ask(service, question)
    assert (refused.value.status, refused.value.kind) == (status, kind)
    assert str(refused.value).startswith(f"{status} {kind}: ")


def test_a_key_is_sent_and_never_shown(tmp_path):
    keys = tmp_path / "keys"
    keys.write_text("0123456789abcdef0123\n")
    locked = Service(tmp_path, api_key_file=keys)
    try:
        with pytest.raises(RefusedError, match="need an API key"):
            ask(locked, lambda client: client.classes())
        assert ask(locked, lambda client: client.classes(), api_key="0123456789abcdef0123") == []
    finally:
        locked.close()
    with Client(api_key="0123456789abcdef0123") as client:
        assert "0123456789abcdef0123" not in repr(client)


@pytest.mark.parametrize("api_key", ["", "two\nlines", "Schlüssel"])
def test_keys_that_no_header_can_hold(api_key):
    with pytest.raises(SettingsError, match="api_key"):
        Client(api_key=api_key)


def test_bad_arguments(tmp_path):
    for url in ("localhost:8080", "", "ftp://localhost"):
        with pytest.raises(SettingsError, match="need http://HOST:PORT"):
            Client(url)
    (tmp_path / "cert.pem").write_text("none")
    for place in (tmp_path / "cert.pem", tmp_path / "absent.pem"):
        with pytest.raises(SettingsError, match="cannot read certificates"):
            Client("https://localhost", tls=place)
    with pytest.raises(SettingsError, match="numbers from 0"):
        Retries(times=-1)
    with Client() as client:
        with pytest.raises(PictureError, match="cannot be read"):
            client.predict(tmp_path / "absent.png")
        with pytest.raises(PictureError, match="got float, need"):
            client.predict(0.5)
        with pytest.raises(ClientError, match="no pictures"):
            client.set_references("bolt", [])


def test_something_else_that_answers():
    for response in (httpx.Response(200, text="<html>"), httpx.Response(200, json=[]), httpx.Response(200, json={})):
        client = Client(transport=httpx.MockTransport(lambda _, response=response: response))
        with client, pytest.raises(ClientError, match="is this winspect's service"):
            client.classes()
    client = Client(transport=httpx.MockTransport(lambda _: httpx.Response(502, text="bad gateway")))
    with client, pytest.raises(RefusedError, match="502: bad gateway"):
        client.classes()


# -- on a socket


def test_the_synchronous_client_on_a_socket(live):
    with Client(live.url) as client:
        client.wait_ready(5)
        rows = list(client.predict_many([picture(level) for level in (50, 150)], "bolt", per_request=1))
        assert [round(row.anomaly_score * 255) for row in rows] == [50, 150]
        assert client.is_live() and client.server()["name"] == "winspect"
        answers = []
        threads = [
            threading.Thread(target=lambda: answers.append(client.predict(GREY).anomaly_score)) for _ in range(4)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert answers == [pytest.approx(100 / 255)] * 4


def test_a_certificate_that_is_not_trusted_is_no_answer(tmp_path):
    certificate, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    options = "-x509 -newkey rsa:2048 -nodes -days 1 -subj /CN=localhost -addext subjectAltName=DNS:localhost"
    command = ["openssl", "req", *options.split(), "-keyout", key, "-out", certificate]
    subprocess.run(command, check=True, capture_output=True)
    secured = settings(tmp_path, tls_cert=certificate, tls_key=key)
    backend = FakeBackend(secured)
    with Live(backend, secured) as live:
        live.do(backend.set_ready)
        url = f"https://localhost:{live.port}"
        with Client(url, tls=certificate) as client:
            assert client.is_ready()
        with Client(url, tls=ssl.create_default_context(cafile=certificate)) as client:
            assert client.is_ready()
        with Client(url, retries=NO_WAIT) as client, pytest.raises(NoAnswerError, match="certificate verify failed"):
            client.classes()


# -- a service that is busy


class Busy(BaseHTTPRequestHandler):
    """Answers what ``script`` says next: a status and its Retry-After, or None for a connection that breaks."""

    script: ClassVar[list] = []
    asked: ClassVar[list] = []
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        type(self).asked.append((self.command, self.path))
        step = type(self).script.pop(0) if type(self).script else (200, None)
        if step is None:
            self.close_connection = True
            self.connection.close()
            return
        status, retry_after = step
        body = {"classes": [], "results": [], "class": "bolt", "good_pictures": 1}
        text = json.dumps(body if status == 200 else {"error": {"type": "Overloaded", "message": "wait"}}).encode()
        self.send_response(status)
        if retry_after is not None:
            self.send_header("Retry-After", retry_after)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    do_POST = do_DELETE = do_GET  # noqa: N815 (their names)

    def log_message(self, *_):
        pass


@pytest.fixture
def busy():
    Busy.script, Busy.asked = [], []
    server = ThreadingHTTPServer(("127.0.0.1", 0), Busy)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def waits(monkeypatch):
    """Seconds that clients would have waited."""
    seconds = []

    async def wait(duration):
        seconds.append(duration)

    monkeypatch.setattr(synchronous.time, "sleep", seconds.append)
    monkeypatch.setattr(asynchronous.anyio, "sleep", wait)
    return seconds


def classes_of(kind, url, retries):
    """``classes()`` by the client of this kind."""
    if kind == "sync":
        with Client(url, retries=retries) as client:
            return client.classes()

    async def run():
        async with AsyncClient(url, retries=retries) as client:
            return await client.classes()

    return asyncio.run(run())


BOTH = pytest.mark.parametrize("kind", ["sync", "async"])


@BOTH
def test_retry_after_is_honoured(kind, busy, waits):
    Busy.script = [(429, "2"), (503, "7"), (429, None)]
    assert classes_of(kind, busy, Retries(backoff_s=0.5, jitter=0.25)) == []
    assert len(Busy.asked) == 4
    first, second, third = waits
    assert 2 <= first <= 2.5 and 7 <= second <= 8.75  # never sooner than asked for
    assert 2 <= third <= 2.5  # no Retry-After: 0.5, doubled twice


@BOTH
def test_it_gives_up(kind, busy, waits):
    Busy.script = [(503, "1")] * 9
    with pytest.raises(RefusedError) as refused:
        classes_of(kind, busy, Retries(times=2))
    assert (refused.value.status, refused.value.retry_after_s, len(Busy.asked), len(waits)) == (503, 1.0, 3, 2)


@BOTH
def test_it_does_not_come_back_before_a_long_retry_after(kind, busy, waits):
    Busy.script = [(429, "3600")]
    with pytest.raises(RefusedError) as refused:
        classes_of(kind, busy, Retries(max_wait_s=30))
    assert (refused.value.retry_after_s, waits, len(Busy.asked)) == (3600.0, [], 1)


@BOTH
def test_other_errors_are_not_asked_again(kind, busy, waits):
    for status in (400, 404, 500, 504):
        Busy.script = [(status, "1")]
        with pytest.raises(RefusedError):
            classes_of(kind, busy, Retries())
    assert (len(Busy.asked), waits) == (4, [])


def test_a_broken_connection_is_tried_again_where_that_does_no_harm(busy, waits):
    Busy.script = [None]
    with Client(busy, retries=Retries(times=1, jitter=0.0)) as client:
        assert client.predict_many([GREY]) is not None and list(client.predict_many([GREY])) == []
        assert waits == [0.5]
        Busy.script, Busy.asked = [None], []
        with pytest.raises(NoAnswerError, match="POST /v1/calibrations: no answer after 1 tries"):
            client.start_calibration("bolt")
        assert len(Busy.asked) == 1


def test_a_picture_is_sent_again_whole(service, monkeypatch):
    """The service refuses once, then answers: the second request has the same picture."""
    predict, refusals = service.backend.predict, [Overloaded("full", 1.0)]

    async def once_full(question):
        if refusals:
            raise refusals.pop()
        return await predict(question)

    monkeypatch.setattr(service.backend, "predict", once_full)
    monkeypatch.setattr(asynchronous.anyio, "sleep", lambda seconds: asyncio.sleep(0))
    assert ask(service, lambda client: client.predict(GREY)).anomaly_score == pytest.approx(100 / 255)
    assert not refusals


def test_nobody_there(waits):
    with Client("http://127.0.0.1:9", retries=Retries(times=2, jitter=0.0)) as client:
        with pytest.raises(NoAnswerError, match="GET /v1/classes: no answer after 3 tries"):
            client.classes()
        assert waits == [0.5, 1.0]
        assert not client.is_live()
        with pytest.raises(NoAnswerError, match="not ready"):
            client.wait_ready(within_s=-1)


def test_waits_differ_between_clients():
    seconds = [Retries().wait_s(1, 2.0) for _ in range(50)]
    assert len(set(seconds)) > 40 and min(seconds) >= 2.0 and max(seconds) <= 2.5


# -- what it needs


def test_it_loads_neither_torch_nor_the_service():
    heavy = ("torch", "numpy", "PIL", "starlette", "fastapi", "pydantic", "uvicorn", "winspect.service")
    code = f"import sys, winspect.client; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", code], env={"PYTHONPATH": str(ROOT / "src")}, capture_output=True, text=True, check=True
    )
    assert done.stdout == "[]\n"


def test_without_httpx_the_extra_is_named():
    code = "import sys; sys.modules['httpx'] = None; import winspect.client"
    done = subprocess.run(
        [sys.executable, "-c", code], env={"PYTHONPATH": str(ROOT / "src")}, capture_output=True, text=True, check=False
    )
    assert done.returncode and "MissingExtraError: the client needs: pip install" in done.stderr
    assert "client]" in done.stderr


def test_both_clients_have_the_same_methods():
    names = [name for name in vars(Client) if not name.startswith("_")]
    assert names == [name for name in vars(AsyncClient) if not name.startswith("_")] and len(names) > 15


@pytest.mark.parametrize("block", re.findall(r"^```python\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL))
def test_the_pages_blocks_run(block, live, tmp_path, monkeypatch, capsys):
    """On the service with the fake backend, whose calibrations are there at once."""
    (tmp_path / "good").mkdir()
    for name, level in (("part.png", 100), ("good/1.jpg", 90), ("good/2.jpg", 110)):
        (tmp_path / name).write_bytes(encoded(picture(level)))
    monkeypatch.chdir(tmp_path)
    good = [picture(level) for level in range(60, 80)]
    names = {"Client": Client, "good_pictures": good, "new_pictures": [GREY, b"no picture"]}
    exec(compile(block.replace("http://localhost:8080", live.url), "docs/client.md", "exec"), names)
    assert capsys.readouterr().out.count("picture-1") == block.count("print(")
