"""Starting an engine: the gate is asked once and obeyed; an engine that cannot be built is replaced with a warning."""

from __future__ import annotations

import dataclasses
import logging
import sys
from types import SimpleNamespace

import numpy as np
import pytest
from checkpoints import SMALL, register_small
from torch import nn

from winspect import WinCLIP
from winspect.backbones import open_clip_models
from winspect.engines import choice, starter
from winspect.engines.gate import gate_pictures
from winspect.engines.openvino_engine import OpenVINOEngine
from winspect.engines.options import PLANS, EngineOptions
from winspect.engines.torch_engine import TorchEngine
from winspect.errors import EngineBuildError, PrecisionError, SettingsError
from winspect.system.machine import cpu_features

native_bf16 = pytest.mark.skipif(not cpu_features().native_bf16, reason="this CPU has no bf16")


def part(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 255, (64, 64, 3), dtype=np.uint8)


@pytest.fixture
def new_model(small_checkpoint, tmp_path, monkeypatch):
    """A predictor with a cache of its own, on a machine whose CPU has bf16."""
    register_small()
    features = cpu_features()
    has_bf16 = dataclasses.replace(features, flags={**features.flags, "avx512_bf16": True})
    monkeypatch.setattr(choice, "cpu_features", lambda: has_bf16)

    def build(**options) -> WinCLIP:
        return WinCLIP(SMALL, **{"weights": small_checkpoint, "device": "cpu", "cache_dir": tmp_path, **options})

    return build


@pytest.fixture
def gate(monkeypatch):
    """Counts how often the gate is asked; ``gate.verdict`` replaces what it says. It looks at four pictures."""
    state = SimpleNamespace(asked=[], verdict=None)
    pictures, labels = gate_pictures()
    own = starter.compare

    def compare(precision, fp32, candidate, labels):
        state.asked.append(precision)
        state.fp32, state.candidate = fp32, candidate
        reasons = state.verdict
        result = own(precision, fp32, candidate, labels)
        return result if reasons is None else dataclasses.replace(result, reasons=tuple(reasons))

    some = [0, 1, 20, 21]
    monkeypatch.setattr(
        starter, "gate_pictures", lambda: ([pictures[n] for n in [*some, 10, 30]], labels[[*some, 10, 30]])
    )
    monkeypatch.setattr(starter, "compare", compare)
    return state


# The gate


def test_without_a_verdict_none_is_fp32_and_asks_nobody(new_model, gate, caplog):
    with caplog.at_level(logging.INFO):
        model = new_model()
    assert (model.precision, model.gate, gate.asked) == ("fp32", None, [])
    assert any("precision fp32, the default; this CPU has bf16 natively" in message for message in caplog.messages)


@pytest.mark.parametrize("engine", ["openvino", "torch"])
def test_auto_asks_once_and_its_verdict_is_kept(new_model, gate, engine):
    gate.verdict = []
    model = new_model(engine=engine, precision="auto")
    assert gate.asked == ["bf16"]
    assert (model.precision, model.gate.passed, model.gate.pictures) == ("bf16", True, 6)
    assert 0 <= model.predict(part()).anomaly_score <= 1
    again = new_model(engine=engine, precision="auto")
    assert (again.precision, again.engine_name) == ("bf16", engine)
    assert again.gate == model.gate
    assert again.predict(part()).anomaly_score == pytest.approx(model.predict(part()).anomaly_score, abs=1e-6)
    assert gate.asked == ["bf16"]


def test_a_passed_gate_changes_no_later_run(new_model, gate):
    """An option is its own run's alone: before, fp32 became bf16 from then on."""
    exact = new_model(engine="openvino").predict(part()).anomaly_score
    gate.verdict = []
    assert new_model(engine="openvino", precision="auto").precision == "bf16"
    later = new_model(engine="openvino")
    assert (later.precision, later.gate) == ("fp32", None)
    assert later.predict(part()).anomaly_score == exact


@pytest.mark.parametrize("engine", ["openvino", "torch"])
def test_a_failed_gate_is_fp32_with_a_warning(new_model, gate, caplog, engine):
    gate.verdict = ["maps correlate 0.5 with fp32's"]
    for _ in range(2):
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            model = new_model(engine=engine, precision="auto")
        assert model.precision == "fp32"
        assert not model.gate.passed
        assert "precision fp32, as bf16 did not pass the gate: maps correlate 0.5 with fp32's" in caplog.messages
    assert gate.asked == ["bf16"]
    # Weights that bf16 has been tried on are as they were: not rounded to bf16 and back.
    exact = new_model(engine=engine, precision="fp32").predict(part()).anomaly_score
    assert model.predict(part()).anomaly_score == exact


