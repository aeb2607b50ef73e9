"""The sections ``[verdict]`` and ``[[rules]]``: read, written, and what is wrong with them said by name."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from winspect.calibration.defects import regions_of
from winspect.calibration.measures import measure, smallest_rectangle
from winspect.calibration.rules import Condition, Rules
from winspect.calibration.rules_file import chosen_verdicts, read_rules
from winspect.calibration.verdicts import Verdicts, gravest
from winspect.errors import SettingsError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

DUST = {"name": "dust", "area": "< 5 mm2", "then": "ignore"}


def test_a_document_is_read_and_written():
    tables = [
        DUST,
        {"area": ["> 5 mm2", "<= 20.5 mm2"], "roi": "rim", "then": "review"},
        {"peak": "> 0.8", "count": ">= 3", "inside": [0, 0, 10, 20.5], "then": "anomalous", "raises": True},
    ]
    rules = Rules.read(tables)
    assert rules.document() == tables
    assert len(rules) == 3
    assert rules[0].conditions == (Condition("area", "<", 5.0, "mm2"),)
    assert rules[1].conditions[1] == Condition("area", "<=", 20.5, "mm2")
    assert rules[2].count == (Condition("count", ">=", 3.0),)
    assert (rules.raises, Rules.read(tables[:2]).raises) == (True, False)
    verdicts = {"review": 0.05, "mm_per_pixel": 0.02, "roi": {"rim": 0.002, "bore": 0.001}}
    assert Verdicts.read(verdicts).document() == verdicts
    assert Verdicts.read(verdicts).roi["rim"] == 0.002
    assert Verdicts.read({}).document() == {}
    plain = {"threshold": 0.6, "review_threshold": 0.5}
    assert Verdicts.read(plain).document() == plain


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"arae": "> 5 px"}, r"rules: dust: the rule: got the unknown key 'arae'; known are name, area, length"),
        ({"then": "reject"}, "rules: dust: then: got 'reject', need one of ignore, review, anomalous"),
        ({"then": None}, "rules: dust: then: got None"),
        ({"area": 5}, r"rules: dust: area: got 5, need a bound in quotes, such as '> 5 mm2'"),
        ({"area": "5 mm2"}, "need a bound in quotes"),
        ({"area": "> 5"}, "need the unit px or mm2"),
        ({"area": "> 5 mm"}, "need the unit px or mm2"),
        ({"area": []}, "got no condition"),
        ({"length": "> 5 mm2"}, "length: got '> 5 mm2', need the unit px or mm"),
        ({"peak": "> 0.8 px"}, "peak: got '> 0.8 px', need no unit"),
        ({"area": "> nan mm2"}, "area: got '> nan mm2', need a finite number"),
        ({"area": "> inf mm2"}, "need a finite number"),
        ({"area": "> -1 mm2"}, "need a finite number of 0 or more"),
        ({"area": "> five mm2"}, "need a finite number"),
        ({"roi": 5}, "rules: dust: roi: got 5, need a text"),
        ({"name": ""}, "name: got '', need a text"),
        ({"inside": [0, 0, 10]}, r"inside: got \(0, 0, 10\), need \[x0, y0, x1, y1\]"),
        ({"inside": [0, 0, float("nan"), 5]}, "inside: got"),
        ({"inside": [10, 0, 5, 5]}, "x0 < x1"),
        ({"inside": "all"}, "inside: got 'all'"),
        ({"raises": "yes"}, "raises: got 'yes', need true or false"),
        ({"raises": True}, "raises: got true beside then = 'ignore'"),
    ],
)
def test_a_wrong_rule_is_refused_by_name(change, message):
    with pytest.raises(SettingsError, match=message):
        Rules.read([{**DUST, **change}])


@pytest.mark.parametrize(
    ("tables", "message"),
    [
        ([{"area": "> 5 px"}], "rules: 1: got no then"),
        ([DUST, {"then": "ignore"}], "rules: 2: got no condition, need one of area"),
        ([5], "rules: 1: the rule: got 5, need a table"),
        ({"area": "> 5 px"}, r"need tables \[\[rules\]\]"),
        ("area", r"need tables \[\[rules\]\]"),
    ],
)
def test_wrong_rules_are_refused(tables, message):
    with pytest.raises(SettingsError, match=message):
        Rules.read(tables)


def test_what_rules_need_of_the_product():
    rules = Rules.read([{**DUST, "roi": "rim"}])
    rules.check(0.05, ["rim", "bore"])
    with pytest.raises(SettingsError, match=r'rules: dust: area: got "< 5 mm2" without a scale; set mm_per_pixel'):
        rules.check(None, ["rim"])
    with pytest.raises(SettingsError, match="rules: dust: roi: got 'rim', but its named parts are bore, thread"):
        rules.check(0.05, ["thread", "bore"])
    with pytest.raises(SettingsError, match="there is no ROI with named parts"):
        rules.check(0.05)


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ({"reviews": 0.1}, "verdict: got the unknown key 'reviews'; known are review, threshold, review_threshold"),
        (5, "verdict: got 5, need a table"),
        ({"review": 0}, "verdict: review: got 0, need a rate above 0 and below 1"),
        ({"review": float("nan")}, "review: got nan"),
        ({"review": True}, "review: got True"),
        ({"review": "0.1"}, "review: got '0.1'"),
        ({"threshold": float("nan")}, "threshold: got nan, need a score"),
        ({"review": 0.1, "threshold": 0.5}, "got review, a rate .* beside threshold"),
        ({"review": 0.1, "review_threshold": 0.5}, "beside review_threshold"),
        ({"review_threshold": 0.5}, "review_threshold: needs threshold"),
        (
            {"threshold": 0.5, "review_threshold": 0.5},
            r"review_threshold: got 0.5, need a score below threshold \(0.5\)",
        ),
        ({"threshold": 0.5, "review_threshold": float("nan")}, "review_threshold: got nan"),
        ({"mm_per_pixel": 0}, "mm_per_pixel: got 0, need the width of a pixel in mm above 0"),
        ({"mm_per_pixel": float("nan")}, "mm_per_pixel: got nan"),
        ({"mm_per_pixel": float("inf")}, "mm_per_pixel: got inf"),
        ({"mm_per_pixel": "0.1"}, "mm_per_pixel: got '0.1'"),
        ({"roi": 0.1}, "verdict: roi: got 0.1, need a table of rates by area"),
        ({"roi": {"rim": {}}}, "verdict: roi: rim: got {}, need a rate"),
        ({"roi": {"rim": 2}}, "roi: rim: got 2"),
        ({"roi": {"rim": float("nan")}}, "roi: rim: got nan"),
    ],
)
def test_a_wrong_verdict_is_refused_by_name(document, message):
    with pytest.raises(SettingsError, match=message):
        Verdicts.read(document)


def test_the_gravest():
    assert gravest("normal", "anomalous", "review") == "anomalous"
    assert gravest("normal") == "normal"


def test_measures_by_hand():
    cells, heat = np.zeros((20, 30), bool), np.zeros((20, 30), np.float32)
    cells[2:4, 3:9] = True  # 6 x 2 cells
    heat[3, 7] = 0.9
    for step in range(5):  # a stair of 5 cells: turned by 45 degrees
        cells[10 + step, 10 + step] = True
    heat[12, 12] = 0.4
    flat, stair = measure(regions_of(cells, (60, 40)), heat)  # a cell is 2 x 2 pixels
    assert (flat.box, flat.area, flat.length, flat.aspect) == ((6, 4, 18, 8), 48, 12.0, 3.0)
    assert (round(flat.peak, 6), flat.peak_xy) == (0.9, (15.0, 7.0))
    # From corner to corner it is 5 cells of 2 pixels along the diagonal; across it one diagonal of a cell.
    assert stair.area == 20
    assert stair.length == pytest.approx(10 * np.sqrt(2))
    assert stair.aspect == pytest.approx(5)
    assert stair.peak_xy == (25.0, 25.0)


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 40), st.integers(0, 40)), min_size=1, max_size=12))
def test_the_smallest_rectangle_against_all_angles(cells):
    """Oracle: widths at many angles; none is smaller, and some angle comes near."""
    points = np.array([(x + i, y + j) for x, y in cells for i in (0, 1) for j in (0, 1)])
    longer, shorter = smallest_rectangle(points)
    turns = np.linspace(0, np.pi / 2, 2000)
    widths = [np.ptp(points @ (np.cos(turn), np.sin(turn))) for turn in turns]
    heights = [np.ptp(points @ (-np.sin(turn), np.cos(turn))) for turn in turns]
    least = min(width * height for width, height in zip(widths, heights, strict=True))
    assert longer >= shorter > 0
    assert longer * shorter <= least + 1e-9
    assert longer * shorter >= least - 0.1 - 0.01 * least


def test_words_of_a_condition():
    assert Condition.read("area", ">5mm²") == Condition("area", ">", 5.0, "mm2")
    assert Condition("area", ">", 5.0, "mm2").in_words(14.0) == "area 14 mm2 > 5"
    assert Condition("area", ">=", 5000.0, "px").in_words(12345.6) == "area 12346 px >= 5000"
    assert not any(Condition("peak", sign, 0.5).holds(float("nan")) for sign in ("<", "<=", ">", ">="))


def test_the_page_reads_as_it_is_written():
    """The TOML of docs/line.md."""
    section = (Path(__file__).parents[2] / "docs" / "line.md").read_text().split("\n## Verdicts and rules\n")[1]
    blocks = re.findall(r"```toml\n(.*?)```", section.split("\n## ")[0], re.DOTALL)
    rules = Rules.read(tomllib.loads(blocks[0])["rules"])
    assert [rule.then for rule in rules] == ["ignore", "anomalous", "review"]
    rules.check(Verdicts.read(tomllib.loads(blocks[0])["verdict"]).mm_per_pixel, ["rim"])
    assert Verdicts.read(tomllib.loads(blocks[1])["verdict"]).roi == {"rim": 0.002}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("rule = []", "got the unknown key 'rule'; known are verdict, rules"),
        ("", "got no rules"),
        ("[[rules]\n", "not TOML"),
        ('rules = [{ area = "> 1 px" }]', "rules: 1: got no then"),
    ],
)
def test_a_wrong_file_is_named(tmp_path, text, message):
    file = tmp_path / "rules.toml"
    file.write_text(text)
    with pytest.raises(SettingsError, match=rf"rules\.toml: .*{message}"):
        read_rules(file)
    with pytest.raises(SettingsError, match="nowhere"):
        read_rules(tmp_path / "nowhere.toml")


def test_what_a_caller_says_beside_a_file(tmp_path):
    file = tmp_path / "rules.toml"
    file.write_text("verdict = { review = 0.05, mm_per_pixel = 0.1 }")
    assert chosen_verdicts(file, review=0.05) == (Verdicts(0.05, mm_per_pixel=0.1), Rules())
    with pytest.raises(SettingsError, match=r"review: got 0.1, but \[verdict\] of the rules says 0.05"):
        chosen_verdicts(file, review=0.1)
    with pytest.raises(SettingsError, match="a rate that a calibration keeps, beside threshold"):
        chosen_verdicts(file, threshold=0.5)
