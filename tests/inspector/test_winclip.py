"""The predictor as a program uses it: one picture, streams, references, classes; what it refuses, and what it says.

Its numbers are held to the slow oracle in test_oracle.py.
"""

from __future__ import annotations

import gc
import itertools
import logging
import os
import pickle
import subprocess
import sys
import threading
import time
import weakref

import numpy as np
import pytest
import torch
from checkpoints import SMALL, save_checkpoint
from PIL import Image

from winspect import ConstantMapWarning, PromptEnsemble, Recipe, WinCLIP
from winspect.backbones import text_tower
from winspect.errors import (
    ClassNameError,
    DeviceError,
    EngineError,
    PictureError,
    PrecisionError,
    ReferencesError,
    SettingsError,
    WeightsCorruptError,
    WeightsMissingError,
)
from winspect.inspector.class_state import ClassState
from winspect.methods.method import References
from winspect.pictures.fingerprints import Fingerprint
from winspect.pictures.pool import LIVE_S
from winspect.system.machine import cpu_features

native_bf16 = pytest.mark.skipif(not cpu_features().native_bf16, reason="this CPU has no bf16")


def part(seed: int, height: int = 70, width: int = 90) -> np.ndarray:
    """A picture of noise with a bright spot, uint8 (height, width, 3)."""
    random = np.random.default_rng(seed)
    pixels = random.integers(60, 160, (height, width, 3), dtype=np.uint8)
    row, column = random.integers(0, height - 20, 2)
    pixels[row : row + 20, column : column + 20] = 230
    return pixels


@pytest.fixture(scope="module")
def pictures() -> list[np.ndarray]:
    return [part(seed) for seed in range(7)]


@pytest.fixture(scope="module")
def scores(small_model, pictures) -> list[float]:
    """Each picture judged alone."""
    return [small_model.predict(picture).anomaly_score for picture in pictures]


@pytest.fixture
def new_model(small_checkpoint):
    """A predictor of one's own: references and settings do not reach other tests."""

    def build(**options) -> WinCLIP:
        return WinCLIP(SMALL, weights=small_checkpoint, device="cpu", **options)

    return build


def scores_of(results) -> list[float]:
    return [result.anomaly_score for result in results]


# One picture


def test_the_call_that_programs_rely_on(textile):
    model = WinCLIP("winspect-tiny", device="cpu", recipe="paper")
    results = model.predict(str(textile[0]), category_name="textile")
    assert type(results["anomaly_score"]) is float
    assert results["anomaly_score"] == results.anomaly_score
    assert 0 <= results.anomaly_score <= 1
    with Image.open(textile[0]) as picture:
        assert results.anomaly_map.shape == picture.size[::-1]
    assert results.anomaly_map.dtype == np.float32
    assert results.path == str(textile[0])
    assert results.category_name == "textile"
    assert results.error is None


def test_a_file_an_array_and_an_image_are_the_same_picture(small_model, tmp_path):
    rgb = part(1)
    Image.fromarray(rgb).save(tmp_path / "part.png")
    sources = [tmp_path / "part.png", str(tmp_path / "part.png"), rgb, Image.fromarray(rgb)]
    assert len({small_model.predict(source).anomaly_score for source in sources}) == 1


def test_predict_raises_where_a_stream_would_go_on(small_model, tmp_path):
    (tmp_path / "empty.png").touch()
    with pytest.raises(PictureError, match=r"empty\.png: .*0 bytes"):
        small_model.predict(tmp_path / "empty.png")


def test_the_picture_is_kept_only_on_request(small_model):
    rgb = part(2)
    assert small_model.predict(rgb).picture_rgb is None
    np.testing.assert_array_equal(small_model.predict(rgb, keep_picture=True).picture_rgb, rgb)
    (kept,) = small_model.predict_many([rgb], keep_pictures=True)
    np.testing.assert_array_equal(kept.picture_rgb, rgb)


@pytest.mark.parametrize(("height", "width"), [(40, 200), (200, 40), (64, 64)])
def test_tiles_cover_the_picture(new_model, height, width):
    result = new_model(recipe="tiles").predict(part(3, height, width))
    covered = np.zeros((height, width), bool)
    for x0, y0, x1, y1 in result.tile_boxes:
        covered[y0:y1, x0:x1] = True
    assert covered.all()
    assert len(result.tile_boxes) == (1 if height == width else 6)
    assert result.anomaly_map.shape == (height, width)
    assert np.isfinite(result.anomaly_map).all()


