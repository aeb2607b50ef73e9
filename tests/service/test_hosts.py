"""A page that lets its own name stand for this machine (DNS rebinding) is not answered."""

from __future__ import annotations

import pytest

from tests.service.asking import Service, encoded, picture
from winspect.service.http.hosts import Hosts
from winspect.service.http.refusals import Refused

GOOD = encoded(picture(100))
KEY = "0123456789abcdef"


def allows(hosts, header, server=None):
    try:
        hosts.check({"server": server}, header)
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
    assert allows(Hosts(["10.0.0.5", "line3.factory"]), header) is expected


def test_all_interfaces_are_the_address_a_request_arrived_at():
    hosts = Hosts(["0.0.0.0"])
    assert allows(hosts, "192.168.1.20:8080", ("192.168.1.20", 8080))
    assert not allows(hosts, "evil.example:8080", ("192.168.1.20", 8080))
    assert allows(Hosts([], any_host=True), "evil.example")


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
