"""What runs on workers, without a cluster: decoding, judging and painting, held to ``predict``."""

from __future__ import annotations

from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from winspect import Result, WinCLIP
from winspect.cluster import stages
from winspect.cluster.inputs import find_inputs
from winspect.cluster.painting import paint
from winspect.cluster.shared import Judging, Model, check_judging, make_shared
from winspect.cluster.stages import DECODED, JUDGED, Judge, decode
from winspect.errors import ClassNameError, PictureError, ReferencesError, SettingsError, WeightsMissingError
from winspect.pictures.fingerprints import SEEN

TOLERANCE = 1e-5


@dataclass(frozen=True)
class Here(Model):
    """A model that is loaded already."""

    predictor: Any = None

    def load(self):
        if isinstance(self.predictor, Exception):
            raise self.predictor
        return self.predictor


@pytest.fixture(scope="module")
def worker(tiny_options):
    """A worker's model: another than the one its rows are held to."""
    return WinCLIP(**tiny_options)


@pytest.fixture(scope="module")
def shared(tiny):
    """What the other predictor knows of two classes."""
    return make_shared(Here(predictor=tiny), Judging(["textile", "metal nut"], maps=True))


def save(path, seed=0, size_wh=(60, 50)):
    random = np.random.default_rng(seed)
    pixels = random.integers(60, 160, (size_wh[1], size_wh[0], 3), dtype=np.uint8)
    row, column = random.integers(0, 30, 2)
    pixels[row : row + 20, column : column + 20] = random.integers(0, 255, 3)
    Image.fromarray(pixels).save(path)
    return path


def block_of(*sources, class_name="textile"):
    inputs = find_inputs([str(source) for source in sources], class_name)
    (block,) = inputs.blocks([range(len(inputs))], len(inputs))
    return block


def judged(shared, worker, block):
    """The rows of a block of inputs, as workers make them."""
    judge = Judge(Here(predictor=worker), lambda: shared)
    tables = list(decode(block, shared=shared))
    assert all(table.schema.equals(DECODED) for table in tables)
    made = pa.concat_tables([judge(table) for table in tables])
    assert made.schema.equals(JUDGED)
    return made


def holds(row, expected):
    """Whether a row is what ``predict`` gives."""
    assert row["error"] is None and row["refusal"] is None
    assert row["anomaly_score"] == pytest.approx(expected.anomaly_score, abs=TOLERANCE)
    maps = np.array(row["tile_maps"], np.float32).reshape(row["map_shape"])
    np.testing.assert_allclose(maps, expected.tile_maps, rtol=0, atol=TOLERANCE)
    assert tuple(stages.boxes_of(row)) == expected.tile_boxes
    assert (row["width"], row["height"]) == expected.size_wh


# Rows are those of predict


def test_rows_are_those_of_predict(shared, worker, tiny, tmp_path):
    """Two classes in one table; a broken picture and a missing one among them; pictures in a Parquet file behind."""
    files = [save(tmp_path / f"part{number}.png", number, (50 + number, 40)) for number in range(6)]
    (tmp_path / "part2.png").write_bytes(files[2].read_bytes()[:200])
    files[4].unlink()
    classes = ["textile", "metal nut"] * 3
    lines = [f"{number},{file},{name}" for number, (file, name) in enumerate(zip(files, classes, strict=True))]
    (tmp_path / "list.csv").write_text("\n".join(["id,path,class", *lines]))
    content = [save(tmp_path / f"inside{number}.png", 10 + number).read_bytes() for number in range(2)]
    pq.write_table(pa.table({"id": ["x", "y"], "image": [content[0], b"no picture"]}), tmp_path / "inside.parquet")
    rows = judged(shared, worker, block_of(tmp_path / "list.csv", tmp_path / "inside.parquet")).to_pylist()
    assert [row["ordinal"] for row in rows] == list(range(8))
    assert [row["id"] for row in rows] == [*"012345", "x", "y"]
    assert [row["class"] for row in rows] == [*classes, "textile", "textile"]
    for number in (0, 1, 3, 5):
        holds(rows[number], tiny.predict(files[number], classes[number]))
    holds(rows[6], tiny.predict(tmp_path / "inside0.png", "textile"))
    assert tiny.predict(files[0], "metal nut").anomaly_score != pytest.approx(
        rows[0]["anomaly_score"], abs=10 * TOLERANCE
    )
    for number, name in {2: str(files[2]), 4: str(files[4]), 7: "y"}.items():
        error = rows[number]["error"]
        assert error["type"] == "PictureError" and error["message"].startswith(f"{name}: ")
        assert rows[number]["anomaly_score"] is rows[number]["tile_maps"] is rows[number]["verdict"] is None
    made_by = {(row["model"], row["weights_sha256"]) for row in rows}
    assert made_by == {("winspect-tiny", tiny.weights_sha256)}
    assert {row["judge"] for row in rows} == {row["decoder"] for row in rows} == {stages.worker_name()}
    assert all(row["decode_s"] > 0 and row["judge_s"] > 0 for row in rows)