def test_a_square_picture_is_one_tile_of_either_cut(new_model):
    square = part(4, 64, 64)
    tiled = new_model(recipe="tiles").predict(square)
    whole = new_model(recipe="tiles", settings={"tiling": False}).predict(square)
    assert tiled.anomaly_score == whole.anomaly_score
    np.testing.assert_array_equal(tiled.anomaly_map, whole.anomaly_map)


@pytest.mark.parametrize("name", ["", "   ", "{x}", "x" * 500, "a\nb", 7])
def test_class_names_that_fit_no_prompt(small_model, name):
    for call in (small_model.predict, small_model.predict_many, small_model.reference):
        with pytest.raises(ClassNameError):
            call([part(0)] if call != small_model.predict else part(0), name)
    with pytest.raises(ClassNameError):
        small_model.forget(name)


# Streams


def test_a_stream_gives_what_each_picture_gives_alone(small_model, pictures, scores):
    np.testing.assert_allclose(scores_of(small_model.predict_many(pictures)), scores, rtol=0, atol=1e-6)


@pytest.mark.parametrize("batch_size", [1, 2, 3, 50])
@pytest.mark.parametrize("workers", [1, 4])
def test_batch_size_and_workers_change_nothing(new_model, pictures, scores, batch_size, workers):
    model = new_model(batch_size=batch_size, workers=workers)
    results = list(model.predict_many(pictures))
    np.testing.assert_allclose(scores_of(results), scores, rtol=0, atol=1e-6)


def test_tiles_of_several_pictures_share_batches_and_stay_apart(new_model):
    shapes = [(40, 90), (90, 40), (50, 50), (40, 120)]
    parts = [part(seed, *shape) for seed, shape in enumerate(shapes)]
    model = new_model(recipe="tiles", batch_size=5)
    alone = [model.predict(picture) for picture in parts]
    for together, single in zip(model.predict_many(parts), alone, strict=True):
        assert together.anomaly_score == pytest.approx(single.anomaly_score, abs=1e-6)
        np.testing.assert_allclose(together.anomaly_map, single.anomaly_map, rtol=0, atol=1e-6)


@pytest.mark.parametrize("batch_size", [1, 3])
def test_bad_pictures_keep_their_places(new_model, pictures, scores, tmp_path, batch_size):
    bad = [tmp_path / name for name in ("first.png", "second.png", "last.png")]
    sources = [bad[0], *pictures[:3], bad[1], bad[1], *pictures[3:], bad[2]]
    results = list(new_model(batch_size=batch_size).predict_many(sources))
    assert [result.path for result in results if result.error] == [str(bad[n]) for n in (0, 1, 1, 2)]
    assert [result.error is not None for result in results] == [source in bad for source in map(_as_path, sources)]
    good = scores_of(result for result in results if result.error is None)
    np.testing.assert_allclose(good, scores, rtol=0, atol=1e-6)
    for result in results:
        if result.error:
            assert result.anomaly_score is result.anomaly_map is None
            assert "no such file" in str(result.error)


def _as_path(source):
    return source if isinstance(source, os.PathLike) else None


def test_no_pictures_give_no_results(small_model):
    assert list(small_model.predict_many([])) == []


def test_only_bad_pictures(small_model, tmp_path):
    results = list(small_model.predict_many([tmp_path / "a.png", tmp_path / "b.png"]))
    assert [type(result.error) for result in results] == [PictureError] * 2


def test_a_stream_reads_only_a_bounded_way_ahead(new_model):
    """Endless input: memory stays constant only if the look-ahead does."""
    taken = itertools.count()
    last = 0

    def endless():
        nonlocal last
        while True:
            last = next(taken) + 1
            yield part(last % 3)

    results = new_model(batch_size=2, workers=1).predict_many(endless())
    assert last == 0  # nothing is read before the first result is asked for
    for given in range(1, 30):
        next(results)
        assert last <= given + 2 + 4  # a batch of 2, and two pictures waiting for each worker and in the works
    results.close()


