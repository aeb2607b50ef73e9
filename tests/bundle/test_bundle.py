"""Edge bundles: the model's own scores, without torch; several classes; and every way a bundle can be wrong."""

from __future__ import annotations

import errno
import io
import json
import os
import pickle
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import Mock

import numpy as np
import pytest
from checkpoints import SMALL
from conftest import EXAMPLES
from miniature import part, save

from winspect import WinCLIP
from winspect.bundle.manifest import Manifest
from winspect.errors import BundleError, EngineError, MissingExtraError, OutputError, PictureError, SettingsError
from winspect.inspector import export as exporting
from winspect.inspector.calibrating import calibrate
from winspect.inspector.edge import load_bundle
from winspect.inspector.export import export
from winspect.outputs.coco import COCO_FILE, write_coco
from winspect.pictures.fingerprints import Fingerprint
from winspect.system.installation import install_command
from winspect.weights.cache import hash_file

TEXTILE = EXAMPLES / "textile"
NEEDED_ONLY = """
import sys
names = "torch torchvision open_clip scipy jinja2 yaml safetensors huggingface_hub simplejpeg"
for name in names.split():
    sys.modules[name] = None
from winspect.cli.main import main
sys.exit(main(sys.argv[1:]))
"""


def new_model(checkpoint, **options):
    return WinCLIP(SMALL, weights=checkpoint, device="cpu", **{"engine": "openvino", "precision": "fp32", **options})


def goods(count=3, first=0):
    return [part(first + number, defective=False)[0] for number in range(count)]


def long_picture():
    return part(50, defective=True, size_wh=(150, 60))[0]


@pytest.fixture(scope="module")
def bundle(small_checkpoint, tmp_path_factory):
    """A bundle of the small model with a few-shot class and a zero-shot one, and the model it came from."""
    folder = tmp_path_factory.mktemp("bundles") / "bolts"
    model = new_model(small_checkpoint, recipe="tiles")
    model.reference(goods(), "metal_bolt")
    calibration = calibrate(model, goods(12, 100), "metal_bolt", max_false_alarms=0.1)
    export(model, ["metal_bolt"], folder, calibrations={"metal_bolt": calibration})
    export(model, ["nut"], folder, add=True)
    return SimpleNamespace(folder=folder, model=model, calibration=calibration)


@pytest.fixture
def copy(bundle, tmp_path):
    """A copy of the bundle that may be spoilt."""
    return Path(shutil.copytree(bundle.folder, tmp_path / "copy"))


def test_scores_and_maps_are_the_models_own(bundle):
    loaded = WinCLIP.load(bundle.folder)
    assert loaded.classes == ("metal bolt", "nut")
    for category in ("metal_bolt", "nut"):
        pictures = [*goods(2, 30), long_picture()]
        for ours, theirs in zip(
            loaded.predict_many(pictures, category), bundle.model.predict_many(pictures, category), strict=True
        ):
            assert ours.anomaly_score == pytest.approx(theirs.anomaly_score, abs=1e-5)
            np.testing.assert_allclose(ours.anomaly_map, theirs.anomaly_map, atol=1e-5)
            assert len(ours.tile_boxes) == len(theirs.tile_boxes)
    assert loaded.predict(long_picture(), "NUT").anomaly_score == loaded.predict(long_picture(), "nut").anomaly_score
    few, zero = (loaded.predict(long_picture(), category).anomaly_score for category in ("metal_bolt", "nut"))
    assert few != pytest.approx(zero, abs=1e-3)


@pytest.mark.parametrize("engine", ["openvino", "onnx"])
def test_the_bundled_model_in_both_engines(engine, tmp_path):
    """Its patch embedding has layers of its own, and its few-shot score stem features."""
    model = WinCLIP("winspect-tiny", device="cpu", engine=engine, precision="fp32")
    model.reference([TEXTILE / "nominal_0001.jpg"], "textile")
    assert export(model, ["textile"], tmp_path / "bundle") < 1e-5
    expected = model.predict(TEXTILE / "local_0001.jpg", "textile")
    found = WinCLIP.load(tmp_path / "bundle").predict(TEXTILE / "local_0001.jpg", "textile")
    assert found.anomaly_score == pytest.approx(expected.anomaly_score, abs=1e-4)
    np.testing.assert_allclose(found.anomaly_map, expected.anomaly_map, atol=1e-4)


