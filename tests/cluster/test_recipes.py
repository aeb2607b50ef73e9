"""Whole runs on a cluster with recipes that compare patches, by the command line: rows are those of ``predict``."""

from __future__ import annotations

import json

import pandas as pd
import pyarrow.parquet as pq
import pytest
from miniature import part, save

from tests.cluster.marks import RAYS_WARNINGS

pytestmark = [pytest.mark.ray, RAYS_WARNINGS]

MODEL = ("--model", "winspect-tiny", "--engine", "torch", "--device", "cpu")
RECIPES = {
    "memory": ("--recipe", "memory", "--set", "layer=stem_8", "--set", "size=96", "--set", "rotations=2"),
    "subspace": ("--recipe", "subspace", "--set", "size=96", "--set", "rotations=2"),
    "mutual": ("--recipe", "mutual", "--set", "blocks=[stem_8]", "--set", "size=96", "--set", "groups=2"),
}


@pytest.fixture(scope="module")
def parts(tmp_path_factory):
    """Eighteen pictures, one of them broken, and three good samples."""
    folder = tmp_path_factory.mktemp("pictures")
    for number in range(18):
        save(folder / f"parts/{number:02d}.png", part(number, defective=number % 5 == 4)[0])
    for number in range(3):
        save(folder / f"good/{number}.png", part(30 + number, defective=False)[0])
    (folder / "parts/07.png").write_bytes(b"no picture")
    return folder / "parts"


def predicted(cli, pictures, *arguments) -> list[dict]:
    done = cli("predict", *pictures, *MODEL, *arguments, "--json")
    return json.loads(done.out)["results"]


def assert_same(rows, expected, rel=0.0):
    for row, other in zip(rows, expected, strict=True):
        assert row["path"] == other["path"]
        if other["error"]:
            assert pd.isna(row["anomaly_score"]) and row["error"]["message"] == other["error"]["message"]
        else:
            assert row["anomaly_score"] == pytest.approx(other["anomaly_score"], abs=1e-6, rel=rel)


@pytest.mark.parametrize("recipe", ["memory", "subspace"])
def test_rows_with_good_samples_are_those_of_predict(ray_cluster, cli, parts, tmp_path, recipe):
    options = (*RECIPES[recipe], "--reference", parts.parent / "good")
    done = cli("batch", parts, "--out", tmp_path / "out", *MODEL, *options, "--shard-rows", "7", "--maps", "arrays")
    assert done.code == 3, done.err
    rows = pd.read_parquet(tmp_path / "out").to_dict("records")
    # Squared residuals, some 5 in float32: another number of threads moves them by 2e-6 of that.
    assert_same(rows, predicted(cli, [parts], *options), rel=5e-6 if recipe == "subspace" else 0.0)
    assert len(pd.DataFrame(rows)["tile_maps"].dropna()) == 17


def test_each_shard_is_a_batch_and_a_run_that_ended_goes_on(ray_cluster, cli, parts, tmp_path):
    run = ("batch", parts, "--out", tmp_path / "out", *MODEL, *RECIPES["mutual"], "--shard-rows", "9")
    done = cli(*run)
    assert done.code == 3, done.err
    files = sorted((tmp_path / "out").glob("part-*.parquet"))
    assert len(files) == 2
    pictures = sorted(parts.iterdir())
    before = [pq.read_table(file).to_pylist() for file in files]
    for number, rows in enumerate(before):
        assert_same(rows, predicted(cli, pictures[9 * number : 9 * number + 9], *RECIPES["mutual"]))
    files[1].unlink()
    done = cli(*run, "--resume")
    assert done.code == 3 and "17 judged, 1 failed; 9 in" in done.out
    assert [pq.read_table(file).to_pylist() for file in files] == before
