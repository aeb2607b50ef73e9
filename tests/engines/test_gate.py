"""The precision gate's parts: the comparison by hand and against NumPy, records on disk, the bundled pictures."""

from __future__ import annotations

import json
import logging

import numpy as np
import pytest

from winspect.engines.gate import (
    BARS,
    GateRecords,
    GateResult,
    GateScores,
    calibration_pictures,
    compare,
    gate_pictures,
)
from winspect.engines.gate.comparison import correlation

LABELS = np.array([False, False, True, True])
FP32 = GateScores(scores=np.array([0.1, 0.2, 0.3, 0.4]), maps=np.arange(16, dtype=np.float32).reshape(4, 2, 2) / 16)
KEY = {"weights": "w", "precision": "bf16", "recipe": {"scales": (2, 3)}}


# The comparison


@pytest.mark.parametrize("shape", [(5,), (40, 15, 15)])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_correlation_is_numpys(shape, dtype):
    random = np.random.default_rng(0)
    first = random.random(shape).astype(dtype)
    for second in (first, -first, random.random(shape).astype(dtype), first + 0.1 * random.random(shape)):
        expected = np.corrcoef(first.ravel(), second.ravel())[0, 1]
        assert correlation(first.ravel(), second.ravel()) == pytest.approx(expected, abs=1e-6)


def test_correlation_by_hand():
    # Differences from the means: (-1, 0, 1) and (-1, 1, 0): 1 over the root of 2 * 2.
    assert correlation(np.array([1.0, 2.0, 3.0]), np.array([1.0, 3.0, 2.0])) == pytest.approx(0.5)


@pytest.mark.parametrize("other", [np.full(4, 0.3), np.array([0.1, np.nan, 0.2, 0.3]), np.full(4, np.nan)], ids=str)
def test_what_is_constant_or_no_number_does_not_correlate(other):
    assert correlation(FP32.scores, other) == 0
    assert correlation(other, FP32.scores) == 0


def test_the_same_judgements_pass():
    result = compare("bf16", FP32, FP32, LABELS)
    assert result == GateResult("bf16", 4, pytest.approx(1), pytest.approx(1), 1.0, 1.0, ())
    assert result.passed
    assert str(result) == (
        "bf16 against fp32 on 4 pictures: scores correlate 1.0000, maps 1.0000, image AUROC 1.0000 (fp32 1.0000)"
    )


def scores(*values: float) -> GateScores:
    return GateScores(np.array(values), FP32.maps)


@pytest.mark.parametrize(
    ("candidate", "reasons"),
    [
        (scores(0.1, 0.2, 0.3, 0.4001), []),
        (scores(0.1, 0.3, 0.2, 0.4), ["scores correlate 0.8000", "image AUROC falls from 1.0000 to 0.7500"]),
        (scores(0.1, 0.2, 0.3, 2.0), ["scores correlate 0.8286"]),
        (scores(0.5, 0.5, 0.5, 0.5), ["scores correlate 0.0000", "falls from 1.0000 to 0.5000"]),
        (scores(0.1, 0.2, 0.3, np.nan), ["scores correlate 0.0000", "falls from 1.0000 to 0.5000"]),
        (scores(0.4, 0.3, 0.2, 0.1), ["scores correlate -1.0000", "falls from 1.0000 to 0.0000"]),
        (GateScores(FP32.scores, np.full((4, 2, 2), 0.5)), ["maps correlate 0.0000"]),
        (GateScores(FP32.scores, FP32.maps * np.nan), ["maps correlate 0.0000"]),
        (GateScores(FP32.scores, 1 - FP32.maps), ["maps correlate -1.0000"]),
    ],
    ids=["close", "swapped", "outlier", "constant", "nan", "reversed", "flat maps", "nan maps", "inverted maps"],
)
@pytest.mark.parametrize("precision", BARS)
def test_what_fails_says_why(precision, candidate, reasons):
    result = compare(precision, FP32, candidate, LABELS)
    assert result.passed == (not reasons)
    assert len(result.reasons) == len(reasons)
    for reason, words in zip(result.reasons, reasons, strict=True):
        assert words in reason