def test_scores_without_maps(shared, worker, tiny, tmp_path):
    bare = replace(shared, judging=replace(shared.judging, maps=False))
    (row,) = judged(bare, worker, block_of(save(tmp_path / "a.png"))).to_pylist()
    assert row["anomaly_score"] == pytest.approx(tiny.predict(tmp_path / "a.png", "textile").anomaly_score, abs=1e-5)
    assert row["tile_maps"] is row["map_shape"] is None


@pytest.mark.parametrize("maps", [True, False])
def test_few_shot(worker, tiny, textile, maps):
    judging = Judging(["weave"], references=[str(path) for path in textile[:3]], shots=2, maps=maps)
    shared = make_shared(Here(predictor=tiny), judging)
    (row,) = judged(shared, worker, block_of(textile[-1], class_name="weave")).to_pylist()
    assert len(tiny.references_of("weave")) == 2
    expected = tiny.predict(textile[-1], "weave")
    if maps:
        holds(row, expected)
    else:
        assert row["anomaly_score"] == pytest.approx(expected.anomaly_score, abs=TOLERANCE)
        assert row["tile_maps"] is None
    tiny.forget("weave")
    assert tiny.predict(textile[-1], "weave").anomaly_score != pytest.approx(row["anomaly_score"], abs=1e-3)


def test_good_samples_among_the_inputs_are_marked(worker, tiny, textile, tmp_path):
    shared = make_shared(Here(predictor=tiny), Judging(["weave"], references=[str(textile[0])]))
    tiny.forget("weave")
    (tmp_path / "copy.jpg").write_bytes(textile[0].read_bytes())
    rows = judged(
        shared, worker, block_of(textile[0], tmp_path / "copy.jpg", textile[1], class_name="weave")
    ).to_pylist()
    seen, copy, other = (row["warning"] for row in rows)
    assert seen == f"{SEEN} (it is one of the good samples): its score says nothing"
    assert copy == f"{SEEN} (the same as the good sample {textile[0]}): its score says nothing"
    assert other is None


def test_the_good_samples_of_one_class_are_in_memory_at_a_time(worker, tiny, textile, shared, tmp_path):
    few = make_shared(Here(predictor=tiny), Judging(["weave"], references=[str(textile[0])]))
    tiny.forget("weave")
    both = replace(shared, states={**shared.states, **few.states}, judging=Judging(["weave", "textile"]))
    judge = Judge(Here(predictor=worker), lambda: both)
    assert len(worker.references_of("weave")) == 1
    (table,) = decode(block_of(save(tmp_path / "a.png")), shared=both)
    judge(table)
    assert worker.references_of("weave") == ()


def test_tiles_of_a_long_picture(tiny_options, tmp_path):
    tiled = {**tiny_options, "recipe": "tiles"}
    judging = Judging(["textile"], maps=True)
    predictor, worker = WinCLIP(**tiled), WinCLIP(**tiled)
    shared = make_shared(Here(predictor=predictor), judging)
    path = save(tmp_path / "long.png", 1, (210, 60))
    rows = judged(shared, worker, block_of(path, save(tmp_path / "short.png", 2, (60, 60)))).to_pylist()
    assert [row["map_shape"][0] for row in rows] == [5, 1]  # by hand: 150 pixels in steps of 48 at most, and the first
    for row in rows:
        holds(row, predictor.predict(row["path"], "textile"))


def test_tables_are_small_whatever_the_block(shared, tmp_path):
    lines = [f"{number},{tmp_path / 'gone.png'}" for number in range(2 * stages.PICTURES_PER_TABLE + 1)]
    (tmp_path / "list.csv").write_text("\n".join(["id,path", *lines]))
    tables = list(decode(block_of(tmp_path / "list.csv"), shared=shared))
    assert [len(table) for table in tables] == [16, 16, 1]
    assert pa.concat_tables(tables)["ordinal"].to_pylist() == list(range(33))


def test_nothing_gives_nothing(shared, worker, tmp_path):
    empty = block_of(save(tmp_path / "a.png")).slice(0, 0)
    assert list(decode(empty, shared=shared)) == []
    nothing = Judge(Here(predictor=worker), lambda: shared)(DECODED.empty_table())
    assert len(nothing) == 0 and nothing.schema.equals(JUDGED)


