"""Feedback of a service: answers by HTTP over two model processes and restarts, and what follows from them."""

from __future__ import annotations

import hashlib
import time

import httpx
import numpy as np
import pytest
from service.fake_models import spec
from service.running import Running, grey, png

from tests.service.asking import Service, encoded, picture
from winspect.client import Client, RefusedError
from winspect.feedback import FeedbackSettings
from winspect.feedback.chain import AuditLog
from winspect.feedback.feedback import Feedback
from winspect.feedback.verifying import verify
from winspect.service.http.app import create_app

GOOD = [grey(level, (16, 12 + level % 3)) for level in range(60, 100)]  # 40 different ones: scores to 0.195


class Asked:
    """The application on a running backend, asked without a socket."""

    def __init__(self, own):
        self.own = own
        transport = httpx.ASGITransport(create_app(own.backend, own.backend.settings), raise_app_exceptions=False)
        self.client = httpx.AsyncClient(transport=transport, base_url="http://service")

    def __call__(self, method, path, **options):
        return self.own.ask(self.client.request(method, path, **options))

    def row(self, content, name="p.png", **fields):
        answer = self("POST", "/v1/predict", files={"pictures": (name, content)}, data={"class": "part", **fields})
        assert answer.status_code == 200, answer.text
        return answer.json()["results"][0]

    def say(self, id, answer, **fields):
        return self("POST", "/v1/feedback", json={"id": id, "answer": answer, **fields})

    def calibrated(self):
        """Wait for the calibration of the class."""
        until = time.monotonic() + 60
        while (state := self("GET", "/v1/calibrations", params={"class": "part"}).json())["state"] == "running":
            assert time.monotonic() < until
            time.sleep(0.02)
        return state

    def calibrate(self, rate=0.05, **more):
        assert self("POST", "/v1/calibrations", json={"class": "part", "max_false_alarms": rate, **more}).is_success
        return self.calibrated()

    def seed(self, pictures=GOOD):
        for start in range(0, len(pictures), 10):
            files = [("pictures", (f"{start}.png", content)) for content in pictures[start : start + 10]]
            assert self("POST", "/v1/calibrations/pictures", files=files, data={"class": "part"}).is_success


def running(folder, rate, **options):
    two = spec(devices=("a", "b"))
    return Running(folder, two, feedback=FeedbackSettings(audit_rate=rate, **options.pop("kept", {})), **options)


def changes(folder):
    entries = [entry for entry in AuditLog(folder).new_entries() if entry["event"] == "change"]
    return [(entry["what"], entry["do"]) for entry in entries]


def test_drawn_good_pictures_join_the_class_and_an_undo_takes_them_out_over_restarts(tmp_path):
    with running(tmp_path, 1.0) as own:
        ask = Asked(own)
        ask.seed()
        before = ask.calibrate()
        rows = [ask.row(grey(level), f"{level}.png") for level in (70, 130, 75)]
        assert [row["verdict"] for row in rows] == ["normal", "anomalous", "normal"]
        queue = ask("GET", "/v1/review", params={"class": "Part"}).json()
        assert [each["id"] for each in queue["pictures"]] == [row["id"] for row in rows]  # drawn: in order
        assert queue["waiting"]["audit"] == 3 and queue["pictures"][0]["has_picture"]
        shown = ask("GET", "/v1/review/picture", params={"id": rows[1]["id"]})
        assert shown.content == grey(130) and shown.headers["content-type"] == "image/png"
        assert shown.headers["x-content-type-options"] == "nosniff"
        said = ask.say(rows[1]["id"], "good", by="anna").json()
        assert (said["answer"], said["by"], said["pooled"]) == ("good", "anna", False)  # the first has no answer yet
        assert ask.say(rows[0]["id"], "good", by="anna").json()["pooled"]
        assert ask("GET", "/v1/feedback", params={"id": rows[1]["id"]}).json()["pooled"]
        assert ask("GET", "/v1/review/picture", params={"id": rows[1]["id"]}).content == grey(130)
    with running(tmp_path, 0.0) as own:
        ask = Asked(own)
        assert own.ask(own.backend.class_info("part")).good_pictures == 42
        assert ask.say(rows[2]["id"], "defective", by="ben").json()["answer"] == "defective"
        state = ask.calibrate()
        assert (state["state"], state["pictures"]) == ("ready", 42) and state["threshold"] > before["threshold"]
        rates = ask("GET", "/v1/feedback/rates", params={"class": "part"}).json()
        assert (rates["good"], rates["alarms"], rates["defective"], rates["found"], rates["pooled"]) == (2, 1, 1, 0, 2)
        assert ask.say(rows[1]["id"], "undo").json()["answer"] is None
        assert own.ask(own.backend.class_info("part")).good_pictures == 41
        assert ask.calibrate()["pictures"] == 41
        assert ask.say(rows[1]["id"], "good", by="anna").json()["pooled"]
    assert changes(tmp_path) == [("pool", "add")] * 2 + [("pool", "remove"), ("pool", "add")]
    assert not verify(tmp_path).problems