def test_good_samples_can_be_shown_on_the_edge(bundle, small_checkpoint):
    loaded, model = load_bundle(bundle.folder), new_model(small_checkpoint, recipe="tiles")
    for predictor in (loaded, model):
        predictor.reference(goods(2, 70), "nut")
    ours, theirs = (predictor.predict(long_picture(), "nut").anomaly_score for predictor in (loaded, model))
    assert ours == pytest.approx(theirs, abs=1e-5)
    loaded.forget("nut")
    assert loaded.predict(long_picture(), "nut").anomaly_score != pytest.approx(ours, abs=1e-3)


def test_the_calibration_comes_along_and_fits(bundle):
    loaded = load_bundle(bundle.folder)
    calibration = loaded.calibration("metal_bolt")
    assert calibration == bundle.calibration
    assert loaded.calibration(" METAL bolt") == bundle.calibration
    assert loaded.calibration("nut") is None
    calibration.check_model(loaded)
    loaded.reference(goods(1, 90), "metal_bolt")
    with pytest.raises(SettingsError, match="references"):
        calibration.check_model(loaded)


def test_a_class_is_judged_by_another_bundle_as_by_this(bundle, small_checkpoint, tmp_path):
    """As by the bundle it was taken from, bit for bit; also a class that the other bundle does not hold."""
    model = new_model(small_checkpoint, recipe="tiles")
    export(model, ["gear"], tmp_path / "gears")
    loaded, other = load_bundle(bundle.folder), load_bundle(tmp_path / "gears")
    for category in ("metal_bolt", "nut"):
        with pytest.raises(BundleError, match="holds 'gear'"):
            load_bundle(tmp_path / "gears").state_of(category)
        other.take(category, pickle.loads(pickle.dumps(loaded.state_of(category))))
        ours, theirs = (predictor.predict(long_picture(), category) for predictor in (other, loaded))
        assert ours.anomaly_score == theirs.anomaly_score
        np.testing.assert_array_equal(ours.tile_maps, theirs.tile_maps)
        assert other.references_of(category) == loaded.references_of(category)
        assert other.calibration(category) is None
    assert other.classes == ("gear", "metal bolt", "nut")
    bundle.calibration.check_model(other)


def test_a_bundles_class_is_the_models_class(bundle):
    ours, theirs = (predictor.state_of("metal_bolt") for predictor in (load_bundle(bundle.folder), bundle.model))
    np.testing.assert_array_equal(ours.text, theirs.text)
    np.testing.assert_array_equal(ours.references["patches"], theirs.references["patches"])
    assert [sample.sha256 for sample in ours.samples] == [sample.sha256 for sample in theirs.samples]


def test_it_runs_where_only_numpy_pillow_and_the_engine_are(bundle, tmp_path):
    picture = save(tmp_path / "parts" / "long.png", long_picture())
    arguments = ("predict", picture.parent, "--bundle", bundle.folder, "--class", "metal_bolt", "--json")
    out = tmp_path / "out"
    command = [sys.executable, "-c", NEEDED_ONLY, *map(str, arguments), "--out", str(out), "--coco"]
    ran = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert ran.returncode == 0, ran.stderr
    (row,) = json.loads(ran.stdout)["results"]
    expected = bundle.model.predict(picture, "metal_bolt").anomaly_score
    assert row["anomaly_score"] == pytest.approx(expected, abs=1e-4)
    assert row["threshold"] == bundle.calibration.threshold
    assert row["p_value"] == bundle.calibration.p_value(row["anomaly_score"])
    assert (out / row["mask"]).is_file()
    edge = (out / COCO_FILE).read_text(encoding="utf-8")
    assert len(json.loads(edge)["annotations"]) == len(row["boxes"])
    assert write_coco(out).read_text(encoding="utf-8") == edge  # as scipy labels the regions


