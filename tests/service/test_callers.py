"""Keys; and a page that lets its own name stand for this machine (DNS rebinding), which is not answered."""

from __future__ import annotations

import hmac

import pytest
from starlette.datastructures import Headers

from tests.service.asking import Service, encoded, picture
from winspect.errors import SettingsError
from winspect.service.http.callers import Callers, read_keys
from winspect.service.http.refusals import Refused

GOOD = encoded(picture(100))
KEY = "0123456789abcdef"


def headers_of(**headers):
    return Headers({name.replace("_", "-"): value for name, value in headers.items() if value is not None})


def allows(hosts, header, server=None):
    scope = {"method": "GET", "path": "/v1/classes", "server": server}
    try:
        Callers(hosts=hosts).check(scope, headers_of(host=header))
    except Refused as refusal:
        assert refusal.status == 403 and "--allowed-host" in str(refusal)
        return False
    return True


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("localhost", True),
        ("LOCALHOST:8080", True),
        ("localhost.:8080", True),
        ("parts.localhost:80", True),
        ("127.0.0.1:8080", True),
        ("127.9.9.9", True),
        ("[::1]:8080", True),
        ("10.0.0.5:8080", True),
        ("line3.factory:8080", True),
        (None, True),
        ("evil.example", False),
        ("evil.example:8080", False),
        ("localhost.evil.example", False),
        ("127.0.0.1.evil.example", False),
        ("10.0.0.6", False),
        ("[2001:db8::1]:8080", False),
        ("", False),
        ("]", False),
        ("localhost@evil.example", False),
    ],
)
def test_loopback_and_what_was_named(header, expected):
    assert allows(["10.0.0.5", "line3.factory"], header) is expected


def test_all_interfaces_are_the_address_a_request_arrived_at():
    hosts = ["0.0.0.0"]
    assert allows(hosts, "192.168.1.20:8080", ("192.168.1.20", 8080))
    assert not allows(hosts, "evil.example:8080", ("192.168.1.20", 8080))
    assert allows(None, "evil.example")


@pytest.mark.parametrize(
    ("settings", "foreign", "named"),
    [
        ({}, 403, 403),
        ({"allowed_hosts": ("named.example",)}, 403, 200),
        ({"host": "named.example"}, 403, 200),
        ({"api_key_file": KEY}, 200, 200),
        ({"api_key_file": KEY, "allowed_hosts": ("named.example",)}, 403, 200),
    ],
    ids=["nothing", "allowed", "host", "key", "key and allowed"],
)
def test_every_path_of_the_service(tmp_path, settings, foreign, named):
    if "api_key_file" in settings:
        (tmp_path / "keys").write_text(KEY)
        settings = {**settings, "api_key_file": tmp_path / "keys"}
    service = Service(tmp_path, **settings)
    for path in ("/", "/v1/classes", "/v2/health/ready", "/metrics", "/openapi.json"):
        for host, status in (("evil.example", foreign), ("named.example:8080", named), ("127.0.0.1:8080", 200)):
            answer = service.get(path, headers={"Host": host, "X-API-Key": KEY})
            assert answer.status_code == status, (path, host)
    files = {"pictures": ("a.png", GOOD)}
    answer = service.post("/v1/predict", files=files, headers={"Host": "evil.example", "X-API-Key": KEY})
    assert answer.status_code == foreign
    service.close()


def test_all_keys_are_compared_each_in_constant_time(monkeypatch):
    compared = []
    real = hmac.compare_digest
    monkeypatch.setattr(hmac, "compare_digest", lambda a, b: compared.append((len(a), len(b))) or real(a, b))
    callers = Callers(hosts=None, keys=[KEY, "another one of them", "and a third of them"])
    for given in (KEY, "wrong", "", KEY * 1000):
        compared.clear()
        assert callers.has_key(headers_of(x_api_key=given)) == (given == KEY)
        assert compared == [(32, 32)] * 3  # whatever was given, and whichever of them it is
    assert KEY not in str(vars(callers))


@pytest.mark.parametrize(
    ("content", "words"),
    [(b"", "no API key"), (b"# nothing\n\n", "no API key"), (b"short\n", "shorter than 16"), (b"\xff\xfe", "UTF-8")],
)
def test_a_file_of_keys_that_cannot_be_used(tmp_path, content, words):
    path = tmp_path / "keys"
    path.write_bytes(content)
    with pytest.raises(SettingsError, match=words):
        read_keys(path)
    with pytest.raises(SettingsError, match="cannot read the API keys: No such file"):
        read_keys(tmp_path / "none")