@pytest.mark.parametrize("engine", ["openvino", "torch"])
def test_the_gate_compares_with_fp32(new_model, gate, engine):
    """Not with what bf16 has made of the weights."""
    new_model(engine=engine, precision="auto")
    exact = new_model(engine=engine, precision="fp32")
    pictures = starter.gate_pictures()[0]
    expected = [exact.predict(picture).anomaly_score for picture in pictures]
    np.testing.assert_allclose(gate.fp32.scores, expected, rtol=0, atol=1e-6)
    assert gate.fp32.maps.shape == gate.candidate.maps.shape == (6, 4, 4)
    if engine == "torch" or cpu_features().native_bf16:
        assert not np.allclose(gate.candidate.scores, expected, rtol=0, atol=1e-6)


def test_an_own_precision_by_name_is_not_asked_about(new_model, gate):
    for precision in ("fp32", "bf16"):
        model = new_model(precision=precision)
        assert (model.precision, model.gate) == (precision, None)
    assert gate.asked == []


def test_the_variable_names_the_precision(new_model, gate, monkeypatch):
    monkeypatch.setenv("WINSPECT_PRECISION", "auto")
    assert new_model().gate is not None
    monkeypatch.setenv("WINSPECT_PRECISION", "bf16")
    assert new_model().precision == "bf16"
    assert new_model(precision="fp32").precision == "fp32"
    monkeypatch.setenv("WINSPECT_PRECISION", "fp8")
    with pytest.raises(PrecisionError, match="'fp8'"):
        new_model()


@pytest.mark.parametrize(
    "change", [{"recipe": "tiles"}, {"settings": {"temperature": 0.05}}, {"engine": "torch"}], ids=str
)
def test_another_recipe_or_engine_is_judged_by_itself(new_model, gate, change):
    gate.verdict = []
    new_model(precision="auto")
    new_model(precision="auto", **change)
    assert gate.asked == ["bf16", "bf16"]


def test_a_damaged_verdict_is_judged_again(new_model, gate, tmp_path, caplog):
    gate.verdict = []
    new_model(precision="auto")
    (path,) = (tmp_path / "gate").iterdir()
    path.write_text("{")
    assert new_model().precision == "fp32"  # nobody is asked: it is as if there were none
    assert new_model(precision="auto").precision == "bf16"
    assert len(gate.asked) == 2
    assert any("unreadable verdict" in message for message in caplog.messages)


@native_bf16
def test_the_bundled_model_passes_in_bf16(tmp_path):
    """The real gate, on all its pictures."""
    model = WinCLIP("winspect-tiny", device="cpu", precision="auto", cache_dir=tmp_path)
    assert model.precision == "bf16"
    assert model.gate.passed
    assert model.gate.pictures == 40
    assert model.gate.image_auroc_fp32 - model.gate.image_auroc <= 0.003
    assert min(model.gate.score_correlation, model.gate.map_correlation) > 0.99


# int8, whose engine is tested in engines/test_quantised.py


@pytest.fixture
def int8(monkeypatch):
    """The engine of int8 without its quantisation."""

    def make(options, chosen, tower, needs, cache, calibration=None, **size):
        made = whole(options, dataclasses.replace(chosen, precision="fp32"), tower, needs, cache, **size)
        made.precision, made.calibration = chosen.precision, calibration
        return made

    whole = starter.make_engine
    monkeypatch.setattr(starter, "make_engine", make)


def test_int8_that_fails_is_refused(new_model, gate, int8):
    gate.verdict = ["scores correlate 0.9 with fp32's"]
    for _ in range(2):
        words = "int8 does not score as fp32 does with these weights: scores correlate 0.9 .*skip the gate"
        with pytest.raises(PrecisionError, match=words):
            new_model(precision="int8")
    assert gate.asked == ["int8"]


def test_int8_that_fails_can_be_run_all_the_same(new_model, gate, int8, caplog):
    gate.verdict = ["scores correlate 0.9 with fp32's"]
    with caplog.at_level(logging.WARNING):
        model = new_model(precision="int8", gate="skip")
    assert (model.precision, model.gate, gate.asked) == ("int8", None, [])
    assert caplog.messages == ["int8 runs without the precision gate: its scores may differ from fp32's"]


