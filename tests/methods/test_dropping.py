"""Patches outside of a region of interest, in each method beside slow float64 oracles on what lies inside alone."""

from __future__ import annotations

import numpy as np
import pytest

from winspect.backbones.embeddings import LAST_NORM, Embeddings, block
from winspect.backbones.windows import window_indices
from winspect.methods.dropping import kept, lowest_outside, spread, upsampled, windows_inside
from winspect.methods.foreground import foreground
from winspect.methods.fused.distances import crowding as fused_crowding
from winspect.methods.memory import Memory
from winspect.methods.method import CutPicture, PictureScores
from winspect.methods.mutual.method import Mutual
from winspect.methods.subspace import Subspace
from winspect.methods.upsampling import BILINEAR
from winspect.methods.winclip.fusion import crowding, look, stem_distance
from winspect.methods.winclip.scoring import association
from winspect.pictures.inside import TileInside

RANDOM = np.random.default_rng(5)
ROWS, COLUMNS, WIDTH = 6, 5, 8


def insides(count: int) -> np.ndarray:
    """Bool (count, rows, columns), at least a third inside."""
    found = RANDOM.random((count, ROWS, COLUMNS)) < 0.5
    found[:, :2] = True
    return found


def embeddings(inside: np.ndarray, layer: str, outside: float | None = None) -> Embeddings:
    """Random vectors, their tiles as large as the grid; those outside are set where ``outside`` is given."""
    vectors = np.random.default_rng(len(inside)).normal(size=(*inside.shape, WIDTH)).astype(np.float32)
    if outside is not None:
        vectors[~inside] = outside
    image = np.random.default_rng(1).normal(size=(len(inside), 4)).astype(np.float32)
    return Embeddings(image, patches={layer: vectors}, inside=tuple(map(TileInside, inside)))


def test_kept_and_spread_undo_each_other():
    inside = insides(2)
    values = RANDOM.normal(size=inside.size)
    back = spread(kept(values, inside), inside, -1.0)
    assert np.array_equal(back.reshape(inside.shape), np.where(inside, values.reshape(inside.shape), -1))
    assert kept(values, None) is values and spread(values, None) is values


def test_memory_compares_what_lies_inside_alone():
    method = Memory(rotations=0, top_share=0.2, sigma=0)
    goods, tested = insides(2), insides(3)
    samples = [embeddings(goods[number : number + 1], LAST_NORM) for number in range(2)]
    references = method.fit(samples)
    seen = embeddings(tested, LAST_NORM)
    found = method.score(seen, [CutPicture(1)] * 3, text=np.zeros((2, 0)), references=references)
    rows = [
        sample.patches[LAST_NORM][0][inside].astype(np.float64) for sample, inside in zip(samples, goods, strict=True)
    ]
    assert len(references["memory"]) == goods.sum() and references["rows"].tolist() == [len(each) for each in rows]
    known = np.concatenate(rows)
    known /= np.linalg.norm(known, axis=1, keepdims=True)
    for number, scores in enumerate(found):
        expected = np.zeros((ROWS, COLUMNS))
        for row, column in np.argwhere(tested[number]):
            vector = seen.patches[LAST_NORM][number, row, column].astype(np.float64)
            expected[row, column] = 1 - (known @ vector).max() / np.linalg.norm(vector)
        largest = np.sort(expected[tested[number]])[::-1][: int(0.2 * tested[number].sum())]
        assert scores.tile_maps[0] == pytest.approx(expected, abs=1e-6)
        assert scores.score == pytest.approx(largest.mean(), abs=1e-6)


