"""The few-shot comparison with anomalib: its arithmetic by hand, and winspect's side of it run on a small model."""

from __future__ import annotations

import json
import sys

import numpy as np
import pytest
from PIL import Image

from benchmarks import few_shot_speed as speed
from benchmarks.versus_anomalib import ChildError


def figures(ms: list[float], mb: float) -> dict:
    """What a contestant's process answers."""
    seconds = [value / 1000 for value in ms]
    both = {"pictures_s": seconds, "processor_s": [2 * value for value in seconds]}
    return {**both, "peak_rss_mb": mb, "fit_s": 2.0, "load_s": 1.0}


ROUNDS = [
    {"anomalib": figures([400, 400, 900], 1000), "torch:fp32": figures([100, 200, 300], 600)},
    {"anomalib": figures([900, 900, 900], 1200), "torch:fp32": figures([300, 300, 300], 480)},
    {"anomalib": figures([600, 600, 600], 1000), "torch:fp32": figures([600, 600, 600], 500)},
]


def test_summary_by_hand():
    # Medians 200, 300, 600 ms against 400, 900, 600: 2, 3 and 1 times as fast; shares 0.6, 0.4, 0.5 of the memory.
    found = speed.summarise(ROUNDS, "torch:fp32")
    assert (found["ms"], found["times_anomalib"], found["memory_share"]) == (300.0, 2.0, 0.5)
    assert (found["processor_ms"], found["times_anomalib_of_processor"]) == (600.0, 2.0)
    assert speed.summarise(ROUNDS, "anomalib")["times_anomalib"] == 1.0
    titles, peer, ours = speed.table({name: speed.summarise(ROUNDS, name) for name in ROUNDS[0]}).splitlines()
    assert len(titles) == len(peer) == len(ours)


def test_missed_bars():
    found = speed.summarise(ROUNDS, "torch:fp32")
    assert speed.missed_bars({"torch:fp32": found}) == []
    slow = {**found, "times_anomalib": 1.9, "memory_share": 0.6}
    assert [line.split(":")[0] for line in speed.missed_bars({"torch:fp32": slow})] == ["fp32", "memory"]
    assert speed.missed_bars({"torch:fp32": slow, "openvino:fp32": found}) == []  # the best counts
    assert len(speed.missed_bars({"torch:bf16": found})) == 1  # twice as fast is not enough in bf16


def test_agreement_by_hand(tmp_path):
    ramp = np.linspace(0, 1, 9).reshape(1, 3, 3)
    np.savez(speed.distances_file(tmp_path, "anomalib"), patches=ramp)
    np.savez(speed.distances_file(tmp_path, "torch:fp32"), patches=ramp + 0.25)
    assert speed.agreement(tmp_path, "torch:fp32") == {"correlation": 1.0, "mean_difference": 0.25}


def test_views_are_those_of_the_method(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (20, 30, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    written = speed.write_views([tmp_path / "a.png"], tmp_path)
    assert len(written) == 8
    assert (np.asarray(Image.open(written[0])) == pixels).all()
    assert np.abs(np.asarray(Image.open(written[4])).astype(int) - pixels[::-1, ::-1]).mean() < 2  # 180 degrees


def test_winspects_side(tmp_path, textile):
    options = {"model": "winspect-tiny", "recipe": "memory", "settings": {"size": 64, "rotations": 0}}
    where = {"scratch": tmp_path, "threads": 1, "samples": textile[2:4]}
    out = tmp_path / "patches.npz"
    found = speed.run_child(sys.executable, "torch:fp32", textile[:2], options, **where, flags=("--out", str(out)))
    assert json.loads(json.dumps(found)) == found
    assert (found["engine"], found["precision"], len(found["scores"])) == ("torch", "fp32", 2)
    assert min(found["fit_s"], found["load_s"], *found["pictures_s"], *found["processor_s"]) > 0
    assert sorted(found["peak_rss_mb_loaded_and_learnt"]) == found["peak_rss_mb_loaded_and_learnt"]
    with np.load(out) as file:
        assert file["patches"].shape == (2, 4, 4)
    with pytest.raises(ChildError, match="ended with 1"):
        speed.run_child(sys.executable, "torch:fp32", textile[:1], {**options, "recipe": "none"}, **where)
