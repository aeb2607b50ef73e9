"""A whole run on a cluster: each input once, whatever dies or is full; and going on. One run serves many tests."""

from __future__ import annotations

import errno
import json
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from tests.cluster.marks import RAYS_WARNINGS
from winspect.cli.main import main
from winspect.cluster import batch, read_results, run
from winspect.cluster.destination import Destination
from winspect.cluster.inputs import find_inputs
from winspect.cluster.pool import Lost, Pool
from winspect.cluster.progress import Progress
from winspect.cluster.run import Unit, fill
from winspect.cluster.scoring import Scored
from winspect.cluster.shards import encode, result_schema
from winspect.cluster.shared import Inspection, Shared
from winspect.cluster.store import FolderStore
from winspect.errors import OutputError, SettingsError, SourceError

pytestmark = [pytest.mark.ray, RAYS_WARNINGS]

COUNT, BROKEN, POISON, SHARD_ROWS, THRESHOLD = 40, (5, 17), 23, 7, 0.5
CLASSES = ("textile", "metal nut")


@pytest.fixture(scope="session")
def manifest(tmp_path_factory):
    """Forty inputs of two classes: two are broken, and one takes its worker down."""
    folder = tmp_path_factory.mktemp("parts")
    rows = []
    for number in range(COUNT):
        random = np.random.default_rng(number)
        side = 13 if number == POISON else 40 + number
        pixels = random.integers(60, 160, (side, side, 3), dtype=np.uint8)
        pixels[: side // 3, : side // 4] = random.integers(0, 255, 3)
        name = f"part{number}.png"
        Image.fromarray(pixels).save(folder / name)
        rows.append({"id": f"id-{number}", "path": name, "class": CLASSES[number % 3 == 0]})
    for number in BROKEN:
        (folder / f"part{number}.png").write_bytes(b"no picture")
    file = folder / "parts.csv"
    pd.DataFrame(rows).to_csv(file, index=False)
    return file


@pytest.fixture(scope="session")
def finished(ray_cluster, manifest, tiny_options, tmp_path_factory):
    """The run that most tests look at: a model loaded by workers, both kinds of maps, and a picture that kills."""
    place = tmp_path_factory.mktemp("finished") / "out"
    options = {"shard_rows": SHARD_ROWS, "maps": "both", "threshold": THRESHOLD, **tiny_options}
    summary = batch(manifest, place, **options)
    return SimpleNamespace(place=place, summary=summary, options=options, table=pd.read_parquet(place))


@pytest.fixture
def no_units(monkeypatch):
    """Nothing is left for workers to score."""
    monkeypatch.setattr(Pool, "run", lambda *_: pytest.fail("workers were given work"))


# One run, looked at from all sides


def test_every_input_is_there_once_in_order(finished, manifest):
    table = finished.table
    assert table["id"].tolist() == [f"id-{number}" for number in range(COUNT)]
    assert table["path"].tolist() == [str(manifest.parent / f"part{number}.png") for number in range(COUNT)]
    assert table["class"].tolist() == [CLASSES[number % 3 == 0] for number in range(COUNT)]
    assert table["model"].unique().tolist() == ["winspect-tiny"]


def test_shards_are_as_planned(finished):
    files = sorted(file.name for file in finished.place.glob("*.parquet"))
    assert files == [f"part-0000{number}.parquet" for number in range(6)]
    assert [pq.read_metadata(finished.place / file).num_rows for file in files] == [7, 7, 7, 7, 7, 5]
    listed = json.loads((finished.place / "_winspect/shards.json").read_text())["shards"]
    assert [(shard["file"], shard["failed"]) for shard in listed] == list(zip(files, [1, 0, 1, 1, 0, 0], strict=True))


def test_what_fails_is_a_row_with_its_error(finished):
    errors = finished.table["error"].dropna()
    assert {number: error["type"] for number, error in errors.items()} == {
        **dict.fromkeys(BROKEN, "PictureError"),
        POISON: "WorkerLost",
    }
    assert errors[5]["message"].startswith(f"{finished.table['path'][5]}: ")
    assert "died each time it was tried, alone with it too" in errors[POISON]["message"]
    of_failed = finished.table.loc[errors.index, ["anomaly_score", "verdict", "map", "tile_maps"]]
    assert of_failed.isna().all(axis=None)


def test_scores_and_maps_are_those_of_predict(finished, tiny):
    judged = finished.table[finished.table["error"].isna()]
    assert len(judged) == COUNT - 3
    for row in judged.to_dict("records"):
        expected = tiny.predict(row["path"], row["class"])
        assert row["anomaly_score"] == pytest.approx(expected.anomaly_score, abs=1e-5)
        maps = row["tile_maps"].reshape(row["map_shape"])
        np.testing.assert_allclose(maps, expected.tile_maps, rtol=0, atol=1e-5)
        assert (row["width"], row["height"]) == expected.size_wh
        assert row["verdict"] == ("anomalous" if row["anomaly_score"] >= THRESHOLD else "normal")
    assert judged["anomaly_score"].nunique() > 30  # so that no two could be exchanged unseen


def test_overlays_lie_beside_the_shards(finished):
    named = finished.table["map"].dropna()
    assert len(named) == COUNT - 3
    assert {f"_maps/{file.name}" for file in (finished.place / "_maps").iterdir()} == set(named)
    for number, name in named.items():
        assert name.startswith(f"_maps/{number:08d}_part{number}")
        with Image.open(finished.place / name) as overlay:
            assert overlay.size == (40 + number, 40 + number)


def test_summary_counts_what_is_there(finished):
    summary, table = finished.summary, finished.table
    assert {name: summary[name] for name in ("inputs", "judged", "failed", "judged_now", "shards")} == {
        "inputs": COUNT,
        "judged": COUNT - 3,
        "failed": 3,
        "judged_now": COUNT,
        "shards": 6,
    }
    assert summary["anomalous"] == (table["verdict"] == "anomalous").sum()
    assert summary["scores"]["0.5"] == pytest.approx(table["anomaly_score"].median())
    assert {kind: told["count"] for kind, told in summary["errors"].items()} == {"PictureError": 2, "WorkerLost": 1}
    assert {name: told["failed"] for name, told in summary["classes"].items()} == {"textile": 3, "metal nut": 0}
    assert set(summary["stages"]) == {"judge", "paint", "write"}
    assert json.loads((finished.place / "_winspect/summary.json").read_text()) == summary


def test_results_are_read_back(finished, tiny):
    results = list(read_results(str(finished.place)))
    assert [result.path for result in results] == finished.table["path"].tolist()
    assert [number for number, result in enumerate(results) if result.error] == [5, 17, POISON]
    expected = tiny.predict(results[8].path, results[8].category_name)
    np.testing.assert_allclose(results[8].anomaly_map, expected.anomaly_map, rtol=0, atol=1e-5)


# Going on


def written(place):
    return {file.name: file.stat().st_mtime_ns for file in place.glob("*.parquet")}


def test_going_on_with_a_finished_run_judges_nothing(finished, manifest, no_units):
    before = written(finished.place)
    summary = batch(manifest, finished.place, resume=True, **finished.options)
    assert (summary["judged_now"], summary["judged"], summary["failed"]) == (0, COUNT - 3, 3)
    assert summary["scores"] == finished.summary["scores"]
    assert written(finished.place) == before


@pytest.mark.parametrize(("name", "value"), [("threshold", 0.75), ("maps", "arrays"), ("class_name", "brick")])
def test_another_run_is_not_gone_on_with(finished, manifest, no_units, name, value):
    before = written(finished.place)
    source = manifest if name != "class_name" else manifest.parent / "part1.png"
    told = {"threshold": r"threshold: 0\.5 there, 0\.75 asked for", "maps": "maps:", "class_name": "inputs:"}[name]
    with pytest.raises(OutputError, match=f"holds another run .*{told}"):
        batch(source, finished.place, resume=True, **{**finished.options, name: value})
    assert written(finished.place) == before


def test_the_command_line_on_a_finished_run(finished, manifest, no_units, capsys, process_as_before):
    command = ["batch", manifest, "--out", finished.place, "--resume", "--maps", "both", "--threshold", THRESHOLD]
    command += ["--model", "winspect-tiny", "--device", "cpu", "--engine", "torch"]
    assert main([*map(str, command), "--json"]) == 3
    summary = json.loads(capsys.readouterr().out)  # the summary alone
    assert (summary["inputs"], summary["failed"], summary["judged_now"]) == (COUNT, 3, 0)
    assert main([*map(str, command)]) == 3
    told = capsys.readouterr().out
    assert told.startswith(f"{COUNT} pictures: {COUNT - 3} judged, 3 failed; 0 in ")
    assert f"2 failed: PictureError, as {manifest.parent / 'part5.png'}: " in told
    assert "1 failed: WorkerLost, as the process that worked on this picture died each time" in told
    assert f"results: {finished.place} (6 shards, " in told


def test_a_full_disk_keeps_what_is_finished_and_the_rest_follows(
    finished, manifest, tiny_options, tmp_path, monkeypatch
):
    """And what is judged does not depend on the number of workers, the size of shards, or what came before."""
    rows = pd.read_csv(manifest).drop(POISON)[:24]
    some, place = manifest.with_name("some.csv"), tmp_path / "out"
    rows.to_csv(some, index=False)
    write, shards = FolderStore.write, []

    def full(self, name, content):
        shards.extend([name] * name.startswith("part-"))
        if len(shards) == 3:
            raise OSError(errno.ENOSPC, "No space left on device")
        write(self, name, content)

    with monkeypatch.context() as patch:
        patch.setattr(FolderStore, "write", full)
        words = r"the disk is full; free some space; finished shards are kept \(2 of 5\), go on with --resume$"
        with pytest.raises(OutputError, match=words):
            batch(some, place, shard_rows=5, **tiny_options)
    kept = written(place)
    assert len(kept) == 2 and not (place / "_winspect/summary.json").exists()
    (place / min(kept)).unlink()  # as if that disk had lost one, too
    summary = batch(some, place, resume=True, workers=2, **tiny_options)
    assert (summary["judged_now"], summary["judged"], summary["failed"]) == (24 - 5, 22, 2)
    assert written(place).items() >= {(max(kept), kept[max(kept)])}
    read = pd.read_parquet(place)
    expected = finished.table.set_index("id").loc[rows["id"]].reset_index()
    assert read["id"].tolist() == rows["id"].tolist()
    np.testing.assert_allclose(read["anomaly_score"], expected["anomaly_score"], rtol=0, atol=1e-5)
    pd.testing.assert_series_equal(read["error"], expected["error"])


# Refused before Ray starts


@pytest.fixture
def no_ray(monkeypatch):
    monkeypatch.setattr(run, "connect", lambda *_, **__: pytest.fail("a cluster was asked for"))


def test_a_place_that_is_used_is_refused_first(no_ray, tmp_path, textile):
    (tmp_path / "_winspect").mkdir()
    layout = {"inputs": 1, "rows_per_shard": 1, "arrays": False}
    (tmp_path / "_winspect/run.json").write_text(json.dumps({"layout": layout}))
    with pytest.raises(OutputError, match=r"holds an unfinished run .*0 of 1 shards.*; add --resume, or choose"):
        batch(textile[0], tmp_path)
    (tmp_path / "_winspect/run.json").unlink()
    (tmp_path / "holiday.txt").touch()
    for resume in (False, True):
        with pytest.raises(OutputError, match=r"holds files of no winspect batch \(holiday\.txt\)"):
            batch(textile[0], tmp_path, resume=resume)


def test_bad_calls_are_refused_first(no_ray, tmp_path, textile, manifest):
    out = tmp_path / "out"
    with pytest.raises(SettingsError, match="maps: got 'all', need one of none, arrays, overlays, both"):
        batch(textile[0], out, maps="all")
    with pytest.raises(SourceError, match="no such file or folder"):
        batch(tmp_path / "nowhere", out)
    with pytest.raises(
        SettingsError, match=r"--reference is for one class, but the inputs have 2 \(metal nut, textile\)"
    ):
        batch(manifest, out, references=[textile[0]])
    assert not out.exists()


# Units of work, without Ray: what workers give back is made up


class Workers:
    """A pool whose workers score by the ordinal, and die on some units; remembers what it was asked for."""

    def __init__(self, inputs, plan, shared, *, deadly=()):
        self.inputs, self.plan, self.shared, self.deadly, self.asked = inputs, plan, shared, deadly, []

    def run(self, units, call, look):
        while units:
            unit = units.popleft()
            self.asked.append(unit)
            _, _, inputs, *whole = call(unit)
            is_deadly = any(row["ordinal"] in self.deadly for row in inputs)
            yield unit, Lost() if is_deadly else self.scored(inputs, *whole)

    def share(self, value):
        return lambda: value

    def scored(self, inputs, *whole):
        rows = [row | self.shared.made_by | {"anomaly_score": row["ordinal"] / 10} for row in inputs]
        table = pa.Table.from_pylist(rows, schema=result_schema(arrays=False))
        return Scored(encode(*whole, table) if whole else table, 0.5, 0.0, "h:1")


@pytest.fixture
def six(tmp_path, tiny):
    """Six inputs in three shards; ``run`` fills a destination with what the workers give back."""
    for number in range(6):
        Image.new("RGB", (10, 10)).save(tmp_path / f"part{number}.png")
    inputs, shared = find_inputs([str(tmp_path)]), Shared(tiny.identity(), {}, Inspection(["object"]))
    seen = SimpleNamespace(out=tmp_path / "out")

    def run(*, resume=False, deadly=()):
        with Destination.open(str(seen.out), {}, count=6, shard_rows=2, resume=resume) as destination:
            workers = Workers(inputs, destination.plan, shared, deadly=deadly)
            seen.asked = workers.asked
            return fill(destination, inputs, workers, shared)

    seen.run = run
    return seen


def test_a_shard_that_kills_is_tried_picture_by_picture_and_the_one_that_kills_is_a_row(six):
    summary = six.run(deadly={3})
    assert six.asked == [Unit(0), Unit(1), Unit(2), Unit(1, 2), Unit(1, 3)]
    read = pd.read_parquet(six.out)
    assert read["error"].dropna().map(lambda error: error["type"]).to_dict() == {3: "WorkerLost"}
    np.testing.assert_allclose(read["anomaly_score"], [0, 0.1, 0.2, np.nan, 0.4, 0.5])
    assert (read["id"][3], read["path"][3]) == (str(six.out.parent / "part3.png"),) * 2
    assert (summary["judged_now"], summary["stages"]["judge"]["seconds"]) == (6, 1.5)


def test_an_interruption_keeps_finished_shards(six, monkeypatch):
    add = Progress.add

    def interrupted(self, done, failed):
        add(self, done, failed)
        if self.done == 4:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Progress, "add", interrupted)
        six.run()
    assert written(six.out).keys() == {"part-00000.parquet", "part-00001.parquet"}
    assert six.run(resume=True)["judged_now"] == 2
    assert six.asked == [Unit(2)]
    assert len(pd.read_parquet(six.out)) == 6
