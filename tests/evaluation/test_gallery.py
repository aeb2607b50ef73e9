"""The gallery of an evaluation: which pictures, their maps, and the outline of the ground truth."""

from __future__ import annotations

import io
from base64 import b64decode
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from winspect.datasets import Item
from winspect.errors import ReferencesError
from winspect.evaluation.gallery import View, choose, draw_outline, make_gallery, read_maps, score_again
from winspect.pictures.decoding import read_rgb
from winspect.pictures.heatmaps import annotated_overlay

GREY = np.full((60, 80, 3), 128, np.uint8)


def row(path, score, label="normal"):
    return {"path": path, "label": label, "defect_type": "good" if label == "normal" else "hole", "score": score}


ROWS = [
    row("n1", 0.1),
    row("n2", 0.4),
    row("n3", 0.9),
    row("failed", None),
    row("a1", 0.8, "anomalous"),
    row("a2", 0.4, "anomalous"),
    row("a3", 0.2, "anomalous"),
    row("failed too", None, "anomalous"),
]


def test_the_most_wrong_come_first_with_their_standing():
    misses, false_alarms = choose(ROWS, 2)
    assert [choice.row["path"] for choice in misses] == ["a3", "a2"]
    assert [choice.row["path"] for choice in false_alarms] == ["n3", "n2"]
    # a3 = 0.2: 0.9, 0.8, 0.4 and 0.4 are above it; n3 and n2 are normal and score as high.
    assert (misses[0].rank, misses[0].scored, misses[0].worse, misses[0].others) == (5, 6, 2, 3)
    # a2 = 0.4 ties with n2, and n3 is above it.
    assert (misses[1].rank, misses[1].worse) == (3, 2)
    # n2 = 0.4 ties with a2 for rank 3; a2 and a3 are defective and score as low.
    assert (false_alarms[1].rank, false_alarms[1].worse) == (3, 2)
    assert (false_alarms[0].rank, false_alarms[0].worse) == (1, 3)


def test_choosing_does_not_depend_on_the_order_of_the_rows():
    tied = [row(name, 0.5, "anomalous") for name in "dbca"]
    assert choose(tied, 3) == choose(tied[::-1], 3)
    assert [choice.row["path"] for choice in choose(tied, 3)[0]] == ["a", "b", "c"]


@pytest.mark.parametrize("rows", [[], [row("x", None)]])
def test_nothing_to_choose(rows):
    assert choose(rows, 4) == ([], [])


def changed(truth):
    return (draw_outline(GREY, truth) != GREY).any(axis=2)


def test_the_outline_goes_round_the_defect_and_hides_none_of_it():
    truth = np.zeros((60, 80), bool)
    truth[20:30, 40:55] = True
    ring = changed(truth)
    assert not ring[truth].any()
    expected = np.zeros((60, 80), bool)
    expected[18:32, 38:57] = True
    expected[20:30, 40:55] = False
    assert np.array_equal(ring, expected)
    assert (GREY == 128).all()


def test_a_defect_everywhere_is_outlined_along_the_edge():
    ring = changed(np.ones((60, 80), bool))
    assert ring[0].all()
    assert ring[:, -1].all()
    assert not ring[1:-1, 1:-1].any()


@pytest.mark.parametrize("truth", [None, np.zeros((60, 80), bool)])
def test_no_defect_no_outline(truth):
    assert draw_outline(GREY, truth) is GREY


def decoded(uri):
    assert uri.startswith("data:image/jpeg;base64,")
    return np.asarray(Image.open(io.BytesIO(b64decode(uri.partition(",")[2]))))


def one_item(folder, *, mask=None, label="anomalous"):
    path = folder / "picture.png"
    Image.fromarray(np.full((600, 800, 3), 128, np.uint8)).save(path)
    if mask is not None:
        Image.fromarray(mask.astype(np.uint8) * 255).save(folder / "mask.png")
    has_mask = folder / "mask.png" if mask is not None else None
    return Item(path, "part", "test", label, "hole" if label == "anomalous" else "good", has_mask)


def test_a_defect_of_one_pixel_survives_the_thumbnail(tmp_path):
    mask = np.zeros((600, 800), bool)
    mask[301, 403] = True
    item = one_item(tmp_path, mask=mask)
    misses, none = choose([row("p", 0.2, "anomalous")], 4)
    gallery = make_gallery(misses, none, {"p": item}, read_maps({item.path: None}))
    (shown,) = gallery.misses
    picture = decoded(shown.picture)
    assert picture.shape == (180, 240, 3)
    assert shown.outlined
    rows, columns = np.nonzero((np.abs(picture.astype(int) - 128) > 60).any(axis=2))
    assert abs(rows.mean() - 301 * 0.3) < 1.5
    assert abs(columns.mean() - 403 * 0.3) < 1.5
    assert (shown.overlay, shown.problem, gallery.score_range) == (None, None, None)