def test_answers_that_cannot_be_taken_are_clear_and_in_the_log(tmp_path):
    with running(tmp_path, 0.0, classes=("part",)) as own:
        ask = Asked(own)
        row = ask.row(grey(130), threshold=0.1)
        unknown = ask.say("0" * 32, "good")
        assert unknown.status_code == 404 and unknown.json()["error"]["type"] == "UnknownPictureError"
        assert ask.say("../../etc/passwd", "good").status_code == 404
        assert ask.say(row["id"], "good", by="anna").status_code == 200
        assert ask.say(row["id"], "good", by="anna").status_code == 200  # a request may be sent twice
        for by, answer, named in (
            ("anna", "defective", "undo that first"),
            ("ben", "good", "yours agrees"),
            ("ben", "defective", "disputed"),
        ):
            refused = ask.say(row["id"], answer, by=by)
            assert refused.status_code == 409 and named in refused.json()["error"]["message"]
        assert ask("GET", "/v1/feedback", params={"id": row["id"]}).json()["disputed"]
        assert ask.say(row["id"], "undo").status_code == 200
        assert ask.say(row["id"], "undo").status_code == 409
        assert ask.say(row["id"], "perhaps").status_code == 422
        assert ask.say(row["id"], "defective", reference=True).status_code == 422
        assert ask.say(row["id"], "good", size=3).status_code == 422
        assert ask("GET", "/v1/review", params={"class": "other"}).status_code == 404
        assert ask("GET", "/v1/review", params={"most": 0}).status_code == 422
    answers = [entry for entry in AuditLog(tmp_path).new_entries() if entry["event"] == "feedback"]
    assert [(each["by"], each["answer"]) for each in answers] == [
        ("anna", "good"),
        ("ben", "good"),
        ("ben", "defective"),
    ]


def test_a_good_picture_that_was_not_drawn_becomes_a_reference_and_the_rest_is_calibrated_again(tmp_path):
    with running(tmp_path, 0.0) as own:
        ask = Asked(own)
        row = ask.row(grey(130), threshold=0.1)
        assert ask.say(row["id"], "good", reference=True).json()["reference"]  # there is no calibration to keep
        assert ask.say(row["id"], "undo").json()["reference"] is False
        assert ask.row(grey(130))["shots"] == 0
        ask.seed()
        before = ask.calibrate()
        said = ask.say(row["id"], "good", by="anna", reference=True).json()
        assert said["reference"] and not said["pooled"]
        after = ask.calibrated()
        assert after["state"] == "ready" and after["pictures"] == 40 and after["threshold"] != before["threshold"]
        assert ask.row(grey(131))["shots"] == 1
        (reference,) = ask("GET", "/v1/references", params={"class": "part"}).json()["references"]
        assert reference["sha256"] == hashlib.sha256(grey(130)).hexdigest()
        assert ask.say(row["id"], "undo").json()["reference"] is False
        assert ask.calibrated()["threshold"] == before["threshold"]
        other = ask.row(grey(140), threshold=0.1)
        assert ask("DELETE", "/v1/calibrations/pictures", params={"class": "part"}).is_success
        refused = ask.say(other["id"], "good", reference=True)
        assert refused.status_code == 422 and "which needs its good pictures" in refused.json()["error"]["message"]
        assert ask("GET", "/v1/feedback", params={"id": other["id"]}).json()["answer"] is None
    assert changes(tmp_path) == [("reference", "add"), ("reference", "remove")] * 2


def test_a_drawn_picture_cannot_become_a_reference_nor_can_a_zero_shot_one_be_drawn(tmp_path):
    with running(tmp_path, 1.0) as own:
        ask = Asked(own)
        row = ask.row(grey(130))
        refused = ask.say(row["id"], "good", reference=True)
        assert refused.status_code == 422 and "drawn for the audit sample" in refused.json()["error"]["message"]
        assert ask("GET", "/v1/feedback", params={"id": row["id"]}).json()["answer"] is None
        apart = ask.row(grey(130), zero_shot="true")
        assert not ask("GET", "/v1/feedback", params={"id": apart["id"]}).json()["audit"]


