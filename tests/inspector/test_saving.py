"""A few-shot state, saved and loaded, scores as before without its good samples, and refuses what is not it."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
from checkpoints import SMALL, save_checkpoint
from miniature import part

from winspect import WinCLIP
from winspect.errors import BundleError, OutputError, SettingsError, WeightsError
from winspect.inspector.saving import STATE_FILE

QUESTION = part(50, defective=True)[0]


def goods(count=3, first=0):
    return [part(first + number, defective=False)[0] for number in range(count)]


def new_model(checkpoint, **options):
    return WinCLIP(SMALL, weights=checkpoint, device="cpu", **{"engine": "torch", "recipe": "tiles", **options})


@pytest.fixture(scope="module")
def model(small_checkpoint):
    found = new_model(small_checkpoint, settings={"temperature": 0.05})
    found.reference(goods(), "metal_nut")
    found.reference(goods(2, 10), "Bolt M8")
    return found


@pytest.fixture(scope="module")
def saved(model, tmp_path_factory):
    return model.save(tmp_path_factory.mktemp("states") / "new" / "state")


@pytest.fixture
def copy(saved, tmp_path):
    return shutil.copytree(saved, tmp_path / "copy")


def test_it_scores_as_before_without_the_pictures(model, saved, monkeypatch):
    monkeypatch.setattr(WinCLIP, "_learn", None)
    loaded = WinCLIP.load(saved, engine="torch", device="cpu")
    assert isinstance(loaded, WinCLIP)
    assert loaded.recipe == model.recipe and loaded.recipe.temperature == 0.05
    for name in ("metal nut", "bolt m8", "metal_nut", "washer"):
        ours, theirs = loaded.predict(QUESTION, name), model.predict(QUESTION, name)
        assert ours.anomaly_score == theirs.anomaly_score
        np.testing.assert_array_equal(ours.anomaly_map, theirs.anomaly_map)
        assert loaded.references_of(name) == tuple(
            type(sample).read(sample.document()) for sample in model.references_of(name)
        )
    assert len(loaded.references_of("metal_nut")) == 3
    assert loaded.identity("metal_nut") == model.identity("metal_nut")


def test_no_weights_and_no_pickles_are_in_it(saved):
    names = sorted(path.name for path in saved.iterdir())
    assert names == ["00references.npz", "00text.npy", "01references.npz", "01text.npy", STATE_FILE]
    assert sum(path.stat().st_size for path in saved.iterdir()) < 2e6


def test_a_saved_state_is_replaced_and_nothing_else(model, copy, tmp_path):
    (copy / "more").write_text("x")
    model.save(copy)
    assert not (copy / "more").exists() and (copy / STATE_FILE).is_file()
    other = tmp_path / "other"
    other.mkdir()
    model.save(other)
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures" / "a.png").write_text("mine")
    for place in (tmp_path / "pictures", tmp_path / "pictures" / "a.png"):
        with pytest.raises(OutputError, match="not an empty folder"):
            model.save(place)
    with pytest.raises(OutputError, match="cannot write"):
        model.save(tmp_path / "pictures" / "a.png" / "state")
    assert (tmp_path / "pictures" / "a.png").read_text() == "mine"
    assert {path.name for path in tmp_path.iterdir()} == {"copy", "other", "pictures"}, "nothing is left behind"


@pytest.mark.parametrize("name", ["00text.npy", "01references.npz"])
def test_damage_is_found(copy, name):
    content = bytearray((copy / name).read_bytes())
    content[-3] ^= 1
    (copy / name).write_bytes(content)
    with pytest.raises(BundleError, match=rf"{name}: its hash is not the one in {STATE_FILE}"):
        WinCLIP.load(copy)
    (copy / name).unlink()
    with pytest.raises(BundleError, match="cannot be read"):
        WinCLIP.load(copy)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"schema": 2}, "schema 2; this release reads"),
        ({"kind": "winspect bundle"}, "got 'winspect bundle'"),
        ({"sha256": {}}, "no hash of"),
        ({"sha256": {"../other": "0"}}, "lies outside"),
        ({"recipe": {"name": "tiles", "temperature": "hot"}}, "damaged"),
        ({"load": None}, "damaged"),
    ],
)
def test_what_is_not_a_state(copy, change, words):
    document = json.loads((copy / STATE_FILE).read_text())
    (copy / STATE_FILE).write_text(json.dumps(document | change))
    with pytest.raises(BundleError, match=words):
        WinCLIP.load(copy)


def test_other_weights_are_refused(saved, copy, tmp_path):
    other = save_checkpoint(SMALL, tmp_path, seed=1)
    with pytest.raises(BundleError, match=r"saved of something else .*weights_sha256"):
        WinCLIP.load(saved, weights=other, engine="torch", device="cpu")
    document = json.loads((copy / STATE_FILE).read_text())
    document["load"]["weights"] = str(tmp_path / "moved.safetensors")
    (copy / STATE_FILE).write_text(json.dumps(document))
    with pytest.raises(WeightsError):
        WinCLIP.load(copy)


def test_a_folder_that_is_neither(tmp_path):
    with pytest.raises(BundleError, match="not found"):
        WinCLIP.load(tmp_path)
    with pytest.raises(SettingsError, match="has its own engine"):
        WinCLIP.load(tmp_path, engine="torch")