def test_each_result_of_a_live_source_comes_before_its_next_picture(new_model):
    """Before: after three or four more, as many as a pass takes."""
    model, taken = new_model(batch_size=4), []

    def camera():
        for number in range(5):
            time.sleep(2 * LIVE_S)
            taken.append(number)
            yield np.full((40, 40, 3), 40 * number, np.uint8)

    for number, result in enumerate(model.predict_many(camera())):
        assert result.error is None
        assert len(taken) == number + 1


def test_an_endless_stream_of_bad_pictures_is_bounded_too(new_model, tmp_path):
    taken = 0

    def endless():
        nonlocal taken
        yield part(0)
        while taken < 5000:
            taken += 1
            yield tmp_path / "gone.png"

    results = new_model(batch_size=4, workers=1).predict_many(endless())
    assert next(results).error is None
    assert taken < 20
    results.close()


def test_leaving_a_stream_early_stops_its_threads(new_model, pictures):
    model = new_model(batch_size=1)
    for _ in model.predict_many(pictures):
        break
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("winspect-pictures")]


def test_a_stream_of_one_path_is_that_picture(small_model):
    (result,) = small_model.predict_many("part.png")
    assert result.path == "part.png" and "no such file" in str(result.error)


def test_a_class_name_is_refused_before_any_picture_is_read(small_model):
    def pictures():
        raise AssertionError("read")
        yield

    with pytest.raises(ClassNameError):
        small_model.predict_many(pictures(), "{}")


# Classes and references


def test_each_class_has_its_own_prompts(small_model):
    rgb = part(5)
    candle, nut = (small_model.predict(rgb, name).anomaly_score for name in ("candle", "metal nut"))
    assert candle != nut
    assert small_model.predict(rgb, "candle").anomaly_score == candle
    assert small_model.predict(rgb, "metal_nut").anomaly_score == nut


def test_references_belong_to_their_class(new_model):
    model, rgb = new_model(), part(6)
    before = {name: model.predict(rgb, name).anomaly_score for name in ("candle", "metal_nut", "object")}
    assert model.reference([part(1), part(2)], "metal_nut") == 2
    after = {name: model.predict(rgb, name).anomaly_score for name in before}
    assert after["candle"] == before["candle"]
    assert after["object"] == before["object"]
    assert after["metal_nut"] != before["metal_nut"]
    assert model.predict(rgb, "metal nut").anomaly_score == after["metal_nut"]
    model.forget("metal nut")
    assert model.predict(rgb, "metal_nut").anomaly_score == before["metal_nut"]
    model.forget("metal nut")  # nothing to forget is no error


def test_what_was_shown_as_good_is_less_anomalous(new_model):
    model, good, other = new_model(), part(1), part(2)
    zero_shot = model.predict(good)
    model.reference([good])
    known, unknown = model.predict(good), model.predict(other)
    # Seen before: the association is 0, so that half of the zero-shot score is left (the method's equation 6).
    assert known.anomaly_score == pytest.approx(zero_shot.anomaly_score / 2, abs=1e-4)
    assert unknown.anomaly_map.max() > known.anomaly_map.max()


def test_showing_again_replaces(new_model):
    model, rgb = new_model(), part(6)
    model.reference([part(1)])
    first = model.predict(rgb).anomaly_score
    model.reference([part(2)])
    assert model.predict(rgb).anomaly_score != first
    model.reference([part(1)])
    assert model.predict(rgb).anomaly_score == first


def test_shots_are_the_first_ones(new_model):
    model, rgb = new_model(), part(6)
    assert model.reference([part(1), part(2), part(3)], shots=2) == 2
    two = model.predict(rgb).anomaly_score
    model.reference([part(1), part(2)])
    assert model.predict(rgb).anomaly_score == two


def test_a_reference_may_be_one_picture(new_model, tmp_path):
    model, rgb = new_model(), part(1)
    Image.fromarray(rgb).save(tmp_path / "good.png")
    model.reference([rgb])
    expected = model.predict(part(6)).anomaly_score
    for single in (tmp_path / "good.png", str(tmp_path / "good.png"), rgb, Image.fromarray(rgb)):
        assert model.reference(single) == 1
        assert model.predict(part(6)).anomaly_score == expected


def test_references_may_come_from_a_generator(new_model):
    assert new_model().reference(part(seed) for seed in range(2)) == 2


