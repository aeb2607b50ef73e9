"""Atomic writes: whole or not at all, also from several threads at once."""

from __future__ import annotations

import threading

import pytest

from winspect.errors import OutputError
from winspect.system.files import replacing, replacing_in_cache, write_file, write_json


@pytest.mark.parametrize("replace", [replacing, replacing_in_cache])
def test_threads_that_write_one_file_do_not_meet(tmp_path, replace):
    both_are_writing = threading.Barrier(2, timeout=20)
    path = tmp_path / "a.txt"

    def write(letter: str) -> None:
        with replace(path) as temporary:
            temporary.write_text(letter)
            both_are_writing.wait()
            seen[letter] = temporary.read_text()

    seen: dict[str, str] = {}
    threads = [threading.Thread(target=write, args=(letter,)) for letter in "ab"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert seen == {"a": "a", "b": "b"}
    assert path.read_text() in seen
    assert list(tmp_path.iterdir()) == [path]


def test_whose_errors_are_whose(tmp_path):
    with pytest.raises(FileNotFoundError), replacing_in_cache(tmp_path / "gone" / "a.txt") as temporary:
        temporary.write_text("")
    with pytest.raises(OutputError, match="cannot write"):
        write_file(tmp_path / "gone" / "a.txt", b"")


def test_text_and_documents(tmp_path):
    write_file(tmp_path / "a.html", "Prüfling \udcff.png")
    assert (tmp_path / "a.html").read_bytes() == "Prüfling \\udcff.png".encode()
    write_json(tmp_path / "a.json", {"a": 0.5})
    assert (tmp_path / "a.json").read_text() == '{\n  "a": 0.5\n}\n'
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "a.json", float("nan"), allow_nan=False)
    assert (tmp_path / "a.json").read_text() == '{\n  "a": 0.5\n}\n'
