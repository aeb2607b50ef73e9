"""What stands before the service, seen on the wire: sizes, slow clients, clients that leave, keys."""

from __future__ import annotations

import asyncio
import http.client
import json
import socket
import threading
import time

import httpx
import pytest

from tests.service.asking import Service, encoded, picture, settings
from tests.service.fake_backend import FakeBackend
from tests.service.live import Live, read_all, read_answer
from winspect.service.http.guard import UPLOADS_AT_ONCE, Guard
from winspect.service.serving import MAX_CONNECTIONS, MAX_HEADER_BYTES

GOOD = encoded(picture(100))
KEY, OTHER_KEY = "0123456789abcdef-first", "0123456789abcdef-second"
LIMIT_MB = 1
PATIENCE_S = 0.4


@pytest.fixture(scope="module")
def live(tmp_path_factory):
    limits = settings(
        tmp_path_factory.mktemp("data"), max_upload_mb=LIMIT_MB, body_timeout_s=PATIENCE_S, max_queue=4, page=False
    )
    with Live(FakeBackend(limits), limits) as live:
        live.server.still_s = PATIENCE_S
        yield live


def still_answers(live):
    answer = httpx.post(f"{live.url}/v1/predict", files={"pictures": ("a.png", GOOD)})
    assert answer.json()["results"][0]["anomaly_score"] == pytest.approx(100 / 255)


def split(answer):
    head, _, body = answer.partition(b"\r\n\r\n")
    status, *lines = head.decode().split("\r\n")
    headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}
    return int(status.split()[1]), headers, json.loads(body)


def request(body=b"", *, headers="", length=None, path="/v1/predict"):
    length = len(body) if length is None else length
    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\n{headers}\r\n"
    return head.encode() + body


def form(content=GOOD):
    made = httpx.Request("POST", "http://x", files={"pictures": ("a.png", content)})
    return made.read(), f"Content-Type: {made.headers['content-type']}\r\n"


# -- size


def test_a_length_over_the_limit_is_413_before_any_byte_of_it(live):
    started = time.monotonic()
    with live.connect() as connection:
        connection.sendall(request(length=200 * 2**20))
        answer = read_answer(connection)
    status, headers, body = split(answer)
    assert (status, headers["connection"]) == (413, "close")
    assert body["error"] == {
        "type": "TooLarge",
        "message": "the request is larger than 1 MB; send fewer pictures, or smaller ones",
    }
    assert time.monotonic() - started < 1
    still_answers(live)


def test_a_client_that_sends_200_mb_before_it_listens_still_hears_413(live):
    connection = http.client.HTTPConnection(live.host, live.port, timeout=20)
    piece = bytes(2**20)
    connection.request("POST", "/v1/predict", body=iter([piece] * 200), headers={"Content-Length": str(200 * 2**20)})
    answer = connection.getresponse()
    assert answer.status == 413
    connection.close()
    still_answers(live)


@pytest.mark.parametrize("path", ["/v1/predict", "/v2/models/winspect/infer", "/v1/references"])
def test_a_body_without_a_length_is_413_as_soon_as_it_is_too_long(live, path):
    sent = 0
    with live.connect() as connection:
        head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: multipart/form-data; boundary=b\r\n"
        connection.sendall(f"{head}Transfer-Encoding: chunked\r\n\r\n".encode())
        part = b'--b\r\nContent-Disposition: form-data; name="pictures"; filename="a"\r\n\r\n'
        connection.sendall(b"%x\r\n%b\r\n" % (len(part), part))
        connection.settimeout(0.02)
        answer = b""
        while not answer and sent < 100 * 2**20:
            try:
                connection.settimeout(10)
                connection.sendall(b"10000\r\n" + bytes(2**16) + b"\r\n")
                sent += 2**16
                connection.settimeout(0.001)
                answer = connection.recv(65536)
            except TimeoutError:
                pass
        connection.settimeout(10)
        status, _, _ = split(read_answer(connection, answer))
    assert status == 413
    assert sent < 20 * LIMIT_MB * 2**20  # the rest was never waited for
    still_answers(live)


def test_bodies_that_were_read_are_not_counted_for_ever(tmp_path):
    service = Service(tmp_path)
    guard = find_guard(service)
    for content in (GOOD, b"no picture", bytes(33 * 2**20)):
        service.predict(content)
    assert guard.held_bytes == 0
    guard.held_bytes = UPLOADS_AT_ONCE * guard.max_upload_bytes
    answer = service.predict(GOOD)
    assert (answer.status_code, answer.headers["retry-after"]) == (429, "1")
    guard.held_bytes = 0
    assert service.predict(GOOD).status_code == 200
    service.close()


def find_guard(service):
    layer = service.app.middleware_stack
    while layer is not None and not isinstance(layer, Guard):
        layer = getattr(layer, "app", None)
    if layer is None:
        service.get("/v2")  # the layers are built with the first request
        return find_guard(service)
    return layer


