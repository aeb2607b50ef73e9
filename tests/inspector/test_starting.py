"""Starts without torch: the scores, identity and warnings of the whole model; and every way a cache can be wrong."""

from __future__ import annotations

import json
import logging
import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from checkpoints import SMALL, register_small
from miniature import part, save

from winspect import WinCLIP
from winspect.errors import SettingsError, WeightsMissingError
from winspect.inspector import start_notes, starting
from winspect.inspector.start_notes import key_of
from winspect.inspector.starting import KeptPredictor, keep, load
from winspect.pictures.roi import Area, Roi
from winspect.service.pool.worker import load_model
from winspect.service.settings import ModelSpec

SAME = 1e-6
WITHOUT_TORCH = """
import sys
for name in "torch torchvision open_clip timm scipy".split():
    sys.modules[name] = None
from winspect.cli.main import main
sys.exit(main(sys.argv[1:]))
"""


def picture(seed: int = 0, *, defective: bool = True, size_wh=(90, 90)) -> np.ndarray:
    return part(seed, defective=defective, size_wh=size_wh)[0]


@pytest.fixture
def cache(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("WINSPECT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def options(small_checkpoint, cache, tmp_path) -> dict:
    """Options of the small model, whose weights file is the test's own; nothing has been kept yet."""
    register_small()
    return {
        "model": SMALL,
        "weights": str(shutil.copy(small_checkpoint, tmp_path / "small.safetensors")),
        "device": "cpu",
    }


def use(options, *goods):
    """Load a model, show it good samples, and keep what the next start needs."""
    model = load(options)
    if goods:
        model.reference(goods, "bolt")
    if model.method.zero_shot or goods:
        model.prepare_engine("bolt")
    keep(model, "bolt")
    return model


@pytest.fixture
def used(options):
    """The same options, used before."""
    assert isinstance(use(options), WinCLIP)
    assert isinstance(load(options), KeptPredictor)  # else nothing below would test anything
    return options


def note_file(cache: Path) -> Path:
    (path,) = (cache / "starts").glob("*.json")
    return path


def graph_folder(cache: Path) -> Path:
    (path,) = (path for path in (cache / "graphs").iterdir() if (path / "tokens.xml").is_file())
    return path


def assert_same(kept, whole, pictures, *, maps: bool = True, maps_within: float = SAME) -> None:
    assert kept.identity() == whole.identity()
    assert kept.describe() == whole.describe()
    for ours, theirs in zip(
        kept.predict_many(pictures, "bolt", maps=maps), whole.predict_many(pictures, "bolt", maps=maps), strict=True
    ):
        assert ours.anomaly_score == pytest.approx(theirs.anomaly_score, abs=SAME)
        assert (ours.anomaly_map is None) == (theirs.anomaly_map is None)
        if ours.anomaly_map is not None:
            np.testing.assert_allclose(ours.anomaly_map, theirs.anomaly_map, atol=maps_within)


@pytest.mark.parametrize(
    ("recipe", "settings"), [("paper", {}), ("tiles", {}), ("memory", {"size": 96}), ("paper+memory", {})]
)
def test_scores_maps_and_identity_are_the_models_own(options, recipe, settings):
    options |= {"recipe": recipe, "settings": settings}
    use(options)
    kept, whole = load(options), WinCLIP(**options)
    assert isinstance(kept, KeptPredictor)
    pictures = [picture(seed) for seed in range(3)]
    if whole.method.zero_shot:
        for maps in (False, True, False):
            assert_same(kept, whole, pictures, maps=maps)
    goods = [picture(seed, defective=False) for seed in range(10, 13)]
    for model in (kept, whole):
        model.reference(goods, "bolt")
    for maps in (True, False):
        assert_same(kept, whole, pictures, maps=maps)
    assert kept.good_levels("bolt") == pytest.approx(whole.good_levels("bolt"), abs=SAME)
    assert kept.full is None  # torch was not asked


@pytest.mark.parametrize("recipe", ["log", "fused"])
def test_the_bundled_model(cache, recipe):
    options = {"model": "winspect-tiny", "device": "cpu", "recipe": recipe}
    goods = [picture(seed, defective=False) for seed in range(2)]
    use(options)
    use(options, *goods)  # which needs another graph
    kept, whole = load(options), WinCLIP(**options)
    assert isinstance(kept, KeptPredictor)
    # Its temperature makes a hundred times as much of a cosine's last digit, and patches stand between two scores.
    assert_same(kept, whole, [picture()], maps_within=5e-5)
    for model in (kept, whole):
        model.reference(goods, "bolt")
    assert_same(kept, whole, [picture()], maps_within=5e-5)
    assert kept.full is None


def test_a_class_that_is_new_is_encoded(used):
    kept, whole = load(used), WinCLIP(**used)
    kept.prepare_class("a part nobody knows")
    np.testing.assert_array_equal(kept.state_of("a part nobody knows").text, whole.state_of("a part nobody knows").text)
    kept.drop_class("a part nobody knows")
    assert isinstance(kept, KeptPredictor)


def test_a_picture_of_another_shape_is_scored_by_torch(options, caplog):
    options |= {"recipe": "memory", "settings": {"size": 96}}
    use(options)
    caplog.set_level(logging.INFO)
    kept, whole = load(options), WinCLIP(**options)
    for model in (kept, whole):
        model.reference([picture(5, defective=False, size_wh=(180, 90))], "bolt")
    assert_same(kept, whole, [picture(1, size_wh=(180, 90))])
    assert (kept.full is not None) == whole.preprocess.aspect
    assert ("loading the model with torch" in caplog.text) == whole.preprocess.aspect


def test_predict_imports_no_torch(cli, used, tmp_path):
    photo = save(tmp_path / "photo.png", picture())
    good = save(tmp_path / "good" / "1.png", picture(3, defective=False))
    model = ["--model", SMALL, "--weights", used["weights"], "--device", "cpu", "--class", "bolt"]
    for more in ([], ["--reference", str(good.parent)]):
        arguments = ["predict", str(photo), *model, *more, "--json"]
        here = cli(*arguments)  # which also keeps the text of the class
        command = [sys.executable, "-c", WITHOUT_TORCH, *arguments]
        there = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
        assert there.returncode == here.code == 0, there.stderr
        ours, theirs = (json.loads(out)["results"][0] for out in (there.stdout, here.out))
        assert ours == pytest.approx(theirs)
    shutil.rmtree(Path(os.environ["WINSPECT_CACHE"]) / "starts")
    failed = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert failed.returncode == 2  # the proof can fail
    assert "not installed" in failed.stderr


def test_a_service_and_a_watch_start_so_too(used):
    spec = ModelSpec(options={name: value for name, value in used.items() if name != "device"})
    assert isinstance(load_model(spec, "cpu"), KeptPredictor)


def test_each_use_is_kept_when_it_is_met(cache):
    options, good = {"model": "winspect-tiny", "device": "cpu"}, picture(3, defective=False)
    use(options)
    assert use(options, good).full is not None  # its graph was not there
    again = use(options, good)
    assert again.full is None
    again.forget("bolt")
    again.predict(picture(), "bolt")
    assert again.full is None


def test_regions_and_alignments_are_the_calls(used):
    roi = Roi((90, 90), (Area(((10, 10), (80, 10), (80, 80), (10, 80))),))
    kept, whole = load(used | {"roi": roi}), WinCLIP(**used, roi=roi)
    assert isinstance(kept, KeptPredictor)
    assert kept.roi == whole.roi
    assert_same(kept, whole, [picture()])
    assert load(used | {"alignment": "translation"}).identity().alignment is not None
    assert load(used).identity().alignment is None


def spoil_note(cache):
    note_file(cache).write_text("{")


def change_note(cache):
    document = json.loads(note_file(cache).read_text())
    document["note"] = document["note"].replace('"size": 64', '"size": 65')
    note_file(cache).write_text(json.dumps(document))


def note_is_a_folder(cache):
    path = note_file(cache)
    path.unlink()
    path.mkdir()


def flip_a_weight(cache):
    path = graph_folder(cache) / "tower.bin"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 255
    path.write_bytes(content)


def cut_tokens(cache):
    path = graph_folder(cache) / "tokens.xml"
    path.write_bytes(path.read_bytes()[:100])


def remove_graphs(cache):
    shutil.rmtree(cache / "graphs")


@pytest.mark.parametrize(
    ("spoil", "lines"),
    [
        (spoil_note, 1),
        (change_note, 1),
        (note_is_a_folder, 1),
        (flip_a_weight, 1),
        (cut_tokens, 1),
        (remove_graphs, 0),
    ],
)
def test_a_damaged_cache_is_said_and_made_anew(used, cache, caplog, spoil, lines):
    before = WinCLIP(**used).predict(picture(), "bolt").anomaly_score
    spoil(cache)
    caplog.set_level(logging.WARNING)
    model = use(used)
    assert model.predict(picture(), "bolt").anomaly_score == pytest.approx(before, abs=SAME)
    assert isinstance(model, WinCLIP) or model.full is not None
    assert len(caplog.records) == lines, caplog.text
    if spoil is not note_is_a_folder:  # which nobody may remove
        assert isinstance(load(used), KeptPredictor)


def test_other_weights_are_read_again(used, caplog):
    from checkpoints import save_checkpoint

    before = load(used).predict(picture(), "bolt").anomaly_score
    path = Path(used["weights"])
    shutil.move(save_checkpoint(SMALL, path.parent, seed=7), path)
    after = use(used)
    assert isinstance(after, WinCLIP)
    assert after.predict(picture(), "bolt").anomaly_score != before
    assert isinstance(load(used), KeptPredictor)
    assert load(used).predict(picture(), "bolt").anomaly_score == pytest.approx(
        after.predict(picture(), "bolt").anomaly_score, abs=SAME
    )
    path.unlink()
    with pytest.raises(WeightsMissingError):  # as the whole model says it
        load(used)


def test_a_configuration_that_comes_to_lie_beside_the_weights_counts(used):
    Path(used["weights"]).with_name("open_clip_config.json").write_text(
        json.dumps({"model_cfg": {"quick_gelu": True}, "preprocess_cfg": {}})
    )
    model = load(used)
    assert isinstance(model, WinCLIP)
    assert model.activation == "quick_gelu"


@pytest.mark.parametrize("what", ["release", "processor", "accelerator", "cores", "threads", "code"])
def test_another_machine_or_release_starts_with_torch(used, monkeypatch, what):
    if what == "release":
        releases = {**start_notes.versions(), "openvino": "2031.1"}
        monkeypatch.setattr(start_notes, "versions", lambda: releases)
    elif what == "processor":
        cpu = start_notes.cpu_features()
        other = replace(cpu, flags={**cpu.flags, "amx_bf16": not cpu.flags["amx_bf16"]})  # refused by a hypervisor
        monkeypatch.setattr(start_notes, "cpu_features", lambda: other)
    elif what == "accelerator":
        monkeypatch.setattr(start_notes, "glob", lambda pattern: [pattern])
    elif what == "cores":
        monkeypatch.setattr(start_notes, "usable_cores", lambda: 1000)
    elif what == "threads":
        monkeypatch.setenv("OMP_NUM_THREADS", "7")
    else:
        monkeypatch.setattr(start_notes, "_code", lambda: "changed")
    assert isinstance(use(used), WinCLIP)
    assert isinstance(load(used), KeptPredictor)  # each has a note of its own


@pytest.mark.parametrize("place", ["cache", "cache/starts", "cache/graphs"])
def test_a_cache_that_cannot_be_written_costs_time_alone(options, tmp_path, place, caplog):
    blocked = tmp_path / place
    blocked.parent.mkdir(exist_ok=True)
    blocked.write_text("a file where the folder should be")
    model = use(options)
    assert isinstance(model, WinCLIP)
    assert model.predict(picture(), "bolt").anomaly_score == pytest.approx(
        load(options).predict(picture(), "bolt").anomaly_score, abs=SAME
    )


def test_a_cache_that_may_only_be_read_is_used(used, cache, monkeypatch):
    def refuse(*_, **__):
        raise PermissionError(13, "read-only")

    for name in ("utime", "replace", "rename", "mkdir"):
        monkeypatch.setattr(os, name, refuse)
    kept = use(used)
    kept.predict(picture(), "bolt")
    assert isinstance(kept, KeptPredictor)
    assert kept.full is None


def test_two_fill_it_at_once(options):
    with ThreadPoolExecutor(2) as pool:
        models = list(pool.map(use, [options, options]))
    scores = [model.predict(picture(), "bolt").anomaly_score for model in [*models, load(options)]]
    assert isinstance(load(options), KeptPredictor)
    assert scores == pytest.approx([scores[0]] * 3, abs=SAME)


def test_an_engine_that_has_gone_is_replaced_with_a_line(used, monkeypatch, caplog):
    def gone(*_, **__):
        raise ModuleNotFoundError("No module named 'openvino'", name="openvino")

    monkeypatch.setattr("winspect.bundle.engine._openvino", gone)
    kept, whole = load(used), WinCLIP(**used)
    assert_same(kept, whole, [picture(1), picture(2)])
    assert kept.full is not None
    assert ["loading the model with torch" in record.message for record in caplog.records] == [True]


@pytest.mark.parametrize("prepared", [False, True])
def test_a_graph_that_fails_later_is_replaced_with_a_line(used, monkeypatch, caplog, prepared):
    kept, whole = load(used), WinCLIP(**used)

    def fail(*_, **__):
        raise RuntimeError("the plugin\nhas crashed")

    monkeypatch.setattr(kept.engine, "prepare" if prepared else "encode", fail)
    if prepared:
        kept.prepare_engine("bolt")
    assert_same(kept, whole, [picture(1), picture(2)])
    assert [record.message for record in caplog.records if record.levelno >= logging.WARNING] == [
        "the graph in the cache fails (the plugin); loading the model with torch"
    ]


@pytest.mark.parametrize(
    "more",
    [
        {"engine": "torch"},
        {"engine": "onnx"},
        {"device": "cuda"},
        {"device": "openvino:CPU"},
        {"precision": "bf16"},
        {"precision": "auto"},
        {"plan": "prefetch"},
        {"graphs": True},
    ],
)
def test_what_only_torch_serves_has_no_key(options, more):
    assert key_of(options) is not None
    assert key_of(options | more) is None


def test_the_default_precision_counts(options, monkeypatch):
    monkeypatch.setenv("WINSPECT_PRECISION", "bf16")
    assert key_of(options) is None
    assert key_of(options | {"precision": "fp32"}) is not None


def test_everything_that_decides_a_score_is_in_the_key(options):
    others = [
        {"recipe": "tiles"},
        {"settings": {"temperature": 0.05}},
        {"prompts": "accurate-winclip"},
        {"bit_depth": 12},
        {"weights": Path(options["weights"])},
        {"model": "winspect-tiny", "weights": None},
    ]
    keys = [json.dumps(key_of(options | other), sort_keys=True) for other in [{}, *others]]
    assert len({*keys}) == len(keys)
    assert json.dumps(key_of(options | {"workers": 3, "batch_size": 2}), sort_keys=True) == keys[0]


@pytest.mark.parametrize("wrong", [{"workers": 0}, {"batch_size": 0}, {"plan": "best"}, {"recipe": "none"}])
def test_wrong_options_are_refused_as_ever(used, wrong):
    with pytest.raises(SettingsError) as whole:
        WinCLIP(**used | wrong)
    with pytest.raises(SettingsError) as kept:
        load(used | wrong)
    assert str(kept.value) == str(whole.value)


def test_remarks_of_the_weights_are_repeated(used, cache, caplog):
    document = json.loads(note_file(cache).read_text())
    (key,) = (path.stem for path in (cache / "starts").iterdir())
    note = replace(starting.read_note(key_of(used), None), remarks=("a licence to read",))
    start_notes.write_note(key_of(used), note, None)
    assert note_file(cache).stem == key
    assert document != json.loads(note_file(cache).read_text())
    assert isinstance(load(used), KeptPredictor)
    assert [record.message for record in caplog.records] == ["a licence to read"]
