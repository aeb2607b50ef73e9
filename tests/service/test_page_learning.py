"""References and calibration on the page, in a real browser."""

# ruff: noqa: F401, F811  (fixtures are imported, and then asked for by name)
from __future__ import annotations

import json
from dataclasses import replace

import pytest
from service.browser import (
    backend,
    choose,
    context,
    expect,
    files,
    grey,
    large,
    name_class,
    needs_chromium,
    page,
    score,
    service,
)

from winspect.service.contract import CalibrationState

pytestmark = needs_chromium


# -- references


def test_references_are_added_compared_and_removed(page, backend):
    choose(page, *files(part=204))
    expect(score(page)).to_have_text("0.80")
    expect(page.locator("#compare-label")).to_be_hidden()
    page.set_input_files("#references-files", files(g1=10, g2=20))
    expect(page.locator("#references-count")).to_have_text("2 good samples")
    expect(page.locator("#references-list canvas")).to_have_count(2)
    expect(page.locator("figcaption")).to_have_text("With 2 references")
    expect(score(page)).to_have_text("0.40")
    page.check("#compare")
    expect(page.locator("figcaption")).to_have_text(["Zero-shot", "With 2 references"])
    expect(page.locator("figure .score")).to_have_text(["0.80", "0.40"])
    expect(page.locator("figure canvas >> visible=true")).to_have_count(2)
    page.get_by_role("button", name="Remove g1.png").click()
    expect(page.locator("#references-count")).to_have_text("1 good sample")
    assert [one.name for one in backend.stored["object"]] == ["g2.png"]
    page.get_by_role("button", name="Remove g2.png").click()
    expect(page.locator("#references-count")).to_be_hidden()
    expect(page.locator("figcaption")).to_have_text(["Zero-shot"])
    assert not backend.stored


def test_good_sample_and_judged_picture_become_references(page, backend):
    page.get_by_role("button", name="Use the good leather as a reference").click()
    expect(page.locator("#references-count")).to_have_text("1 good sample")
    assert [one.name for one in backend.stored["leather"]] == ["leather-good.jpg"]
    choose(page, *files(part=51))
    page.get_by_role("button", name="This one is good").click()
    expect(page.locator("#references-count")).to_have_text("2 good samples")
    expect(page.get_by_role("button", name="This one is good")).to_be_hidden()
    page.reload()  # the service has kept them; this visit has no picture of them
    name_class(page, "leather")
    expect(page.locator("#references-list .tiny")).to_have_text(["leather-good.jpg", "part.png"])
    page.get_by_role("button", name="Remove part.png").click()  # also one that this visit has no picture of
    expect(page.locator("#references-list .tiny")).to_have_text(["leather-good.jpg"])
    page.get_by_role("button", name="Remove all").click()
    expect(page.locator("#references-list li")).to_have_count(0)


def test_references_that_cannot_be_used_are_named(page):
    page.set_input_files("#references-files", large("large.png"))
    expect(page.locator("#references-error li")).to_contain_text("large.png: the request is larger than 1 MB")
    broken = {"name": "broken.jpg", "mimeType": "image/jpeg", "buffer": b"no picture"}
    page.set_input_files("#references-files", [*files(a=1, b=2, c=3), broken, *files(d=4, e=5, f=6, g=7)])
    expect(page.locator("#references-error")).to_contain_text("One picture was not taken:")
    expect(page.locator("#references-error li")).to_contain_text("broken.jpg: not a picture")
    expect(page.locator("#references-count")).to_have_text("7 good samples")


# -- calibration


def folder_of(path, levels):
    path.mkdir()
    for number, level in enumerate(levels):
        (path / f"{number}.png").write_bytes(grey(level))
    (path / "notes.txt").write_text("not a picture")
    return str(path)


def test_calibration_from_a_folder(page, tmp_path, backend):
    page.set_input_files("#calibration-files", folder_of(tmp_path / "few", range(5)))
    expect(page.locator("#calibration-needed")).to_have_text(
        "5 chosen. 1 % needs at least 99 good pictures. 5 are enough for 16.7 %."
    )
    expect(page.locator("#calibration-note")).to_have_text("1 file that is no picture is left out.")
    expect(page.locator("#calibration-start")).to_be_disabled()
    page.get_by_label("Flag at most").fill("10")
    page.set_input_files("#calibration-files", folder_of(tmp_path / "good", range(90, 102)))
    choose(page, *files(fine=50, bad=204))
    page.click("#calibration-start")
    expect(page.locator("#calibration-text")).to_contain_text("Judging good pictures: 3 of 12.")
    expect(page.locator("#calibration-text")).to_contain_text(
        "At most 1 in 10 good pictures is flagged, on average. Threshold 0.396, from 12 good pictures"
    )
    assert len(backend.good["object"]) == 12
    expect(page.locator("figure .verdict")).to_have_text("Normal")
    expect(page.locator("figure .threshold")).to_have_text("Threshold 0.396: the score stays below it.")
    page.locator(".thumb").nth(1).click()
    expect(page.locator("figure .verdict")).to_have_text("Anomalous")
    expect(page.locator("figure .p-value")).to_contain_text("p-value 0.077: at most 7.7 %")
    expect(page.locator("figure .mark")).to_be_visible()
    with page.expect_download() as download:
        page.click("#calibration-download")
    assert json.loads(download.value.path().read_text())["schema"] == 1
    page.click("#calibration-delete")
    expect(page.locator("figure .verdict")).to_have_text("No threshold yet")
    page.click("#calibration-forget")
    expect(page.locator("#calibration-forget")).to_be_hidden()
    assert not backend.good


