"""The store: whole changes, and clear words about a file that cannot be used."""

from __future__ import annotations

import hashlib
import os
import sqlite3
import subprocess
import threading
from contextlib import suppress

import pytest

from winspect.errors import OutputError, SettingsError
from winspect.service.contract import StoreFull
from winspect.service.store.store import FILE, Store


@pytest.fixture
def store(tmp_path):
    store = Store(tmp_path / "data")
    yield store
    store.close()


def test_pictures_come_back_in_order_and_as_they_were(store):
    store.add("part", "reference", [("b.png", b"bb"), ("a.png", b"a")])
    store.add("part", "reference", [("c.png", b"ccc")])
    store.add("part", "good", [("d.png", b"d")])
    assert [(one.name, one.size) for one in store.pictures("part", "reference")] == [
        ("b.png", 2),
        ("a.png", 1),
        ("c.png", 3),
    ]
    assert store.pictures("part", "reference")[1].sha256 == hashlib.sha256(b"a").hexdigest()
    assert store.contents("part", "reference") == [b"bb", b"a", b"ccc"]
    assert store.count("part", "good") == 1
    assert store.pictures("other", "good") == []


def test_a_copy_is_stored_once_but_may_be_both_reference_and_good(store):
    store.add("part", "good", [("a.png", b"a"), ("copy.png", b"a")])
    store.add("part", "good", [("again.png", b"a")])
    store.add("part", "reference", [("a.png", b"a")])
    assert [one.name for one in store.pictures("part", "good")] == ["a.png"]
    assert store.count("part", "reference") == 1


def test_replacing_leaves_nothing_of_what_was_there_and_other_classes_alone(store):
    store.add("part", "reference", [("a.png", b"a")])
    store.add("other", "reference", [("o.png", b"o")])
    store.replace("part", "reference", [("b.png", b"b")])
    assert store.contents("part", "reference") == [b"b"]
    store.replace("part", "reference", [])
    assert store.count("part", "reference") == 0
    assert store.contents("other", "reference") == [b"o"]


def test_documents(store):
    assert store.document("part") is None
    store.set_document("part", {"scores": [0.25]})
    store.set_document("part", {"scores": [0.5]})
    assert store.document("part") == {"scores": [0.5]}
    assert store.classes() == ["part"]
    store.set_document("part", None)
    assert store.document("part") is None
    with pytest.raises(ValueError, match="JSON"):
        store.set_document("part", {"scores": [float("nan")]})
    assert store.document("part") is None


def test_everything_is_there_after_a_restart(tmp_path):
    store = Store(tmp_path)
    store.add("teil ü ' \" ; --", "reference", [("a.png", b"a")])
    store.set_document("part", {"a": 1})
    store.close()
    again = Store(tmp_path)
    assert again.classes() == ["part", "teil ü ' \" ; --"]
    assert again.contents("teil ü ' \" ; --", "reference") == [b"a"]
    assert again.document("part") == {"a": 1}
    again.close()


def test_a_full_disk_changes_nothing(store):
    store.replace("part", "reference", [("a.png", b"a")])
    (pages,) = store._connection.execute("PRAGMA page_count").fetchone()
    store._connection.execute(f"PRAGMA max_page_count = {pages + 2}")
    with pytest.raises(OutputError, match="the disk is full; free some space") as full:
        store.replace("part", "reference", [("b.png", b"b"), ("large.png", bytes(100_000))])
    assert str(store.path) not in str(full.value)
    assert store.contents("part", "reference") == [b"a"]
    with pytest.raises(OutputError, match="full"):
        store.set_document("part", {"long": "x" * 100_000})
    store._connection.execute(f"PRAGMA max_page_count = {pages + 1000}")
    store.replace("part", "reference", [("large.png", bytes(100_000))])
    assert store.contents("part", "reference") == [bytes(100_000)]


