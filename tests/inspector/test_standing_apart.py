"""A good sample that stands apart from the others is named, for each recipe that compares with good samples."""

from __future__ import annotations

import logging

import numpy as np
import pytest
from miniature import product, save

from winspect import WinCLIP
from winspect.inspector import standing_apart as module
from winspect.inspector.standing_apart import LEAST_SPREAD, left_out_scores, standing_apart
from winspect.weights import TINY

RECIPES = {
    "memory": {"layer": "stem_8", "rotations": 2, "size": 96},
    "subspace": {"rotations": 2, "size": 96},
    "fused": {},
}
WORDS = "stands apart from the other good samples"


@pytest.fixture(params=RECIPES)
def model(request) -> WinCLIP:
    return WinCLIP(TINY, device="cpu", engine="torch", recipe=request.param, settings=RECIPES[request.param])


@pytest.fixture
def goods(tmp_path):
    return [save(tmp_path / f"good{number}.png", product(0, number)) for number in range(5)]


def shown(model, pictures, caplog) -> list[str]:
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        model.reference(pictures, "part")
    return [record.getMessage() for record in caplog.records if WORDS in record.getMessage()]


def test_it_is_named_by_its_path_and_no_other_is(model, goods, tmp_path, caplog):
    assert shown(model, goods, caplog) == []
    bad = save(tmp_path / "bad.png", product(1, 0))
    (message,) = shown(model, [*goods[:2], bad, *goods[2:]], caplog)
    assert message.startswith(f"reference picture {bad}: {WORDS}") and "leave it out" in message


def test_of_two_none_can_be_told_and_one_has_no_others(model, goods, tmp_path, caplog):
    bad = save(tmp_path / "bad.png", product(1, 0))
    assert shown(model, [goods[0], bad], caplog) == []
    assert shown(model, [bad], caplog) == []


@pytest.mark.parametrize("recipe", ["memory", "subspace"])
def test_each_is_scored_as_a_model_with_the_others_scores_it(goods, recipe):
    model = WinCLIP(TINY, device="cpu", engine="torch", recipe=recipe, settings=RECIPES[recipe])
    samples = list(model._encode_samples(goods, model.cut, progress=False))
    found = left_out_scores(model.method, samples, model._class_text("part"))
    assert len(goods) - 1 <= module.OTHERS
    for number, picture in enumerate(goods):
        other = WinCLIP(TINY, device="cpu", engine="torch", recipe=recipe, settings=RECIPES[recipe])
        if recipe == "memory":  # whose views do not depend on their place
            other.reference([good for good in goods if good != picture], "part")
            assert found[number] == pytest.approx(other.predict(picture, "part").anomaly_score, abs=1e-5)
    if recipe == "subspace":
        fits = model.method.fit([sample.embeddings for sample in samples[1:]])
        sample, picture = samples[0].upright()
        (expected,) = model.method.score(sample, [picture], text=None, references=fits)
        assert found[0] == pytest.approx(expected.score, rel=1e-4)


def test_of_many_each_is_compared_with_a_few(goods, monkeypatch):
    model = WinCLIP(TINY, device="cpu", engine="torch", recipe="memory", settings=RECIPES["memory"])
    samples = list(model._encode_samples(goods, model.cut, progress=False))
    monkeypatch.setattr(module, "OTHERS", 2)
    found = left_out_scores(model.method, samples, model._class_text("part"))
    ends = model.method.fit([samples[0].embeddings, samples[4].embeddings])
    sample, picture = samples[2].upright()
    (expected,) = model.method.score(sample, [picture], text=None, references=ends)
    assert found[2] == pytest.approx(expected.score, abs=1e-6)


def test_the_rule_by_hand():
    """Median 0 of the logarithms, of which each is 0.1 apart: the least spread decides."""
    logs = np.array([-0.2, -0.1, 0, 0.1, 3 * LEAST_SPREAD - 0.01])
    assert standing_apart(np.exp(logs)) == []
    logs[4] = 3 * LEAST_SPREAD + 0.01
    assert standing_apart(np.exp(logs)) == [4]
    assert standing_apart(100 * np.exp(logs)) == [4]  # in any unit
    wide = np.array([-2, -1, 0, 1, 4.0])  # a median deviation of 1
    assert standing_apart(np.exp(wide)) == []
    wide[4] = 3 * 1.4826 + 0.01
    assert standing_apart(np.exp(wide)) == [4]


def test_copies_and_what_cannot_be_compared_say_nothing():
    assert standing_apart([1e-7, 1e-7, 0.3]) == []
    assert standing_apart([0.0, 0.0, 0.3, 0.31, 0.29, 3.0]) == [5]
    assert standing_apart([np.nan, 0.3, 0.3, 0.31, 3.0]) == [4]
    assert standing_apart([np.nan] * 3) == standing_apart([0.1, 0.5]) == []
    assert standing_apart([0.0] * 4) == []


def test_of_many_the_farthest_are_named_and_the_others_counted():
    scores = [*np.linspace(0.30, 0.31, 40), *range(1, 9)]
    lines = module.warnings_of([f"{number}.png" for number in range(48)], scores)
    assert [line.split(":")[0] for line in lines[:5]] == ["47.png", "46.png", "45.png", "44.png", "43.png"]
    assert lines[5:] == ["42.png and 2 more stand apart, too"]