@pytest.mark.parametrize(("count", "shots"), [(0, None), (2, 3), (2, 0), (2, -1)])
def test_fewer_references_than_asked(new_model, count, shots):
    model = new_model()
    with pytest.raises(ReferencesError, match=rf"asked for {1 if shots is None else shots} .*found {count}"):
        model.reference([part(seed) for seed in range(count)], "candle", shots=shots)


def test_an_unreadable_reference_leaves_the_earlier_ones(new_model, tmp_path):
    model, rgb = new_model(), part(6)
    model.reference([part(1)])
    before = model.predict(rgb).anomaly_score
    with pytest.raises(ReferencesError, match=r"cannot use a reference picture: .*gone\.png: no such file"):
        model.reference([part(2), tmp_path / "gone.png"])
    assert model.predict(rgb).anomaly_score == before


def test_references_of_other_sizes_and_tiles(new_model):
    model = new_model(recipe="tiles")
    model.reference([part(1, 40, 100), part(2, 64, 64)])
    result = model.predict(part(3, 100, 40))
    assert 0 <= result.anomaly_score <= 1
    assert result.anomaly_map.shape == (100, 40)


# What a class is judged with, elsewhere


def arrays_of(state: ClassState) -> list:
    """Every array of a state."""
    arrays = [state.text]
    if state.references is not None:
        state.references.map(arrays.append)
    return arrays


def no_text(category_name):
    raise AssertionError(f"encoded {category_name!r}")


def taken(model: WinCLIP, into: WinCLIP, category_name: str, monkeypatch) -> ClassState:
    """The class from one predictor to another, by pickle; the other cannot encode text, nor good samples any more."""
    state = pickle.loads(pickle.dumps(model.state_of(category_name)))
    monkeypatch.setattr(into, "_text", no_text)
    monkeypatch.setattr(into, "reference", no_text)
    into.take(category_name, state)
    return state


def assert_same(ours, theirs):
    """Bit for bit."""
    for own, other in zip(ours, theirs, strict=True):
        assert own.anomaly_score == other.anomaly_score
        np.testing.assert_array_equal(own.tile_maps, other.tile_maps)


@pytest.mark.parametrize("engine", ["torch", "openvino"])
@pytest.mark.parametrize("recipe", ["paper", "tiles"])
@pytest.mark.parametrize("shots", [0, 1, 3])
def test_a_class_is_judged_elsewhere_as_here(new_model, pictures, monkeypatch, engine, recipe, shots):
    model, other = (new_model(engine=engine, recipe=recipe) for _ in range(2))
    if shots:
        model.reference([part(20 + seed) for seed in range(shots)], "metal_nut")
    state = taken(model, other, "metal_nut", monkeypatch)
    assert (state.text.dtype, state.text.shape) == (np.float32, (2, 48))
    assert {type(array) for array in arrays_of(state)} == {np.ndarray}
    assert_same(other.predict_many(pictures, "metal_nut"), model.predict_many(pictures, "metal_nut"))
    assert_same([other.predict(pictures[0], "metal nut")], [model.predict(pictures[0], "metal nut")])
    assert other.references_of("metal nut") == model.references_of("metal_nut")
    assert len(other.references_of("metal nut")) == shots
    with pytest.raises(AssertionError, match="encoded 'bolt'"):
        other.predict(pictures[0], "bolt")


def test_the_bundled_models_classes_too(textile, monkeypatch):
    """Its references hold what recipe ``fused`` keeps."""
    model, other = (WinCLIP("winspect-tiny", device="cpu") for _ in range(2))
    model.reference(textile[-2:], "textile")
    state = taken(model, other, "textile", monkeypatch)
    of_log = {"patches", "windows_2", "windows_3", "stem", "crowding", "looks"}
    assert set(state.references.arrays) == of_log | {"memory_8", "memory_16", "fine_looks", "standard"}
    assert_same(other.predict_many(textile[:3], "textile"), model.predict_many(textile[:3], "textile"))
    assert [shown.path for shown in other.references_of("textile")] == [str(path) for path in textile[-2:]]


@native_bf16
def test_a_class_goes_along_in_half_precision(new_model, pictures, monkeypatch):
    model, other = (new_model(precision="bf16") for _ in range(2))
    model.reference([part(20)])
    taken(model, other, "object", monkeypatch)
    assert_same(other.predict_many(pictures[:2]), model.predict_many(pictures[:2]))


