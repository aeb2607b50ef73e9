"""Log fusion: every part by hand on a few vectors, and a slow plain twin of the whole on random ones."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.nn.functional import normalize

from winspect.backbones.embeddings import LAST, STEM, Embeddings
from winspect.methods.method import References
from winspect.methods.winclip.fusion import (
    FusionSettings,
    crowding,
    log_fusion,
    look,
    look_distance,
    stem_distance,
)
from winspect.methods.winclip.log import Log
from winspect.methods.winclip.recipes import RECIPES

GRID = (4, 4)
LOG = Log(RECIPES["log"])
SETTINGS = FusionSettings(
    stem=1.5,
    patch=0.7,
    window=0.6,
    zero_shot=0.2,
    image_zero_shot=0.3,
    look=0.4,
    crowding=0.5,
    image_centre=-0.2,
    map_centre=0.1,
    image_scale=0.9,
    map_scale=1.1,
    more_references=0.25,
)


def random_embeddings(batch: int, seed: int) -> Embeddings:
    generator = torch.Generator().manual_seed(seed)
    shape = (batch, *GRID)
    return Embeddings(
        image=torch.randn(batch, 5, generator=generator),
        patches={
            LAST: torch.randn(*shape, 6, generator=generator),
            STEM: torch.randn(*shape, 7, generator=generator),
        },
        windows={2: torch.randn(batch, 9, 5, generator=generator), 3: torch.randn(batch, 4, 5, generator=generator)},
        grid_hw=GRID,
    )


def crowding_in_one_matrix(stem: Tensor) -> Tensor:
    """All pairs of patches at once, as the formula has it."""
    samples, patches, channels = stem.shape
    flat = stem.reshape(-1, channels)
    spot = torch.arange(samples * patches)
    sample, row, column = spot // patches, spot % patches // GRID[1], spot % GRID[1]
    near = (row[:, None] - row).abs().le(1) & (column[:, None] - column).abs().le(1)
    apart = torch.cdist(flat, flat, compute_mode="donot_use_mm_for_euclid_dist") / channels**0.5
    apart[near & (sample[:, None] == sample)] = torch.inf
    return apart.topk(3, largest=False).values.mean(1).clip(min=0.1)


def slow_crowding(stem: Tensor) -> Tensor:
    samples, patches, _ = stem.shape
    found = []
    for sample in range(samples):
        for patch in range(patches):
            row, column = divmod(patch, GRID[1])
            distances = []
            for other_sample in range(samples):
                for other in range(patches):
                    other_row, other_column = divmod(other, GRID[1])
                    near = abs(row - other_row) <= 1 and abs(column - other_column) <= 1
                    if other_sample != sample or not near:
                        difference = stem[sample, patch] - stem[other_sample, other]
                        distances.append(float((difference**2).mean() ** 0.5))
            found.append(max(sum(sorted(distances)[:3]) / 3, 0.1))
    return torch.tensor(found)


def slow_window_map(windows: Tensor, good: Tensor, scale: int) -> list[float]:
    """Each patch's harmonic mean of the associations of the windows that cover it."""
    side = GRID[0] - scale + 1
    own = [(1 - max(float(normalize(each, dim=0) @ normalize(other, dim=0)) for other in good)) / 2 for each in windows]
    found = []
    for patch in range(GRID[0] * GRID[1]):
        row, column = divmod(patch, GRID[1])
        covering = [
            own[top * side + left]
            for top in range(side)
            for left in range(side)
            if top <= row < top + scale and left <= column < left + scale
        ]
        found.append(len(covering) / sum(1 / each for each in covering))
    return found


def slow_log_fusion(
    embeddings: Embeddings, image_scores: Tensor, maps: Tensor, references: Embeddings, settings: FusionSettings
) -> tuple[Tensor, Tensor]:
    """The formula of the module's docstring, one patch and one reference at a time, in float64."""
    good_stem, good_patches = (references.patches[layer].flatten(0, 2) for layer in (STEM, LAST))
    alone = slow_crowding(references.vectors(STEM))
    doublings = settings.more_references * math.log2(len(references.image))
    images, found = [], torch.zeros(len(maps), GRID[0] * GRID[1])
    for number in range(len(maps)):
        sums = []
        window_maps = [
            slow_window_map(windows[number], references.windows[scale].flatten(0, 1), scale)
            for scale, windows in embeddings.windows.items()
        ]
        for patch in range(GRID[0] * GRID[1]):
            query, token = embeddings.vectors(STEM)[number, patch], embeddings.vectors(LAST)[number, patch]
            stem = min(
                math.log(float(((query - other) ** 2).mean() ** 0.5)) - settings.crowding * math.log(float(own))
                for other, own in zip(good_stem, alone, strict=True)
            )
            nearest = max(float(normalize(token, dim=0) @ normalize(other, dim=0)) for other in good_patches)
            score = float(maps[number].flatten()[patch])
            total = settings.stem * stem + settings.patch * math.log((1 - nearest) / 2)
            total += settings.window * sum(math.log(window_map[patch]) for window_map in window_maps)
            sums.append(total + settings.zero_shot * math.log(score / (1 - score)))
            centred = settings.map_scale * (sums[-1] + doublings - settings.map_centre)
            found[number, patch] = 1 / (1 + math.exp(-centred))
        own_look = torch.cat(
            [embeddings.vectors(STEM)[number].mean(dim=0), embeddings.vectors(STEM)[number].std(dim=0)]
        )
        looks = [torch.cat([each.mean(dim=0), each.std(dim=0)]) for each in references.vectors(STEM)]
        away = min(float(((own_look - other) ** 2).mean() ** 0.5) for other in looks)
        zero = float(image_scores[number])
        image = max(sums) + settings.image_zero_shot * math.log(zero / (1 - zero)) + settings.look * math.log(away)
        images.append(1 / (1 + math.exp(-settings.image_scale * (image + doublings - settings.image_centre))))
    return torch.tensor(images), found.reshape(maps.shape)