def test_without_torch_a_model_says_what_is_missing():
    command = [sys.executable, "-c", NEEDED_ONLY, "predict", str(TEXTILE), "--model", "winspect-tiny"]
    ran = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert ran.returncode == 2
    assert install_command("full") in ran.stderr
    assert "Traceback" not in ran.stderr


# What the files say, and what is refused


def test_names_of_good_samples_that_are_no_utf8_are_written_and_read(copy):
    manifest = Manifest.read(copy)
    samples = (Fingerprint(os.fsdecode(b"\xff.png"), "00"),)
    nut = replace(manifest.classes["nut"], samples=samples)
    replace(manifest, classes={**manifest.classes, "nut": nut}).write(copy)
    assert Manifest.read(copy).classes["nut"].samples == samples


def test_its_files_are_readable_and_hashed(bundle):
    manifest = json.loads((bundle.folder / "bundle.json").read_text())
    described = bundle.model.describe()
    assert {name: manifest[name] for name in ("model", "weights_sha256", "engine", "precision")} == {
        name: described[name] for name in ("model", "weights_sha256", "engine", "precision")
    }
    files = {path.relative_to(bundle.folder).as_posix() for path in bundle.folder.rglob("*") if path.is_file()}
    assert files == {*manifest["sha256"], "bundle.json"}
    few, zero = manifest["classes"]["metal bolt"], manifest["classes"]["nut"]
    assert [few["references"], few["calibration"]] == [
        "classes/00-metal-bolt/references.npz",
        "classes/00-metal-bolt/calibration.json",
    ]
    assert zero == {"text": "classes/01-nut/text.npy", "references": None, "calibration": None, "shown": []}
    assert len(few["shown"]) == 3
    assert json.loads((bundle.folder / "preprocessing.json").read_text())["tiles"]["size"] == 64


