"""A worker's part of a batch, without a cluster: rows and heat maps of a shard, checked against ``predict``."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from winspect import Result, WinCLIP
from winspect.calibration import DecisionRule
from winspect.cluster import pictures, scoring
from winspect.cluster.filesystems import open_input, open_place
from winspect.cluster.inputs import find_inputs
from winspect.cluster.scoring import Scorer, score
from winspect.cluster.shards import Plan, result_schema
from winspect.cluster.shared import Inspection, check_inspection, make_shared
from winspect.errors import (
    ClassNameError,
    ClusterError,
    PictureError,
    ReferencesError,
    SettingsError,
    WeightsMissingError,
)
from winspect.pictures.fingerprints import SEEN

TOLERANCE = 1e-5


@pytest.fixture(scope="module")
def worker(tiny_options):
    """A worker's model: another than the one its rows are checked against."""
    return WinCLIP(**tiny_options)


@pytest.fixture(scope="module")
def shared(tiny):
    """What the other predictor knows of two classes."""
    return make_shared(tiny, Inspection(["textile", "metal nut"], arrays=True))


def asking(shared, **changes):
    return replace(shared, inspection=replace(shared.inspection, **changes))


def save(path, seed=0, size_wh=(60, 50)):
    random = np.random.default_rng(seed)
    pixels = random.integers(60, 160, (size_wh[1], size_wh[0], 3), dtype=np.uint8)
    row, column = random.integers(0, 30, 2)
    pixels[row : row + 20, column : column + 20] = random.integers(0, 255, 3)
    Image.fromarray(pixels).save(path)
    return path


def inputs_of(*sources, class_name="textile"):
    inputs = find_inputs([str(source) for source in sources], class_name)
    return inputs.rows(range(len(inputs)))


class Instead:
    """A worker's model with another way to score pictures."""

    def __init__(self, model, predict_many):
        self.model, self.predict_many = model, predict_many

    def __getattr__(self, name):
        return getattr(self.model, name)


def scored(shared, worker, inputs):
    table = Scorer(worker, shared).rows(inputs)
    assert table.schema.equals(result_schema(arrays=shared.inspection.arrays))
    return table.to_pylist()


def assert_same(row, expected):
    """A row with its map, as ``predict`` gives it."""
    assert row["anomaly_score"] == pytest.approx(expected.anomaly_score, abs=TOLERANCE)
    maps = np.array(row["tile_maps"], np.float32).reshape(row["map_shape"])
    np.testing.assert_allclose(maps, expected.tile_maps, rtol=0, atol=TOLERANCE)
    assert [*map(tuple, np.reshape(row["tile_boxes"], (-1, 4)))] == list(expected.tile_boxes)
    assert (row["width"], row["height"]) == expected.size_wh


@pytest.fixture
def four(tmp_path):
    return [save(tmp_path / f"part{number}.png", number) for number in range(4)]


# Rows are those of predict


@pytest.mark.parametrize("at_a_time", [128, 3])
def test_rows_are_those_of_predict(shared, worker, tiny, tmp_path, monkeypatch, at_a_time):
    """Two classes in one shard; a broken picture and a missing one among them; pictures in a Parquet file behind."""
    monkeypatch.setattr(scoring, "_MIXED_AT_A_TIME", at_a_time)
    files = [save(tmp_path / f"part{number}.png", number, (50 + number, 40)) for number in range(6)]
    (tmp_path / "part2.png").write_bytes(files[2].read_bytes()[:200])
    files[4].unlink()
    classes = ["textile", "metal nut"] * 3
    lines = [f"{number},{file},{name}" for number, (file, name) in enumerate(zip(files, classes, strict=True))]
    (tmp_path / "list.csv").write_text("\n".join(["id,path,class", *lines]))
    content = [save(tmp_path / f"inside{number}.png", 10 + number).read_bytes() for number in range(2)]
    inside = {"id": ["x", "y", "z"], "image": [content[0], b"no picture", content[1]]}
    pq.write_table(pa.table({**inside, "class": ["textile", "textile", "metal nut"]}), tmp_path / "inside.parquet")
    rows = scored(shared, worker, inputs_of(tmp_path / "list.csv", tmp_path / "inside.parquet"))
    assert [row["id"] for row in rows] == [*"012345", "x", "y", "z"]
    assert [row["class"] for row in rows] == [*classes, "textile", "textile", "metal nut"]
    for number in (0, 1, 3, 5):
        assert_same(rows[number], tiny.predict(files[number], classes[number]))
    assert_same(rows[6], tiny.predict(tmp_path / "inside0.png", "textile"))
    assert_same(rows[8], tiny.predict(tmp_path / "inside1.png", "metal nut"))
    other = tiny.predict(files[0], "metal nut").anomaly_score
    assert other != pytest.approx(rows[0]["anomaly_score"], abs=10 * TOLERANCE)
    for number, name in {2: str(files[2]), 4: str(files[4]), 7: "y"}.items():
        error = rows[number]["error"]
        assert error["type"] == "PictureError" and error["message"].startswith(f"{name}: ")
        assert rows[number]["anomaly_score"] is rows[number]["tile_maps"] is rows[number]["verdict"] is None
    assert {(row["model"], row["weights_sha256"]) for row in rows} == {("winspect-tiny", tiny.weights_sha256)}


