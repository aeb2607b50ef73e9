"""A watch and its audit log: every row is in it, and answers can be given while it runs."""

from __future__ import annotations

import hashlib

import pytest

from tests.watch.fakes import QuickModel, picture, watching
from winspect.calibration import DecisionRule
from winspect.feedback.chain import AuditLog
from winspect.feedback.feedback import Feedback
from winspect.feedback.settings import FeedbackSettings
from winspect.feedback.trail import AuditTrail
from winspect.feedback.verifying import verify
from winspect.watch.rows import newest_rows


def test_rows_have_ids_by_which_they_are_judged_while_the_watch_runs(tmp_path):
    (tmp_path / "in").mkdir()
    out = tmp_path / "out"
    rule = DecisionRule(threshold=0.5)
    with (
        AuditTrail(Feedback(out, FeedbackSettings(audit_rate=1.0))) as audit,
        watching(tmp_path / "in", out, audit=audit, rule=rule) as watch,
    ):
        picture(tmp_path / "in" / "a.png")
        (tmp_path / "in" / "bad.png").write_text("no picture")
        watch.until(lambda: len(watch.shown) == 2)
        assert audit.flush()
        other = Feedback(out)  # of another process
        first = other.judge(watch.shown[0]["path"], "good", by="anna")
        assert first.answer == "good"
        picture(tmp_path / "in" / "b.png")
        watch.until(lambda: len(watch.shown) == 3)
    rows = list(newest_rows(out))
    assert [row["id"] for row in rows] == [row["id"] for row in watch.shown] and len({row["id"] for row in rows}) == 3
    entries = [entry for entry in AuditLog(out).new_entries() if entry["event"] == "picture"]
    for entry, row in zip(entries, rows, strict=True):
        assert (entry["id"], entry["path"], entry["score"]) == (row["id"], row["path"], row["anomaly_score"])
        assert entry.get("audit", False) == (row["error"] is None)
        with open(row["path"], "rb") as file:
            assert entry["sha256"] == hashlib.sha256(file.read()).hexdigest()
    assert not verify(out).problems


class Unwritable(Feedback):
    def note(self, *entries):
        raise OSError("no")


@pytest.mark.filterwarnings("ignore")
def test_an_audit_log_that_cannot_be_written_does_not_stop_the_line(tmp_path, monkeypatch):
    (tmp_path / "in").mkdir()
    out = tmp_path / "out"
    audit = AuditTrail(Unwritable(out))
    monkeypatch.setattr(audit, "close", lambda: None)
    with audit, watching(tmp_path / "in", out, QuickModel(), audit=audit) as watch:
        for name in "abc":
            picture(tmp_path / "in" / f"{name}.png")
        watch.until(lambda: len(watch.shown) == 3)
        assert audit.trouble() == "3 pictures wait for the audit log: no"
    assert len(list(newest_rows(out))) == 3
