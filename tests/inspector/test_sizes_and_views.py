"""Pictures of any size and good samples in several views, by way of recipe memory on the bundled model's stem."""

from __future__ import annotations

import numpy as np
import pytest
from miniature import part

from winspect import WinCLIP
from winspect.errors import ReferencesError
from winspect.weights import TINY

GOODS = [part(number, defective=False)[0] for number in range(2)]


def memory(**settings) -> WinCLIP:
    options = {"layer": "stem_8", "size": 96, "rotations": 0, **settings}
    return WinCLIP(TINY, device="cpu", engine="torch", recipe="memory", settings=options)


def test_levels_are_those_of_the_maps_that_are_seen():
    """Of the upright view alone, blurred at the picture's size."""
    model = memory(rotations=4)
    model.reference(GOODS, "bolt")
    levels = model.good_levels("bolt")
    assert len(levels) == 2
    for number, level in enumerate(levels):
        model.reference(GOODS[1 - number], "bolt")
        assert level == pytest.approx(model.predict(GOODS[number], "bolt").anomaly_map.max(), abs=1e-6)


def test_a_method_without_zero_shot_wants_good_samples():
    model = memory()
    for call in (model.predict, lambda *given: list(model.predict_many(*given))):
        with pytest.raises(ReferencesError, match="recipe memory compares with good samples, and 'bolt' has none"):
            call("no_such.png", "bolt")


def test_pictures_of_several_shapes_score_as_each_alone():
    wide, tall = np.concatenate([GOODS[0]] * 2, axis=1), np.concatenate([GOODS[1]] * 3, axis=0)
    model = memory()
    model.reference(GOODS, "bolt")
    pictures = [GOODS[0], wide, GOODS[1], tall, wide]
    together = [result.anomaly_score for result in model.predict_many(pictures, "bolt")]
    assert together == pytest.approx([model.predict(picture, "bolt").anomaly_score for picture in pictures], abs=1e-6)
    for picture in (wide, tall):
        height, width = picture.shape[:2]
        grid = tuple(96 * side // min(height, width) // 8 for side in (height, width))
        assert model.predict(picture, "bolt").tile_maps.shape[1:] == grid


def test_a_rotated_part_is_known_by_its_views():
    side = min(GOODS[0].shape[:2])
    good = GOODS[0][:side, :side]
    turned = np.ascontiguousarray(np.rot90(good))
    upright, all_round = memory(), memory(rotations=4)
    scores = []
    for model in (upright, all_round):
        model.reference([good], "bolt")
        scores.append(model.predict(turned, "bolt").anomaly_score)
    assert scores[1] < 0.5 * scores[0]
