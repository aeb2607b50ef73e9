"""The default precision changes by ``winspect precision`` alone; a calibration brings its precision and its recipe."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest
from checkpoints import SMALL
from miniature import part, save

from winspect import WinCLIP
from winspect.calibration import Calibration
from winspect.engines import choice
from winspect.errors import PrecisionError, SettingsError
from winspect.system.preferences import default_precision


@pytest.fixture
def config(tmp_path, monkeypatch):
    """An own folder of settings, not made yet."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    return tmp_path / "config" / "winspect" / "precision.json"


@pytest.fixture
def cli(cli, config):
    """Run ``winspect`` in this process, with a configuration folder apart."""
    return cli


@pytest.fixture
def calibrated(cli, small_checkpoint, tmp_path):
    """A calibration in another precision, recipe and engine than the defaults, and a run of ``predict`` with it."""
    for number in range(9):
        save(tmp_path / f"goods/good{number}.png", part(number, defective=False)[0])
    model = ("--model", SMALL, "--weights", small_checkpoint, "--json")
    made_with = ("--device", "cpu", "--engine", "torch", "--precision", "bf16", "--recipe", "tiles")
    file = tmp_path / "calibration.json"
    goods = tmp_path / "goods"
    made = cli("calibrate", goods, "--out", file, *model, *made_with, "--max-false-alarms", "0.1", "--scores-only")
    assert made.code == 0, made.err

    def predict(*options, calibration=("--calibration", file)):
        return cli("predict", goods, *model, *calibration, *options)

    return SimpleNamespace(file=file, predict=predict, goods=goods)


@pytest.fixture(params=[True])
def native_bf16(monkeypatch, request):
    """Whether this CPU has bf16."""
    monkeypatch.setattr(choice, "cpu_features", lambda: SimpleNamespace(native_bf16=request.param))


def scores_of(done) -> list[float]:
    assert done.code == 0, done.err
    return [row["anomaly_score"] for row in json.loads(done.out)["results"]]


def test_set_show_and_clear(cli, config, native_bf16, monkeypatch):
    assert cli("precision", "show").out == "fp32 (winspect's own default)\n"
    assert "nothing was set" in cli("precision", "clear").out
    assert str(config) in cli("precision", "set", "bf16").out
    assert default_precision().precision == "bf16"
    assert cli("precision", "show").out == f"bf16 (winspect precision set, kept in {config})\n"
    monkeypatch.setenv("WINSPECT_PRECISION", "auto")
    shown = json.loads(cli("precision", "show", "--json").out)
    assert shown == {"schema": 1, "precision": "auto", "source": "the environment variable WINSPECT_PRECISION"}
    assert "WINSPECT_PRECISION overrides it: auto" in cli("precision", "set", "fp32").err
    monkeypatch.delenv("WINSPECT_PRECISION")
    assert "the setting is removed" in cli("precision", "clear").out
    assert not config.exists()
    assert cli("precision", "show").out == "fp32 (winspect's own default)\n"


@pytest.mark.parametrize("native_bf16", [False], indirect=True)
def test_what_cannot_run_here_is_not_set(cli, config, native_bf16):
    for precision in ("fp8", "bf16"):
        refused = cli("precision", "set", precision)
        assert (refused.code, refused.out) == (2, "")
        assert f"got {'the ' if precision == 'fp8' else ''}precision" in refused.err
    assert not config.exists()


@pytest.mark.parametrize("text", ["", "bf16", "[]", "{}", '{"precision":' + "[" * 100_000, "\x80"])
def test_a_damaged_setting_is_named_with_its_fix(cli, config, text):
    config.parent.mkdir(parents=True)
    config.write_bytes(text.encode("latin-1"))
    with pytest.raises(SettingsError, match=r"precision\.json: cannot read .*winspect precision clear"):
        default_precision()
    assert cli("precision", "show").code == 2
    assert cli("precision", "clear").code == 0
    assert default_precision().precision is None


def test_without_a_home_folder_nothing_is_set(monkeypatch):
    def homeless():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("XDG_CONFIG_HOME")
    monkeypatch.setattr("pathlib.Path.home", homeless)
    assert default_precision().precision is None


def test_the_default_that_was_set_is_a_runs_default(config, small_checkpoint, native_bf16):
    config.parent.mkdir(parents=True)
    config.write_text('{"precision": "bf16"}')
    options = {"weights": small_checkpoint, "device": "cpu", "engine": "torch"}
    assert WinCLIP(SMALL, **options).precision == "bf16"
    assert WinCLIP(SMALL, **options, precision="fp32").precision == "fp32"
    config.write_text('{"precision": "int8"}')
    with pytest.raises(PrecisionError, match=r"engine torch.*comes from winspect precision set, kept in .*json\)$"):
        WinCLIP(SMALL, **options)