def test_a_line_that_has_changed_is_not_calibrated_but_by_force(tmp_path):
    with running(tmp_path, 1.0) as own:
        ask = Asked(own)
        ask.seed()
        before = ask.calibrate()
        for level in range(120, 126):
            assert ask.say(ask.row(grey(level))["id"], "good").json()["pooled"]
        state = ask.calibrate()
        assert state["state"] == "failed" and "the line has changed" in state["message"]
        assert ask.row(grey(119))["threshold"] == before["threshold"]  # the old one still decides
        assert ask.calibrate(force=True)["pictures"] == 46


def test_pictures_make_room_but_drawn_ones_stay_until_they_are_judged(tmp_path):
    noise = [png(np.random.default_rng(seed).integers(0, 256, (60, 60, 3), np.uint8)) for seed in range(8)]
    kept = {"keep_mb": 5 * len(noise[0]) / 2**20}  # two of each kind
    with running(tmp_path / "flagged", 0.0, kept=kept) as own:
        ask = Asked(own)
        ids = [ask.row(content, threshold=0.1)["id"] for content in noise[:4]]
        has = {each["id"]: each["has_picture"] for each in ask("GET", "/v1/review").json()["pictures"]}
        assert [has[id] for id in ids] == [False, False, True, True]
        gone = ask("GET", "/v1/review/picture", params={"id": ids[0]})
        assert gone.status_code == 422 and "not kept any more" in gone.json()["error"]["message"]
        assert ask.say(ids[0], "good", reference=True).status_code == 422
    with running(tmp_path / "drawn", 1.0, kept=kept) as own:
        ask = Asked(own)
        ids = [ask.row(content)["id"] for content in noise[:3]]
        drawn = [ask("GET", "/v1/feedback", params={"id": id}).json()["audit"] for id in ids]
        assert drawn == [True, True, False]
        assert ask.say(ids[0], "defective").is_success and ask.say(ids[1], "good").json()["pooled"]
        assert ask("GET", "/v1/feedback", params={"id": ask.row(noise[4])["id"]}).json()["audit"]


def test_an_audit_log_that_cannot_be_written_stops_no_answer_and_is_in_the_metrics(tmp_path, monkeypatch):
    def full(self, *entries):
        raise OSError("full")

    with running(tmp_path, 0.0) as own:
        ask = Asked(own)
        monkeypatch.setattr(Feedback, "note", full)
        assert ask.row(grey(100), threshold=0.1)["id"]
        own.until(lambda backend: backend.feedback.trail.trouble())
        assert "winspect_audit_waiting 1.0" in ask("GET", "/metrics").text
        monkeypatch.undo()
        own.until(lambda backend: not backend.feedback.trail.waiting)
        assert "winspect_audit_waiting 0.0" in ask("GET", "/metrics").text


def test_a_service_without_feedback_says_how_to_start_it(tmp_path):
    service = Service(tmp_path)
    try:
        row = service.predict(encoded(picture(100))).json()["results"][0]
        assert len(row["id"]) == 32
        for answer in (service.get("/v1/review"), service.post("/v1/feedback", json={"id": row["id"]})):
            assert answer.status_code == 404 and "--feedback" in answer.json()["error"]["message"]
    finally:
        service.close()


def test_the_client_answers_and_asks_for_the_queue(tmp_path):
    with running(tmp_path, 0.0) as own:
        ask = Asked(own)

        def handle(request):
            headers = {"content-type": request.headers.get("content-type", "")}
            sent = ask(request.method, str(request.url), content=request.read(), headers=headers)
            kind = {"content-type": sent.headers["content-type"]}
            return httpx.Response(sent.status_code, content=sent.content, headers=kind)

        with Client("http://service", transport=httpx.MockTransport(handle)) as client:
            row = client.predict(grey(130), "part", threshold=0.1)
            (waiting,) = client.review("part", most=5)
            assert (waiting.id, waiting.because, waiting.has_picture) == (row.id, "anomalous", True)
            assert client.review_picture(row.id) == grey(130)
            assert client.judged(row.id).answer is None and client.feedback_rates("part").good == 0
            answer = client.feedback(row.id, "good", by="anna", note="dust", reference=True)
            assert (answer.answer, answer.by, answer.reference) == ("good", "anna", True)
            assert client.review() == []
            with pytest.raises(RefusedError, match=r"409 AlreadyJudgedError: .*undo that first"):
                client.feedback(row.id, "defective", by="anna")
            assert client.feedback(row.id, "undo").answer is None
