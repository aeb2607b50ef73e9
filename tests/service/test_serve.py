"""``winspect serve`` as a process: starting, being ready, ending, and what it says when it cannot start."""

from __future__ import annotations

import os
import re
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from contextlib import suppress
from dataclasses import fields
from pathlib import Path

import httpx
import pytest

from tests.service.asking import encoded, picture
from tests.service.fake_backend import FakeBackend
from winspect.cli import serve
from winspect.cli.main import build_parser, main
from winspect.errors import ReferencesError, SettingsError
from winspect.service import backend
from winspect.service.settings import ServiceSettings

ROOT = Path(__file__).parents[2]
GOOD = encoded(picture(100))


class Process:
    """`winspect serve` on the fake backend, in a process of its own."""

    def __init__(self, tmp_path, *options, lag_s=0.0, environment=None):
        command = [sys.executable, "-m", "tests.service.serve_fake", str(lag_s), "--port", "0"]
        self.process = subprocess.Popen(
            [*command, "--data", str(tmp_path), *options],
            env={**os.environ, "PYTHONPATH": f"{ROOT / 'src'}{os.pathsep}{ROOT}", **(environment or {})},
            stdin=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.said = []
        self.url = None
        while self.url is None and (line := self.process.stderr.readline()):
            self.said.append(line)
            if found := re.search(r"serving on (https?://[\d.]+:\d+)", line):
                self.url = found[1]
        self.listener = threading.Thread(target=self.listen)
        self.listener.start()

    def listen(self):
        for line in self.process.stderr:
            self.said.append(line)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()
        self.listener.join()
        self.process.stdin.close()
        self.process.stderr.close()

    def load(self, word="load"):
        self.process.stdin.write(f"{word}\n")
        self.process.stdin.flush()
        while word == "load" and httpx.get(f"{self.url}/v2/health/ready").status_code != 200:
            time.sleep(0.01)

    def predict(self):
        return httpx.post(f"{self.url}/v1/predict", files={"pictures": ("a.png", GOOD)}, timeout=20)

    def end(self, seconds=10):
        """The exit code, and how long it took."""
        started = time.monotonic()
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(seconds), time.monotonic() - started

    @property
    def text(self):
        return "".join(self.said)


def test_it_is_ready_when_the_model_is_and_ends_with_0(tmp_path):
    with Process(tmp_path) as service:
        assert httpx.get(f"{service.url}/v2/health/live").status_code == 200
        answer = httpx.get(f"{service.url}/v2/health/ready")
        assert (answer.status_code, answer.json()) == (503, {"ready": False, "error": "the model is loading"})
        refused = service.predict()
        assert (refused.status_code, refused.headers["retry-after"]) == (503, "1")
        service.load()
        assert service.predict().json()["results"][0]["anomaly_score"] == pytest.approx(100 / 255)
        code, seconds = service.end()
        assert code == 0
        assert seconds < 3
        wait_until(lambda: "ending" in service.text)
    assert "ready after" in service.text
    assert "Traceback" not in service.text


def wait_until(is_so, seconds=5):
    until = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < until
        time.sleep(0.01)


def test_sigterm_answers_what_was_asked_and_takes_no_more(tmp_path):
    with Process(tmp_path, lag_s=1.0) as service:
        service.load()
        answers = []
        threads = [threading.Thread(target=lambda: answers.append(service.predict())) for _ in range(3)]
        with httpx.Client(base_url=service.url) as other:
            for thread in threads:
                thread.start()
            wait_until(lambda: "winspect_pictures_in_flight 3" in other.get("/metrics").text)
            service.process.send_signal(signal.SIGTERM)
            wait_until(lambda: other.get("/v2/health/ready").status_code == 503)
            assert other.get("/v2/health/live").status_code == 200
            late = other.post("/v1/predict", files={"pictures": ("a.png", GOOD)})
            assert (late.status_code, late.json()["error"]["type"]) == (503, "NotReady")
        for thread in threads:
            thread.join(10)
        assert [answer.status_code for answer in answers] == [200] * 3
        assert service.process.wait(5) == 0


def test_what_takes_longer_than_the_drain_is_given_up(tmp_path):
    with Process(tmp_path, "--drain", "0.5", lag_s=60.0) as service:
        service.load()
        answers = []
        thread = threading.Thread(target=lambda: answers.append(service.predict()))
        thread.start()
        wait_until(lambda: "winspect_pictures_in_flight 1" in httpx.get(f"{service.url}/metrics").text)
        code, seconds = service.end()
        thread.join(5)
    assert code == 0
    assert seconds < 4
    assert (answers[0].status_code, answers[0].json()["error"]["type"]) == (503, "NotReady")
    assert "Traceback" not in service.text


def test_a_second_signal_ends_it_now(tmp_path):
    with Process(tmp_path, "--drain", "60", lag_s=60.0) as service:
        service.load()
        thread = threading.Thread(target=hang_on, args=(service,))
        thread.start()
        wait_until(lambda: "winspect_pictures_in_flight 1" in httpx.get(f"{service.url}/metrics").text)
        service.process.send_signal(signal.SIGTERM)
        wait_until(lambda: "ending" in service.text)
        code, seconds = service.end()
        thread.join(5)
    assert seconds < 3
    assert code == 0


def hang_on(service):
    with suppress(httpx.HTTPError):
        service.predict()


def test_a_model_that_cannot_be_loaded_ends_it_with_2(tmp_path):
    with Process(tmp_path) as service:
        service.load("fail")
        assert service.process.wait(10) == 2
        wait_until(lambda: "winspect: error: no weights here" in service.text)
    assert "Traceback" not in service.text


def test_systemd_is_told(tmp_path):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(str(tmp_path / "notify"))
        systemd.settimeout(10)
        with Process(tmp_path, environment={"NOTIFY_SOCKET": str(tmp_path / "notify")}) as service:
            service.load()
            assert systemd.recv(100) == b"READY=1"
            service.end()
            assert systemd.recv(100) == b"STOPPING=1"


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tls")
    subprocess.run(
        [
            "openssl",
            "req",
            "-x509",
            "-newkey",
            "rsa:2048",
            "-nodes",
            "-days",
            "1",
            "-subj",
            "/CN=localhost",
            "-addext",
            "subjectAltName=IP:127.0.0.1",
            "-keyout",
            "key.pem",
            "-out",
            "cert.pem",
        ],
        cwd=folder,
        check=True,
        capture_output=True,
    )
    (folder / "no.pem").write_text("no certificate\n")
    return folder


def test_tls(tmp_path, certificate):
    with Process(
        tmp_path, "--tls-cert", str(certificate / "cert.pem"), "--tls-key", str(certificate / "key.pem")
    ) as service:
        assert service.url.startswith("https://")
        trust = ssl.create_default_context(cafile=certificate / "cert.pem")
        assert httpx.get(f"{service.url}/v2/health/live", verify=trust).json() == {"live": True}
        with pytest.raises(httpx.HTTPError):
            httpx.get(service.url.replace("https", "http"))
        assert service.end()[0] == 0


@pytest.fixture
def refused(tmp_path, monkeypatch, capsys, process_as_before):
    """The exit code and the message of a service that cannot start."""
    monkeypatch.setattr(backend, "Backend", lambda settings, spec: FakeBackend(settings))

    def start(*options):
        code = main(["serve", "--port", "0", "--data", str(tmp_path), *options])
        said = capsys.readouterr()
        assert said.out == ""
        assert "Traceback" not in said.err
        return code, said.err

    return start


def test_a_port_in_use(refused):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        code, text = refused("--port", port)
    assert code == 2
    assert f"cannot listen on 127.0.0.1, port {port}: Address already in use" in text


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--host", "no.such.host.invalid"], "cannot listen on no.such.host.invalid"),
        (["--tls-cert", "{tls}/no.pem", "--tls-key", "{tls}/key.pem"], "no certificate and key that belong together"),
        (
            ["--tls-cert", "{tls}/none.pem", "--tls-key", "{tls}/key.pem"],
            "none.pem: cannot read this TLS file: No such",
        ),
        (["--tls-cert", "{tls}/cert.pem"], "need a certificate and its key|TLS needs a certificate and its key"),
        (["--api-key-file", "{tls}/none"], "none: cannot read the API keys: No such file"),
        (["--max-queue", "0"], "max_queue: got 0"),
        (["--reference", "{tls}"], "--reference needs exactly one --class"),
        (["--calibration", "{tls}/none"], "cannot read the calibration"),
    ],
)
def test_what_cannot_be_used_is_said_with_exit_code_2(refused, certificate, options, words):
    code, text = refused(*(option.replace("{tls}", str(certificate)) for option in options))
    assert code == 2
    assert re.search(words, text), text