def test_a_table_of_errors_alone_never_meets_the_model(shared, worker, tmp_path, monkeypatch):
    monkeypatch.setattr(worker, "predict_stream", lambda *_, **__: pytest.fail("the model was asked"))
    (tmp_path / "a.png").touch()
    (row,) = judged(shared, worker, block_of(tmp_path / "a.png")).to_pylist()
    assert row["error"]["type"] == "PictureError"


# What fails


@pytest.fixture
def four(tmp_path):
    return [save(tmp_path / f"part{number}.png", number) for number in range(4)]


def test_pictures_that_fail_together_are_judged_one_by_one(shared, worker, tiny, four, monkeypatch):
    predict, calls = worker.predict_stream, []

    def fails(items, name, **options):
        items = list(items)
        calls.append(len(items))
        if any(item.name == str(four[2]) for item in items):
            raise RuntimeError("out of something")
        return predict(items, name, **options)

    monkeypatch.setattr(worker, "predict_stream", fails)
    rows = judged(shared, worker, block_of(*four)).to_pylist()
    assert calls == [4, 1, 1, 1, 1]
    assert rows[2]["error"] == {"type": "RuntimeError", "message": "out of something"}
    assert rows[2]["anomaly_score"] is None
    for number in (0, 1, 3):
        holds(rows[number], tiny.predict(four[number], "textile"))


def test_a_score_that_is_no_number_is_an_error(shared, worker, four, monkeypatch):
    def strange(items, name, **_):
        for item in items:
            yield Result(item.name, name, error=PictureError(item.name, "the model's score is not a number"))

    monkeypatch.setattr(worker, "predict_stream", strange)
    (row,) = judged(shared, worker, block_of(four[0])).to_pylist()
    assert row["error"] == {"type": "PictureError", "message": f"{four[0]}: the model's score is not a number"}


def test_what_no_reader_foresaw_is_an_error_of_its_row(shared, four, monkeypatch):
    resize = stages.resize_tiles

    def fails(source, *arguments, **options):
        if source == str(four[1]):
            raise ZeroDivisionError("odd")
        return resize(source, *arguments, **options)

    monkeypatch.setattr(stages, "resize_tiles", fails)
    (table,) = decode(block_of(*four), shared=shared)
    kinds = [error and error["type"] for error in table["error"].to_pylist()]
    assert kinds == [None, "ZeroDivisionError", None, None]
    assert table["pixels"].null_count == 1


@pytest.mark.parametrize("reason", ["missing", "other weights", "other engine"])
def test_a_worker_with_no_model_or_another_refuses_in_every_row(shared, worker, four, reason):
    model, words = worker, "the model there is another one "
    if reason == "missing":
        model, words = WeightsMissingError("no weights here"), "the model cannot be loaded there: no weights here"
    elif reason == "other weights":
        shared = replace(shared, described={**shared.described, "weights_sha256": "ff"})
        words += f"(weights_sha256: {worker.weights_sha256!r}, not 'ff')"
    else:
        shared = replace(shared, described={**shared.described, "engine": "onnx"})
        words += "(engine: 'torch', not 'onnx')"
    rows = judged(shared, model, block_of(*four)).to_pylist()
    assert [row["refusal"] for row in rows] == [f"{stages.worker_name()}: {words}"] * 4
    assert [row["anomaly_score"] for row in rows] == [None] * 4


# Verdicts


def test_verdicts_by_a_threshold(shared, worker, four):
    scores = judged(shared, worker, block_of(*four))["anomaly_score"].to_pylist()
    bar = sorted(scores)[2]  # a score from here on is anomalous, that one too
    decided = replace(shared, judging=replace(shared.judging, threshold=bar))
    rows = judged(decided, worker, block_of(*four)).to_pylist()
    assert [row["verdict"] for row in rows] == ["anomalous" if score >= bar else "normal" for score in scores]
    assert sum(row["verdict"] == "anomalous" for row in rows) == 2
    assert {row["threshold"] for row in rows} == {bar} and {row["p_value"] for row in rows} == {None}