def test_scores_without_maps(shared, worker, tiny, tmp_path):
    (row,) = scored(asking(shared, arrays=False), worker, inputs_of(save(tmp_path / "a.png")))
    expected = tiny.predict(tmp_path / "a.png", "textile").anomaly_score
    assert row["anomaly_score"] == pytest.approx(expected, abs=TOLERANCE)
    assert "tile_maps" not in row


@pytest.mark.parametrize("arrays", [True, False])
def test_few_shot(worker, tiny, textile, arrays):
    inspection = Inspection(["weave"], references=[str(path) for path in textile[:3]], shots=2, arrays=arrays)
    shared = make_shared(tiny, inspection)
    (row,) = scored(shared, worker, inputs_of(textile[-1], class_name="weave"))
    assert len(tiny.references_of("weave")) == 2
    expected = tiny.predict(textile[-1], "weave")
    assert row["anomaly_score"] == pytest.approx(expected.anomaly_score, abs=TOLERANCE)
    if arrays:
        assert_same(row, expected)
    tiny.forget("weave")
    assert tiny.predict(textile[-1], "weave").anomaly_score != pytest.approx(row["anomaly_score"], abs=1e-3)


@pytest.mark.parametrize("embedded", [False, True])
def test_good_samples_among_the_inputs_are_marked(worker, tiny, textile, tmp_path, embedded):
    shared = make_shared(tiny, Inspection(["weave"], references=[str(textile[0])]))
    tiny.forget("weave")
    (tmp_path / "copy.jpg").write_bytes(textile[0].read_bytes())
    files, first = [textile[0], tmp_path / "copy.jpg", textile[1]], "it is one of the good samples"
    if embedded:
        pq.write_table(pa.table({"bytes": [file.read_bytes() for file in files]}), tmp_path / "m.parquet")
        files, first = [tmp_path / "m.parquet"], f"the same as the good sample {textile[0]}"
    seen, copy, other = (row["warning"] for row in scored(shared, worker, inputs_of(*files, class_name="weave")))
    assert seen == f"{SEEN} ({first}): its score says nothing"
    assert copy == f"{SEEN} (the same as the good sample {textile[0]}): its score says nothing"
    assert other is None


def test_tiles_of_a_long_picture(tiny_options, tmp_path):
    tiled = {**tiny_options, "recipe": "tiles"}
    predictor, worker = WinCLIP(**tiled), WinCLIP(**tiled)
    shared = make_shared(predictor, Inspection(["textile"], arrays=True))
    path = save(tmp_path / "long.png", 1, (210, 60))
    rows = scored(shared, worker, inputs_of(path, save(tmp_path / "short.png", 2, (60, 60))))
    assert [row["map_shape"][0] for row in rows] == [5, 1]  # by hand: 150 pixels in steps of 48 at most, and the first
    for row in rows:
        assert_same(row, predictor.predict(row["path"], "textile"))


def test_a_shard_is_its_file(shared, worker, four):
    """As a worker is asked: once with the shard's plan, once for a picture alone."""
    pool_worker = SimpleNamespace(kept=None, predictor=worker, name="h:1", advance=lambda: steps.append(1))
    steps = []
    part = score(pool_worker, lambda: shared, inputs_of(*four), Plan(4, 4, "ab"), 0)
    shard = part.rows.shard
    assert (shard.shard, shard.rows, shard.failed, part.worker) == (0, 4, 0, "h:1")
    read = pq.read_table(pa.BufferReader(part.rows.content))
    assert read["id"].to_pylist() == [*map(str, four)] and len(steps) == 4
    alone = score(pool_worker, lambda: pytest.fail("fetched again"), inputs_of(four[2]))
    assert alone.rows["anomaly_score"][0].as_py() == pytest.approx(read["anomaly_score"][2].as_py(), abs=TOLERANCE)