@pytest.mark.parametrize("file", ["graphs/tower.bin", "classes/01-nut/text.npy", "preprocessing.json"])
def test_a_damaged_file_is_found(copy, file):
    content = bytearray((copy / file).read_bytes())
    content[len(content) // 2] ^= 1
    (copy / file).write_bytes(content)
    with pytest.raises(BundleError, match=rf"{Path(file).name}: its hash is not"):
        load_bundle(copy)
    (copy / file).unlink()
    with pytest.raises(BundleError, match=rf"{Path(file).name}: cannot be read"):
        load_bundle(copy)


def test_a_folder_without_a_bundle_and_a_foreign_one(copy, tmp_path):
    with pytest.raises(BundleError, match=r"bundle\.json: not found"):
        load_bundle(tmp_path / "nowhere")
    for content, told in (("{", "cannot be read"), ("[]", "not a JSON object"), ('{"kind": "x"}', "not of a winspect")):
        (copy / "bundle.json").write_text(content)
        with pytest.raises(BundleError, match=told):
            load_bundle(copy)


@pytest.mark.parametrize(
    ("entry", "value", "told"),
    [
        ("schema", 2, "schema 2, this release reads 1"),
        ("engine", "tensorrt", "damaged"),
        ("classes", {"nut": {"text": "../text.npy", "references": None, "calibration": None, "shown": []}}, "damaged"),
        ("sha256", {}, "no hash of"),
        ("grid_hw", [4], "damaged"),
        ("recipe", {"name": "x", "unknown": 1}, "damaged"),
        ("grid_hw", [10**6, 10**6], "1 to 1000 patches"),
        ("grid_hw", [1e999, 4], "1 to 1000 patches"),
    ],
)
def test_wrong_entries_are_refused(copy, entry, value, told):
    document = json.loads((copy / "bundle.json").read_text())
    document[entry] = value
    (copy / "bundle.json").write_text(json.dumps(document))
    with pytest.raises(BundleError, match=told):
        load_bundle(copy)


def test_files_outside_the_bundle_are_not_read(copy, tmp_path):
    document = json.loads((copy / "bundle.json").read_text())
    document["sha256"]["../secret"] = "0" * 64
    (copy / "bundle.json").write_text(json.dumps(document))
    with pytest.raises(BundleError, match="outside the bundle"):
        load_bundle(copy)


def rewrite(copy, files, **entries):
    """Change files of a bundle, and entries of its manifest, with the hashes that belong to them."""
    document = json.loads((copy / "bundle.json").read_text()) | entries
    for file, content in files.items():
        (copy / file).write_bytes(content)
        document["sha256"][file] = hash_file(copy / file)
    (copy / "bundle.json").write_text(json.dumps(document))


@pytest.mark.parametrize("place", ["extra.bin", "graphs/tower.weights", "classes/02-gear/text.npy"])
def test_a_file_that_the_manifest_does_not_list_is_refused(copy, place):
    (copy / place).parent.mkdir(exist_ok=True)
    (copy / place).write_bytes(b"x")
    with pytest.raises(BundleError, match=f"{place}: not among the files that bundle.json lists"):
        load_bundle(copy)
    (copy / place).rename(copy / ".DS_Store")
    assert load_bundle(copy).classes


@pytest.mark.parametrize("place", [".hidden", "graphs/tower.weights", "folder", "graphs/tower.bin"])
def test_a_link_in_a_bundle_is_refused(copy, tmp_path, place):
    outside = tmp_path / "outside"
    outside.mkdir() if place == "folder" else outside.write_bytes((copy / "graphs/tower.bin").read_bytes())
    (copy / place).unlink(missing_ok=True)
    (copy / place).symlink_to(outside)
    with pytest.raises(
        BundleError, match="lies outside the bundle" if place.endswith("bin") else "not among the files"
    ):
        load_bundle(copy)


def huge_array() -> bytes:
    text = b"{'descr': '<f4', 'fortran_order': False, 'shape': (2, 1000000000000), }"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text


def compressed(**arrays) -> bytes:
    into = io.BytesIO()
    np.savez_compressed(into, **arrays)
    return into.getvalue()


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("classes/00-metal-bolt/references.npz", b"PK\x03\x04 no zip"),
        ("classes/00-metal-bolt/references.npz", compressed(patches=np.zeros((10**6, 64), np.float32))),
        ("classes/01-nut/text.npy", huge_array()),
        ("classes/01-nut/text.npy", b""),
        ("graphs/tower.xml", b"<net>"),
        ("preprocessing.json", b'{"tiles": {"size": true}}'),
    ],
)
def test_damage_with_the_right_hash_is_a_message(copy, file, content):
    rewrite(copy, {file: content})
    with pytest.raises(BundleError if file != "preprocessing.json" else SettingsError, match=r"copy|size"):
        load_bundle(copy)


def test_a_damaged_onnx_graph_is_a_message(copy):
    graphs = {"graphs/tokens.onnx": b"no graph", "graphs/tower.onnx": b"no graph"}
    rewrite(copy, graphs, engine="onnx")
    with pytest.raises(BundleError, match="onnx cannot run its graphs"):
        load_bundle(copy)


def test_a_grid_that_is_not_the_graphs(copy):
    rewrite(copy, {}, grid_hw=[800, 900])
    with pytest.raises(BundleError, match="other patches than a grid"):
        load_bundle(copy).predict(long_picture(), "nut")


def test_embeddings_that_do_not_fit_each_other(copy):
    into = io.BytesIO()
    np.save(into, np.ones((2, 7), np.float32))
    rewrite(copy, {"classes/01-nut/text.npy": into.getvalue()})
    with pytest.raises(BundleError, match="damaged"):
        load_bundle(copy).predict(long_picture(), "nut")