def test_a_calibration_holds_where_the_class_was_taken(new_model, monkeypatch):
    model, other = new_model(), new_model()
    model.reference([part(20)], "nut")
    calibration = model.calibrate([part(30 + seed) for seed in range(12)], "nut", max_false_alarms=0.1)
    with pytest.raises(SettingsError, match="references"):
        calibration.check_model(other)
    taken(model, other, "nut", monkeypatch)
    calibration.check_model(other)
    other.forget("nut")
    with pytest.raises(SettingsError, match="references"):
        calibration.check_model(other)


def test_taking_replaces_what_was_known(new_model, pictures):
    model, other = new_model(), new_model()
    zero_shot = other.state_of("nut")
    expected = other.predict(pictures[0], "nut")
    for predictor, seed in ((model, 20), (other, 21)):
        predictor.reference([part(seed)], "nut")
    other.take("nut", model.state_of("nut"))
    assert_same([other.predict(pictures[0], "nut")], [model.predict(pictures[0], "nut")])
    other.take("nut", zero_shot)
    assert other.references_of("nut") == ()
    assert_same([other.predict(pictures[0], "nut")], [expected])
    other.take("bolt", model.state_of("nut"))  # the text of one class under the name of another
    assert_same([other.predict(pictures[0], "bolt")], [model.predict(pictures[0], "nut")])


def test_arrays_go_to_the_device_once_and_may_be_read_only(new_model, pictures, monkeypatch):
    model, other = new_model(), new_model()
    model.reference([part(20)], "nut")
    state = pickle.loads(pickle.dumps(model.state_of("nut")))
    for array in arrays_of(state):
        array.flags.writeable = False  # as a store shared by processes gives them
    moved = []
    copy = other._on_device
    monkeypatch.setattr(other, "_on_device", lambda array: (moved.append(1), copy(array))[1])
    other.take("nut", state)
    assert len(moved) == len(arrays_of(state)) == 4  # text, patches, windows of two scales
    results = [other.predict(picture, "nut") for picture in pictures[:3]]
    assert len(moved) == 4
    assert_same(results, [model.predict(picture, "nut") for picture in pictures[:3]])


def test_a_state_is_read_without_torch(new_model, tmp_path):
    model = new_model()
    model.reference([part(20)], "nut")
    (tmp_path / "state").write_bytes(pickle.dumps(model.state_of("nut")))
    code = (
        "import pickle, sys; sys.modules['torch'] = None; from pathlib import Path;"
        "state = pickle.loads(Path(sys.argv[1]).read_bytes()); print(state.text.shape, len(state.samples))"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "state")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    ran = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert (ran.stdout, ran.returncode) == ("(2, 48) 1\n", 0), ran.stderr


def test_states_that_cannot_be_are_refused(new_model, small_model):
    references = References({"patches": np.zeros((2, 64), np.float32)})
    text = np.zeros((2, 48), np.float32)
    for arguments, told in (
        (([[0.0], [0.0]],), "got .*, need a NumPy array, float32"),
        ((torch.zeros(2, 48),), r"got dtype torch.float32, shape \(2, 48\), need a NumPy array"),
        ((text.astype(np.float64),), "got dtype float64"),
        ((text[0],), r"shape \(48,\), need"),
        ((np.zeros((3, 48), np.float32),), r"shape \(3, 48\), need"),
        ((text, references), "got references, 0 fingerprints; need both"),
        ((text, None, (Fingerprint("a.png", None),)), "got no references, 1 fingerprints; need both"),
    ):
        with pytest.raises(SettingsError, match=told):
            ClassState(*arguments)
    model = new_model()
    model.reference([part(20)], "nut")
    before = model.predict(part(6), "nut").anomaly_score
    state = ClassState(text, references, (Fingerprint("a.png", None),))
    with pytest.raises(SettingsError, match="'nut' has no windows_2, windows_3, which recipe paper needs"):
        model.take("nut", state)
    assert model.predict(part(6), "nut").anomaly_score == before
    for call in (lambda: model.take("{}", state), lambda: small_model.state_of("{}")):
        with pytest.raises(ClassNameError):
            call()


# Plans