def test_remote_pictures_are_read_ahead_and_a_few_at_a_time(shared, worker, four, monkeypatch):
    """Rows of a URI: its content is not held for the whole shard."""
    read, held, done = [], [], []

    def reading(system, path):
        read.append(path)
        held.append(len(read) - len(done))
        return open_input(system, path)

    system, root = open_place("mock://parts/")
    for path in four:
        with system.open_output_stream(f"{root}/{path.name}") as file:
            file.write(path.read_bytes())
    monkeypatch.setattr(pictures, "open_input", reading)
    names = [f"mock://parts/{path.name}" for path in four] * 30
    given = enumerate(zip(inputs_of(*four) * 30, names, strict=True))
    inputs = [{**row, "path": name, "ordinal": at} for at, (row, name) in given]
    scorer = Scorer(worker, asking(shared, arrays=False), lambda: done.append(1))
    rows = scorer.rows(inputs).to_pylist()
    assert len({round(row["anomaly_score"], 4) for row in rows}) == 4
    assert [row["path"] for row in rows] == [row["path"] for row in inputs]
    assert len(read) == 120
    assert 8 <= max(held) <= 60, max(held)


# What fails


def test_pictures_that_fail_together_are_scored_one_by_one(shared, worker, tiny, four):
    predict, calls = worker.predict_many, []

    def fails(pictures, name, **options):
        calls.append(len(pictures))
        if str(four[2]) in pictures:
            raise RuntimeError("out of something")
        return predict(pictures, name, **options)

    rows = scored(shared, Instead(worker, fails), inputs_of(*four))
    assert calls == [4, 1, 1, 1, 1]
    assert rows[2]["error"] == {"type": "RuntimeError", "message": "out of something"}
    assert rows[2]["anomaly_score"] is None
    for number in (0, 1, 3):
        assert_same(rows[number], tiny.predict(four[number], "textile"))


def test_what_was_scored_before_a_failure_stays(shared, worker, tiny, four):
    predict, calls = worker.predict_many, []

    def fails(pictures, name, **options):
        calls.append(len(pictures))
        yield from predict(pictures[:3], name, **options)
        if len(pictures) == 4:
            raise RuntimeError("out of something")

    rows = scored(shared, Instead(worker, fails), inputs_of(*four))
    assert calls == [4, 1]
    for row, path in zip(rows, four, strict=True):
        assert_same(row, tiny.predict(path, "textile"))


def test_a_score_that_is_no_number_is_an_error(shared, worker, four):
    def strange(pictures, name, **_):
        for path in pictures:
            yield Result(path, name, error=PictureError(path, "the model's score is not a number"))

    (row,) = scored(shared, Instead(worker, strange), inputs_of(four[0]))
    assert row["error"] == {"type": "PictureError", "message": f"{four[0]}: the model's score is not a number"}


@pytest.mark.parametrize("reason", ["missing", "other weights", "other engine"])
def test_a_worker_with_no_model_or_another_refuses(shared, worker, four, reason):
    class Broken:
        kept, name = None, "h:1"

        @property
        def predictor(self):
            if reason == "missing":
                raise WeightsMissingError("no weights here")
            return worker

        def advance(self):
            pass

    words = "no weights here"
    if reason == "other weights":
        shared = replace(shared, identity=replace(shared.identity, weights_sha256="ff"))
        words = f"the model there is another one (weights_sha256: {worker.weights_sha256!r}, not 'ff')"
    elif reason == "other engine":
        shared = replace(shared, identity=replace(shared.identity, engine="onnx"))
        words = "the model there is another one (engine: 'torch', not 'onnx')"
    with pytest.raises(ClusterError) as caught:
        score(Broken(), lambda: shared, inputs_of(*four))
    assert str(caught.value) == words


# Verdicts


def test_verdicts_by_a_threshold(shared, worker, four):
    scores = [row["anomaly_score"] for row in scored(shared, worker, inputs_of(*four))]
    bar = sorted(scores)[2]  # a score from here on is anomalous, that one too
    rows = scored(asking(shared, rule=DecisionRule(bar)), worker, inputs_of(*four))
    assert [row["verdict"] for row in rows] == ["anomalous" if score >= bar else "normal" for score in scores]
    assert sum(row["verdict"] == "anomalous" for row in rows) == 2
    assert {row["threshold"] for row in rows} == {bar} and {row["p_value"] for row in rows} == {None}


