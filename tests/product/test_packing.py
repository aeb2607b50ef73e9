"""Packed products: cut, altered and foreign files are refused before anything of them is used."""

from __future__ import annotations

import json
import zipfile

import pytest

from winspect.errors import BundleError, OutputError, SettingsError
from winspect.product.packing import bundle_folder, pack_folder, packed_product

PRODUCT = {"schema": 1, "name": "M6", "revision": 3, "class": "nut", "model": {"name": "winspect-tiny"}}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """What looks like a bundle from outside."""
    monkeypatch.setenv("WINSPECT_CACHE", str(tmp_path / "cache"))
    place = tmp_path / "bundle"
    (place / "graphs").mkdir(parents=True)
    (place / "graphs/tower.bin").write_bytes(bytes(range(256)) * 400)
    classes = {"nut": {"calibration": "classes/00/calibration.json", "product": PRODUCT}, "bolt": {}}
    (place / "bundle.json").write_text(json.dumps({"classes": classes}))
    return place


@pytest.fixture
def packed(folder, tmp_path):
    """The same as one file."""
    pack_folder(folder, tmp_path / "m6.winspect")
    return tmp_path / "m6.winspect"


def test_what_is_packed_is_unpacked_once_and_the_same(folder, packed):
    unpacked = bundle_folder(packed)
    files = {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    assert {path.relative_to(unpacked): path.read_bytes() for path in unpacked.rglob("*") if path.is_file()} == files
    before = (unpacked / "bundle.json").stat().st_mtime_ns
    assert bundle_folder(packed) == unpacked and (unpacked / "bundle.json").stat().st_mtime_ns == before
    assert bundle_folder(folder) == folder


def test_the_same_bundle_gives_the_same_file(folder, packed, tmp_path):
    assert pack_folder(folder, tmp_path / "again.winspect") == packed.stat().st_size
    assert (tmp_path / "again.winspect").read_bytes() == packed.read_bytes()


def test_what_was_unpacked_in_part_is_unpacked_again(packed):
    unpacked = bundle_folder(packed)
    (unpacked / "graphs/tower.bin").write_bytes(b"half")
    assert (bundle_folder(packed) / "graphs/tower.bin").stat().st_size == 256 * 400


def test_the_product_and_its_calibration_are_found(packed):
    product, calibration = packed_product(packed)
    assert (product.name, product.revision, product.path) == ("M6", 3, packed)
    assert calibration == bundle_folder(packed) / "classes/00/calibration.json"


@pytest.mark.parametrize("part", [0, 0.3, 0.7, 0.99])
def test_a_file_that_was_cut_is_refused(packed, part):
    content = packed.read_bytes()
    packed.write_bytes(content[: int(len(content) * part)])
    with pytest.raises(BundleError, match=r"cut or damaged.*copy it again"):
        bundle_folder(packed)


def test_a_changed_byte_is_found(packed):
    content = bytearray(packed.read_bytes())
    content[len(content) // 2] ^= 1
    packed.write_bytes(content)
    with pytest.raises(BundleError, match=r"cut or damaged.*CRC"):
        bundle_folder(packed)


def test_every_changed_byte_of_the_directory_is_refused_or_changes_nothing(folder, packed):
    """Flips in headers and names: never a traceback, never other content. The bundle misses a file hidden so."""
    content = packed.read_bytes()
    files = {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    start = content.index(b"PK\x01\x02")
    for place in range(start, len(content)):
        changed = bytearray(content)
        changed[place] ^= 0x41
        packed.write_bytes(changed)
        try:
            unpacked = bundle_folder(packed)
        except BundleError as error:
            assert str(packed) in str(error)
        else:
            found = {path.relative_to(unpacked).as_posix(): path.read_bytes() for path in unpacked.rglob("*.*")}
            assert found.items() <= files.items()


@pytest.mark.parametrize("name", ["../outside.txt", "/outside.txt", "graphs\\..\\x", "C:x"])
def test_names_that_lead_outside_are_refused(packed, name, tmp_path):
    with zipfile.ZipFile(packed, "a") as archive:
        archive.writestr(name, b"x")
    with pytest.raises(BundleError, match="does not write; do not trust it"):
        bundle_folder(packed)
    assert not (tmp_path / "outside.txt").exists() and not (tmp_path / "cache").exists()


def test_a_compressed_archive_is_refused_however_large_it_would_become(packed):
    with zipfile.ZipFile(packed, "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("bomb", bytes(10**7))
    with pytest.raises(BundleError, match="'bomb', which winspect product pack does not write"):
        bundle_folder(packed)


def test_other_archives_other_files_and_none(tmp_path, packed):
    with zipfile.ZipFile(tmp_path / "other.winspect", "w") as archive:
        archive.writestr("readme.txt", b"hello")
    with pytest.raises(BundleError, match=r"no bundle\.json in it"):
        bundle_folder(tmp_path / "other.winspect")
    (tmp_path / "text.winspect").write_text("schema = 1")
    with pytest.raises(BundleError, match="no packed product"):
        bundle_folder(tmp_path / "text.winspect")
    with pytest.raises(BundleError, match=r"none\.winspect: cannot be read"):
        bundle_folder(tmp_path / "none.winspect")


def test_a_cache_that_cannot_be_written_is_named(packed, monkeypatch, tmp_path):
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("WINSPECT_CACHE", str(tmp_path / "file"))
    with pytest.raises(OutputError, match="WINSPECT_CACHE names another folder"):
        bundle_folder(packed)


def test_a_bundle_of_no_product_and_one_of_two(folder):
    document = {"classes": {"nut": {"product": PRODUCT}, "bolt": {"product": {**PRODUCT, "name": "M8"}}}}
    (folder / "bundle.json").write_text(json.dumps(document))
    with pytest.raises(SettingsError, match=r"'M6' .class 'nut'., 'M8' .class 'bolt'.: choose one with --class"):
        packed_product(folder)
    product, _ = packed_product(folder, "BOLT")
    assert product.name == "M8"
    with pytest.raises(SettingsError, match="--class gear"):
        packed_product(folder, "gear")
    (folder / "bundle.json").write_text(json.dumps({"classes": {"nut": {}}}))
    assert packed_product(folder) is None


def test_a_product_of_a_newer_release_is_named(folder):
    (folder / "bundle.json").write_text(json.dumps({"classes": {"nut": {"product": {**PRODUCT, "schema": 9}}}}))
    with pytest.raises(SettingsError, match="schema: got 9, this release reads 1"):
        packed_product(folder)
