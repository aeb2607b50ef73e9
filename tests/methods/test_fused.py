"""Recipe ``fused`` against a slow float64 twin that is written from the formulas of its page."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from winspect.backbones.embeddings import LAST, STEM, STEM_8, STEM_16, WHOLE, Embeddings
from winspect.backbones.resizing import bicubic_weights
from winspect.errors import ReferencesError, SettingsError
from winspect.methods.fused.distances import SMALLEST, crowding, largest_log, memory_of, nearest
from winspect.methods.fused.method import PARTS, Fused, FusedSettings
from winspect.methods.fused.standard import Prior, centre_and_scale
from winspect.methods.method import CutPicture, References
from winspect.methods.registry import get_method
from winspect.methods.winclip.recipes import RECIPES
from winspect.system.arrays import normalize, to_numpy

PRIOR = Prior(mean=0.3, crowding=0.5, doubling=0.1, spread=0.2, strength=0.7, freedom=3.0)
FITTED = FusedSettings(fine=PRIOR, coarse=PRIOR, trained=PRIOR, look=PRIOR, image_scale=0.5, map_scale=0.1)


def made(count: int, seed: int = 0) -> Embeddings:
    random = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=random)

    return Embeddings(
        image=normal(count, 6),
        windows={2: normal(count, 16, 6), 3: normal(count, 9, 6)},
        patches={
            LAST: normal(count, 5, 5, 8),
            STEM: normal(count, 5, 5, 12),
            STEM_8: normal(count, 12, 12, 5),
            STEM_16: normal(count, 6, 6, 7),
        },
        grid_hw=(5, 5),
    )


def rows_of(everything: Embeddings, count: int) -> list[Embeddings]:
    return [everything.rows(number, number + 1) for number in range(count)]


def slow_nearest(picture: np.ndarray, goods: list[np.ndarray]) -> np.ndarray:
    width = picture.shape[-1]
    return np.array(
        [
            min(
                1 - (q * r).sum() / math.sqrt((q * q).sum() * (r * r).sum())
                for good in goods
                for r in good.reshape(-1, width)
            )
            for q in picture.reshape(-1, width)
        ]
    )


def slow_top(distances: np.ndarray) -> float:
    ordered = sorted(distances, reverse=True)
    return math.log(np.mean(ordered[: max(1, int(0.005 * len(ordered)))]))


def slow_look(picture: np.ndarray, goods: list[np.ndarray]) -> float:
    def look(stem: np.ndarray) -> np.ndarray:
        flat = stem.reshape(-1, stem.shape[-1])
        return np.concatenate([flat.mean(axis=0), flat.std(axis=0, ddof=1)])

    return math.log(min(math.sqrt(((look(picture) - look(good)) ** 2).mean()) for good in goods))


def test_values_equal_a_slow_twin():
    everything, method = made(4), Fused(RECIPES["fused"], fitted=FITTED)
    known, _ = method.memories(rows_of(everything, 3))
    values = method.values(everything.rows(3, 4), known)
    fine, coarse = (everything.patches[layer].double().numpy() for layer in (STEM_8, STEM_16))
    expected = [slow_top(slow_nearest(maps[3], list(maps[:3]))) for maps in (fine, coarse)]
    np.testing.assert_allclose(values.tiles[0, [0, 1]], expected, atol=1e-5)
    np.testing.assert_allclose(values.tiles[0, 3], slow_look(fine[3], list(fine[:3])), atol=1e-5)
    flat = slow_nearest(fine[3], list(fine[:3]))
    np.testing.assert_allclose(np.exp(values.maps[0][0].numpy().ravel()), np.maximum(flat, SMALLEST), atol=1e-6)


def test_centre_and_scale_worked_by_hand():
    # m0 = 0.3 + 0.5 - 0.1 = 0.7; m = 1 - 0.1 = 0.9; k = 2.7; S = 0.02
    centre, scale = centre_and_scale(PRIOR, [0.9, 1.1], samples=2, crowding=1.0)
    assert centre == pytest.approx((0.7 * 0.7 + 2 * 0.9) / 2.7)
    squares = 3 * 0.04 + 0.02 + 0.7 * 2 / 2.7 * 0.2**2
    assert scale == pytest.approx(math.sqrt((1 + 1 / 2.7) * squares / 5))


def test_a_single_sample_is_judged_by_the_prior():
    centre, scale = centre_and_scale(PRIOR, [], samples=1, crowding=2.0)
    assert (centre, scale) == pytest.approx((1.3, 0.2 * math.sqrt(1 + 1 / 0.7)))


def test_scores_are_the_soft_maximum_of_standardised_parts():
    everything, method = made(4), Fused(RECIPES["fused"], fitted=FITTED)
    samples = rows_of(everything, 3)
    references = method.fit(samples)
    (found,) = method.score(everything.rows(3, 4), [CutPicture(1)], text=None, references=references)
    values = method.values(everything.rows(3, 4), references).tiles[0]
    left_out = []
    for number in range(3):
        others, _ = method.memories([sample for sample in samples if sample is not samples[number]])
        left_out.append(method.values(samples[number], others).tiles[0])
    crowdings = method.crowdings(samples)
    total = 0.0
    for part, name in enumerate(PARTS):
        if name == "trained":  # its good patches' crowding is that of all good samples, also where one is left out
            centre, scale = to_numpy(references["standard"])[part]
        else:
            centre, scale = centre_and_scale(
                PRIOR, [row[part] for row in left_out], samples=3, crowding=crowdings[part]
            )
        total += math.exp((values[part] - centre) / scale)
    assert found.score == pytest.approx(1 / (1 + math.exp(-0.5 * math.log(total))), abs=1e-5)
    assert found.tile_maps.shape == (1, 12, 12)
    assert 0 <= found.tile_maps.min() <= found.tile_maps.max() <= 1


def test_numpy_and_torch_agree():
    everything, method = made(4), Fused(RECIPES["fused"], fitted=FITTED)
    arrays = everything.map(to_numpy)
    scores = [
        method.score(of.rows(3, 4), [CutPicture(1)], text=None, references=method.fit(rows_of(of, 3)))[0]
        for of in (everything, arrays)
    ]
    assert scores[0].score == pytest.approx(scores[1].score, abs=1e-5)
    np.testing.assert_allclose(scores[0].tile_maps, scores[1].tile_maps, atol=1e-5)


def test_a_sample_shown_twice_says_nothing():
    everything, method = made(2), Fused(RECIPES["fused"], fitted=FITTED)
    samples = [everything.rows(0, 1), everything.rows(0, 1)]
    known, rows = method.memories(samples)
    assert len(method.left_out(samples, known, rows, [0, 1])) == 0


def turned(degrees: torch.Tensor) -> torch.Tensor:
    """Unit vectors in a plane."""
    return torch.stack([torch.cos(torch.deg2rad(degrees)), torch.sin(torch.deg2rad(degrees))], dim=1)


def test_crowding_leaves_out_the_same_spot():
    grid = turned(torch.arange(36) // 6 * 10.0)  # rows are 10 degrees apart, patches of a row are equal
    assert crowding(grid, (6, 6)) == pytest.approx(math.log(SMALLEST), abs=1e-3)  # equal ones three columns away
    column = turned(torch.arange(6) * 10.0)
    assert crowding(column, (6, 1)) == pytest.approx(math.log(1 - math.cos(math.radians(30))), abs=1e-5)


def test_many_samples_are_thinned():
    samples = [normalize(torch.randn(40, 3, generator=torch.Generator().manual_seed(n))) for n in range(5)]
    memory, rows = memory_of(samples, 50)
    assert memory.shape == (50, 3)
    assert rows.sum() == 50
    whole, all_rows = memory_of(samples, 1000)
    assert all_rows.tolist() == [40] * 5
    assert (nearest(samples[0], memory) >= nearest(samples[0], whole)).all()
    assert largest_log(nearest(samples[0], whole)) == pytest.approx(math.log(SMALLEST), abs=1e-3)


def test_vectors_that_are_no_numbers_are_refused():
    broken = made(1)
    broken.patches[STEM_8][0, 0, 0, 0] = torch.nan
    with pytest.raises(ReferencesError, match="not numbers"):
        Fused(RECIPES["fused"]).fit([broken])


def test_other_models_are_refused():
    with pytest.raises(SettingsError, match="winspect-tiny"):
        get_method("fused").for_model({}, "ViT-B-16")


def test_what_was_fitted_travels():
    method = Fused(RECIPES["fused"], fitted=FITTED)
    again = get_method("fused").for_model({**method.scoring, "temperature": 0.07}, "winspect-tiny")
    assert again.fitted == FITTED
    assert set(References(method.fit(rows_of(made(2), 2)).arrays).arrays) == method.kept


def test_zero_shot_is_the_mean_logit_of_both_sizes():
    everything, random = made(3), torch.Generator().manual_seed(1)
    text, whole = (torch.randn(*shape, generator=random) for shape in ((2, 6), (3, 1, 1, 6)))
    embeddings = replace(everything, patches={WHOLE: whole})
    method = replace(get_method("fused"), fitted=FITTED)
    found = method.score(embeddings, [CutPicture(1)] * 3, text=text)

    def cosine(a: np.ndarray, b: np.ndarray) -> float:
        return float(a @ b / math.sqrt((a @ a) * (b @ b)))

    def logit(vector: np.ndarray) -> float:
        return (cosine(vector, anomalous) - cosine(vector, normal)) / 0.07

    normal, anomalous = text.double().numpy()
    for number, scored in enumerate(found):
        vectors = (everything.image[number].double().numpy(), whole[number, 0, 0].double().numpy())
        chance = 1 / (1 + math.exp(-sum(map(logit, vectors)) / 2))
        assert scored.score == pytest.approx(chance, abs=1e-5)
        # The corner patch lies in the first window of either scale alone.
        corner = [
            chance,
            *(1 / (1 + math.exp(-logit(w[number, 0].double().numpy()))) for w in everything.windows.values()),
        ]
        assert scored.tile_maps[0, 0, 0] == pytest.approx(3 / sum(1 / value for value in corner), abs=1e-5)


def test_zero_shot_sees_the_larger_picture_by_its_class_token_alone():
    assert get_method("fused").needs(few_shot=False, maps=True).layers == (WHOLE,)
    assert WHOLE not in get_method("fused").needs(few_shot=True, maps=True).layers


@pytest.mark.parametrize(("length", "count"), [(448, 240), (7, 3), (3, 7)])
def test_bicubic_weights_are_pillows(length, count):
    from PIL import Image

    column = np.random.default_rng(0).uniform(0, 1, (length, 4)).astype(np.float32)
    resized = Image.fromarray(column).resize((4, count), Image.Resampling.BICUBIC)
    np.testing.assert_allclose(bicubic_weights(length, count) @ column, np.asarray(resized), atol=1e-5)