@pytest.mark.parametrize("shots", [1, 3])
def test_log_fusion_equals_its_slow_twin(shots: int) -> None:
    queries, references = random_embeddings(2, 0), random_embeddings(shots, 1)
    generator = torch.Generator().manual_seed(2)
    image_scores, maps = torch.rand(2, generator=generator), torch.rand(2, *GRID, generator=generator)
    good = LOG.fit([references.rows(number, number + 1) for number in range(shots)])
    assert len(good["looks"]) == shots
    images, found = log_fusion(queries, image_scores, maps, good, SETTINGS)
    wanted_images, wanted = slow_log_fusion(queries, image_scores, maps, references, SETTINGS)
    assert images.shape == (2,)
    torch.testing.assert_close(images, wanted_images.float(), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(found, wanted.float(), rtol=1e-4, atol=1e-5)


def test_crowding_leaves_out_the_neighbourhood() -> None:
    # One channel on a 4 x 4 grid: the corner patch has twelve patches that are not its neighbours.
    stem = torch.arange(16.0).reshape(1, 16, 1)
    # From patch 0, numbers 1, 4, 5 are neighbours; the nearest others are 2, 3 and 6.
    assert crowding(stem)[0].item() == pytest.approx((2 + 3 + 6) / 3)
    stem = random_embeddings(2, 3).vectors(STEM)
    torch.testing.assert_close(crowding(stem), slow_crowding(stem))
    assert (crowding(torch.zeros(1, 16, 2)) == 0.1).all()


def test_stem_distance_by_hand() -> None:
    good = References({"stem": torch.tensor([[0.0, 0.0], [3.0, 3.0]]), "crowding": torch.tensor([4.0, 1.0])})
    query = torch.tensor([[[2.0, 2.0]]])
    # Two from the first, one from the second; but the first stands alone, which allows for half of log 4.
    assert stem_distance(query, good, 0.0).item() == pytest.approx(0.0)
    assert stem_distance(query, good, 0.5).item() == pytest.approx(min(math.log(2) - math.log(2), 0.0), abs=1e-6)
    assert stem_distance(query, good, 1.0).item() == pytest.approx(math.log(2) - math.log(4))


def test_look_by_hand() -> None:
    stem = torch.tensor([[[1.0], [3.0]]])
    torch.testing.assert_close(look(stem), torch.tensor([[2.0, 2**0.5]]))
    looks = torch.tensor([[2.0, 2**0.5 - 1], [9.0, 9.0]])
    good = References({"looks": looks})
    assert look_distance(stem, good).item() == pytest.approx(0.5**0.5)


def test_a_reference_itself_scores_lowest_and_everything_is_finite() -> None:
    references = random_embeddings(1, 4)
    good = LOG.fit([references])
    both = Embeddings.concatenate([references, random_embeddings(1, 5)])
    # Scores of exactly 0 and 1 come from a saturated softmax.
    scores, maps = log_fusion(both, torch.tensor([0.0, 1.0]), torch.zeros(2, *GRID), good, FusionSettings())
    assert scores.isfinite().all() and maps.isfinite().all()
    assert scores[0] < scores[1]
    assert ((scores >= 0) & (scores <= 1)).all() and ((maps >= 0) & (maps <= 1)).all()


def test_a_farther_patch_never_scores_lower() -> None:
    references = random_embeddings(2, 6)
    good = LOG.fit([references])
    found = []
    for step in (0.0, 0.5, 1.0, 4.0):
        stem = references.patches[STEM][:1].clone()
        stem.view(-1, stem.shape[-1])[5] += step
        queries = Embeddings(torch.zeros(1, 5), patches={LAST: references.patches[LAST][:1], STEM: stem})
        found.append(
            log_fusion(queries, torch.full((1,), 0.5), torch.full((1, *GRID), 0.5), good, SETTINGS)[1][0, 1, 1]
        )
    assert found == sorted(found)
    assert found[0] < found[-1]


@pytest.mark.parametrize("samples", [15, 16, 17, 130])
@pytest.mark.parametrize("kind", ["torch", "numpy"])
def test_crowding_of_many_samples_is_that_of_one_matrix(samples, kind):
    stem = random_embeddings(samples, samples).vectors(STEM)
    found = crowding(stem if kind == "torch" else stem.numpy())
    torch.testing.assert_close(torch.as_tensor(found), crowding_in_one_matrix(stem), rtol=0, atol=1e-6)


def test_distances_to_many_samples_are_the_same_in_pieces(monkeypatch):
    good = LOG.fit([random_embeddings(9, 1)])
    stem = random_embeddings(3, 2).vectors(STEM)
    expected = torch.cdist(stem.reshape(-1, 7), good["stem"], compute_mode="donot_use_mm_for_euclid_dist") / 7**0.5
    expected = (expected.log() - 0.5 * good["crowding"].log()).amin(1).reshape(3, -1)
    torch.testing.assert_close(stem_distance(stem, good, 0.5), expected, rtol=0, atol=1e-6)
    monkeypatch.setattr("winspect.methods.winclip.fusion._LARGEST_DISTANCE_MATRIX", 5 * len(good["stem"]))
    torch.testing.assert_close(stem_distance(stem, good, 0.5), expected, rtol=0, atol=1e-6)