def test_a_calibration_brings_its_precision_engine_and_recipe(calibrated, monkeypatch):
    expected = Calibration.load(calibrated.file).scores
    without_calibration = calibrated.predict(calibration=())
    for options in ((), ("--precision", "auto"), ("--device", "cpu"), ("--engine", "auto")):
        assert sorted(scores_of(calibrated.predict(*options))) == pytest.approx(expected, abs=1e-9)
    monkeypatch.setenv("WINSPECT_PRECISION", "fp32")
    assert sorted(scores_of(calibrated.predict())) == pytest.approx(expected, abs=1e-9)
    monkeypatch.delenv("WINSPECT_PRECISION")
    assert scores_of(calibrated.predict(calibration=())) == pytest.approx(scores_of(without_calibration), abs=1e-6)
    assert sorted(scores_of(without_calibration)) != pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--precision", "fp32"), ["precision: calibrated with 'bf16', now 'fp32'"]),
        (("--recipe", "paper"), ["recipe: calibrated with", "'tiles'", "'paper'"]),
    ],
    ids=str,
)
def test_an_option_that_contradicts_the_calibration_is_refused(calibrated, options, words):
    refused = calibrated.predict(*options)
    assert refused.code == 2
    for word in words:
        assert word in refused.err


class ReachedError(Exception):
    """What comes behind the model's options is not of interest."""


def test_serve_takes_the_options_of_its_calibrations(cli, calibrated, tmp_path, monkeypatch):
    pytest.importorskip("uvicorn")
    from winspect.service import backend

    def made(settings, spec):
        raise ReachedError(dict(spec.options))

    monkeypatch.setattr(backend, "Backend", made)
    with pytest.raises(ReachedError) as reached:
        cli("serve", "--calibration", calibrated.file)
    (options,) = reached.value.args
    assert (options["precision"], options["engine"], options["recipe"].name) == ("bf16", "torch", "tiles")
    document = json.loads(calibrated.file.read_text())
    document.update({"class": "nut", "precision": "fp32"})
    other = tmp_path / "other.json"
    other.write_text(json.dumps(document))
    refused = cli("serve", "--calibration", calibrated.file, other)
    assert refused.code == 2
    assert "those of 'object' and 'nut' were made with different precision (bf16 and fp32)" in refused.err


def test_batch_takes_the_options_of_its_calibration(calibrated, tmp_path, monkeypatch):
    pytest.importorskip("ray")
    from winspect.cluster import batch, run

    def portable(options):
        raise ReachedError(options)

    monkeypatch.setattr(run, "portable", portable)
    given = {"calibration": Calibration.load(calibrated.file), "precision": None}
    with pytest.raises(ReachedError) as reached:
        batch(str(calibrated.goods), tmp_path / "out", **given)
    (options,) = reached.value.args
    assert (options["precision"], options["engine"], options["recipe"].name) == ("bf16", "torch", "tiles")


def test_workers_elsewhere_have_the_default_of_this_machine(config):
    pytest.importorskip("pyarrow")
    from winspect.cluster.shared import portable

    assert portable({})["precision"] == "fp32"
    config.parent.mkdir(parents=True)
    config.write_text('{"precision": "auto"}')
    assert portable({})["precision"] == "auto"
    assert portable({"precision": "bf16"})["precision"] == "bf16"
    assert "precision" not in portable({"bundle": "there"})


def test_doctor_says_what_a_run_would_use(cli, calibrated, config, small_checkpoint, native_bf16):
    doctor = ("doctor", "--json", "--model", SMALL, "--weights", small_checkpoint, "--engine", "torch")
    chosen = json.loads(cli(*doctor, "--calibration", calibrated.file).out)["choice"]
    assert (chosen["engine"], chosen["precision"], chosen["recipe"]) == ("torch", "bf16", "tiles")
    assert f"{calibrated.file} was made with recipe tiles, engine torch, precision bf16" in chosen["reasons"]
    assert json.loads(cli(*doctor).out)["choice"]["precision"] == "fp32"
    cli("precision", "set", "bf16")
    chosen = json.loads(cli(*doctor).out)["choice"]
    assert chosen["precision"] == "bf16"
    assert f"precision bf16: winspect precision set, kept in {config}" in chosen["reasons"]


@pytest.mark.parametrize("verdict", [True, False])
def test_doctor_knows_what_the_gate_has_said(cli, small_checkpoint, native_bf16, monkeypatch, tmp_path, verdict):
    from winspect.engines import starter
    from winspect.engines.gate import GateResult

    monkeypatch.setenv("WINSPECT_CACHE", str(tmp_path / "cache"))
    doctor = ("doctor", "--json", "--model", SMALL, "--weights", small_checkpoint, "--precision", "auto")
    reasons = () if verdict else ("maps correlate 0.5 with fp32's",)
    own = starter.compare
    monkeypatch.setattr(starter, "compare", lambda *given: GateResult(**{**vars(own(*given)), "reasons": reasons}))
    before = json.loads(cli(*doctor, "--engine", "torch").out)["choice"]
    assert before["precision"] == "fp32"
    assert "the gate has not been asked of bf16 with these weights: the first run asks it" in before["reasons"]
    pictures, labels = starter.gate_pictures()
    monkeypatch.setattr(starter, "gate_pictures", lambda: (pictures[8:12], labels[8:12]))
    model = WinCLIP(SMALL, weights=small_checkpoint, device="cpu", engine="torch", precision="auto")
    chosen = json.loads(cli(*doctor, "--engine", "torch").out)["choice"]
    assert chosen["precision"] == model.precision == ("bf16" if verdict else "fp32")
