"""Drift of a service: one state over its model processes and restarts, what callers see of it, and Prometheus."""

from __future__ import annotations

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families
from service.fake_models import spec
from service.running import Running, grey

from tests.service.asking import Service, encoded, picture
from winspect.drift import DriftSettings
from winspect.service.contract import UnknownClass
from winspect.service.http.app import create_app

BRIGHT, DARK = [100 + n * 7 % 11 for n in range(60)], [60 + n * 7 % 11 for n in range(20)]


class Asked:
    """The application on a running backend, asked without a socket."""

    def __init__(self, own):
        self.own = own
        transport = httpx.ASGITransport(create_app(own.backend, own.backend.settings), raise_app_exceptions=False)
        self.client = httpx.AsyncClient(transport=transport, base_url="http://service")

    def __call__(self, method, path, **options):
        return self.own.ask(self.client.request(method, path, **options))

    def metrics(self):
        text = self("GET", "/metrics").text
        samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
        return {(sample.name, sample.labels.get("statistic")): sample.value for sample in samples}


def feed(own, levels, first=0, **options):
    for number, level in enumerate(levels, first):
        own.predict(grey(level), name=f"{number:03}.png", **options)


def test_a_lamp_that_fails_is_seen_over_processes_and_restarts(tmp_path):
    drift = DriftSettings()
    with Running(tmp_path, spec(devices=("a", "b")), drift=drift) as own:
        feed(own, BRIGHT[:30])
    with Running(tmp_path, spec(devices=("a", "b")), drift=drift) as own:
        ask = Asked(own)
        feed(own, BRIGHT[30:], 30)
        assert ask.metrics()["winspect_drift_alarm", None] == 0
        feed(own, DARK, 60)
        answer = ask("GET", "/v1/drift", params={"class": " Part", "newest": 5})
        assert answer.status_code == 200 and answer.json()["trouble"] is None
        (line,) = answer.json()["lines"]
        assert (line["line"], line["life"], line["pictures"]) == ("part", 1, 80)
        assert line["alarm"]["direction"] == "falling" and line["alarm"]["since"]["path"] == "060.png"
        assert len({picture["id"] for picture in line["alarm"]["pictures"]}) == 8
        assert line["alarm"]["pictures"][0]["path"] >= "060.png"
        assert [seen["path"] for seen in line["newest"]] == [f"{number:03}.png" for number in range(75, 80)]
        metrics = ask.metrics()
        assert metrics["winspect_drift_alarm", None] == 1
        assert metrics["winspect_drift_since_seconds", None] > 1.7e9
        assert metrics["winspect_drift_log10_martingale", "brightness"] >= metrics["winspect_drift_log10_bound", None]
        assert line["statistics"]["brightness"]["values"] == line["statistics"]["score"]["values"] == 80


def test_many_at_once_are_all_counted(tmp_path):
    with Running(tmp_path, spec(devices=("a", "b")), drift=DriftSettings(statistics=("brightness",))) as own:
        own.together((grey(level), "part", {}) for level in BRIGHT)
        (line,) = own.ask(own.backend.drift.documents())
        assert line["pictures"] == 60 and own.backend.drift.trouble is None


def test_a_caller_s_threshold_does_not_choose_the_scores(tmp_path):
    with Running(tmp_path, spec(), drift=DriftSettings()) as own:
        feed(own, BRIGHT[:5], threshold=0.0)
        feed(own, BRIGHT[:5], threshold=1.0)
        feed(own, BRIGHT[:5], zero_shot=True)
        with pytest.raises(Exception, match="not a picture"):
            own.predict(b"hello")
        (line,) = own.ask(own.backend.drift.documents())
        assert {statistic["values"] for statistic in line["statistics"].values()} == {10}


def test_another_calibration_or_other_good_samples_begin_a_new_life(tmp_path):
    with Running(tmp_path, spec(), drift=DriftSettings()) as own:
        feed(own, BRIGHT)
        own.ask(own.backend.add_good("part", [(f"{n}.png", grey(n)) for n in range(100, 119)]))
        own.ask(own.backend.start_calibration("part", 0.1))
        own.until(lambda backend: own.ask(backend.calibration("part")).state == "ready")
        feed(own, DARK)
        feed(own, [200])  # anomalous now: it has no score to watch
        (line,) = own.ask(own.backend.drift.documents())
        assert (line["life"], line["pictures"], line["alarm"]) == (2, 21, None)
        assert (line["statistics"]["score"]["values"], line["statistics"]["blue"]["values"]) == (20, 21)
        own.ask(own.backend.set_references("part", [("r.png", grey(100))]))
        feed(own, DARK[:2])
        assert own.ask(own.backend.drift.documents())[0]["life"] == 3


def test_a_line_can_be_watched_anew(tmp_path):
    with Running(tmp_path, spec(), drift=DriftSettings()) as own:
        ask = Asked(own)
        feed(own, [*BRIGHT, *DARK])
        assert ask("DELETE", "/v1/drift").status_code == 422
        assert ask("DELETE", "/v1/drift", params={"class": "other"}).status_code == 404
        answer = ask("DELETE", "/v1/drift", params={"class": "part"})
        (line,) = answer.json()["lines"]
        assert (line["life"], line["pictures"], line["alarm"]) == (2, 0, None)
        assert ask.metrics()["winspect_drift_alarm", None] == 0
        assert ask("GET", "/v1/drift", params={"class": "other"}).status_code == 404
        assert ask("GET", "/v1/drift", params={"newest": 5000}).status_code == 422


def test_where_nothing_is_watched_it_says_how_to(tmp_path):
    service = Service(tmp_path)
    answer = service.get("/v1/drift")
    assert answer.status_code == 404 and "--drift 0.01" in answer.json()["error"]["message"]
    service.predict(encoded(picture()))
    assert "winspect_drift" not in service.get("/metrics").text
    service.close()


def test_an_unknown_line_is_refused(tmp_path):
    with Running(tmp_path, spec(), drift=DriftSettings()) as own, pytest.raises(UnknownClass, match="'other'"):
        own.ask(own.backend.drift.reset("other"))


def test_an_answer_is_given_where_the_service_ends_under_it(tmp_path):
    with Running(tmp_path, spec(), drift=DriftSettings()) as own:
        own.backend.drift._thread.shutdown()
        assert own.predict(grey(102)).result.anomaly_score == pytest.approx(0.2)
        assert own.ask(own.backend.drift.documents()) == []