def test_a_mask_of_another_size_is_told_and_the_picture_shown(tmp_path):
    item = one_item(tmp_path, mask=np.ones((10, 10), bool))
    misses, none = choose([row("p", 0.2, "anomalous")], 4)
    (shown,) = make_gallery(misses, none, {"p": item}, read_maps({item.path: None})).misses
    assert not shown.outlined
    assert shown.picture
    assert "10x10" in shown.problem


def test_all_maps_of_a_gallery_share_one_scale(tmp_path):
    """What is 0.5 is equally warm in a map whose top is 0.5 and in one whose top is 1."""
    maps = [np.zeros((600, 800), np.float32), np.zeros((600, 800), np.float32)]
    maps[0][200:400, 200:400] = maps[1][200:400, 200:400] = 0.5
    maps[1][:200] = 1.0
    items = {}
    for name in "ab":
        (tmp_path / name).mkdir()
        items[name] = one_item(tmp_path / name)
    misses, _ = choose([row(name, 0.2, "anomalous") for name in "ab"], 4)

    def viewer(paths):
        assert paths == [items[name].path for name in "ab"]
        return (View(read_rgb(path), heat) for path, heat in zip(paths, maps, strict=True))

    gallery = make_gallery(misses, [], items, viewer, (0.25, 0.75))
    first, second = (decoded(shown.overlay).astype(int) for shown in gallery.misses)
    assert np.abs(first[90, 90] - second[90, 90]).max() <= 3
    assert np.abs(first[90, 90] - 128).max() > 30
    assert gallery.score_range == (0.25, 0.75)
    expected = annotated_overlay(
        np.full((180, 240, 3), 128, np.uint8), np.zeros((180, 240), np.float32), (0.25, 0.75), score=0.2
    )
    strip = slice(-10, None)  # score and bar, as on the overlays of a run
    assert np.abs(first[strip] - expected[strip]).mean() < 6
    assert not make_gallery([], [], {}, viewer).score_range


def test_maps_from_files(tmp_path):
    item = one_item(tmp_path)
    good, small, broken, other = (tmp_path / f"{name}.npz" for name in ("good", "small", "broken", "other"))
    np.savez_compressed(good, anomaly_map=np.ones((600, 800), np.float32))
    np.savez_compressed(small, anomaly_map=np.ones((6, 8), np.float32))
    np.savez_compressed(other, something=np.ones(3))
    broken.write_bytes(b"PK\x03\x04 no archive")
    (view,) = read_maps({item.path: good})([item.path])
    assert view.anomaly_map.shape == (600, 800)
    assert view.problem is None
    for file, problem in ((small, "another size"), (broken, "broken.npz"), (other, "cannot be read")):
        (view,) = read_maps({item.path: file})([item.path])
        assert view.rgb is not None
        assert view.anomaly_map is None
        assert problem in view.problem
    (view,) = read_maps({tmp_path / "gone.png": None})([tmp_path / "gone.png"])
    assert view.rgb is None
    assert "gone.png" in view.problem


@pytest.mark.parametrize("shots", [0, 2])
def test_scoring_again_gives_the_maps_of_the_evaluation(small_model, textile, shots, tmp_path):
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no picture")
    references, paths = textile[-shots:] if shots else [], [textile[0], broken, textile[1]]
    first, second, third = score_again(small_model, "textile", references)(paths)
    assert second.rgb is None
    assert "broken.png" in second.problem
    if shots:
        small_model.reference(references, "textile")
    for path, view in ((textile[0], first), (textile[1], third)):
        expected = small_model.predict(path, "textile").anomaly_map
        np.testing.assert_allclose(view.anomaly_map, expected, atol=1e-5)
        np.testing.assert_array_equal(view.rgb, read_rgb(path))
    small_model.forget("textile")


def test_scoring_again_starts_and_ends_without_references(small_model, textile):
    plain = small_model.predict(textile[0], "textile").anomaly_map
    small_model.reference(textile[-1], "textile")
    (view,) = score_again(small_model, "textile", [])([textile[0]])
    np.testing.assert_allclose(view.anomaly_map, plain, atol=1e-6)
    np.testing.assert_allclose(small_model.predict(textile[0], "textile").anomaly_map, plain, atol=1e-6)


def test_a_reference_that_is_gone(small_model, textile):
    with pytest.raises(ReferencesError, match=r"gone\.png"):
        list(score_again(small_model, "textile", [Path("gone.png")])([textile[0]]))


def test_a_picture_the_data_set_no_longer_has():
    misses, none = choose([row("gone", 0.2, "anomalous")], 4)
    (shown,) = make_gallery(misses, none, {}, read_maps({})).misses
    assert shown.picture is None
    assert "no longer" in shown.problem


def test_a_picture_that_cannot_be_read(tmp_path):
    item = Item(tmp_path / "gone.png", "part", "test", "anomalous", "hole", None)
    misses, none = choose([row("p", 0.2, "anomalous")], 4)
    (shown,) = make_gallery(misses, none, {"p": item}, read_maps({item.path: None})).misses
    assert (shown.picture, shown.overlay) == (None, None)
    assert "gone.png" in shown.problem
