"""Python takes what the command line takes, and what cameras and torch give; no text holds pixels."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from miniature import part, save
from PIL import Image

from winspect.errors import PictureError, ReferencesError, SourceError
from winspect.pictures.decoding import read_rgb
from winspect.pictures.fingerprints import fingerprint
from winspect.pictures.given import Given, picture_given, pictures_given, source_name

RGB = np.random.default_rng(3).integers(0, 256, (40, 56, 3), np.uint8)
CHW = torch.from_numpy(RGB.transpose(2, 0, 1).copy())


@pytest.fixture
def folder(tmp_path):
    """Three good pictures and a text."""
    for number in range(3):
        save(tmp_path / "good" / f"{number}.png", part(number, defective=False)[0])
    (tmp_path / "good" / "notes.txt").write_text("x")
    return tmp_path / "good"


@pytest.mark.parametrize(
    ("picture", "bgr"),
    [
        (CHW, False),
        (CHW.float() / 255, False),
        (CHW.double() / 255, False),
        (CHW.to(torch.float32).div(255).requires_grad_(), False),
        (CHW.flip(0), True),
        (RGB[:, :, ::-1], True),
        (np.concatenate((RGB[:, :, ::-1], RGB[:, :, :1]), axis=2), True),
        (Image.fromarray(RGB), True),  # an image says its order itself
        (("cam 1", RGB[:, :, ::-1]), True),
    ],
)
def test_arrays_and_tensors_by_one_rule(picture, bgr):
    np.testing.assert_array_equal(read_rgb(picture_given(picture, bgr=bgr)), RGB)


def test_grey_tensors():
    grey = CHW[0]
    for tensor in (grey, grey[None]):
        np.testing.assert_array_equal(read_rgb(picture_given(tensor)), np.repeat(RGB[:, :, :1], 3, axis=2))


@pytest.mark.parametrize(
    ("picture", "message"),
    [
        (CHW.permute(1, 2, 0), r"<tensor>: got a tensor of shape .40, 56, 3., need .*use permute.2, 0, 1."),
        (CHW.float() - 1e3, r"<tensor>: got floating-point values from"),
        (CHW.long(), r"<tensor>: got dtype int64"),
        (RGB.transpose(2, 0, 1), r"<array>: got dtype uint8, shape .3, 40, 56., need .*use transpose.1, 2, 0."),
        (("cam 1", RGB[:2]), r"^cam 1: 56x2 pixels"),
        ([RGB.tolist()], r"^<list>: got list, need a path"),
    ],
)
def test_what_is_wrong_is_said_without_pixels(picture, message):
    with pytest.raises(PictureError, match=message) as caught:
        read_rgb(picture_given(picture))
    assert len(str(caught.value)) < 300


def test_names_of_what_has_no_path_hold_no_pixels():
    assert source_name(CHW) == "<Tensor>"
    assert source_name([[1, 2], [3, 4]]) == "<list>"
    assert "array" not in repr(Given("a", RGB))
    assert fingerprint(picture_given(("a.png", RGB))).keys == fingerprint(picture_given(("b.png", RGB))).keys


def test_folders_files_globs_lists_stacks_and_generators(folder, tmp_path):
    names = [folder / f"{number}.png" for number in range(3)]
    assert list(pictures_given(folder)) == list(pictures_given(str(folder))) == names
    assert list(pictures_given(f"{folder}/[12].png")) == names[1:]
    assert list(pictures_given(names[0])) == [names[0]]
    assert list(pictures_given(iter(names))) == list(pictures_given(tuple(names))) == names
    assert len(list(pictures_given(RGB))) == len(list(pictures_given(("cam", RGB)))) == 1
    assert len(list(pictures_given(np.stack([RGB, RGB])))) == len(list(pictures_given(torch.stack([CHW, CHW])))) == 2
    with pytest.raises(SourceError, match="matches no pictures"):
        pictures_given(str(tmp_path / "*.jpg"))


def test_a_model_takes_them_all(small_model, folder):
    assert small_model.reference(folder, "bolt") == 3
    assert [shown.path for shown in small_model.references_of("bolt")] == [str(folder / f"{n}.png") for n in range(3)]
    small_model.forget("bolt")
    assert len(list(small_model.predict_many(folder, maps=False))) == 3
    (missing,) = small_model.predict_many(folder / "gone.png", maps=False)
    assert "no such file" in str(missing.error)
    expected = small_model.predict(RGB).anomaly_score
    given = [("cam 1", RGB), ("cam 2", CHW), Image.fromarray(RGB)]
    results = list(small_model.predict_many(given))
    assert [result.path for result in results] == ["cam 1", "cam 2", "<image>"]
    assert {result.anomaly_score for result in results} == {expected}
    assert small_model.predict(RGB[:, :, ::-1], bgr=True).anomaly_score == expected
    bad, good = small_model.predict_many([("odd", RGB[0]), RGB], bgr=False)
    assert bad.path == "odd" and bad.error is not None and good.error is None
    with pytest.raises(ReferencesError, match="<tensor>: got a tensor of shape") as caught:
        small_model.reference(CHW.permute(1, 2, 0), "bolt")
    assert len(str(caught.value)) < 300
    calibration = small_model.calibrate(folder, max_false_alarms=0.3)
    assert len(calibration.scores) == 3


def test_model_and_calibration_print_as_one_line(small_model, folder):
    assert repr(small_model).startswith("WinCLIP(") and "recipe paper" in repr(small_model)
    calibration = small_model.calibrate(folder, "bolt", max_false_alarms=0.3)
    assert repr(calibration).startswith("Calibration('bolt': anomalous above 0.")
    for line in (repr(small_model), repr(calibration)):
        assert len(line) < 200 and "\n" not in line
