"""Answers: what counts, what is refused, and that nothing that anybody said is lost."""

from __future__ import annotations

import random
import threading

import pytest
from feedback.logs import feedback_of, picture

from winspect.errors import AlreadyJudgedError, AuditLogError, FeedbackError
from winspect.feedback.chain import AuditLog
from winspect.feedback.feedback import Feedback
from winspect.feedback.queue import queue_length


def events(feedback, kind="feedback"):
    return [entry for entry in AuditLog(feedback.folder).new_entries() if entry["event"] == kind]


def test_an_answer_stands_and_survives_a_restart(tmp_path):
    first = picture(0.9)
    feedback = feedback_of(tmp_path, first)
    assert feedback.judge(first["id"], "good", by="anna", note="a reflection").answer == "good"
    again = Feedback(tmp_path)
    with again.records() as records:
        assert records.standing(first["id"]).by == "anna"
    assert events(again)[0]["note"] == "a reflection"


def test_a_picture_is_found_by_id_path_and_name_and_an_unknown_one_is_named(tmp_path):
    first, second, third = picture(0.9), picture(0.8, path="a/x.png"), picture(0.7, path="b/x.png")
    feedback = feedback_of(tmp_path, first, second, third)
    assert feedback.picture(first["path"]).id == first["id"]
    assert feedback.picture("a/x.png").id == second["id"]
    with pytest.raises(FeedbackError, match=f"2 pictures were judged by this name.*{second['id']}.*{third['id']}"):
        feedback.picture("x.png")
    with pytest.raises(FeedbackError, match="'nothing': unknown here: need the id of a row"):
        feedback.judge("nothing", "good")
    with pytest.raises(FeedbackError, match="need good or defective"):
        feedback.judge(first["id"], "fine")
    with pytest.raises(AuditLogError, match="holds no audit log"):
        Feedback(tmp_path / "elsewhere").check_is_there()


def test_a_picture_that_could_not_be_scored_has_nothing_to_answer(tmp_path):
    broken = picture(None)
    with pytest.raises(FeedbackError, match="could not be scored"):
        feedback_of(tmp_path, broken).judge(broken["id"], "good")


def test_the_same_answer_twice_by_one_person_changes_nothing(tmp_path):
    first = picture(0.9)
    feedback = feedback_of(tmp_path, first)
    for _ in range(3):
        assert feedback.judge(first["id"], "good", by="anna").answer == "good"
    assert len(events(feedback)) == 1


def test_another_answer_by_the_same_person_needs_an_undo(tmp_path):
    first = picture(0.9)
    feedback = feedback_of(tmp_path, first)
    feedback.judge(first["id"], "good", by="anna")
    with pytest.raises(AlreadyJudgedError, match=r"anna said good on .*; undo that first to say defective"):
        feedback.judge(first["id"], "defective", by="anna")
    feedback.undo(first["id"], by="anna")
    assert feedback.judge(first["id"], "defective", by="anna").answer == "defective"
    with pytest.raises(AlreadyJudgedError, match="nothing to undo"):
        feedback.undo(feedback_of(tmp_path, picture(0.1, path="new.png")).picture("new.png").id)


def test_two_who_disagree_dispute_a_picture_and_both_are_in_the_log(tmp_path):
    first = picture(0.9)
    feedback = feedback_of(tmp_path, first)
    feedback.judge(first["id"], "good", by="anna")
    for _ in range(2):
        with pytest.raises(AlreadyJudgedError, match=r"anna said good on .*, ben says defective: it is disputed"):
            feedback.judge(first["id"], "defective", by="ben")
    assert [(each["by"], each["answer"], each["stands"]) for each in events(feedback)] == [
        ("anna", "good", True),
        ("ben", "defective", False),
    ]
    with feedback.records() as records:
        assert records.standing(first["id"]) is None and records.answers[first["id"]].is_disputed
        assert queue_length(records)["disputed"] == 1
    assert feedback.queue()[0].because == "disputed"
    feedback.undo(first["id"])
    assert feedback.judge(first["id"], "defective", by="ben").answer == "defective"


def test_a_second_person_who_agrees_is_written_down(tmp_path):
    first = picture(0.9)
    feedback = feedback_of(tmp_path, first)
    feedback.judge(first["id"], "good", by="anna")
    with pytest.raises(AlreadyJudgedError, match="yours agrees, and is in the audit log"):
        feedback.judge(first["id"], "good", by="ben")
    with feedback.records() as records:
        assert not records.answers[first["id"]].is_disputed
    assert [each["by"] for each in events(feedback)] == ["anna", "ben"]


def test_of_many_who_answer_at_once_one_stands(tmp_path):
    first = picture(0.9)
    feedback_of(tmp_path, first)
    stood, refused = [], []

    def answer(name):
        each = Feedback(tmp_path)  # a process' own view
        try:
            stood.append(each.judge(first["id"], random.choice(["good", "defective"]), by=name).by)
        except AlreadyJudgedError:
            refused.append(name)

    threads = [threading.Thread(target=answer, args=(str(number),)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(stood), len(refused)) == (1, 5)
    assert len(events(Feedback(tmp_path))) == 6
    assert [each["stands"] for each in events(Feedback(tmp_path))] == [True] + [False] * 5


def test_old_pictures_are_forgotten_but_those_drawn_or_answered(tmp_path):
    drawn, answered, old = picture(0.1, drawn=True), picture(0.2), picture(0.3)
    feedback = feedback_of(tmp_path, drawn, answered, old, remember=2)
    feedback.judge(answered["id"], "good")
    feedback.note(picture(0.4), picture(0.5))
    assert feedback.picture(drawn["id"]).is_drawn and feedback.picture(answered["id"])
    with pytest.raises(FeedbackError, match="only the newest 2 pictures can be judged"):
        feedback.picture(old["id"])


def test_the_queue_is_by_doubt_and_what_must_be_seen_comes_first(tmp_path):
    at = {
        "far": picture(0.85),
        "near": picture(0.52),
        "normal": picture(0.49),
        "calm": picture(0.1),
        "drawn_late": picture(0.05, drawn=True),
        "review": picture(0.45, verdict="review"),
        "drawn_later": picture(0.51, drawn=True),
        "review_near": picture(0.499, verdict="review"),
        "unjudged": picture(0.7, threshold=None),
        "broken": picture(None),
    }
    feedback = feedback_of(tmp_path, *at.values())
    names = {entry["id"]: name for name, entry in at.items()}
    order = [names[queued.picture.id] for queued in feedback.queue()]
    assert order == ["review_near", "review", "drawn_late", "drawn_later", "normal", "near", "far", "calm"]
    assert [queued.because for queued in feedback.queue(most=3)] == ["review", "review", "audit"]
    feedback.judge(at["review"]["id"], "good")
    assert at["review"]["id"] not in {queued.picture.id for queued in feedback.queue()}
    assert feedback.queue(class_name="other") == []