def test_auroc_may_fall_by_as_much_as_the_bar():
    """Two pictures of 100 x 100 change places: 1 pair of 10,000, and 40 of them."""
    labels = np.repeat([False, True], 100)
    fp32 = np.linspace(0, 1, 200)
    maps = np.random.default_rng(0).random((200, 2, 2))

    def moved(pairs: int) -> GateResult:
        candidate = fp32.copy()
        candidate[99] = fp32[99 + pairs] + 1e-4  # the highest good one passes so many with a defect
        return compare("bf16", GateScores(fp32, maps), GateScores(candidate, maps), labels)

    assert moved(30).image_auroc == pytest.approx(1 - 0.0030)
    assert moved(29).passed
    (reason,) = moved(31).reasons
    assert reason == "image AUROC falls from 1.0000 to 0.9969, by more than 0.003"


def test_a_better_auroc_is_no_reason():
    worse = scores(0.1, 0.31, 0.3, 0.4)
    assert compare("bf16", worse, scores(0.1, 0.3, 0.301, 0.4), LABELS).passed


def test_one_kind_of_picture_alone_decides_nothing():
    with pytest.raises(ValueError, match="good and defective"):
        compare("bf16", FP32, FP32, np.zeros(4, bool))


# Records


@pytest.mark.parametrize("reasons", [(), ("scores correlate 0.5", "maps correlate 0.1")])
def test_a_verdict_is_kept(tmp_path, reasons):
    result = GateResult("bf16", 40, 0.5, 0.25, 0.75, 1.0, reasons)
    records = GateRecords(tmp_path / "gate")
    assert records.read(KEY) is None
    assert not (tmp_path / "gate").exists()
    records.write(KEY, result)
    kept = GateRecords(tmp_path / "gate").read(json.loads(json.dumps(KEY)))
    assert kept == result
    assert kept.passed == (not reasons)
    for name in KEY:
        assert records.read({**KEY, name: "other"}) is None


@pytest.mark.parametrize(
    "content",
    [
        *(b"", b"{", b"[]", b"null", b"{}", b"\xff"),
        *(b'{"result": {}}', b'{"result": null}', b'{"result": {"reasons": 7}}'),
        b'{"result": {"precision": "bf16", "reasons": [], "more": 1}}',
    ],
)
def test_a_damaged_record_is_said_and_judged_again(tmp_path, caplog, content):
    records = GateRecords(tmp_path)
    result = GateResult("bf16", 40, 1.0, 1.0, 1.0, 1.0, ())
    records.write(KEY, result)
    (path,) = tmp_path.iterdir()
    path.write_bytes(content)
    with caplog.at_level(logging.WARNING):
        assert records.read(KEY) is None
    (message,) = caplog.messages
    assert f"{path}: unreadable verdict of the precision gate" in message
    records.write(KEY, result)
    assert records.read(KEY) == result


def test_records_that_cannot_be_kept(tmp_path, caplog):
    (tmp_path / "file").touch()
    records = GateRecords(tmp_path / "file" / "gate")
    with caplog.at_level(logging.WARNING):
        records.write(KEY, GateResult("bf16", 40, 1.0, 1.0, 1.0, 1.0, ()))
        assert any("cannot keep the verdict" in message for message in caplog.messages)
        assert records.read(KEY) is None


# Pictures


def test_the_bundled_pictures():
    pictures, labels = gate_pictures()
    assert (len(pictures), labels.shape, labels.dtype) == (40, (40,), bool)
    assert labels.sum() == 20
    calibration = calibration_pictures()
    assert len(calibration) == 20
    for picture in [*pictures, *calibration]:
        assert (picture.shape, picture.dtype) == ((240, 240, 3), np.uint8)
        assert picture.std() > 3  # not blank


def test_nothing_is_judged_that_ranges_were_set_on():
    """Not the same picture, nor nearly: as thumbnails too, each of the forty differs from each of the twenty."""
    judged, calibrated = (
        [picture.reshape(24, 10, 24, 10, 3).mean(axis=(1, 3)) for picture in pictures]
        for pictures in (gate_pictures()[0], calibration_pictures())
    )
    assert min(np.abs(first - second).mean() for first in judged for second in calibrated) > 1


def test_a_defect_is_a_defect_of_the_good_picture_above_it():
    """A good part and the same part with a defect: most of it is alike, some of it is not."""
    pictures, labels = gate_pictures()
    columns = len(pictures) // 4
    for row in (0, 2):
        for column in range(columns):
            good, bad = (row * columns + column, (row + 1) * columns + column)
            assert not labels[good]
            assert labels[bad]
            difference = np.abs(pictures[good].astype(int) - pictures[bad].astype(int)).max(axis=2)
            assert np.median(difference) < 30
            assert difference.max() > 20
