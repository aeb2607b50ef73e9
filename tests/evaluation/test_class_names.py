"""One class however its name is typed: Unicode form, case and blanks tell no classes apart."""

from __future__ import annotations

import json
import unicodedata

import numpy as np
import pytest
from PIL import Image

from winspect.calibration import Calibration
from winspect.cluster.shared import Inspection, check_inspection
from winspect.errors import ClassNameError
from winspect.methods.winclip.prompts import PromptEnsemble, check_class_name, class_key
from winspect.service import contract
from winspect.service.store.store import Store

TYPED = ["Käfer Kappe", "  käfer_kappe ", unicodedata.normalize("NFD", "KÄFER  Kappe"), "KÄFER KAPPE"]


def picture(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (48, 64, 3), np.uint8)


@pytest.mark.parametrize("name", TYPED)
def test_every_way_to_type_a_name_is_one_class(name):
    assert class_key(name) == "käfer kappe"
    assert contract.class_key(name) == "käfer kappe"
    assert unicodedata.is_normalized("NFC", check_class_name(name))


def test_words_keep_their_case_and_other_names_stay_apart():
    assert check_class_name(" Metal_Nut ") == "Metal Nut"
    assert class_key("Maße") != class_key("Masse")
    assert class_key("metal-nut") != class_key("metal nut")
    assert PromptEnsemble().prompts("Metal_Nut")[0][0] == "a cropped photo of the Metal Nut."
    with pytest.raises(ClassNameError, match="looks like a path"):
        contract.class_key("../A")


def test_the_tokenizer_takes_them_for_the_same_words():
    """Without this a shared text would change scores."""
    from open_clip.tokenizer import SimpleTokenizer

    tokens = SimpleTokenizer()([check_class_name(name) for name in TYPED])
    assert (tokens == tokens[:1]).all()


def test_good_samples_and_calibration_hold_for_every_spelling(small_model):
    first, *others = TYPED
    zero_shot = small_model.predict(picture(9), first).anomaly_score
    small_model.reference([picture(0), picture(1)], first)
    try:
        expected = small_model.predict(picture(9), first)
        assert expected.anomaly_score != zero_shot
        calibration = small_model.calibrate([picture(seed) for seed in range(2, 8)], others[0], max_false_alarms=0.2)
        assert calibration.class_name == check_class_name(others[0])
        for name in others:
            assert small_model.references_of(name) == small_model.references_of(first)
            result = small_model.predict(picture(9), name)
            assert result.anomaly_score == expected.anomaly_score
            assert result.category_name == name  # as it was typed
            assert calibration.decide(result) == calibration.decide(expected)
            assert small_model.state_of(name).references is not None
    finally:
        small_model.forget(others[-1])
    assert small_model.references_of(first) == ()


def test_rows_keep_the_name_and_a_calibration_is_found_by_any(tmp_path, small_model):
    small_model.calibrate([picture(seed) for seed in range(6)], "Metal Nut", max_false_alarms=0.2).save(
        tmp_path / "c.json"
    )
    assert json.loads((tmp_path / "c.json").read_text())["class"] == "Metal Nut"
    loaded = Calibration.load(tmp_path / "c.json")
    loaded.check_model(small_model, "metal nut")
    assert loaded.decide(small_model.predict(picture(9), " METAL_nut")).verdict is not None


def test_a_batch_of_one_class_in_two_spellings_takes_good_samples():
    check_inspection(Inspection(classes=("Nut", "nut"), references=("a.png",)))


def test_the_store_finds_what_an_older_release_kept(tmp_path, caplog):
    Image.new("RGB", (16, 16)).save(tmp_path / "a.png")
    content = (tmp_path / "a.png").read_bytes()
    store = Store(tmp_path / "data")
    store.replace("Metal Nut", "reference", [("a.png", content)])  # as releases did that told case apart
    store.set_document("Metal Nut", {"threshold": 1})
    for name in ("Bolt", "bolt"):
        store.replace(name, "reference", [(f"{name}.png", content)])
    store.close()
    again = Store(tmp_path / "data")
    assert again.count(class_key("METAL nut"), "reference") == 1
    assert again.document(class_key("METAL nut")) == {"threshold": 1}
    assert [kept.name for kept in again.pictures("bolt", "reference")] == ["bolt.png"]
    assert "classes 'Bolt' and 'bolt' are one now; the first is left aside" in caplog.text
    again.close()