# -- slow clients, clients that leave


def test_a_body_that_trickles_in_is_408_and_closed(live):
    body, headers = form()
    started = time.monotonic()
    with live.connect() as connection:
        connection.sendall(request(body[:100], headers=headers, length=len(body)))
        threading.Timer(PATIENCE_S / 2, connection.sendall, (b"x",)).start()
        status, told, error = split(read_all(connection))  # to its end: it was closed
    assert (status, told["connection"], error["error"]["type"]) == (408, "close", "TooSlow")
    assert PATIENCE_S * 0.9 < time.monotonic() - started < PATIENCE_S + 2
    still_answers(live)


@pytest.mark.parametrize("begun", [b"", b"POST /v1/pre", b"POST /v1/predict HTTP/1.1\r\nHost: localhost\r\n"])
def test_headers_that_trickle_in_end_the_connection(live, begun):
    started = time.monotonic()
    with live.connect() as connection:
        connection.sendall(begun)
        threading.Timer(PATIENCE_S / 2, connection.sendall, (b"x",)).start()
        assert read_all(connection) == b""
    assert PATIENCE_S * 0.9 < time.monotonic() - started < PATIENCE_S + 3
    still_answers(live)


def test_a_second_request_may_not_trickle_in_either(live):
    with live.connect() as connection:
        connection.sendall(b"GET /v2/health/live HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert split(read_answer(connection))[2] == {"live": True}
        connection.sendall(b"GET /v2/health/live HTTP/1.1\r\n")
        assert read_all(connection) == b""


def test_a_request_under_way_is_never_taken_for_a_still_one(live, held):
    body, headers = form()
    with live.connect() as connection:
        connection.sendall(request(body, headers=headers))
        wait_until(lambda: live.backend.status.queued == 1, 5)
        time.sleep(PATIENCE_S + 1.5)
        live.do(held.set)
        assert split(read_answer(connection))[0] == 200


def test_a_client_that_never_reads_its_answer_is_dropped(live):
    with socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.connect((live.host, live.port))
        files = {"pictures": ("a.png", encoded(picture(9, (1000, 1000))))}
        made = httpx.Request("POST", "http://x", files=files, data={"map": "1"})
        connection.sendall(request(made.read(), headers=f"Content-Type: {made.headers['content-type']}\r\n"))
        wait_until(lambda: live.backend.judged, 5)
        own = connection.getsockname()
        wait_until(lambda: all(one.client != own for one in list(live.server.server_state.connections)), 10)
    still_answers(live)


def wait_until(is_so, seconds):
    until = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < until
        time.sleep(0.01)


@pytest.fixture
def held(live):
    """The model is held back until the end of the test."""
    gate = live.do(asyncio.Event)
    live.do(setattr, live.backend, "gate", gate)
    yield gate
    live.do(gate.set)
    live.do(setattr, live.backend, "gate", None)
    wait_until(lambda: not live.backend.status.queued, 5)


def test_a_client_that_hangs_up_takes_its_picture_with_it(live, held):
    cancelled, judged = live.backend.cancelled, live.backend.judged
    body, headers = form()
    with live.connect() as connection:
        connection.sendall(request(body, headers=headers))
        wait_until(lambda: live.backend.status.queued == 1, 5)
    wait_until(lambda: live.backend.status.queued == 0, 5)
    assert (live.backend.cancelled, live.backend.judged) == (cancelled + 1, judged)
    live.do(held.set)
    still_answers(live)
    wait_until(lambda: 'winspect_rejects_total{reason="hung_up"} 1.0' in httpx.get(f"{live.url}/metrics").text, 5)


def test_a_client_that_hangs_up_while_it_sends(live, caplog):
    body, headers = form()
    with live.connect() as connection:
        connection.sendall(request(body[:100], headers=headers, length=len(body)))
        time.sleep(0.05)
    still_answers(live)
    assert "Traceback" not in caplog.text


def test_a_full_queue_refuses_at_once_and_forgets_nobody(live, held):
    answers = []

    def ask():
        answer = httpx.post(f"{live.url}/v1/predict", files={"pictures": ("a.png", GOOD)}, timeout=20)
        answers.append((answer.status_code, answer.headers.get("retry-after"), time.monotonic()))

    threads = [threading.Thread(target=ask) for _ in range(10)]
    for thread in threads:
        thread.start()
    wait_until(lambda: len(answers) == 6, 10)
    assert {answer[:2] for answer in answers} == {(429, "2")}
    live.do(held.set)
    for thread in threads:
        thread.join(10)
    assert sorted(answer[0] for answer in answers) == [200] * 4 + [429] * 6


def test_thousands_of_requests_each_get_the_answer_to_their_own(live):
    """A crowd far larger than the queue: every request is answered, with its own picture's score or with 429."""
    bodies = {level: form(encoded(picture(level))) for level in range(40, 50)}

    async def client(level, count):
        reader, writer = await asyncio.open_connection(live.host, live.port)
        answers = []
        for _ in range(count):
            writer.write(request(bodies[level][0], headers=bodies[level][1]))
            head = await reader.readuntil(b"\r\n\r\n")
            length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
            answers.append((int(head.split()[1]), json.loads(await reader.readexactly(length))))
        writer.close()
        return level, answers

    async def crowd():
        return await asyncio.gather(*(client(40 + number % 10, 10) for number in range(100)))

    live.do(setattr, live.backend, "lag_s", 0.002)
    outcomes = asyncio.run(crowd())
    live.do(setattr, live.backend, "lag_s", 0.0)
    statuses = []
    for level, answers in outcomes:
        assert len(answers) == 10
        for status, body in answers:
            statuses.append(status)
            if status == 200:
                assert body["results"][0]["anomaly_score"] == pytest.approx(level / 255)
            else:
                assert (status, body["error"]["type"]) == (429, "Overloaded")
    assert {200, 429} == set(statuses)
    still_answers(live)


# -- what is no HTTP


@pytest.mark.parametrize(
    "nonsense", [b"\x16\x03\x01\x02\x00\x01\n\n", b"GET /\r\n\r\n", b"A" * (MAX_HEADER_BYTES + 2**17)]
)  # fmt: skip
def test_what_is_no_http_is_400(live, nonsense):
    with live.connect() as connection:
        connection.sendall(nonsense)
        assert connection.recv(65536).startswith(b"HTTP/1.1 400 ")
    still_answers(live)


def test_too_many_connections_are_told_so(live):
    live.server.config.limit_concurrency, most = 1, live.server.config.limit_concurrency
    try:
        assert httpx.get(f"{live.url}/v2/health/live").status_code == 503
    finally:
        live.server.config.limit_concurrency = most
    assert most == MAX_CONNECTIONS
    still_answers(live)


# -- who may


@pytest.fixture
def locked(tmp_path):
    keys = tmp_path / "keys"
    keys.write_text(f"# the line's\n{KEY}\n\n  {OTHER_KEY}  \n")
    service = Service(tmp_path, api_key_file=keys)
    yield service
    service.close()


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": "Bearer wrong"},
        {"Authorization": f"Basic {KEY}"},
        {"Authorization": KEY},
        {"X-API-Key": KEY[:-1]},
        {"X-API-Key": ""},
        {"X-API-Key": "# the line's"},
        {"X-API-Key": "schlüssel".encode()},
    ],
)
def test_without_a_key_nothing_is_told(locked, headers):
    for method, path in [("POST", "/v1/predict"), ("GET", "/metrics"), ("GET", "/openapi.json"), ("GET", "/nothing")]:
        answer = locked.ask(method, path, headers=headers)
        assert answer.status_code == 401
        assert answer.headers["www-authenticate"] == 'Bearer realm="winspect"'
        assert answer.json()["error"]["type"] == "NoKey"
    assert isinstance(locked.get("/v2", headers=headers).json()["error"], str)