def test_a_quota_of_bytes_and_of_classes(tmp_path):
    store = Store(tmp_path, max_bytes=1000, max_classes=2)
    store.add("part", "good", [("a.png", bytes(600))])
    with pytest.raises(StoreFull, match="larger --max-store-mb"):
        store.add("part", "good", [("b.png", bytes([1] * 500))])
    assert store.count("part", "good") == 1
    store.replace("part", "good", [("b.png", bytes([1] * 900))])  # in place of what was there
    store.set_document("other", {"a": 1})
    with pytest.raises(StoreFull, match="2 classes are stored"):
        store.add("third", "reference", [("c.png", b"c")])
    store.add("other", "reference", [("c.png", b"c")])
    store.close()


@pytest.mark.skipif(os.name != "posix" or not hasattr(os, "geteuid") or os.geteuid() != 0, reason="mounts a small disk")
def test_deleting_works_on_a_full_disk(tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", disk], check=False).returncode:
        pytest.skip("cannot mount here")
    try:
        store = Store(disk)
        store.replace("part", "reference", [("a.png", bytes(5_000_000))])
        store.set_document("part", {"a": 1})
        store.close()  # the log is gone, and with it the room that deletions would find there
        store = Store(disk)
        with suppress(OSError), (disk / "others").open("wb", buffering=0) as others:
            while True:
                others.write(bytes(4096))
        with pytest.raises(OutputError, match="the disk is full"):
            store.add("part", "good", [("b.png", bytes(100_000))])
        store.replace("part", "reference", ())
        store.set_document("part", None)
        assert store.classes() == []
        (disk / "others").unlink()
        store.add("part", "good", [("b.png", bytes(100_000))])
        store.close()
    finally:
        subprocess.run(["umount", disk], check=False)


def test_a_change_that_is_broken_off_changes_nothing(store):
    store.replace("part", "reference", [("a.png", b"a")])

    def broken():
        yield ("b.png", b"b")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        store.replace("part", "reference", broken())
    assert store.contents("part", "reference") == [b"a"]


def test_what_is_deleted_makes_room(store):
    for _ in range(30):
        store.replace("part", "reference", [("a.png", bytes(200_000))])
    (pages,) = store._connection.execute("PRAGMA page_count").fetchone()
    assert pages * 4096 < 1_000_000


def test_one_service_a_folder(store, tmp_path):
    with pytest.raises(OutputError, match="another service uses this folder"):
        Store(tmp_path / "data")


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="not a folder"):
        Store(tmp_path / "file")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"not a database at all" * 100, "damaged, or no file of winspect's"),
        (b"SQLite format 3\0" + b"\xff" * 4000, "damaged, or no file of winspect's"),
    ],
)
def test_a_damaged_file(tmp_path, content, message):
    (tmp_path / FILE).write_bytes(content)
    with pytest.raises(SettingsError, match=message):
        Store(tmp_path)
    assert (tmp_path / FILE).read_bytes() == content, "it is left as it was"


def test_a_file_of_a_newer_release_or_of_another_program(tmp_path):
    Store(tmp_path).close()
    with sqlite3.connect(tmp_path / FILE) as connection:
        connection.execute("PRAGMA user_version = 2")
    connection.close()
    with pytest.raises(SettingsError, match="got schema 2, this release reads 1; upgrade"):
        Store(tmp_path)
    other = tmp_path / "other"
    other.mkdir()
    with sqlite3.connect(other / FILE) as connection:
        connection.execute("CREATE TABLE songs (name TEXT)")
    connection.close()
    with pytest.raises(SettingsError, match="another program"):
        Store(other)


def test_a_damaged_picture_is_told(store):
    store.add("part", "reference", [("a.png", b"abc")])
    store._connection.execute("UPDATE pictures SET content = x'00'")
    with pytest.raises(SettingsError, match=r"a\.png \(reference\) is damaged"):
        store.contents("part", "reference")
    with pytest.raises(SettingsError, match="deleted meanwhile"):
        store.content("part", "good", "0" * 64)


def test_a_closed_store_says_so(store):
    store.close()
    store.close()
    with pytest.raises(OutputError, match="the store cannot be used"):
        store.classes()


def test_many_threads(store):
    def add(number):
        for one in range(20):
            store.add(f"class {number}", "good", [(f"{one}.png", f"{number} {one}".encode())])

    threads = [threading.Thread(target=add, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [store.count(f"class {number}", "good") for number in range(8)] == [20] * 8