def passes_of(model: WinCLIP) -> list[tuple[int, tuple[int, ...]]]:
    """Notes the tiles and scales of every pass from now on."""
    passes = []
    whole = model.engine._encode

    def noting(tiles, needs):
        passes.append((len(tiles), needs.scales))
        return whole(tiles, needs)

    model.engine._encode = noting
    return passes


@pytest.fixture(scope="module")
def oblong() -> list[np.ndarray]:
    """Four pictures of one, three, two and four tiles."""
    return [part(seed, 40, width) for seed, width in enumerate([40, 90, 60, 120])]


@pytest.mark.parametrize("engine", ["torch", "openvino"])
def test_a_plan_decides_the_passes_and_no_score(new_model, oblong, engine):
    options = {"engine": engine, "recipe": "tiles", "batch_size": 4}
    serial, batched = new_model(plan="serial", **options), new_model(plan="tile-batch", **options)
    passes = passes_of(serial)
    scores = scores_of(serial.predict_many(oblong))
    assert passes == [(1, (2, 3))] * 10  # 1 + 3 + 2 + 4 tiles
    assert [len(result.tile_boxes) for result in serial.predict_many(oblong)] == [1, 3, 2, 4]
    passes = passes_of(batched)
    np.testing.assert_allclose(scores_of(batched.predict_many(oblong)), scores, rtol=0, atol=1e-5)
    # The first two pictures are four tiles; the next two are six, the last of which has a pass of its own.
    assert [tiles for tiles, _ in passes] == [4, 4, 2]
    np.testing.assert_allclose(scores_of(new_model(**options).predict_many(oblong)), scores, rtol=0, atol=1e-5)


def test_serial_decodes_between_passes(new_model):
    """One picture after the other: the next is read when the last is done, but for the one that waits its turn."""
    model = new_model(plan="serial")
    events = []
    whole = model.engine._encode
    model.engine._encode = lambda tiles, needs: (events.append("pass"), whole(tiles, needs))[1]

    def pictures():
        for number in range(6):
            events.append("read")
            yield part(number)

    list(model.predict_many(pictures()))
    assert events.count("pass") == 6
    for done in range(6):
        before = events[: [n for n, event in enumerate(events) if event == "pass"][done]]
        assert before.count("read") <= done + 3


def test_prefetch_on_a_cpu_is_tile_batch_and_says_so(new_model, oblong, caplog):
    options = {"recipe": "tiles", "batch_size": 4}
    with caplog.at_level(logging.WARNING):
        model = new_model(plan="prefetch", **options)
    assert caplog.messages == [
        "plan prefetch: cpu has no cache that weights can be prefetched to; running as tile-batch"
    ]
    passes = passes_of(model)
    scores = scores_of(model.predict_many(oblong))
    assert [tiles for tiles, _ in passes] == [4, 4, 2]
    expected = scores_of(new_model(plan="tile-batch", **options).predict_many(oblong))
    np.testing.assert_allclose(scores, expected, rtol=0, atol=1e-6)


# Scores alone


@pytest.mark.parametrize("recipe", ["paper", "tiles"])
def test_scores_alone_need_no_windows(new_model, oblong, recipe):
    model = new_model(recipe=recipe)
    expected = scores_of(model.predict_many(oblong))
    passes = passes_of(model)
    results = list(model.predict_many(oblong, maps=False))
    np.testing.assert_allclose(scores_of(results), expected, rtol=0, atol=1e-5)
    assert {scales for _, scales in passes} == {()}
    assert {(result.tile_maps, result.anomaly_map) for result in results} == {(None, None)}
    assert sum(tiles for tiles, _ in passes) == sum(len(result.tile_boxes) for result in results)


def test_few_shot_scores_need_the_maps(new_model, pictures):
    model = new_model()
    model.reference([part(9)])
    expected = scores_of(model.predict_many(pictures))
    passes = passes_of(model)
    results = list(model.predict_many(pictures, maps=False))
    np.testing.assert_allclose(scores_of(results), expected, rtol=0, atol=1e-6)
    assert {scales for _, scales in passes} == {(2, 3)}
    assert all(result.anomaly_map is not None for result in results)
    (of_another_class,) = model.predict_many(pictures[:1], "nut", maps=False)
    assert of_another_class.anomaly_map is None