@pytest.mark.parametrize("threshold", [None, 0.0])
def test_verdicts_and_p_values_by_a_calibration(worker, tiny, four, tmp_path, threshold):
    good = [save(tmp_path / f"good{number}.png", 20 + number) for number in range(9)]
    calibration = tiny.calibrate(good, "textile", max_false_alarms=0.2)
    judging = Judging(["textile"], calibration=calibration, threshold=threshold, regions=calibration.regions)
    rows = judged(make_shared(Here(predictor=tiny), judging), worker, block_of(*four)).to_pylist()
    for row, path in zip(rows, four, strict=True):
        decision = calibration.decide(tiny.predict(path, "textile"))
        assert row["p_value"] == pytest.approx(decision.p_value)
        expected = (decision.verdict, decision.threshold) if threshold is None else ("anomalous", 0.0)
        assert (row["verdict"], row["threshold"]) == expected
        defects = calibration.regions.find(tiny.predict(path, "textile"), row["verdict"])
        assert row["boxes"] == [list(box) for box in defects.boxes]
        assert bool(row["boxes"]) >= (row["verdict"] == "anomalous") and row["tile_maps"] is None


# What is shared


def test_what_cannot_be_shared_is_refused(tiny, tmp_path, four):
    loaded = Here(predictor=tiny)
    with pytest.raises(ClassNameError):
        make_shared(loaded, Judging([" "]))
    with pytest.raises(ReferencesError, match="cannot use a reference picture"):
        make_shared(loaded, Judging(["weave"], references=[str(tmp_path / "gone.png")]))
    with pytest.raises(ReferencesError, match="asked for 2 reference pictures"):
        make_shared(loaded, Judging(["weave"], references=[str(four[0])], shots=2))
    good = [save(tmp_path / f"good{number}.png", 20 + number) for number in range(9)]
    calibration = tiny.calibrate(good, "textile", max_false_alarms=0.2)
    with pytest.raises(SettingsError, match="class"):
        make_shared(loaded, Judging(["screw"], calibration=calibration))


def test_what_is_for_one_class_is_refused_for_several():
    check_judging(Judging(["a"], references=["x"], calibration=SimpleNamespace()))
    check_judging(Judging(list("abcdefg")))
    with pytest.raises(
        SettingsError, match=r"^--reference is for one class, .* 7 \(a, b, c, d, e, \.\.\.\); run batch"
    ):
        check_judging(Judging(list("abcdefg"), references=["x"]))
    with pytest.raises(SettingsError, match=r"^--calibration is for one class, .* 2 \(a, b\)"):
        check_judging(Judging(["a", "b"], calibration=SimpleNamespace()))


# Heat maps


@pytest.fixture
def to_paint(shared, worker, four):
    four[3].write_bytes(b"no picture")
    return judged(shared, worker, block_of(*four))


def test_heat_maps_over_pictures(to_paint, four, tmp_path):
    place = tmp_path / "out"
    rows = paint(to_paint, place=str(place), keep_arrays=True)
    assert rows.schema.equals(JUDGED)
    names = rows["map"].to_pylist()
    assert names[3] is None and rows["refusal"].null_count == 4
    assert [name.rsplit("_", 1)[0] for name in names[:3]] == [f"_maps/0000000{number}" for number in range(3)]
    for name, path in zip(names[:3], four, strict=False):
        with Image.open(place / name) as painted, Image.open(path) as picture:
            assert painted.size == picture.size
            assert not np.array_equal(np.asarray(painted.convert("RGB")), np.asarray(picture))
    assert rows["tile_maps"].equals(to_paint["tile_maps"])
    assert set(rows["painter"].to_pylist()) == {stages.worker_name()}
    before = {name: (place / name).read_bytes() for name in names[:3]}
    assert paint(to_paint, place=str(place), keep_arrays=True)["map"].to_pylist() == names
    assert {f"_maps/{file.name}": file.read_bytes() for file in (place / "_maps").iterdir()} == before


def test_arrays_that_are_not_kept(to_paint, tmp_path):
    rows = paint(to_paint, place=str(tmp_path / "out"), keep_arrays=False)
    assert rows["tile_maps"].null_count == rows["map_shape"].null_count == 4
    assert rows["map"].null_count == 1 and rows["anomaly_score"].equals(to_paint["anomaly_score"])


def test_a_picture_that_is_gone_keeps_its_score(to_paint, four, tmp_path):
    four[0].unlink()
    rows = paint(to_paint, place=str(tmp_path / "out"), keep_arrays=False).to_pylist()
    assert (rows[0]["map"], rows[0]["refusal"], rows[0]["error"]) == (None, None, None)
    assert rows[0]["anomaly_score"] is not None and rows[1]["map"] is not None


def test_a_place_that_cannot_be_written_is_a_refusal(to_paint, tmp_path):
    (tmp_path / "file").touch()
    rows = paint(to_paint, place=str(tmp_path / "file"), keep_arrays=True).to_pylist()
    for row in rows[:3]:
        assert row["map"] is None
        assert row["refusal"].startswith(f"{stages.worker_name()}: cannot write heat maps: {tmp_path / 'file'}")
    assert rows[3]["refusal"] is None