def test_pickled_arrays_are_not_run(copy):
    into = io.BytesIO()
    np.save(into, np.array([print, print], dtype=object), allow_pickle=True)
    rewrite(copy, {"classes/01-nut/text.npy": into.getvalue()})
    with pytest.raises(BundleError, match="damaged"):
        load_bundle(copy)


def test_a_class_it_does_not_hold_and_bad_pictures(bundle, tmp_path):
    loaded = load_bundle(bundle.folder)
    with pytest.raises(BundleError, match="holds 'metal bolt', 'nut'"):
        loaded.predict(long_picture(), "gear")
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no picture")
    with pytest.raises(PictureError):
        loaded.predict(broken, "nut")
    results = list(loaded.predict_many([broken, *goods(1)], "nut"))
    assert [result.error is None for result in results] == [False, True]


def test_an_engine_that_is_not_installed_is_named(bundle, monkeypatch):
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(MissingExtraError, match=r"pip install .*\[edge\]"):
        load_bundle(bundle.folder)


# Writing


def test_a_full_folder_is_left_alone_and_half_a_bundle_never_seen(bundle, small_checkpoint, tmp_path, monkeypatch):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("mine")
    with pytest.raises(OutputError, match="not an empty folder"):
        export(bundle.model, ["nut"], tmp_path / "full")
    monkeypatch.setattr(exporting, "_largest_difference", lambda *_: 0.5)
    with pytest.raises(BundleError, match=r"differ from the model's by up to 0\.5"):
        export(bundle.model, ["nut"], tmp_path / "new")
    assert [path.name for path in tmp_path.iterdir()] == ["full"]


def test_adding_needs_a_bundle_of_the_same_model(bundle, copy, small_checkpoint, tmp_path):
    with pytest.raises(BundleError, match="no bundle that classes could be added to"):
        export(bundle.model, ["nut"], tmp_path / "nothing", add=True)
    other = new_model(small_checkpoint, recipe="paper")
    with pytest.raises(BundleError, match="recipe"):
        export(other, ["gear"], copy, add=True)
    assert load_bundle(copy).classes == ("metal bolt", "nut")


def test_a_class_is_replaced(bundle, copy):
    export(bundle.model, ["metal_bolt"], copy, add=True)
    loaded = load_bundle(copy)
    assert loaded.classes == ("metal bolt", "nut")
    assert loaded.calibration("metal_bolt") is None
    files = {path.relative_to(copy).as_posix() for path in copy.rglob("*") if path.is_file()}
    assert files == {*json.loads((copy / "bundle.json").read_text())["sha256"], "bundle.json"}


def test_torch_is_no_edge_engine_and_a_foreign_calibration_no_decision(bundle, small_checkpoint, tmp_path):
    with pytest.raises(EngineError, match="openvino or onnx"):
        export(new_model(small_checkpoint, engine="torch"), ["nut"], tmp_path / "bundle")
    with pytest.raises(SettingsError, match="recipe"):
        model = new_model(small_checkpoint, recipe="paper")
        export(model, ["metal_bolt"], tmp_path / "bundle", calibrations={"metal_bolt": bundle.calibration})


# The command line


def test_export_and_predict(cli, small_checkpoint, tmp_path):
    model = ("--model", SMALL, "--weights", small_checkpoint, "--precision", "fp32")
    picture = save(tmp_path / "parts" / "0.png", long_picture())
    good = [save(tmp_path / "good" / f"{number}.png", pixels) for number, pixels in enumerate(goods(2))]
    ran = cli("export", "--class", "bolt", "--reference", *good, "--out", tmp_path / "bundle", "--json", *model)
    assert ran.code == 0
    told = json.loads(ran.out)
    assert told["classes"] == ["bolt"]
    assert told["largest_difference"] < 1e-5
    expected = cli("predict", picture, "--class", "bolt", "--reference", *good, "--engine", "openvino", *model)
    found = cli("predict", picture, "--bundle", tmp_path / "bundle")
    assert found.code == expected.code == 0
    assert found.out == expected.out


