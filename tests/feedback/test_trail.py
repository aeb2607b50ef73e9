"""Rows into the audit log: in order, whole, whatever the disk does; and nothing of it stops the line."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
from feedback.logs import new_id

from winspect.errors import OutputError
from winspect.feedback import trail
from winspect.feedback.chain import AuditLog
from winspect.feedback.feedback import Feedback
from winspect.feedback.settings import FeedbackSettings
from winspect.feedback.trail import AuditTrail, is_drawn
from winspect.feedback.verifying import verify
from winspect.methods.identity import Identity
from winspect.methods.registry import get_method

IDENTITY = Identity("fake", "00", get_method("paper"), "torch", "fp32", "cpu", class_name="part")


def row(score=0.5, *, drawn=False, **more):
    judged = {"anomaly_score": score, "verdict": "normal", "threshold": 0.6, "error": None, "time": "2026-11-28T12:00"}
    return {"id": new_id(drawn=drawn), "path": "a.png", "class": "part", **judged, **more}


def entries(folder, kind="picture"):
    return [entry for entry in AuditLog(folder).new_entries() if entry["event"] == kind]


def test_pictures_are_written_in_order_with_what_decided_on_them(tmp_path):
    file = tmp_path / "a.png"
    file.write_bytes(b"a picture")
    rows = [row(0.1, path=str(file)), row(0.2, drawn=True, p_value=0.3), row(None, error={"type": "PictureError"})]
    with AuditTrail(Feedback(tmp_path), identity=IDENTITY) as taken:
        taken.take(rows[0], picture=str(file))
        taken.take(rows[1], picture=np.zeros((2, 3, 3), np.uint8))
        taken.take(rows[2])
        assert taken.flush() and taken.waiting == 0 and taken.trouble() == ""
    first, second, third = entries(tmp_path)
    assert [entry["id"] for entry in (first, second, third)] == [each["id"] for each in rows]
    assert (first["sha256"], first["file"]) == (hashlib.sha256(b"a picture").hexdigest(), str(file))
    assert (first["score"], first["threshold"], first["time"], "audit" in first) == (0.1, 0.6, rows[0]["time"], False)
    assert (second["audit"], second["p_value"]) == (True, 0.3) and len(second["sha256"]) == 64
    assert third["score"] is None and third["error"] == {"type": "PictureError"}
    (run,) = entries(tmp_path, "run")
    assert {each["run"] for each in (first, second, third)} == {run["run"]}
    assert Identity.read(run["identity"]) == IDENTITY
    with AuditTrail(Feedback(tmp_path), identity=IDENTITY):
        pass
    assert len(entries(tmp_path, "run")) == 1 and not verify(tmp_path).problems


def test_the_draw_keeps_its_rate_and_knows_nothing_but_the_id():
    random = np.random.default_rng(1)
    ids = [random.bytes(16).hex() for _ in range(20_000)]
    assert np.mean([is_drawn(id, 0.02) for id in ids]) == pytest.approx(0.02, abs=0.004)
    assert {id for id in ids if is_drawn(id, 0.01)} < {id for id in ids if is_drawn(id, 0.02)}


def test_a_disk_that_cannot_be_written_is_waited_for_and_reported(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(trail, "_RETRY_S", 0.02)
    feedback, is_full = Feedback(tmp_path), [True]
    note = feedback.note

    def limited(*given):
        if is_full[0]:
            raise OutputError("the disk is full")
        note(*given)

    monkeypatch.setattr(feedback, "note", limited)
    with AuditTrail(feedback) as taken:
        for _ in range(5):
            taken.take(row())
        assert not taken.flush(0.1)
        assert taken.trouble() == "5 pictures wait for the audit log: the disk is full"
        is_full[0] = False
        assert taken.flush() and taken.trouble() == ""
    assert len(entries(tmp_path)) == 5 and caplog.text.count("the line goes on") == 1


def test_of_more_than_can_wait_the_number_is_written_down(tmp_path, monkeypatch):
    monkeypatch.setattr(trail, "MOST_WAITING", 3)
    taken = AuditTrail(Feedback(tmp_path))
    for _ in range(5):
        taken.take(row())
    assert taken.trouble() == "2 pictures are missing in the audit log"
    with taken:
        assert taken.flush()
    assert [entry["pictures"] for entry in entries(tmp_path, "lost")] == [2]


def test_rows_of_a_run_that_was_killed_are_made_good(tmp_path):
    rows = [row(time=f"2026-11-28T12:00:0{second}") for second in range(5)]
    with AuditTrail(Feedback(tmp_path)) as taken:
        for each in rows[:3]:
            taken.take(each)
    with AuditTrail(Feedback(tmp_path)) as taken:
        assert taken.missing([{"path": "of an earlier release"}, *rows]) == 2
    assert [entry["id"] for entry in entries(tmp_path)] == [each["id"] for each in rows]
    with AuditTrail(Feedback(tmp_path, FeedbackSettings(remember=1))) as taken:
        assert taken.missing(rows) == 0


def test_a_change_of_the_product_is_written_down(tmp_path):
    for product in (None, {"name": "m6", "revision": 1}, {"name": "m6", "revision": 1}, {"name": "m6", "revision": 2}):
        with AuditTrail(Feedback(tmp_path), product=product) as taken:
            taken.take(row(product=product))
    changed = [entry["product"] for entry in entries(tmp_path, "change")]
    assert changed == [{"name": "m6", "revision": 1}, {"name": "m6", "revision": 2}]
    assert [entry.get("product") for entry in entries(tmp_path)][-1] == {"name": "m6", "revision": 2}