def test_log_fusion_needs_the_maps(textile):
    model = WinCLIP("winspect-tiny", device="cpu")
    passes = passes_of(model)
    (result,) = model.predict_many(textile[:1], "textile", maps=False)
    assert result.anomaly_map is not None
    assert {scales for _, scales in passes} == {(2, 3)}


# Text


def test_the_text_tower_is_loaded_for_a_new_class_and_not_kept(new_model, monkeypatch, tmp_path):
    towers = []

    class Noted(text_tower.TextTower):
        def __init__(self, *arguments):
            super().__init__(*arguments)
            towers.append(weakref.ref(self))

    monkeypatch.setattr(text_tower, "TextTower", Noted)
    model = new_model(cache_dir=tmp_path)
    assert towers == []
    model.predict(part(0), "candle")
    gc.collect()
    assert [tower() for tower in towers] == [None]
    model.predict(part(0), "candle")
    new_model(cache_dir=tmp_path).predict(part(0), "candle")
    assert len(towers) == 1
    model.predict(part(0), "bolt")
    assert len(towers) == 2


def test_weights_that_change_while_in_use(tmp_path):
    """Text of one model and pictures of another would be compared."""
    path = save_checkpoint(SMALL, tmp_path)
    model = WinCLIP(SMALL, weights=path, device="cpu", cache_dir=tmp_path / "cache")
    model.predict(part(0), "candle")
    (tmp_path / "other").mkdir()
    os.replace(save_checkpoint(SMALL, tmp_path / "other", seed=1), path)
    model.predict(part(0), "candle")  # known already
    with pytest.raises(WeightsCorruptError, match="the weights have changed while they were in use; start again"):
        model.predict(part(0), "bolt")
    path.unlink()
    with pytest.raises(WeightsMissingError):
        model.predict(part(0), "screw")


# What is said


class _BlankTower(torch.nn.Module):
    """Windows that all look the same, as when they attend to each other."""

    def __init__(self, tower):
        super().__init__()
        self.tower = tower

    def forward(self, pixels, needs):
        return self.tower(pixels, needs).map(lambda x: x if x.ndim == 2 else x[:, :1].expand_as(x))


def test_constant_maps_are_said(new_model, pictures):
    model = new_model(engine="torch", batch_size=3)
    model.engine.tower = _BlankTower(model.engine.tower)
    with pytest.warns(ConstantMapWarning, match="do not trust these maps"):
        model.predict(pictures[0])
    with pytest.warns(ConstantMapWarning, match="all anomaly maps of 3 pictures from <array> on are constant"):
        list(model.predict_many(pictures[:3]))


def test_one_map_that_varies_is_enough(new_model, pictures):
    model = new_model(engine="torch", batch_size=2)
    whole, blank = model.engine.tower, _BlankTower(model.engine.tower)

    class FirstIsBlank(torch.nn.Module):
        def forward(self, pixels, needs):
            first, rest = blank(pixels[:1], needs), whole(pixels[1:], needs)
            return type(first).concatenate([first, rest])

    model.engine.tower = FirstIsBlank()
    results = list(model.predict_many(pictures[:2]))  # warnings are errors here
    assert np.ptp(results[0].tile_maps) == 0
    assert np.ptp(results[1].tile_maps) > 0


def test_a_picture_of_one_colour_has_no_constant_map(small_model):
    """Positions alone tell its windows apart: the warning means broken windows, not plain pictures."""
    small_model.predict(np.full((64, 64, 3), 128, np.uint8))


def test_scores_that_are_no_numbers_are_an_error(new_model):
    model = new_model(engine="torch")
    tower = model.engine.tower
    model.engine.tower = lambda pixels, needs: tower(pixels, needs).map(lambda x: x * float("nan"))
    with pytest.raises(PictureError, match=r"<array>: .* in fp32 is not a number: use precision fp32 or bf16"):
        model.predict(part(0))
    (result,) = model.predict_many([part(0)])
    assert (type(result.error), result.anomaly_score) == (PictureError, None)


def test_describe_names_what_decides_scores(new_model, small_checkpoint):
    model = new_model(engine="torch", precision="fp16", recipe="tiles", settings={"temperature": 0.5})
    described = model.describe()
    assert described["model"] == SMALL
    assert described["weights"] == small_checkpoint.name
    assert len(described["weights_sha256"]) == 64
    assert described["recipe"]["name"] == "tiles"
    assert described["recipe"]["temperature"] == 0.5
    assert (described["engine"], described["precision"], described["device"]) == ("torch", "fp16", "cpu")
    assert len(described["prompts"]["templates"]) == 22


