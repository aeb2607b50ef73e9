"""A large set of good samples is encoded once, however often a model is started with it."""

from __future__ import annotations

import errno
import logging
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from winspect import WinCLIP
from winspect.errors import ReferencesError
from winspect.inspector import class_state
from winspect.methods.method import References

GOOD = Path(__file__).parents[2] / "examples" / "hex_nut" / "train" / "good"
QUESTION = Path(__file__).parents[2] / "examples" / "hex_nut" / "test" / "defective" / "1.jpg"


@pytest.fixture
def samples(tmp_path, monkeypatch):
    """Three good samples, which count as many."""
    monkeypatch.setattr(class_state, "WORTH_KEEPING", 3)
    folder = tmp_path / "good"
    shutil.copytree(GOOD, folder)
    (folder / "4.jpg").unlink()
    return folder


@pytest.fixture
def start(tmp_path, graphs_compiled_once):
    """Start a model anew on the same cache; counts the tiles it encodes."""

    def new() -> WinCLIP:
        model = WinCLIP("winspect-tiny", device="cpu", precision="fp32", cache_dir=tmp_path / "cache")
        encode, model.encoded = model._encode, 0

        def counted(tiles, needs):
            model.encoded += len(tiles)
            return encode(tiles, needs)

        model._encode = counted
        return model

    return new


def score_and_map(model: WinCLIP) -> tuple[float, np.ndarray]:
    result = model.predict(QUESTION, "hex nut")
    return result.anomaly_score, result.anomaly_map


def test_a_second_start_encodes_nothing_and_scores_the_same(samples, start):
    first, second = start(), start()
    assert first.reference(samples, "hex nut") == 3
    assert first.encoded == 3
    assert second.reference(samples, "hex nut") == 3
    assert second.encoded == 0
    assert second.references_of("hex nut") == first.references_of("hex nut")
    score, anomaly_map = score_and_map(first)
    assert score_and_map(second)[0] == score
    np.testing.assert_array_equal(score_and_map(second)[1], anomaly_map)
    assert second.good_levels("hex nut") == first.good_levels("hex nut") != ()


def test_other_samples_are_encoded(samples, start):
    start().reference(samples, "hex nut")
    Image.open(samples / "2.jpg").rotate(180).save(samples / "2.jpg", quality=95)
    model = start()
    model.reference(samples, "hex nut")
    assert model.encoded == 3


def test_few_samples_and_arrays_without_a_file_need_no_disk(samples, start, tmp_path, monkeypatch):
    monkeypatch.setattr(class_state, "WORTH_KEEPING", 4)
    start().reference(samples, "hex nut")
    assert not (tmp_path / "cache" / "references").exists()


def test_a_damaged_set_is_encoded_anew(samples, start, tmp_path, caplog):
    start().reference(samples, "hex nut")
    (kept,) = (tmp_path / "cache" / "references").glob("*/references.npz")
    kept.write_bytes(kept.read_bytes()[:-100])
    model = start()
    model.reference(samples, "hex nut")
    assert model.encoded == 3
    assert "damaged graph cache" in caplog.text


def test_a_warning_is_said_at_every_start(samples, start, caplog):
    Image.new("RGB", (240, 240)).save(samples / "1.jpg")
    for encoded in (3, 0):
        caplog.clear()
        model = start()
        model.reference(samples, "hex nut")
        assert model.encoded == encoded
        assert "1.jpg" in caplog.text and "black" in caplog.text


def test_a_sample_that_is_replaced_meanwhile_is_not_kept(samples, start, tmp_path):
    model = start()
    encode = model._encode

    def replacing(tiles, needs):
        (samples / "3.jpg").write_bytes((samples / "1.jpg").read_bytes())
        return encode(tiles, needs)

    model._encode = replacing
    with pytest.raises(ReferencesError, match="changed while it was read"):
        model.reference(samples, "hex nut")
    assert not list((tmp_path / "cache" / "references").glob("*/references.npz"))


def test_a_full_disk_costs_time_only(samples, start, monkeypatch, caplog):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(References, "save", full)
    with caplog.at_level(logging.WARNING):
        assert start().reference(samples, "hex nut") == 3
    assert "cannot keep the reference set" in caplog.text


def test_what_a_sample_is_refused_for_is_said(samples, start):
    (samples / "3.jpg").write_bytes(b"\xff\xd8\xff")
    with pytest.raises(ReferencesError, match=r"3\.jpg"):
        start().reference(samples, "hex nut")
