"""The cache folder, and hashes that are remembered as long as a file stays as it was."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from winspect.weights.cache import cache_folder, hash_file, remembered_sha256, sha256_of, write_json


def test_the_folder_is_what_was_asked_for_then_the_variable_then_the_platform_s(monkeypatch, tmp_path):
    monkeypatch.setenv("WINSPECT_CACHE", str(tmp_path / "variable"))
    assert cache_folder(tmp_path / "asked") == tmp_path / "asked"
    assert cache_folder() == tmp_path / "variable"
    monkeypatch.setenv("WINSPECT_CACHE", "~/inspection")
    assert cache_folder() == Path.home() / "inspection"
    monkeypatch.delenv("WINSPECT_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_folder() == tmp_path / "xdg" / "winspect"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_folder() == Path.home() / ".cache" / "winspect"
    assert not (tmp_path / "asked").exists()


@pytest.mark.parametrize("size", [0, 1, 4 << 20, (8 << 20) + 3])
def test_a_hash_is_the_library_s(tmp_path, size):
    content = os.urandom(size)
    (tmp_path / "w").write_bytes(content)
    assert hash_file(tmp_path / "w") == hashlib.sha256(content).hexdigest()


def test_a_file_is_hashed_once_until_it_changes(tmp_path):
    path = tmp_path / "w.pt"
    path.write_bytes(b"one")
    first, stat = sha256_of(path), path.stat()
    path.write_bytes(b"two")
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))  # nothing shows that it changed: it was not read again
    assert sha256_of(path) == first == hashlib.sha256(b"one").hexdigest()
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns + 1))
    assert sha256_of(path) == hashlib.sha256(b"two").hexdigest()


@pytest.mark.parametrize("note", ["", "{", "[]", "{}"])
def test_a_broken_note_is_written_anew(tmp_path, note):
    path = tmp_path / "w.pt"
    path.write_bytes(b"one")
    expected = sha256_of(path)
    (file,) = (cache_folder() / "sha256").iterdir()
    file.write_text(note)
    assert sha256_of(path) == expected
    assert remembered_sha256(path) == expected


def test_a_cache_that_cannot_be_written_costs_only_time(tmp_path):
    (tmp_path / "w.pt").write_bytes(b"one")
    (tmp_path / "file").write_text("")
    assert sha256_of(tmp_path / "w.pt", tmp_path / "file") == hashlib.sha256(b"one").hexdigest()


def test_json_that_cannot_be_written_leaves_the_old(tmp_path):
    path = tmp_path / "note.json"
    write_json(path, [1])
    with pytest.raises(TypeError):
        write_json(path, object())
    assert path.read_text() == "[1]"
    assert list(tmp_path.iterdir()) == [path]