def test_int8_that_passes(new_model, gate, int8):
    gate.verdict = []
    model = new_model(precision="int8")
    assert (model.precision, model.gate.passed) == ("int8", True)
    assert model.engine.calibration.shape == (20, 3, 64, 64)  # the bundled pictures
    pictures = [part(seed) for seed in range(8)]
    own = new_model(precision="int8", int8_pictures=pictures)
    assert own.engine.calibration.shape == (8, 3, 64, 64)
    assert gate.asked == ["int8", "int8"]  # other pictures make another int8
    assert new_model(precision="int8", int8_pictures=pictures).gate.passed
    assert len(gate.asked) == 2


# Engines that cannot be built


@pytest.fixture
def odd_tower(monkeypatch):
    """An architecture that torch runs, and that graphs do not know."""
    whole = open_clip_models.load

    def load(*arguments, **options):
        loaded = whole(*arguments, **options)
        for block in loaded.model.visual.transformer.resblocks:
            block.mlp.gelu = nn.SiLU()
        return loaded

    monkeypatch.setattr(open_clip_models, "load", load)


@pytest.fixture
def broken_openvino(monkeypatch):
    def fails(self, layout):
        raise RuntimeError("Check 'shape' failed")

    monkeypatch.setattr(OpenVINOEngine, "_model", fails)


@pytest.mark.parametrize("precision", [None, "auto", "bf16"])
@pytest.mark.parametrize("reason", ["odd_tower", "broken_openvino"])
def test_an_engine_left_open_falls_back_with_a_warning(new_model, request, caplog, precision, reason):
    request.getfixturevalue(reason)
    model = new_model(precision=precision)
    with caplog.at_level(logging.WARNING):
        score = model.predict(part()).anomaly_score
    described = model.describe()
    wanted = precision if precision == "bf16" else "fp32"
    assert (described["engine"], described["precision"]) == ("torch", wanted)
    (message,) = [message for message in caplog.messages if "falling back" in message]
    assert message.startswith("engine openvino cannot build its graph: ")
    assert message.endswith(f"; falling back to engine torch in {wanted}")
    expected = new_model(engine="torch", precision=wanted).predict(part()).anomaly_score
    assert score == pytest.approx(expected, abs=1e-6)
    model.predict(part())
    assert len([message for message in caplog.messages if "falling back" in message]) == 1


@pytest.mark.parametrize("options", [{"engine": "openvino"}, {"device": "openvino:CPU"}], ids=str)
@pytest.mark.parametrize("precision", [None, "auto"])
def test_an_engine_by_name_is_never_replaced(new_model, odd_tower, options, precision):
    with pytest.raises(EngineBuildError, match="engine openvino cannot build its graph: got an MLP"):
        new_model(precision=precision, **options).predict(part())


def test_int8_is_never_replaced(new_model, odd_tower):
    pytest.importorskip("nncf", reason="int8 needs NNCF")
    with pytest.raises(EngineBuildError, match="engine openvino cannot build its graph"):
        new_model(precision="int8")


def test_serial_stays_serial_after_a_fallback(new_model, broken_openvino):
    model = new_model(plan="serial")
    model.predict(part())
    assert isinstance(model.engine, TorchEngine)
    assert model.engine.batch_size == 1


def test_a_library_that_cannot_be_loaded_is_an_engine_that_cannot_be_built(new_model, monkeypatch, caplog):
    monkeypatch.setitem(sys.modules, "winspect.engines.openvino_engine", None)
    model = new_model()
    assert model.engine_name == "torch"
    assert any("falling back to engine torch" in message for message in caplog.messages)
    with pytest.raises(EngineBuildError, match="engine openvino cannot be loaded"):
        new_model(engine="openvino")


# Names


def test_names_of_plans_and_gates():
    for plan in PLANS:
        EngineOptions(plan=plan)
    EngineOptions(gate="skip")
    for plan in ("paper", "", None, "Serial"):
        with pytest.raises(SettingsError, match=r"got the plan .* need one of auto, serial, tile-batch, prefetch"):
            EngineOptions(plan=plan)
    for gate in ("no", "", None, True):
        with pytest.raises(SettingsError, match=r"got the gate .* need one of check, skip"):
            EngineOptions(gate=gate)
