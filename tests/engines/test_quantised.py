"""int8: quantised once, kept, close to fp32; refused where it cannot be made, without a word on stdout."""

from __future__ import annotations

import json
import logging
import signal
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from checkpoints import SMALL, register_small
from PIL import Image
from torch.nn.functional import cosine_similarity

from tests.engines.towers import make_pixels, make_visual, needs
from winspect import WinCLIP
from winspect.backbones.embeddings import LAST
from winspect.backbones.image_tower import ImageTower
from winspect.cli.main import main
from winspect.engines.compiled import OpenVINOGraph, openvino_core
from winspect.engines.graph_cache import GraphCache
from winspect.engines.quantised import FEWEST_PICTURES, QuantisedEngine
from winspect.engines.tower_graph import IMAGE
from winspect.errors import MissingExtraError, PrecisionError, ReferencesError

nncf = pytest.importorskip("nncf", reason="int8 needs NNCF")

NEEDS = needs((2,), 1, False)


def make_engine(folder: Path, *, count: int = FEWEST_PICTURES, seed: int = 3, identity: str = "w") -> QuantisedEngine:
    tower = ImageTower(make_visual(layers=1)).eval()
    how = {"calibration": make_pixels(count, seed), "cache": GraphCache(folder, identity), "threads": 1}
    return QuantisedEngine(tower, needs=NEEDS, **how)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A cache with one quantised graph, of windows of scale 2."""
    folder = tmp_path_factory.mktemp("int8")
    make_engine(folder).encode(make_pixels(1), NEEDS)
    return folder


class Calls(list):
    error: Exception | None = None


@pytest.fixture
def quantisations(monkeypatch):
    """The options of each call of NNCF; ``quantisations.error`` is raised instead."""
    calls = Calls()
    whole = nncf.quantize

    def noting(*arguments, **options):
        if calls.error is not None:
            raise calls.error
        calls.append(options)
        return whole(*arguments, **options)

    monkeypatch.setattr(nncf, "quantize", noting)
    return calls


def test_embeddings_are_close_to_the_towers_and_rounded(folder):
    pixels = make_pixels(4)
    tower = ImageTower(make_visual(layers=1)).eval()
    with torch.inference_mode():
        exact = tower(pixels, NEEDS)
    ours = make_engine(folder).encode(pixels, NEEDS)
    for mine, theirs in ((ours.image, exact.image), (ours.windows[2], exact.windows[2])):
        assert mine.dtype == torch.float32
        assert mine.shape == theirs.shape
        assert cosine_similarity(mine, theirs, dim=-1).min() > 0.98
        assert (mine - theirs).abs().max() > 1e-4  # else nothing has been quantised


def test_the_second_start_does_not_quantise(folder, quantisations):
    engine = make_engine(folder)
    first = engine.encode(make_pixels(1), NEEDS)
    assert quantisations == []
    assert (engine.name, engine.precision) == ("openvino", "int8")
    # Few-shot inspection shares it: patch tokens are always among its outputs.
    patches = engine.encode(make_pixels(1), replace(NEEDS, layers=(LAST,)))
    assert set(patches.patches) == {LAST}
    assert quantisations == []
    torch.testing.assert_close(patches.image, first.image, rtol=0, atol=1e-5)


def test_scores_without_maps_are_of_the_same_quantisation(tmp_path, quantisations):
    """Two quantisations gave one picture two scores, 1e-3 apart, and so two verdicts."""
    tower = ImageTower(make_visual(layers=3)).eval()
    how = {"calibration": make_pixels(FEWEST_PICTURES, 3), "cache": GraphCache(tmp_path, "w"), "threads": 1}
    engine = QuantisedEngine(tower, needs=needs((2, 3), 1, True), **how)
    pixels = make_pixels(6)
    alone = engine.encode(pixels, needs((), 1, False))
    with_windows = engine.encode(pixels, needs((2, 3), 1, True))
    torch.testing.assert_close(alone.image, with_windows.image, rtol=0, atol=0)
    assert len(quantisations) == 1
    # The graph of the pictures is a part of the one with windows: but for steps of rounding it says the same.
    (tmp_path / "whole").mkdir()
    engine.save_tower(tmp_path / "whole", needs((2, 3), 1, True))
    graph = OpenVINOGraph(openvino_core().compile_model(tmp_path / "whole" / "tower.xml", "CPU"))
    with torch.inference_mode():
        tokens = [tower.tokens(tile[None])[0][0].numpy() for tile in pixels]
    whole = torch.cat([torch.from_numpy(graph(rows)[IMAGE].copy()) for rows in tokens])
    assert cosine_similarity(whole, alone.image, dim=-1).min() > 0.9999
    assert len(quantisations) == 1


@pytest.mark.parametrize("change", [{"seed": 4}, {"identity": "other"}, {"count": FEWEST_PICTURES + 1}], ids=str)
def test_other_pictures_or_weights_are_quantised_anew(folder, quantisations, change):
    quantisations.error = InterruptedError()  # what comes after is known to work
    with pytest.raises(Exception, match="cannot build its graph"):
        make_engine(folder, **change).encode(make_pixels(1), NEEDS)


def test_smooth_quant_for_transformers(tmp_path, quantisations):
    make_engine(tmp_path).encode(make_pixels(1), NEEDS)
    (options,) = quantisations
    assert options["model_type"] == nncf.ModelType.TRANSFORMER
    assert options["subset_size"] == FEWEST_PICTURES


@pytest.mark.parametrize("count", [0, 1, FEWEST_PICTURES - 1])
def test_too_few_pictures(tmp_path, count):
    words = f"got {count} pictures to calibrate int8 on, need at least {FEWEST_PICTURES}"
    with pytest.raises(ReferencesError, match=words):
        make_engine(tmp_path, count=count)


def test_without_nncf_the_extra_is_named(tmp_path, monkeypatch):
    engine = make_engine(tmp_path)
    monkeypatch.setitem(sys.modules, "nncf", None)
    with pytest.raises(MissingExtraError, match=r'int8 needs NNCF: pip install .*\[int8\]"'):
        engine.encode(make_pixels(1), NEEDS)
    assert list(tmp_path.iterdir()) == []


def test_stdout_is_left_to_json(tmp_path, capsys):
    """NNCF logs, and draws its progress, on stdout."""
    print("before")
    for _ in range(2):
        make_engine(tmp_path).encode(make_pixels(1), NEEDS)
    logging.getLogger("nncf").error("said by NNCF")
    out = capsys.readouterr()
    assert out.out == "before\n"
    assert "said by NNCF" in out.err


# The predictor and the command line


def pictures(count: int) -> list[np.ndarray]:
    random = np.random.default_rng(5)
    return [random.integers(0, 255, (64, 64, 3), dtype=np.uint8) for _ in range(count)]


@pytest.fixture
def new_model(small_checkpoint, tmp_path):
    register_small()

    def build(**options) -> WinCLIP:
        given = {"weights": small_checkpoint, "device": "cpu", "precision": "int8", "cache_dir": tmp_path}
        return WinCLIP(SMALL, settings={"scales": (2,)}, **{**given, **options})

    return build


def test_maps_do_not_change_scores(new_model):
    model = new_model(int8_pictures=pictures(8), gate="skip")
    judged = [[own.anomaly_score for own in model.predict_many(pictures(6), maps=maps)] for maps in (True, False, True)]
    assert judged[0] == judged[1] == judged[2]


def test_own_pictures_through_the_predictor(new_model, caplog):
    model = new_model(int8_pictures=iter(pictures(8)), gate="skip")
    assert model.describe()["precision"] == "int8"
    exact = new_model(precision="fp32").predict(pictures(1)[0])
    assert model.predict(pictures(1)[0]).anomaly_score == pytest.approx(exact.anomaly_score, abs=0.1)
    assert any("int8 runs without the precision gate" in message for message in caplog.messages)
    assert any("quantising the image tower to int8 on 8 pictures" in message for message in caplog.messages)


@pytest.mark.parametrize("gate", ["check", "skip"])
def test_too_few_own_pictures(new_model, gate):
    for count in (0, 7):
        with pytest.raises(ReferencesError, match=f"got {count} pictures to calibrate int8 on, need at least 8"):
            new_model(int8_pictures=pictures(count), gate=gate)


def test_an_unreadable_picture(new_model, tmp_path):
    (tmp_path / "bad.png").write_bytes(b"")
    with pytest.raises(ReferencesError, match=r"cannot calibrate int8 on a picture: .*bad\.png"):
        new_model(int8_pictures=[*pictures(8), tmp_path / "bad.png"])


def test_pictures_for_int8_without_int8(new_model):
    """They would be read for nothing, and the user would think them used."""
    with pytest.raises(PrecisionError, match="got int8_pictures with precision fp32"):
        new_model(precision="fp32", int8_pictures=pictures(8))


def test_the_bundled_model_on_the_command_line(tmp_path, capfd, monkeypatch):
    """Calibrated on the bundled pictures, recipe log passes the gate; stdout is JSON alone, down to the descriptor."""
    Image.fromarray(pictures(1)[0]).save(tmp_path / "part.png")
    monkeypatch.setenv("WINSPECT_CACHE", str(tmp_path / "cache"))
    handlers, level = logging.root.handlers[:], logging.root.level
    terminate = signal.getsignal(signal.SIGTERM)
    try:
        model = ["--model", "winspect-tiny", "--recipe", "log", "--precision", "int8", "--device", "cpu", "--json"]
        code = main(["predict", str(tmp_path / "part.png"), *model])
    finally:
        logging.captureWarnings(False)
        logging.root.handlers[:] = handlers
        logging.root.setLevel(level)
        signal.signal(signal.SIGTERM, terminate)
    out, err = capfd.readouterr()
    assert code == 0, err
    assert json.loads(out)["failed"] == 0
    assert "quantising the image tower to int8 on 20 pictures" in err
    assert "int8 against fp32 on 40 pictures" in err
    (record,) = (tmp_path / "cache" / "gate").iterdir()
    result = json.loads(record.read_text())["result"]
    assert result["reasons"] == []
    assert result["score_correlation"] > 0.99