def test_listening_to_everyone_without_keys_is_a_visible_warning(tmp_path):
    keys = tmp_path / "keys"
    keys.write_text("0123456789abcdef\n")
    with Process(tmp_path, "--host", "0.0.0.0") as service:
        wait_until(lambda: "WARNING: whoever reaches 0.0.0.0 may use this service" in service.text)
    with Process(tmp_path, "--host", "0.0.0.0", "--api-key-file", str(keys)) as service:
        service.load()
        assert "WARNING" not in service.text


# -- the options


def parse(*options):
    return build_parser().parse_args(["serve", *options])


def test_options_become_settings_and_the_rest_keeps_its_default(tmp_path):
    options = ["--data", str(tmp_path), "--class", "metal nut", "--class", "bolt", "--deadline", "5", "--no-page"]
    settings = serve.settings_of(parse(*options, "--max-upload-mb", "8", "--body-timeout", "3", "--drain", "4"))
    assert settings == ServiceSettings(
        data=tmp_path,
        classes=("metal nut", "bolt"),
        deadline_s=5.0,
        page=False,
        refuse_stale=True,
        max_upload_mb=8.0,
        body_timeout_s=3.0,
        drain_s=4.0,
    )
    with pytest.raises(SettingsError, match="port"):
        serve.settings_of(parse("--data", str(tmp_path), "--port", "70000"))