def test_the_command_line_refuses_what_does_not_go_together(cli, bundle, tmp_path):
    picture = save(tmp_path / "0.png", long_picture())
    for arguments, told in (
        (("predict", picture, "--bundle", bundle.folder), "name one of the bundle's classes, metal bolt, nut"),
        (("predict", picture, "--bundle", bundle.folder, "--class", "gear"), "not in this bundle"),
        (
            ("predict", picture, "--bundle", bundle.folder, "--class", "nut", "--engine", "onnx"),
            "brings its own engine",
        ),
        (("predict", picture, "--bundle", tmp_path), "bundle.json: not found"),
        (("export", "--out", tmp_path / "b"), "--class: name the classes"),
        (("export", "--out", tmp_path / "b", "--class", "nut", "--engine", "torch"), "got 'torch'"),
        (("export", "--out", tmp_path / "b", "--class", "a", "b", "--reference", picture), "belong to one class"),
    ):
        ran = cli(*arguments)
        assert (ran.code, ran.out) == (2, "")
        assert told in ran.err


def test_a_threshold_of_ones_own_goes_before_the_bundles(cli, bundle, tmp_path):
    picture = save(tmp_path / "0.png", long_picture())
    ran = cli("predict", picture, "--bundle", bundle.folder, "--class", "metal_bolt", "--threshold", "0.999", "--json")
    (row,) = json.loads(ran.out)["results"]
    assert (row["threshold"], row["verdict"]) == (0.999, "normal")
    assert "p_value" not in row


def test_masks_and_coco_by_the_bundles_own_calibration(cli, bundle, tmp_path):
    picture = save(tmp_path / "0.png", long_picture())
    out = ("--out", tmp_path / "out", "--coco")
    ran = cli("predict", picture, "--bundle", bundle.folder, "--class", "metal_bolt", *out)
    assert ran.code == 0
    assert json.loads((tmp_path / "out" / "defects.coco.json").read_text())["images"]
    ran = cli("predict", picture, "--bundle", bundle.folder, "--class", "nut", *out)
    assert (ran.code, ran.out) == (2, "")
    assert "has no calibration of this class" in ran.err


FULL_DISK = """
import resource, sys
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
from winspect.cli.main import main
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.parametrize("engine", ["openvino", "onnx"])
def test_export_on_a_full_disk_is_a_message_and_leaves_nothing(tmp_path, engine):
    arguments = ["export", "--class", "cell", "--model", "winspect-tiny", "--device", "cpu", "--engine", engine]
    command = [sys.executable, "-c", FULL_DISK, *arguments, "--out", str(tmp_path / "made/bundle")]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr and "cannot write" in done.stderr
    assert list((tmp_path / "made").iterdir()) == []


def test_adding_a_class_on_a_full_disk_leaves_the_bundle_as_it_was(bundle, copy, monkeypatch):
    before = {path: path.read_bytes() for path in copy.rglob("*") if path.is_file()}
    monkeypatch.setattr(np, "save", Mock(side_effect=OSError(errno.ENOSPC, "No space left on device")))
    with pytest.raises(OutputError, match="the disk is full"):
        export(bundle.model, ["gear"], copy, add=True)
    assert {path: path.read_bytes() for path in copy.rglob("*") if path.is_file()} == before
    assert [path.name for path in copy.parent.iterdir()] == ["copy"]


def test_a_file_named_as_the_weights_in_the_working_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WINSPECT_CACHE", str(tmp_path / "cache"))
    Path("tower.weights").write_bytes(b"somebody else's")
    model = WinCLIP("winspect-tiny", device="cpu", engine="onnx", precision="fp32", recipe="log")
    assert export(model, ["textile"], tmp_path / "bundle") < 1e-5
    assert Path("tower.weights").read_bytes() == b"somebody else's"
