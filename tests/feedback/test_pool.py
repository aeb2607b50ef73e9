"""What joins a calibration, and what does not: by a slow twin, and by hand."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from feedback.logs import feedback_of, picture

from winspect.calibration import Calibration
from winspect.errors import AlreadyJudgedError, FeedbackError, SettingsError
from winspect.feedback.pool import digest_of, pool_of, rates_of, recalibrated, retest_of
from winspect.methods.identity import Identity
from winspect.methods.registry import get_method

IDENTITY = Identity("fake", "00", get_method("paper"), "torch", "fp32", "cpu", class_name="part")
RUN = {"event": "run", "run": "r1", "identity": IDENTITY.entries()}
DATE = "2026-11-28T00:00:00Z"


def calibration(scores, rate=0.1, maxima=None):
    maxima = None if maxima is None else tuple(sorted(map(float, maxima)))
    return Calibration(IDENTITY, rate, tuple(sorted(map(float, scores))), maxima, DATE)


def drawn(score, **more):
    return picture(score, drawn=True, run="r1", **more)


def recalibrate(feedback, base, **options):
    with feedback.records() as records:
        return recalibrated(base, records, date=DATE, **options)


def test_drawn_good_pictures_join_in_order_up_to_the_first_without_an_answer(tmp_path):
    pictures = [drawn(score) for score in (0.3, 0.6, 0.2, 0.7)]
    chosen = picture(0.8, run="r1")
    feedback = feedback_of(tmp_path, RUN, *pictures, chosen)
    for entry, answer in ((pictures[0], "good"), (pictures[1], "defective"), (pictures[3], "good"), (chosen, "good")):
        feedback.judge(entry["id"], answer)
    with feedback.records() as records:
        pool = pool_of(records, "Part")
    assert [each.score for each in pool.joining] == [0.3]
    assert (pool.waits_for.score, pool.behind) == (0.2, 1)
    assert [each.score for each in pool.chosen] == [0.8] and [each.score for each in pool.defective] == [0.6]
    feedback.judge(pictures[2]["id"], "good")
    made = recalibrate(feedback, calibration(np.linspace(0, 1, 20)))
    assert [each.score for each in made.joined] == [0.3, 0.2, 0.7]
    assert made.calibration.scores == tuple(sorted([*np.linspace(0, 1, 20), 0.3, 0.2, 0.7]))
    assert (made.left_out, made.raised_by) == (1, ())
    assert made.calibration.defective.pictures == 1


def test_a_disputed_picture_holds_back_those_behind_it(tmp_path):
    first, second = drawn(0.3), drawn(0.4)
    feedback = feedback_of(tmp_path, RUN, first, second)
    for entry in (first, second):
        feedback.judge(entry["id"], "good", by="anna")
    with pytest.raises(AlreadyJudgedError):
        feedback.judge(first["id"], "defective", by="ben")
    with pytest.raises(FeedbackError, match=f"1 wait for an answer on .*{first['id']}"):
        recalibrate(feedback, calibration(np.linspace(0, 1, 20)))


def test_what_was_scored_by_something_else_or_without_a_peak_is_skipped(tmp_path):
    other = {"event": "run", "run": "r2", "identity": dataclasses.replace(IDENTITY, weights_sha256="11").entries()}
    entries = [drawn(0.1), {**drawn(0.2), "run": "r2"}, {**drawn(0.3), "run": None}, drawn(0.4, peak=0.5)]
    feedback = feedback_of(tmp_path, RUN, other, *entries)
    for entry in entries:
        feedback.judge(entry["id"], "good")
    scores = np.linspace(0, 1, 20)
    made = recalibrate(feedback, calibration(scores))
    assert ([each.score for each in made.joined], made.skipped) == ([0.1, 0.4], 2)
    made = recalibrate(feedback, calibration(scores, maxima=scores))
    assert ([each.score for each in made.joined], made.skipped) == ([0.4], 3)
    assert made.calibration.map_maxima == tuple(sorted([*scores, 0.5]))


def test_a_copy_counts_once(tmp_path):
    first = drawn(0.1)
    second = {**drawn(0.1), "sha256": first["sha256"]}
    feedback = feedback_of(tmp_path, RUN, first, second)
    for entry in (first, second):
        feedback.judge(entry["id"], "good")
    assert len(recalibrate(feedback, calibration(np.linspace(0, 1, 20))).joined) == 1


@pytest.mark.parametrize("seed", range(20))
def test_chosen_good_pictures_can_only_raise_the_threshold(tmp_path, seed):
    random = np.random.default_rng(seed)
    base = calibration(random.random(int(random.integers(30, 90))), rate=float(random.choice([0.05, 0.1, 0.3])))
    chosen = [picture(score, run="r1") for score in random.random(15)]
    feedback = feedback_of(tmp_path, RUN, *chosen)
    for entry in chosen:
        feedback.judge(entry["id"], "good")
    made = recalibrate(feedback, base, also_raise=True)
    above = sorted(entry["score"] for entry in chosen if entry["score"] > base.threshold)
    assert sorted(each.score for each in made.raised_by) == above
    assert made.calibration.threshold >= base.threshold
    # The slow twin: counting down from the highest of all.
    every = sorted([*base.scores, *above], reverse=True)
    flagged = int(base.max_false_alarms * (len(every) + 1) + 1e-9)
    assert made.calibration.threshold == every[flagged - 1]


def test_a_raising_picture_does_not_lower_the_pixel_threshold(tmp_path):
    scores = np.linspace(0, 1, 20)
    chosen = [picture(0.99, run="r1") for _ in range(5)]
    feedback = feedback_of(tmp_path, RUN, *chosen)
    for entry in chosen:
        feedback.judge(entry["id"], "good")
    base = calibration(scores, maxima=scores)
    made = recalibrate(feedback, base, also_raise=True).calibration
    assert made.pixel_threshold >= base.pixel_threshold and len(made.map_maxima) == 25


def test_new_pictures_that_contradict_the_promise_are_found_out(tmp_path):
    entries = [drawn(score) for score in (0.97, 0.98, 0.99, 0.995, 0.996, 0.2)]
    feedback = feedback_of(tmp_path, RUN, *entries)
    for entry in entries:
        feedback.judge(entry["id"], "good")
    made = recalibrate(feedback, calibration(np.linspace(0, 0.95, 99), rate=0.01))
    assert (made.retest.pictures, made.retest.alarms) == (6, 5) and made.is_contradicted
    assert not recalibrate(feedback, calibration(np.linspace(0, 1.3, 20))).is_contradicted
    # Of the drawn ones alone, there is nothing to contradict; but there must be enough.
    with pytest.raises(SettingsError, match="got 6 usable good pictures, need at least 99"):
        recalibrate(feedback, calibration(np.linspace(0, 0.95, 99), rate=0.01), fresh=True)
    made = recalibrate(feedback, calibration(np.linspace(0, 0.95, 99), rate=0.15), fresh=True)
    assert made.calibration.pictures == 6 and made.retest is None


def test_pictures_do_not_join_twice_and_one_that_was_undone_is_noticed(tmp_path):
    entries = [drawn(0.1), drawn(0.2), drawn(0.3)]
    feedback = feedback_of(tmp_path, RUN, *entries[:2])
    for entry in entries[:2]:
        feedback.judge(entry["id"], "good")
    base = calibration(np.linspace(0, 1, 20))
    first = recalibrate(feedback, base)
    change = {"event": "change", "what": "calibration", "sha256": digest_of(first.calibration), "ids": first.ids}
    feedback.note({**change, "ids": list(first.ids)}, entries[2])
    with pytest.raises(FeedbackError, match="nothing to recalibrate with"):
        recalibrate(feedback, first.calibration)
    feedback.judge(entries[2]["id"], "good")
    assert [each.score for each in recalibrate(feedback, first.calibration).joined] == [0.3]
    feedback.undo(entries[0]["id"])
    with pytest.raises(FeedbackError, match=f"{entries[0]['id']} joined this calibration and is not good any more"):
        recalibrate(feedback, first.calibration)


def test_a_drawn_picture_cannot_become_a_good_sample_nor_a_good_sample_join(tmp_path):
    first, second = drawn(0.1), picture(0.9, run="r1")
    feedback = feedback_of(tmp_path, RUN, first, second)
    for entry in (first, second):
        feedback.judge(entry["id"], "good")
    with feedback.records() as records:
        with pytest.raises(FeedbackError, match="drawn for the audit sample"):
            records.check_reference(records.get(first["id"]))
        records.check_reference(records.get(second["id"]))
    feedback.note({"event": "change", "what": "reference", "do": "add", "id": second["id"], "place": "good/x.png"})
    with feedback.records() as records:
        assert pool_of(records, "part").chosen == ()
        with pytest.raises(AlreadyJudgedError, match="a good sample already"):
            records.check_reference(records.get(second["id"]))
    feedback.note({"event": "change", "what": "reference", "do": "remove", "id": second["id"], "place": "good/x.png"})
    with feedback.records() as records:
        assert len(pool_of(records, "part").chosen) == 1


def test_rates_are_those_of_the_sample_and_say_what_was_looked_at_beside_it(tmp_path):
    entries = {
        "good": [drawn(0.1), drawn(0.2), drawn(0.9), picture(0.8)],
        "defective": [drawn(0.9), drawn(0.3), picture(0.95), picture(0.96)],
    }
    feedback = feedback_of(tmp_path, *entries["good"], *entries["defective"])
    for answer, pictures in entries.items():
        for entry in pictures:
            feedback.judge(entry["id"], answer)
    with feedback.records() as records:
        rates = rates_of(records, "part")
    assert dataclasses.astuple(rates) == (3, 1, 2, 1, 4, 3)


def test_a_retest_of_pictures_that_joined_holds_them_out_again():
    base = calibration(np.linspace(0, 1, 20))
    made = dataclasses.replace(base, scores=tuple(sorted([*base.scores, 0.99, 0.2])))
    retest = retest_of([0.99, 0.2], made)
    assert (retest.pictures, retest.alarms) == (2, 1)
    assert retest_of([], made) is None
    assert retest_of(list(made.scores[:20]), made) is None  # too few are left


def test_a_calibration_with_areas_of_its_own_is_refused(tmp_path):
    base = calibration([each / 20 for each in range(20)])
    areas = dataclasses.replace(base, area_maxima={"rim": base.scores})
    with pytest.raises(SettingsError, match="thresholds for areas of its own"):
        recalibrate(feedback_of(tmp_path, RUN), areas)
