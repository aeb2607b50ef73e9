"""Graphs on disk: whole and verified, or made anew; never half of one, whoever is killed or first."""

from __future__ import annotations

import gc
import json
import logging
import os
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from winspect.engines import graph_cache
from winspect.engines.graph_cache import GraphCache

KEY = {"kind": "test", "graph": 1, "layout": "Layout(batch=1)"}


class Making:
    """Writes two files, and counts how often."""

    def __init__(self, size: int = 100) -> None:
        self.times, self.size = 0, size

    def __call__(self, folder: Path) -> None:
        self.times += 1
        (folder / "graph.bin").write_bytes(b"g" * self.size)
        (folder / "graph.xml").write_text("<graph/>")


@pytest.fixture
def cache(tmp_path):
    return GraphCache(tmp_path / "graphs", "weights")


def test_a_graph_is_made_once(cache):
    make = Making()
    first = cache.get(KEY, make)
    assert (first / "graph.bin").read_bytes() == b"g" * 100
    again = GraphCache(cache.folder, "weights").get(dict(reversed(KEY.items())), make)
    assert again == first
    assert make.times == 1
    assert os.listdir(cache.folder) == [first.name]
    assert json.loads((first / "manifest.json").read_text())["key"] == {**KEY, "weights": "weights"}


def test_other_weights_layouts_and_versions_have_other_graphs(cache):
    make = Making()
    places = {cache.get(KEY, make), GraphCache(cache.folder, "other").get(KEY, make)}
    places |= {cache.get({**KEY, name: "other"}, make) for name in KEY}
    assert len(places) == make.times == 5


def _replace(text: str):
    return lambda place: (place / "manifest.json").write_text(text)


@pytest.mark.parametrize(
    "damage",
    [
        lambda place: (place / "graph.bin").write_bytes(b"g" * 99 + b"x"),
        lambda place: (place / "graph.bin").write_bytes(b""),
        lambda place: (place / "graph.xml").unlink(),
        lambda place: (place / "manifest.json").unlink(),
        _replace(""),
        _replace('{"files": '),
        _replace("[]"),
        _replace("null"),
        _replace('{"key": {}}'),
        _replace('{"files": []}'),
        _replace('{"files": {}}'),
        _replace('{"files": {"graph.bin": null}}'),
        lambda place: (shutil.rmtree(place), place.write_text("a file")),
    ],
    ids=[
        *("a bit", "cut", "missing", "no manifest", "empty", "half", "list", "null"),
        *("no files", "list of files", "nothing listed", "no hash", "a file"),
    ],
)
def test_a_damaged_graph_is_made_anew_with_a_warning(cache, caplog, damage):
    make = Making()
    place = cache.get(KEY, make)
    damage(place)
    with caplog.at_level(logging.WARNING):
        assert cache.get(KEY, make) == place
    assert make.times == 2
    (message,) = caplog.messages
    assert f"{place}: damaged graph cache (" in message
    assert message.endswith("making it anew")
    assert cache.get(KEY, make) == place
    assert make.times == 2


def test_two_makers_at_once_agree(cache):
    """Both make; the second finds the first one's folder in its place, and uses it."""
    both_began = threading.Barrier(2)
    made, places = [], []

    def make(folder: Path) -> None:
        both_began.wait(10)
        Making()(folder)
        made.append(folder)

    threads = [threading.Thread(target=lambda: places.append(cache.get(KEY, make))) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(made)) == 2
    assert len(set(places)) == 1
    assert os.listdir(cache.folder) == [places[0].name]


def test_a_folder_that_cannot_be_written(tmp_path, caplog):
    (tmp_path / "file").touch()
    cache = GraphCache(tmp_path / "file" / "graphs", "weights")
    with caplog.at_level(logging.WARNING):
        place = cache.get(KEY, Making())
    assert (place / "graph.bin").is_file()
    (message,) = caplog.messages
    assert "cannot keep graphs" in message
    assert "made anew next time" in message


def test_a_temporary_graph_goes_with_its_cache(tmp_path, caplog):
    caplog.set_level(logging.CRITICAL, graph_cache.__name__)  # a record of the error would keep the cache
    (tmp_path / "file").touch()
    cache = GraphCache(tmp_path / "file" / "graphs", "weights")
    place = cache.get(KEY, Making())
    assert place.exists()
    del cache
    gc.collect()
    assert not place.exists()


def test_a_maker_that_fails_leaves_nothing(cache):
    def full(folder: Path) -> None:
        (folder / "graph.bin").write_bytes(b"half")
        raise OSError(28, os.strerror(28))

    with pytest.raises(OSError, match="No space left"):
        cache.get(KEY, full)
    assert os.listdir(cache.folder) == []


_KILLED = """
import os, signal, sys
from pathlib import Path
from winspect.engines.graph_cache import GraphCache

def make(folder):
    (folder / "graph.bin").write_bytes(b"half")
    os.kill(os.getpid(), signal.SIGKILL)

GraphCache(Path(sys.argv[1]), "weights").get({key}, make)
"""


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs SIGKILL")
def test_half_of_a_graph_is_never_used(cache):
    source = Path(graph_cache.__file__).parents[2]
    code = [sys.executable, "-c", _KILLED.replace("{key}", repr(KEY)), str(cache.folder)]
    killed = subprocess.run(code, env={**os.environ, "PYTHONPATH": str(source)}, check=False)
    assert killed.returncode == -signal.SIGKILL
    (half,) = cache.folder.iterdir()
    make = Making()
    place = cache.get(KEY, make)
    assert make.times == 1
    assert place != half
    assert half.exists()  # it may be another process that is still at work
    os.utime(half, (0, 0))
    cache.get({**KEY, "graph": 2}, make)
    assert not half.exists()


def test_what_was_not_used_for_longest_is_removed_first(cache, monkeypatch):
    make = Making(size=1000)
    places = [cache.get({**KEY, "graph": number}, make) for number in range(3)]
    for age, place in zip([300, 200, 100], places, strict=True):
        stamp = (place / "manifest.json").stat().st_mtime - age
        os.utime(place / "manifest.json", (stamp, stamp))
    cache.get({**KEY, "graph": 0}, make)  # used: now the newest
    one = sum(file.stat().st_size for file in places[0].iterdir())
    monkeypatch.setattr(graph_cache, "LIMIT_BYTES", int(3.5 * one))
    newest = cache.get({**KEY, "graph": 3}, make)
    assert [place.exists() for place in places] == [True, False, True]
    monkeypatch.setattr(graph_cache, "LIMIT_BYTES", 10)
    last = cache.get({**KEY, "graph": 4}, make)  # larger than the limit by itself: kept all the same
    assert set(cache.folder.iterdir()) == {last}
    assert not newest.exists()
