"""Paths that are no stored files: refused at once with the reason, by the opener and by every verb that reads one."""

from __future__ import annotations

import os
import shutil
import socket
import threading
from contextlib import suppress
from pathlib import Path

import pytest
from checkpoints import SMALL
from miniature import part, save

from winspect import WinCLIP
from winspect.cli.main import main
from winspect.datasets.lists import open_manifest
from winspect.errors import BundleError, SourceError, WinspectError
from winspect.inspector.edge import load_bundle
from winspect.inspector.export import export
from winspect.pictures.fingerprints import fingerprint
from winspect.system import opening
from winspect.system.opening import NotAFileError, check_file, open_file, open_text, read_bytes, read_text

pytestmark = pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
PIPE = "a named pipe, need a file"
PATIENCE_S = 5.0


@pytest.fixture
def pipe(tmp_path):
    """Make named pipes. Whoever opens one and waits is let go after some seconds, and the test fails."""
    made, woken, over = [], [], threading.Event()

    def wake() -> None:
        while not over.wait(PATIENCE_S):
            for path in made:
                with suppress(OSError):  # nobody reads it
                    os.close(os.open(path, os.O_WRONLY | os.O_NONBLOCK))
                    woken.append(path)

    def make(name: str | Path) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        os.mkfifo(path)
        made.append(path)
        return path

    waker = threading.Thread(target=wake)
    waker.start()
    yield make
    over.set()
    waker.join()
    assert not woken, f"something waited for a writer of {woken}"


@pytest.fixture(scope="module")
def bundle(small_checkpoint, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("bundles") / "bolts"
    model = WinCLIP(SMALL, weights=small_checkpoint, device="cpu", engine="openvino", precision="fp32")
    model.reference([part(0, defective=False)[0]], "bolt")
    export(model, ["bolt"], folder)
    return folder


def test_stored_files_are_read(tmp_path):
    path = tmp_path / "a.txt"
    path.write_bytes(b"caf\xc3\xa9\r\n")
    (tmp_path / "empty").touch()
    (tmp_path / "link").symlink_to(path)
    assert read_bytes(tmp_path / "link") == b"caf\xc3\xa9\r\n" and read_text(str(path)) == "café\n"
    with open_file(path) as file, open_text(path, newline="") as text:
        assert os.get_blocking(file.fileno()) and not os.get_inheritable(file.fileno())
        assert file.read(3) == b"caf" and text.read() == "café\r\n"
    assert read_bytes(tmp_path / "empty") == b""
    check_file(path)


def test_what_is_no_stored_file_is_named(pipe, tmp_path):
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "socket.jpg"))
        places = {
            pipe("pipe.jpg"): PIPE,
            tmp_path / "socket.jpg": "a socket, need a file",
            Path(os.devnull): "a device, need a file",
            tmp_path: "a folder, need a file",
            Path("a\0b"): "a name that no file can have",
        }
        for path, reason in places.items():
            with pytest.raises(NotAFileError, match=reason) as raised:
                read_bytes(path)
            assert raised.value.filename == str(path) and raised.value.strerror == str(raised.value)
    with pytest.raises(FileNotFoundError):
        check_file(tmp_path / "missing")


@pytest.mark.skipif(not os.path.exists("/proc/self/pagemap"), reason="no /proc here")
def test_files_that_the_system_makes_up_are_refused():
    for path in ("/proc/self/pagemap", "/proc/self/mem", "/proc/self/status"):  # of size 0; the first has no end
        with pytest.raises(NotAFileError, match="a file that the system makes up"):
            read_bytes(path)


def test_a_pipe_put_in_a_files_place_meanwhile(pipe, tmp_path, monkeypatch):
    path = tmp_path / "a.jpg"
    path.touch()
    status = os.stat(path)
    pipe("a.jpg")
    with monkeypatch.context() as patch:
        patch.setattr(opening.os, "stat", lambda path: status)
        with pytest.raises(NotAFileError, match=PIPE):
            open_file(path)


