"""What a run came to, that every input is there, and reading it back."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from winspect.cluster.destination import Destination
from winspect.cluster.results import MOST_CLASSES, QUANTILES, read_results, summarise
from winspect.cluster.shards import encode, result_schema
from winspect.errors import OutputError, PictureError, SourceError
from winspect.methods.result import Result

QUANTILE_LEVELS = [0, 0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99, 1]
DECODED = {"type": "PictureError", "message": "line/{0}.png: is cut off; copy it again"}
LOST = {"type": "WorkerLost", "message": "died each time"}


def row(ordinal, *, name="screw", score=None, verdict=None, error=None, **arrays):
    error = error and {key: text.format(ordinal) for key, text in error.items()}
    return {
        "id": f"id-{ordinal}",
        "path": f"line/{ordinal}.png",
        "class": name,
        "anomaly_score": score,
        "verdict": verdict,
        "error": error,
        "model": "tiny",
        "weights_sha256": "ab" * 32,
        **arrays,
    }


def open_(place, count, *, shard_rows=4, **options):
    return Destination.open(str(place), {"model": "tiny"}, count=count, shard_rows=shard_rows, **options)


def add(destination, rows, first=0, *, arrays=False):
    """Put the shards of these rows in place; the first is of this number."""
    for at in range(0, len(rows), destination.plan.shard_rows):
        some = rows[at : at + destination.plan.shard_rows]
        table = pa.Table.from_pylist(some, schema=result_schema(arrays=arrays))
        destination.add(encode(destination.plan, first + at // destination.plan.shard_rows, table))


def summary_of(place, rows):
    with open_(place, len(rows)) as destination:
        add(destination, rows)
        return summarise(destination)


# Summaries


def test_a_summary_by_hand(tmp_path):
    summary = summary_of(
        tmp_path,
        [
            row(0, score=0.1, verdict="normal"),
            row(1, score=0.9, verdict="anomalous"),
            row(2, error=DECODED),
            row(3, score=0.3, verdict="normal"),
            row(4, error=LOST),
            row(5, error=DECODED),
        ],
    )
    scores = summary.pop("scores")
    assert scores == pytest.approx({**scores, "min": 0.1, "0.25": 0.2, "0.5": 0.3, "0.75": 0.6, "max": 0.9})
    assert list(scores) == ["min", "0.01", "0.05", "0.25", "0.5", "0.75", "0.95", "0.99", "max"]
    assert summary == {
        "inputs": 6,
        "judged": 3,
        "failed": 3,
        "anomalous": 1,
        "review": 0,
        "normal": 2,
        "warned": 0,
        "shards": 2,
        "bytes": sum(path.stat().st_size for path in tmp_path.glob("part-*.parquet")),
        "errors": {
            "PictureError": {
                "count": 2,
                "example": {
                    "id": "id-2",
                    "path": "line/2.png",
                    "message": "line/2.png: is cut off; copy it again",
                },
            },
            "WorkerLost": {"count": 1, "example": {"id": "id-4", "path": "line/4.png", "message": "died each time"}},
        },
    }


def test_classes_agree_with_pandas(tmp_path):
    random = np.random.default_rng(3)
    names = random.choice(["bolt", "nut", "screw"], 500)
    scores = random.random(500)
    with open_(tmp_path, 500, shard_rows=64) as destination:
        made = [
            row(n, name=str(name), error=LOST)
            if n % 7 == 0
            else row(n, name=str(name), score=float(score), verdict="anomalous" if score > 0.8 else "normal")
            for n, (name, score) in enumerate(zip(names, scores, strict=True))
        ]
        add(destination, made[:192])
    with open_(tmp_path, 500, shard_rows=64, resume=True) as destination:  # earlier shards count too
        add(destination, made[192:], 3)
        summary = summarise(destination)
    json.dumps(summary, allow_nan=False)
    frame = pd.DataFrame(made)
    judged = frame[frame["error"].isna()].astype({"anomaly_score": float})
    assert list(summary["classes"]) == ["bolt", "nut", "screw"]
    for name, told in [(None, summary), *summary["classes"].items()]:
        wanted = judged if name is None else judged[judged["class"] == name]
        quantiles = wanted["anomaly_score"].quantile(QUANTILE_LEVELS)
        np.testing.assert_allclose(list(told["scores"].values()), quantiles, rtol=1e-12)
        assert told["judged"] == len(wanted)
        assert told["anomalous"] == (wanted["verdict"] == "anomalous").sum()
        assert told["normal"] == (wanted["verdict"] == "normal").sum()
        assert told["failed"] == len(frame if name is None else frame[frame["class"] == name]) - len(wanted)
    assert summary["errors"]["WorkerLost"]["count"] == 72
    assert summary["shards"] == 8


def test_without_a_threshold_there_are_no_verdicts(tmp_path):
    summary = summary_of(tmp_path, [row(0, score=0.5)])
    assert (summary["judged"], summary["anomalous"], summary["normal"]) == (1, None, None)
    assert set(summary["scores"].values()) == {0.5}


def test_where_all_failed_there_are_no_scores(tmp_path):
    summary = summary_of(tmp_path, [row(0, name="a", error=LOST), row(1, name="b", error=LOST)])
    assert summary["scores"] is None and summary["failed"] == 2
    undecided = {"anomalous": None, "review": None, "normal": None, "scores": None}
    assert summary["classes"]["b"] == {"judged": 0, "failed": 1, **undecided}


def test_an_unfinished_run_is_summed_up_too(tmp_path):
    with open_(tmp_path, 10) as destination:
        assert summarise(destination)["scores"] is None
        add(destination, [row(n, score=0.5) for n in range(4)])
        summary = summarise(destination)
    assert (summary["inputs"], summary["judged"], summary["shards"]) == (10, 4, 1)


@pytest.mark.parametrize("number", [MOST_CLASSES, MOST_CLASSES + 1])
def test_many_classes_are_not_told_one_by_one(tmp_path, number):
    summary = summary_of(tmp_path, [row(n, name=f"class {n}", score=n / 1000) for n in range(number)])
    assert len(summary.get("classes", ())) == (MOST_CLASSES if number == MOST_CLASSES else 0)
    assert summary["scores"]["max"] == (number - 1) / 1000


def test_quantiles_are_named_after_their_levels():
    assert list(QUANTILES.values()) == QUANTILE_LEVELS


def test_a_damaged_shard_is_no_summary(tmp_path):
    with open_(tmp_path, 4) as destination:
        add(destination, [row(n, score=0.5) for n in range(4)])
        (tmp_path / "part-00000.parquet").write_bytes(b"PAR1")
        with pytest.raises(OutputError, match=r"cannot be read .*part-00000\.parquet.*--resume"):
            summarise(destination)


# The check


def _double(place):
    (place / "part-00009.parquet").write_bytes((place / "part-00000.parquet").read_bytes())


def _swap(place):
    (place / "part-00001.parquet").write_bytes((place / "part-00000.parquet").read_bytes())


def _shorten(place):
    """The footer still says that it is this shard."""
    path = place / "part-00001.parquet"
    pq.write_table(pq.ParquetFile(path).read().slice(1), path)


@pytest.mark.parametrize(
    ("harm", "told"),
    [
        (_double, r"part-00009\.parquet is none of this run's shards"),
        (_swap, r"part-00001\.parquet is of another run"),
        (_shorten, r"part-00001\.parquet holds 3 rows, need 4"),
        (
            lambda place: (place / "part-00001.parquet").write_bytes(b"PAR1"),
            r"part-00001\.parquet is not whole Parquet",
        ),
        (lambda place: (place / "part-00002.parquet").unlink(), r"part-00002\.parquet is not there"),
    ],
)
def test_every_input_is_there_exactly_once(tmp_path, harm, told):
    with open_(tmp_path, 10) as destination:
        add(destination, [row(n, score=0.5) for n in range(10)])
        destination.check()
        harm(tmp_path)
        with pytest.raises(OutputError, match=f"not every input has exactly one row: {told}"):
            destination.check()


def test_an_unfinished_run_does_not_pass(tmp_path):
    told = r"part-00002\.parquet is not there; and 22 more"
    with open_(tmp_path, 100) as destination, pytest.raises(OutputError, match=told):
        destination.check()


# Reading


def maps_of(random, tiles, rows=3, columns=4):
    return random.random((tiles, rows, columns), np.float32)


def as_row(ordinal, result):
    arrays = {}
    if result.tile_maps is not None:
        arrays = {
            "tile_maps": result.tile_maps.ravel(),
            "map_shape": list(result.tile_maps.shape),
            "tile_boxes": np.ravel(result.tile_boxes),
            "width": result.size_wh[0],
            "height": result.size_wh[1],
        }
    error = result.error and {"type": "PictureError", "message": str(result.error)}
    made = row(ordinal, name=result.category_name, score=result.anomaly_score, error=error, **arrays)
    return {**made, "path": result.path}


@pytest.mark.parametrize("kept", [True, False])
def test_results_are_read_as_they_were_written(tmp_path, kept):
    random = np.random.default_rng(5)
    boxes = ((0, 0, 20, 16), (12, 0, 32, 16))
    written = [
        Result("a.png", "screw", 0.25, maps_of(random, 1), ((0, 0, 30, 20),), (30, 20)),
        Result("b: c.png", "nut", error=PictureError("b: c.png", "is cut off: copy it again")),
        Result("ü.png", "nut", 0.125, maps_of(random, 2), boxes, (32, 16)),
        Result("d.png", "screw", 0.0, maps_of(random, 1), ((0, 0, 9, 7),), (9, 7)),
        Result("e.png", "screw", 1.0, maps_of(random, 1), ((0, 0, 5, 5),), (5, 5)),
    ]
    with open_(tmp_path, 5, shard_rows=2, arrays=kept) as destination:
        add(destination, [as_row(ordinal, result) for ordinal, result in enumerate(written)], arrays=kept)
    read = list(read_results(str(tmp_path)))
    assert len(read) == 5
    for was, now in zip(written, read, strict=True):
        assert isinstance(now, Result)
        assert (now.path, now.category_name, now.anomaly_score) == (was.path, was.category_name, was.anomaly_score)
        assert (now.error and (now.error.path, now.error.reason)) == (was.error and (was.error.path, was.error.reason))
        if was.error or not kept:
            assert now.tile_maps is None and now.anomaly_map is None
            continue
        assert (now.tile_boxes, now.size_wh) == (was.tile_boxes, was.size_wh)
        assert now.tile_maps.dtype == now.anomaly_map.dtype == np.float32
        np.testing.assert_array_equal(now.tile_maps, was.tile_maps)
        np.testing.assert_array_equal(now.anomaly_map, was.anomaly_map)
        assert now.anomaly_map.shape == (was.size_wh[1], was.size_wh[0])
    assert [result.tile_maps for result in read_results(str(tmp_path), maps=False)] == [None] * 5


def test_other_errors_and_pictures_without_a_path(tmp_path):
    with open_(tmp_path, 1) as destination:
        add(destination, [{**row(0, error=LOST), "path": None}])
    (result,) = read_results(str(tmp_path))
    assert str(result.error) == "id-0: WorkerLost: died each time" and result.path == "id-0"


def test_a_uri_is_read(tmp_path):
    with open_(tmp_path, 1) as destination:
        add(destination, [row(0, score=0.5)])
    assert [result.path for result in read_results(tmp_path.as_uri())] == ["line/0.png"]


def test_what_is_no_finished_run_is_not_read(tmp_path):
    with pytest.raises(SourceError, match="no results of winspect batch"):
        read_results(str(tmp_path))
    with open_(tmp_path, 6) as destination:
        add(destination, [row(n, score=0.5) for n in range(4)])
    with pytest.raises(SourceError, match="4 of 6 results; run the batch again with --resume"):
        read_results(str(tmp_path))
    with open_(tmp_path, 6, resume=True) as destination:
        add(destination, [row(n, score=0.5) for n in (4, 5)], 1)
    (tmp_path / "part-00001.parquet").write_bytes(b"PAR1")
    results = read_results(str(tmp_path))
    assert [next(results).path for _ in range(4)] == [f"line/{n}.png" for n in range(4)]
    with pytest.raises(SourceError, match=r"part-00001\.parquet: cannot be read"):
        next(results)
    (tmp_path / "_winspect/run.json").write_text("{}")
    with pytest.raises(SourceError, match="is not a batch's run"):
        read_results(str(tmp_path))
    with pytest.raises(SourceError, match="nowhere"):
        read_results("nowhere://bucket/out")