# Settings


@pytest.mark.parametrize("precision", [pytest.param("bf16", marks=native_bf16), "fp16"])
def test_half_precision_is_close(new_model, pictures, scores, precision):
    half = scores_of(new_model(precision=precision).predict_many(pictures))
    assert half != scores
    np.testing.assert_allclose(half, scores, rtol=0, atol=0.1)


def test_settings_of_a_recipe_reach_the_scores(new_model):
    rgb = part(5)
    base = new_model().predict(rgb)
    colder = new_model(settings={"temperature": 0.02}).predict(rgb)
    # The logit of a score is a difference of cosines over the temperature.
    assert _logit(colder) == pytest.approx(_logit(base) * 0.07 / 0.02, rel=1e-3)
    no_windows = new_model(settings={"scales": ()}, recipe=Recipe("own", temperature=0.07))
    with pytest.warns(ConstantMapWarning):
        assert no_windows.predict(rgb).anomaly_score == pytest.approx(base.anomaly_score, abs=1e-6)


def _logit(result):
    return np.log(result.anomaly_score / (1 - result.anomaly_score))


def test_own_prompts_from_a_file_or_an_object(new_model, tmp_path):
    own = PromptEnsemble(normal_states=["clean {}"], anomalous_states=["dirty {}"], templates=["a {}"])
    (tmp_path / "own.yaml").write_text(
        "normal_states: ['clean {}']\nanomalous_states: ['dirty {}']\ntemplates: ['a {}']\n"
    )
    by_object, by_file = (new_model(prompts=prompts).predict(part(1)) for prompts in (own, tmp_path / "own.yaml"))
    assert by_object.anomaly_score == by_file.anomaly_score
    assert by_object.anomaly_score != new_model().predict(part(1)).anomaly_score


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"device": "gpu"}, DeviceError, "'gpu', need auto, cpu, cuda"),
        ({"device": "cuda:99"}, DeviceError, "'cuda:99', but .* found"),
        ({"device": "openvino:GPU.9"}, DeviceError, "openvino:GPU.9, but OpenVINO finds"),
        ({"precision": "fp8"}, PrecisionError, "'fp8', need one of auto, fp32, bf16, fp16, int8"),
        ({"precision": "int8", "engine": "torch"}, PrecisionError, "int8 needs engine openvino"),
        ({"precision": "fp32", "int8_pictures": []}, PrecisionError, "got int8_pictures with precision fp32"),
        ({"engine": "tensorrt"}, EngineError, "'tensorrt', need one of auto, torch, openvino, onnx"),
        ({"plan": "paper"}, SettingsError, "got the plan 'paper', need one of auto, serial, tile-batch, prefetch"),
        ({"gate": "no"}, SettingsError, "got the gate 'no', need one of check, skip"),
        ({"recipe": "soup"}, SettingsError, "'soup', need one of paper, tiles, log"),
        ({"recipe": "log"}, SettingsError, "winspect-tiny.*use recipe paper"),
        ({"settings": {"colour": 1}}, SettingsError, "unknown setting colour; known are tiling"),
        ({"settings": {"temperature": 0}}, SettingsError, "temperature: got 0"),
        ({"prompts": "nowhere.yaml"}, SettingsError, "nowhere.yaml: cannot read"),
        ({"batch_size": 0}, SettingsError, "batch_size: got 0"),
        ({"batch_size": 2.0}, SettingsError, "batch_size: got 2.0"),
        ({"workers": -1}, SettingsError, "workers: got -1"),
        ({"weights": "nowhere.pt"}, WeightsMissingError, "nowhere.pt"),
    ],
    ids=str,
)
def test_what_cannot_be_is_refused(small_checkpoint, options, error, words):
    with pytest.raises(error, match=words):
        WinCLIP(**{"model": SMALL, "weights": small_checkpoint, "device": "cpu", **options})


def test_a_scale_that_does_not_fit_is_refused_at_once(new_model):
    """Not at the first picture: by then a run has begun."""
    with pytest.raises(SettingsError, match="scale 9 does not fit a grid of 4x4"):
        new_model(settings={"scales": (2, 9)})