@pytest.mark.parametrize("threshold", [None, 0.0])
def test_verdicts_and_p_values_by_a_calibration(worker, tiny, four, tmp_path, threshold):
    good = [save(tmp_path / f"good{number}.png", 20 + number) for number in range(9)]
    calibration = tiny.calibrate(good, "textile", max_false_alarms=0.2)
    rule = DecisionRule(threshold, calibration, calibration.regions)
    shared = make_shared(tiny, Inspection(["textile"], rule=rule))
    for row, path in zip(scored(shared, worker, inputs_of(*four)), four, strict=True):
        judgement = rule.decide(tiny.predict(path, "textile"))
        assert row["p_value"] == pytest.approx(judgement.p_value)
        assert (row["verdict"], row["threshold"]) == (judgement.verdict, judgement.threshold)
        assert threshold is None or (row["verdict"], row["threshold"]) == ("anomalous", 0.0)
        assert row["boxes"] == judgement.boxes
        assert bool(row["boxes"]) >= (row["verdict"] == "anomalous")


# What is shared


def test_what_cannot_be_shared_is_refused(tiny, tmp_path, four):
    with pytest.raises(ClassNameError):
        make_shared(tiny, Inspection([" "]))
    with pytest.raises(ReferencesError, match="cannot use a reference picture"):
        make_shared(tiny, Inspection(["weave"], references=[str(tmp_path / "gone.png")]))
    with pytest.raises(ReferencesError, match="asked for 2 reference pictures"):
        make_shared(tiny, Inspection(["weave"], references=[str(four[0])], shots=2))
    good = [save(tmp_path / f"good{number}.png", 20 + number) for number in range(9)]
    calibration = tiny.calibrate(good, "textile", max_false_alarms=0.2)
    with pytest.raises(SettingsError, match="class"):
        make_shared(tiny, Inspection(["screw"], rule=DecisionRule(calibration=calibration)))


def test_what_is_for_one_class_is_refused_for_several():
    rule = DecisionRule(calibration=SimpleNamespace())
    check_inspection(Inspection(["a"], references=["x"], rule=rule))
    check_inspection(Inspection(list("abcdefg")))
    with pytest.raises(
        SettingsError, match=r"^--reference is for one class, .* 7 \(a, b, c, d, e, \.\.\.\); run batch"
    ):
        check_inspection(Inspection(list("abcdefg"), references=["x"]))
    with pytest.raises(SettingsError, match=r"^--calibration is for one class, .* 2 \(a, b\)"):
        check_inspection(Inspection(["a", "b"], rule=rule))


# Heat maps


@pytest.fixture
def painted(shared, worker, four, tmp_path):
    """Scores pictures, the last of them broken, and their heat maps into a folder."""
    four[3].write_bytes(b"no picture")

    def run(place=tmp_path / "out", **changes):
        return scored(asking(shared, overlays=str(place), **changes), worker, inputs_of(*four))

    return run


def test_heat_maps_over_pictures(painted, four, tmp_path):
    rows = painted()
    names = [row["map"] for row in rows]
    assert names[3] is None
    assert [name.rsplit("_", 1)[0] for name in names[:3]] == [f"_maps/0000000{number}" for number in range(3)]
    for name, path in zip(names[:3], four, strict=False):
        with Image.open(tmp_path / "out" / name) as overlay, Image.open(path) as picture:
            assert overlay.size == picture.size
            assert not np.array_equal(np.asarray(overlay.convert("RGB")), np.asarray(picture))
    assert rows[0]["tile_maps"] is not None
    before = {name: (tmp_path / "out" / name).read_bytes() for name in names[:3]}
    assert [row["map"] for row in painted(arrays=False)] == names
    assert {f"_maps/{file.name}": file.read_bytes() for file in (tmp_path / "out/_maps").iterdir()} == before


def test_heat_maps_in_a_store(painted):
    memory, root = open_place("mock://maps/")
    memory.create_dir(f"{root}/out/_maps")
    names = [row["map"] for row in painted("mock://maps/out")]
    with memory.open_input_file(f"{root}/out/{names[0]}") as file:
        assert file.read(8) == b"\x89PNG\r\n\x1a\n"


def test_a_place_that_cannot_be_written_ends_the_work(painted, tmp_path, shared, worker, four):
    (tmp_path / "file").touch()
    with pytest.raises(ClusterError, match=rf"^{tmp_path / 'file'}"):
        pool_worker = SimpleNamespace(kept=None, predictor=worker, name="h:1", advance=lambda: None)
        score(pool_worker, lambda: asking(shared, overlays=str(tmp_path / "file")), inputs_of(*four))