def test_calibration_is_stopped(page, tmp_path, backend):
    page.get_by_label("Flag at most").fill("10")
    page.set_input_files("#calibration-files", folder_of(tmp_path / "good", range(90, 102)))
    page.click("#calibration-start")
    expect(page.locator("#calibration-badge")).to_have_text("calibrating")
    page.click("#calibration-stop")
    expect(page.locator("#calibration-badge")).to_be_hidden()
    expect(page.locator("#calibration-needed")).to_contain_text("12 good pictures stored.")
    assert not backend.calibrations


def test_calibration_says_what_went_wrong(page, tmp_path):
    page.get_by_label("Flag at most").fill("25")
    same = folder_of(tmp_path / "copies", [7, 7, 7, 7])  # one picture four times
    page.set_input_files("#calibration-files", same)
    page.click("#calibration-start")
    expect(page.locator("#calibration-error")).to_contain_text("1 good pictures are too few, need 3")
    (tmp_path / "mixed").mkdir()
    (tmp_path / "mixed" / "broken.png").write_bytes(b"no picture")
    page.set_input_files("#calibration-files", str(tmp_path / "mixed"))
    page.get_by_label("Flag at most").fill("49")
    page.click("#calibration-start")
    expect(page.locator("#calibration-error")).to_contain_text("broken.png: not a picture")


@pytest.mark.parametrize(
    ("state", "badge", "words"),
    [
        (
            CalibrationState("stale", "other references", 0.1, threshold=0.5, pictures=9),
            "out of date",
            "other references",
        ),
        (CalibrationState("failed", "the disk is full", 0.1), "failed", "the disk is full"),
    ],
    ids=["stale", "failed"],
)
def test_calibration_that_is_not_used(page, backend, state, badge, words):
    backend.under_way = state
    name_class(page, "candle")
    expect(page.locator("#calibration-badge")).to_have_text(badge)
    expect(page.locator("#calibration-text")).to_contain_text(words)


# -- recipes that need good samples, and scores that do not end at 1


def test_a_recipe_without_zero_shot_says_what_it_needs(page, backend):
    backend.scores, backend.scale = {"score_range": [0.0, None], "zero_shot": False}, 100.0
    page.reload()
    expect(page.locator("#references-text")).to_contain_text("nothing is judged before it has some")
    expect(page.locator("#empty-score")).to_have_text("A higher score is more anomalous")
    choose(page, *files(part=204))
    expect(page.locator("figure .error")).to_have_text(
        "Not judged: this recipe compares with good samples. Add one or more of this class under References."
    )
    expect(page.locator("figcaption")).to_have_text("Without references")
    expect(page.locator("figure .again")).to_be_hidden()
    page.set_input_files("#references-files", files(g1=10))
    expect(score(page)).to_have_text("40.00")
    expect(page.locator("#compare-label")).to_be_hidden()
    expect(page.locator("figure .meter")).to_be_hidden()  # nothing says how much 40 is
    expect(page.locator("figure .threshold")).to_have_text(
        "Scores are 0 or more; more is more anomalous, and a threshold says what is much."
    )


def test_a_threshold_beyond_1_is_half_of_the_meter(page, backend, monkeypatch):
    backend.scores, backend.scale = {"score_range": [0.0, 2.0], "zero_shot": False}, 4.0
    answer = backend.answer
    monkeypatch.setattr(
        backend, "answer", lambda question, *more: answer(replace(question, threshold=1.25), *more), raising=True
    )
    page.reload()
    page.set_input_files("#references-files", files(g1=10))
    choose(page, *files(part=204))
    expect(score(page)).to_have_text("1.60")
    expect(page.locator("figure .threshold")).to_have_text("Threshold 1.250: the score stays below it.")
    meter = page.locator("figure .meter")
    expect(meter).to_have_attribute("aria-valuenow", "1.600")
    expect(meter).to_have_attribute("aria-valuemax", "2.5")
    filled = meter.evaluate("meter => Number(meter.style.getPropertyValue('--score'))")
    assert filled == pytest.approx(0.64)
    mark = meter.locator(".mark")
    assert mark.evaluate("mark => mark.style.getPropertyValue('--threshold')") == "0.5"
