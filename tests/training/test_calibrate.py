"""Calibration of the few-shot scores, and the arithmetic of the model card's figures."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks.bundled_model import RealSet, local_deviation, subset_aurocs, table
from training import calibrate
from winspect.backbones.bundled import load_tiny
from winspect.backbones.image_tower import ImageTower
from winspect.methods.winclip.fusion import FusionSettings
from winspect.weights.configs import BUNDLED_FOLDER as PACKAGED


def testlogistic_of_two_bells_is_known() -> None:
    # For N(1, 1) against N(-1, 1), equally many, the log odds at x are 2x; moved by 3, they are 2 (x - 3).
    generator = torch.Generator().manual_seed(0)
    good, bad = torch.randn(40_000, generator=generator) + 2, torch.randn(4_000, generator=generator) + 4
    values, labels = torch.cat([good, bad]), torch.arange(44_000) >= 40_000
    scale, centre = calibrate.logistic(values, labels)
    assert scale == pytest.approx(2, rel=0.05)
    assert centre == pytest.approx(3, abs=0.05)


@pytest.fixture(scope="module")
def products() -> list[calibrate.Scored]:
    tower = ImageTower(load_tiny(PACKAGED).visual).eval()
    text = torch.randn(2, 128, generator=torch.Generator().manual_seed(1))
    return [calibrate.score_product(tower, text, 0.07, number, FusionSettings()) for number in range(2)]


def test_a_product_is_scored_by_every_method(products: list[calibrate.Scored]) -> None:
    assert products[0].images["log fusion"][4].shape == (calibrate.GOOD_TESTED + 2,)
    assert products[0].good_maps[1].shape == (calibrate.GOOD_TESTED + 1, 225)
    found = calibrate.figures(products)
    assert set(found) == {"zero-shot", "baseline: local deviation", "log fusion", "baseline: stem features"}
    assert set(found["log fusion"]) == {"1", "2", "4"}
    assert all(0 <= value <= 1 for by_shots in found.values() for values in by_shots.values() for value in values)


def test_fitted_scores_do_not_depend_on_the_number_of_references(products: list[calibrate.Scored]) -> None:
    settings = calibrate.fit(products, FusionSettings(stem=1.25))
    assert settings == replace(
        settings, stem=1.25, patch=FusionSettings().patch, window=FusionSettings().window, look=FusionSettings().look
    )
    good = {shots: torch.stack([one.images["log fusion"][shots][:-1] for one in products]).mean() for shots in (1, 4)}
    assert float(good[1]) == pytest.approx(float(good[4]) + settings.more_references * math.log2(4), abs=2e-3)


def test_subsets_and_left_out_references() -> None:
    pictures = RealSet(
        "pins",
        "pin",
        [Path(str(number)) for number in range(5)],
        np.array([False, False, False, True, True]),
        {"all": np.ones(5, bool), "long": np.array([True, True, True, True, False])},
    )
    scores = np.array([0.1, 0.9, 0.3, 0.5, 0.2])
    # Good 0.1, 0.9, 0.3; defective 0.5 wins two of three, 0.2 one of three.
    assert subset_aurocs(scores, pictures) == {"all": pytest.approx(0.5), "long": pytest.approx(2 / 3)}
    # Without the picture scored 0.9: two of two, and one of two.
    assert subset_aurocs(scores, pictures, [1]) == {"all": pytest.approx(0.75), "long": pytest.approx(1.0)}


def test_table_gives_deviations_for_draws_alone() -> None:
    figures = {
        "pictures": 5,
        "defective": 2,
        "image_auroc": {"zero-shot": {"0": {"all": [0.5, 0.0]}}, "log fusion": {"4": {"all": [0.75, 0.01]}}},
    }
    assert table("pins", figures).splitlines() == [
        "**pins**: 5 pictures, 2 defective",
        "",
        "| method | references | all |",
        "|---|---|---|",
        "| zero-shot | 0 | 0.500 |",
        "| log fusion | 4 | 0.750 ± 0.010 |",
    ]


def test_local_deviation_finds_the_odd_picture() -> None:
    stem = torch.zeros(2, 16, 3)
    stem[1, 10] = 2
    found = local_deviation(stem)
    assert found[0] < found[1]
    assert found[1].item() == pytest.approx(2)
