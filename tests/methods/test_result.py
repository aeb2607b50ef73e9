"""Results: an object and a mapping at once, checked when built; maps at the picture's own size."""

from __future__ import annotations

import copy
import dataclasses
import pickle

import numpy as np
import pytest

from winspect import Result
from winspect.errors import PictureError

WHOLE = ((0, 0, 12, 8),)


def result(**changes) -> Result:
    given = {
        "path": "part.png",
        "category_name": "nut",
        "anomaly_score": 0.25,
        "tile_maps": np.arange(4, dtype=np.float32).reshape(1, 2, 2) / 4,
        "tile_boxes": WHOLE,
        "size_wh": (12, 8),
    }
    return Result(**{**given, **changes})


def failed() -> Result:
    return Result("part.png", "nut", error=PictureError("part.png", "an empty file"))


def test_it_reads_as_an_object_and_as_a_mapping():
    one = result()
    assert one["anomaly_score"] == one.anomaly_score == 0.25
    assert one["anomaly_map"] is one.anomaly_map
    as_dict = dict(one)
    assert list(as_dict) == list(one) == list(one.keys())
    assert len(one) == len(as_dict) == 7
    assert as_dict["path"] == "part.png"
    assert as_dict["category_name"] == "nut"
    assert "anomaly_score" in one
    assert "picture" not in one


def test_an_unknown_name_is_a_key_error_that_lists_the_known():
    with pytest.raises(KeyError, match="score; known are path, category_name, anomaly_score, anomaly_map"):
        result()["score"]
    with pytest.raises(KeyError):
        result()["__class__"]
    with pytest.raises(KeyError, match="a single picture has a single result: leave the index out"):
        result()[0]


def test_it_cannot_be_changed():
    with pytest.raises(dataclasses.FrozenInstanceError):
        result().anomaly_score = 1.0


def test_results_are_compared_and_kept_in_sets_by_identity():
    """Comparing arrays for truth would raise."""
    one, other = result(), result()
    assert one in [other, one]
    assert one != other
    assert len({one, other}) == 2


def test_an_error_has_no_score_and_no_map():
    one = failed()
    assert one.anomaly_score is one.anomaly_map is one.size_wh is None
    assert str(one["error"]) == "part.png: an empty file"


def test_it_survives_copying_and_pickling():
    for twin in (pickle.loads(pickle.dumps(result())), copy.deepcopy(result())):
        np.testing.assert_array_equal(twin.anomaly_map, result().anomaly_map)
    again = pickle.loads(pickle.dumps(failed()))
    assert (again.error.path, again.error.reason) == ("part.png", "an empty file")


@pytest.mark.parametrize(
    "changes",
    [
        {"anomaly_score": None},
        {"error": PictureError("part.png", "bad")},
        {"tile_boxes": ()},
        {"tile_boxes": (*WHOLE, *WHOLE)},
    ],
)
def test_contradictions_are_refused(changes):
    with pytest.raises(ValueError, match=r"part\.png: "):
        result(**changes)


def test_neither_score_nor_error():
    with pytest.raises(ValueError, match="either a score or an error"):
        Result("part.png", "nut")


def test_the_map_has_the_pictures_size():
    anomaly_map = result().anomaly_map
    assert (anomaly_map.shape, anomaly_map.dtype) == ((8, 12), np.float32)


def test_the_map_is_upsampled_bilinearly_between_patch_centres():
    """By hand: 2 patches over 8 pixels have their centres at 1.5 and 5.5; beyond them the value stays."""
    row = result(tile_maps=np.array([[[0.0, 1.0]]], np.float32), tile_boxes=((0, 0, 8, 1),), size_wh=(8, 1)).anomaly_map
    np.testing.assert_allclose(row, [[0, 0, 0.125, 0.375, 0.625, 0.875, 1, 1]], atol=1e-7)


def test_overlapping_tiles_are_averaged():
    boxes = ((0, 0, 4, 4), (2, 0, 6, 4))
    maps = np.stack([np.full((2, 2), 0.2), np.full((2, 2), 0.6)]).astype(np.float32)
    anomaly_map = result(tile_maps=maps, tile_boxes=boxes, size_wh=(6, 4)).anomaly_map
    np.testing.assert_allclose(anomaly_map, np.tile([0.2, 0.2, 0.4, 0.4, 0.6, 0.6], (4, 1)), atol=1e-7)


def test_the_map_is_made_once():
    one = result()
    assert one.anomaly_map is one.anomaly_map