@pytest.mark.parametrize(
    "headers", [{"Authorization": f"Bearer {KEY}"}, {"authorization": f"bearer  {OTHER_KEY}"}, {"X-API-Key": OTHER_KEY}]
)
def test_with_a_key_everything_is(locked, headers):
    assert locked.get("/metrics", headers=headers).status_code == 200
    answer = locked.post("/v1/predict", files={"pictures": ("a.png", GOOD)}, headers=headers)
    assert answer.status_code == 200
    assert "bearer" in locked.get("/openapi.json", headers=headers).json()["components"]["securitySchemes"]


def test_health_and_the_page_are_open(locked):
    for path in ("/v2/health/live", "/v2/health/ready", "/", "/page/page.js"):
        assert locked.get(path).status_code == 200, path


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Sec-Fetch-Site": "cross-site"}, 403),
        ({"Sec-Fetch-Site": "same-site"}, 403),
        ({"Origin": "https://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Sec-Fetch-Site": "same-origin", "Origin": "https://a.proxy"}, 200),
        ({"Sec-Fetch-Site": "none"}, 200),
        ({"Origin": "http://service"}, 200),
        ({}, 200),
    ],
)
def test_pages_of_other_sites_cannot_use_a_browser_to_change_things(tmp_path, headers, status):
    service = Service(tmp_path)
    answer = service.post("/v1/predict", files={"pictures": ("a.png", GOOD)}, headers=headers)
    assert answer.status_code == status
    assert service.get("/v1/classes", headers=headers).status_code == 200  # a browser keeps the answer from them
    service.close()