def test_every_limit_can_be_given(tmp_path):
    """But for those that no operator needs."""
    apart = {"max_references", "max_good_pictures", "max_classes", "overlay_side", "hang_s", "load_s"}
    apart |= {"backoff_s", "most_backoff_s"}
    known = vars(parse())
    limits = {field.name for field in fields(ServiceSettings) if field.type in ("int", "float")} - apart
    assert limits <= set(known)
    options = [text for name in limits for text in (f"--{name.removesuffix('_s').replace('_', '-')}", "7")]
    settings = serve.settings_of(parse("--data", str(tmp_path), *options))
    assert {getattr(settings, name) for name in limits} == {7}


def test_data_lies_where_the_user_keeps_data(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    assert serve.settings_of(parse()).data == tmp_path / "winspect"
    monkeypatch.delenv("XDG_DATA_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert serve.settings_of(parse()).data == tmp_path / ".local" / "share" / "winspect"


def test_references_are_read_before_anything_starts(tmp_path):
    (tmp_path / "a.png").write_bytes(GOOD)
    arguments = parse("--class", "nut", "--reference", str(tmp_path))
    assert serve.references_of(arguments) == [("a.png", GOOD)]
    with pytest.raises(ReferencesError, match="exactly one --class"):
        serve.references_of(parse("--class", "a", "--class", "b", "--reference", str(tmp_path)))
    with pytest.raises(ReferencesError, match="--reference"):
        serve.references_of(parse("--class", "a", "--reference", str(tmp_path / "none")))


def test_help_is_quick_and_imports_no_server():
    code = (
        "import sys; from winspect.cli.main import main\n"
        "try: main(['serve', '--help'])\n"
        "except SystemExit: print([name for name in ('torch', 'fastapi', 'uvicorn', 'numpy') if name in sys.modules])"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    started = time.monotonic()
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
    assert time.monotonic() - started < 5  # 0.1 s on a quiet machine