def test_subspace_learns_and_scores_what_lies_inside_alone():
    method = Subspace(size=ROWS, blocks=(1,), rotations=0, variance=0.5, sigma=0, top_share=0.2)
    layer = block(1)
    inside = np.ones((3, ROWS, ROWS), bool)
    inside[:, :, 4:] = False
    references = method.fit([embeddings(inside[:1], layer), embeddings(inside[1:], layer)])
    spoilt = method.fit([embeddings(inside[:1], layer, outside=9), embeddings(inside[1:], layer, outside=-7)])
    vectors = [embeddings(each, layer).patches[layer][each] for each in (inside[:1], inside[1:])]
    together = np.concatenate(vectors).astype(np.float64)
    assert references["mean"] == pytest.approx(together.mean(axis=0)) and references["count"][0] == len(together)
    for name in ("mean", "outside", "scatter"):
        assert np.array_equal(references[name], spoilt[name])
    seen = embeddings(inside, layer)
    (found, *_) = method.score(seen, [CutPicture(1)] * 3, text=np.zeros((2, 0)), references=references)
    apart = (seen.patches[layer][0].astype(np.float64) - together.mean(axis=0)) @ references["outside"]
    expected = np.where(inside[0], (apart**2).sum(axis=-1), 0)
    assert found.tile_maps[0][inside[0]] == pytest.approx(expected[inside[0]], rel=1e-4)
    largest = np.sort(expected[inside[0]])[::-1][: int(0.2 * inside[0].sum())]
    assert found.score == pytest.approx(largest.mean(), rel=1e-4)


def test_association_leaves_the_others_at_nothing():
    inside = insides(2).reshape(2, -1)
    queries, known = RANDOM.normal(size=(2, ROWS * COLUMNS, WIDTH)), RANDOM.normal(size=(7, WIDTH))
    assert np.array_equal(association(queries, known, inside), np.where(inside, association(queries, known), 0))


def test_windows_that_hold_a_patch_inside():
    inside = np.zeros((1, 4, 5), bool)
    inside[0, 1, 2] = True
    found = windows_inside(inside, 2, 1)
    for number, window in enumerate(window_indices((4, 5), 2, 1)):
        assert found[0, number] == (1 * 5 + 2 in window)
    assert windows_inside(None, 2, 1) is None


def test_the_look_is_that_of_the_patches_inside():
    inside = insides(2)
    stem = RANDOM.normal(size=(2, ROWS * COLUMNS, WIDTH))
    for number, found in enumerate(look(stem, inside)):
        rows = stem[number][inside[number].ravel()]
        assert found == pytest.approx(np.concatenate([rows.mean(axis=0), rows.std(axis=0, ddof=1)]))


def test_crowding_counts_patches_inside_alone():
    """Oracle: each distance by itself, neighbours in the own picture left out."""
    side = 5
    inside = RANDOM.random((2, side, side)) < 0.6
    stem = RANDOM.normal(size=(2, side * side, WIDTH))
    found, expected = crowding(stem, inside), []
    for sample, row, column in np.argwhere(inside):
        distances = []
        for other, other_row, other_column in np.argwhere(inside):
            if sample == other and max(abs(row - other_row), abs(column - other_column)) <= 1:
                continue
            apart = stem[sample, row * side + column] - stem[other, other_row * side + other_column]
            distances.append(np.sqrt((apart**2).mean()))
        expected.append(max(0.1, np.mean(np.sort(distances)[:3])))
    assert found == pytest.approx(np.array(expected), abs=1e-5)


def test_crowding_of_hardly_any_patches_is_a_number():
    inside = np.zeros((1, 5, 5), bool)
    inside[0, :2, :2] = True
    assert crowding(RANDOM.normal(size=(1, 25, WIDTH)), inside).tolist() == [0.1] * 4


def test_stem_distances_of_patches_inside():
    inside = insides(2)
    stem, known = RANDOM.normal(size=(2, ROWS * COLUMNS, WIDTH)), RANDOM.normal(size=(9, WIDTH))
    good = {"stem": known, "crowding": np.full(9, 0.5)}
    whole, part = stem_distance(stem, good, 0.5), stem_distance(stem, good, 0.5, inside)
    flat = inside.reshape(2, -1)
    assert part[flat] == pytest.approx(whole[flat]) and (part[~flat] == part[~flat][0]).all()