def test_a_file_whose_lease_is_being_given_back(tmp_path, monkeypatch):
    path = tmp_path / "a.jpg"
    path.write_bytes(b"content")
    real = os.open

    def leased(path, flags, *rest):
        if flags & os.O_NONBLOCK:
            raise BlockingIOError
        return real(path, flags, *rest)

    monkeypatch.setattr(opening.os, "open", leased)
    assert read_bytes(path) == b"content"


@pytest.mark.parametrize(
    ("name", "command"),
    [
        ("x.jpg", "predict {pipe}"),
        ("x.jpg", "predict {picture} --reference {pipe}"),
        ("c.json", "predict {picture} --calibration {pipe}"),
        ("p.yaml", "predict {picture} --prompts {pipe}"),
        ("w.pt", "predict {picture} --model ViT-B-32 --weights {pipe}"),
        ("open_clip_config.json", "predict {picture} --model local-dir:{place}"),
        ("x.jpg", "calibrate {picture} {pipe} --class bolt --max-false-alarms 0.5 --out {out}/c.json"),
        ("x.jpg", "calibrate {picture} --reference {pipe} --class bolt --max-false-alarms 0.5 --out {out}/c.json"),
        ("x.jpg", "serve --class bolt --reference {pipe} --data {out}"),
        ("c.json", "serve --calibration {pipe} --data {out}"),
        ("a.keys", "serve --api-key-file {pipe} --data {out}"),
        ("a.pem", "serve --tls-cert {pipe} --tls-key {pipe} --data {out}"),
        ("c.json", "watch {pictures} --calibration {pipe} --out {out}"),
        ("camera.url", "watch @{pipe} --out {out}"),
        ("m.csv", "batch {pipe} --out {out}"),
        ("m.parquet", "batch {pipe} --out {out}"),
        ("m.csv", "evaluate --dataset manifest --root {pipe} --out {out}"),
        ("split_csv/1cls.csv", "evaluate --dataset visa --root {place} --out {out}"),
        ("visa.tar", "prepare visa --source {pipe} --out {out}"),
        ("results.json", "compare {pipe} {pipe}"),
    ],
)
def test_no_verb_waits_for_a_pipe(name, command, pipe, tmp_path, capsys, process_as_before):
    picture, out = tmp_path / "in/good.png", tmp_path / "out"
    save(picture, part(0, defective=False)[0])
    out.mkdir()
    made = pipe(f"place/{name}")
    words = command.format(pipe=made, place=tmp_path / "place", picture=picture, pictures=picture.parent, out=out)
    small = ["--model", "winspect-tiny", "--engine", "torch"] if command.split()[0] in ("predict", "calibrate") else []
    code = main([*words.split(), *([] if "--model" in words else small)])
    printed = capsys.readouterr()
    assert code in (1, 2, 3)
    assert Path(name).name in printed.out + printed.err and "Traceback" not in printed.err


@pytest.mark.parametrize("name", ["bundle.json", "preprocessing.json", "graphs/tower.bin", "classes/0.references.npz"])
def test_bundle_with_a_pipe(name, bundle, pipe, tmp_path):
    copy = Path(shutil.copytree(bundle, tmp_path / "copy"))
    found = next((path for path in copy.rglob("*") if path.relative_to(copy).as_posix() == name), None)
    if found is None:
        found = next(path for path in copy.rglob("*.npz"))
    pipe(found)
    with pytest.raises(BundleError, match=f"{found.name}.*{PIPE}"):
        load_bundle(copy)


def test_library_with_pipes(pipe, tmp_path):
    assert fingerprint(pipe("a.jpg")).sha256 is None
    with pytest.raises(SourceError, match=PIPE):
        open_manifest(pipe("manifest.csv"))
    model = WinCLIP("winspect-tiny", engine="torch")
    with pytest.raises(WinspectError, match=PIPE):
        model.reference([pipe("good.png")], "bolt")