def test_crowding_of_recipe_fused_counts_patches_inside_alone():
    vectors = RANDOM.normal(size=(64, WIDTH))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    inside = RANDOM.random((8, 8)) < 0.7
    nearest = []
    for row, column in np.argwhere(inside):
        others = [
            1 - vectors[row * 8 + column] @ vectors[r * 8 + c]
            for r, c in np.argwhere(inside)
            if max(abs(r - row), abs(c - column)) > 2
        ]
        nearest.append(min(others))
    assert fused_crowding(vectors, (8, 8), inside) == pytest.approx(np.log(max(nearest)))


def test_mutual_scores_what_lies_inside_alone():
    """With patches outside dropped, and whatever they are."""
    method = Mutual(size=ROWS, blocks=(1,), neighbourhoods=(1, 3), neighbours=(), keep="fp32")
    layer, inside = block(1), np.repeat(insides(1), 5, axis=0)
    found = []
    for outside in (0.0, 50.0):
        batch = method.batch(5)
        batch.add(embeddings(inside, layer, outside))
        found.append(batch.scores())
    for first, second in zip(found[0].pictures, found[1].pictures, strict=True):
        assert first.score == second.score and np.array_equal(first.tile_maps, second.tile_maps)
        assert (first.tile_maps[0][~inside[0]] == 0).all() and (first.tile_maps[0][inside[0]] > 0).all()
    assert np.array_equal(found[0].apart, found[1].apart, equal_nan=True)


def test_mutual_with_other_patches_inside_in_each_picture():
    """Oracle for neighbourhoods of one patch: each pair of patches by itself."""
    method = Mutual(size=ROWS, blocks=(1,), neighbourhoods=(1,), neighbours=(), keep="fp32", share=0.5)
    layer, inside = block(1), insides(5)
    seen, batch = embeddings(inside, layer), method.batch(5)
    batch.add(seen)
    rows = []
    for number in range(5):
        values = seen.patches[layer][number][inside[number]].astype(np.float64)
        values = (values - values.mean()) / np.sqrt(values.var() + 1e-5)
        rows.append(values / np.linalg.norm(values, axis=1, keepdims=True))
    for number, found in enumerate(batch.scores().pictures):
        others = [rows[other] for other in range(5) if other != number]
        expected = [
            np.mean(np.sort([np.linalg.norm(other - vector, axis=1).min() for other in others])[:2])
            for vector in rows[number]
        ]
        assert found.tile_maps[0][inside[number]] == pytest.approx(np.array(expected), abs=1e-5)
        assert (found.tile_maps[0][~inside[number]] == 0).all()


def test_the_foreground_is_found_among_patches_inside():
    patches = RANDOM.normal(size=(ROWS, COLUMNS, WIDTH))
    patches[1:4, 1:4] += 40
    inside = np.ones((ROWS, COLUMNS), bool)
    inside[:, 4] = False
    other = patches.copy()
    other[:, 4] = 1e4
    assert np.array_equal(foreground(patches, inside), foreground(other, inside))
    assert not foreground(other, inside)[:, 4].any() and foreground(other, inside)[2, 2]


def test_maps_are_enlarged_from_what_lies_inside():
    maps, inside = np.full((1, 4, 4), 3.0), np.ones((1, 4, 4), bool)
    maps[0, :, 2:], inside[0, :, 2:] = 1e6, False
    found = upsampled(maps, inside, BILINEAR, (8, 8))
    assert found[0, :, :4] == pytest.approx(np.full((8, 4), 3.0)) and found[0, 0, 7] == 0


def test_maps_have_the_lowest_value_outside():
    inside = insides(3)
    scores = [PictureScores(0.5, RANDOM.random((count, ROWS, COLUMNS), np.float32)) for count in (1, 2)]
    seen = embeddings(inside, LAST_NORM)
    found = lowest_outside(scores, seen, [CutPicture(1), CutPicture(2)], 0.25)
    together = np.concatenate([each.tile_maps for each in found])
    assert np.array_equal(
        together, np.where(inside, np.concatenate([each.tile_maps for each in scores]), np.float32(0.25))
    )
