"""The comparison with anomalib: its arithmetic by hand, and winspect's side of it run on a small model."""

from __future__ import annotations

import argparse
import json
from functools import partial

import numpy as np
import pytest
import torch
from checkpoints import SMALL, build

from benchmarks import versus_anomalib as versus
from benchmarks import versus_child as child
from winspect.engines.choice import choose
from winspect.engines.options import EngineOptions


def figures(pictures_s, prompts_s=1.0, **more):
    """What a contestant's process answers."""
    return {"load_s": 2.0, "prompts_s": prompts_s, "pictures_s": pictures_s, "peak_rss_mb": 100.0, **more}


ROUNDS = [
    {"anomalib": figures([4.0, 4.0], 16.0), "torch:fp32": figures([1.0, 3.0], 2.0, prompts_cached_s=0.01)},
    {"anomalib": figures([2.0, 2.0], 16.0), "torch:fp32": figures([1.0, 1.0], 1.0, prompts_cached_s=0.03)},
    {"anomalib": figures([6.0, 6.0], 16.0), "torch:fp32": figures([1.0, 1.0], 4.0, prompts_cached_s=0.02)},
]


def agreed(difference: float) -> dict:
    """The same difference against anomalib as it comes and repaired."""
    pair = {"score_max_difference": difference, "map_max_difference": difference / 2}
    return {"torch:fp32": {"against_anomalib": pair, "against_anomalib_repaired": pair}}


def test_summary_by_hand() -> None:
    # Pictures per second 0.5, 1, 1 against 0.25, 0.5, 1/6: twice, twice and six times as fast in the same round.
    found = versus.summarise(ROUNDS, "torch:fp32")
    assert found["images_per_s"] == 1.0
    assert found["times_anomalib"] == 2.0
    assert found["latency_ms"] == {"p50": 1000.0, "p95": 2500.0}  # 1, 1, 1, 1, 1, 3 s: a quarter below the last
    assert found["prompts_s"] == 2.0
    assert found["prompts_times_anomalib"] == 8.0
    assert found["prompts_cached_s"] == 0.02
    peer = versus.summarise(ROUNDS, "anomalib")
    assert (peer["images_per_s"], peer["times_anomalib"], peer["prompts_cached_s"]) == (0.25, 1.0, None)


def test_agreement_by_hand() -> None:
    ramp = np.linspace(0, 0.5, 9).reshape(1, 3, 3)
    ours = {"scores": np.array([0.5, 0.6]), "maps": np.concatenate([ramp, ramp])}
    theirs = {"scores": np.array([0.5, 0.4]), "maps": np.concatenate([0.5 - ramp, ramp * 0 + 0.25])}
    found = versus.agreement(ours, theirs)
    assert found["score_max_difference"] == pytest.approx(0.2)
    assert found["map_max_difference"] == pytest.approx(0.5)
    assert found["map_correlation"] == pytest.approx(-1)  # of the first picture: the second one's map is constant
    assert (found["map_spread"], found["map_spread_anomalib"]) == pytest.approx((0.5, 0.25))
    theirs["maps"] = np.full((2, 3, 3), 0.5) + np.float64([[[1e-8, 0, 0]] * 3] * 2)
    assert versus.agreement(ours, theirs)["map_correlation"] is None


def test_missed_bars() -> None:
    medians = {name: versus.summarise(ROUNDS, name) for name in ("anomalib", "torch:fp32")}
    assert versus.missed_bars(medians, agreed(2e-4)) == [
        "fp32: 2.0 times anomalib's pictures/s, the bar is 3.5",
        "torch:fp32: differs by 2.0e-04 from anomalib repaired, the bar is 1e-04",
    ]
    medians["openvino:fp32"] = {**medians["torch:fp32"], "times_anomalib": 4.0}  # the fastest counts
    assert versus.missed_bars(medians, agreed(5e-5)) == []
    medians["torch:fp32"] |= {"prompts_times_anomalib": 7.0, "prompts_cached_s": 0.06}
    assert [line.split(": ")[1].split()[0] for line in versus.missed_bars(medians, agreed(5e-5))] == [
        "prompts",
        "cached",
    ]


def test_table_lines_up() -> None:
    medians = {name: versus.summarise(ROUNDS, name) for name in ("anomalib", "torch:fp32")}
    titles, peer, ours = versus.table(medians, agreed(1e-5)).splitlines()
    assert len(titles) == len(peer) == len(ours)
    assert peer.split()[:3] == ["anomalib", "0.25", "1"]
    assert ours.split()[:3] == ["torch:fp32", "1", "2"]
    assert ours.split()[-2:] == ["1.0e-05", "5.0e-06"]


def test_answers_are_the_last_line_or_an_error() -> None:
    assert versus.read_answer("torch:fp32", 0, 'a library says hello\n{"load_s": 1}\n', "") == {"load_s": 1}
    with pytest.raises(versus.ChildError, match=r"openvino:int8 ended with 1: EngineError: got the engine"):
        versus.read_answer(
            "openvino:int8", 1, '{"load_s": 1}', "Traceback ...\nEngineError: got the engine 'openvino'\n"
        )
    with pytest.raises(versus.ChildError, match="ended with 0: no figures"):
        versus.read_answer("torch:fp32", 0, "no figures", "")
    with pytest.raises(versus.ChildError, match="ended with -9"):
        versus.read_answer("torch:fp32", -9, "", "")


def test_variants() -> None:
    assert versus.read_variants("torch:fp32,openvino:int8,torch:fp32") == ["torch:fp32", "openvino:int8"]
    for wrong in ("torch", "torch:int8", "tensorrt:fp32", "", "torch:fp32,"):
        with pytest.raises(argparse.ArgumentTypeError, match="need some of torch:fp32"):
            versus.read_variants(wrong)
    assert {"torch:fp32", "torch:bf16"} <= set(versus.installed_variants())


def test_command_names_no_folder(tmp_path, textile) -> None:
    given = ["--anomalib-python", str(tmp_path), "--json", str(tmp_path / "x.json"), "--variants", "torch:bf16"]
    args = versus.read_arguments([*given, "--count", "3", "--pictures", str(textile[0].parent)])
    assert args.files == textile[:3]
    assert args.command == (
        "python -m benchmarks.versus_anomalib --variants torch:bf16 --rounds 5 --count 3 --class textile --threads 2 "
        "--device cpu"
    )
    with pytest.raises(SystemExit):
        versus.read_arguments(["--pictures", str(tmp_path)])  # none there


def test_rounds_interleave_and_leave_out_who_failed(tmp_path, monkeypatch) -> None:
    ran = []

    def run_child(python, name, pictures, options, threads):
        ran.append(name)
        if name == "openvino:int8":
            raise versus.ChildError(f"{name} ended with 1: refused")
        if name != "anomalib":
            assert json.loads(options["prompts"].read_text()) == {"templates": ["{}"]}
        return figures([1.0], prompts={"templates": ["{}"]})

    monkeypatch.setattr(versus, "run_child", run_child)
    args = argparse.Namespace(rounds=2, files=[], threads=1)
    rounds, failed = versus.run_rounds(tmp_path, ["torch:fp32", "openvino:int8", "torch:bf16"], args, {}, tmp_path)
    assert ran == ["anomalib", "torch:fp32", "openvino:int8", "torch:bf16", "anomalib", "torch:fp32", "torch:bf16"]
    assert failed == {"openvino:int8": "openvino:int8 ended with 1: refused"}
    assert [list(found) for found in rounds] == [["anomalib", "torch:fp32", "torch:bf16"]] * 2


def test_winspects_side(tmp_path, small_checkpoint, textile) -> None:
    prompts = tmp_path / "prompts.yaml"
    prompts.write_text(json.dumps({"normal_states": ["{}"], "anomalous_states": ["broken {}"], "templates": ["a {}."]}))
    cache, out = tmp_path / "cache", tmp_path / "out.npz"
    make = partial(child.Winspect, SMALL, small_checkpoint, "cpu", "torch:fp32", prompts, cache)
    found = child.measure(make, textile[:2], "textile", out, cache)
    assert json.loads(json.dumps(found)) == found
    assert (found["engine"], found["precision"], found["device"]) == ("torch", "fp32", "cpu")
    assert len(found["pictures_s"]) == 2
    assert min(found["load_s"], found["prompts_s"], found["prompts_cached_s"], *found["pictures_s"]) > 0
    with np.load(out) as outcome:
        assert outcome["pixels"].shape == (2, 3, 64, 64)
        assert outcome["maps"].shape == (2, 64, 64)
        expected = [make().model.predict(path, "textile").anomaly_score for path in textile[:2]]
        assert outcome["scores"] == pytest.approx(expected, abs=1e-6)


def test_a_replaced_engine_is_not_timed(tmp_path, small_checkpoint, monkeypatch) -> None:
    told = {"winspect": "0", "engine": "torch", "precision": "fp32", "device": "cpu"}
    monkeypatch.setattr(child.Winspect, "describe", lambda self: told)
    prompts = tmp_path / "prompts.yaml"
    prompts.write_text("{}")
    with pytest.raises(RuntimeError, match="asked for torch:bf16, got torch:fp32"):
        child.Winspect(SMALL, small_checkpoint, "cpu", "torch:bf16", prompts, tmp_path)


def test_prompts_that_may_have_been_cached_are_not_timed(tmp_path, textile) -> None:
    class KeepsNoText:
        def prepare_class(self, class_name: str) -> None:
            pass

    with pytest.raises(RuntimeError, match="cannot tell whether the class was a new one"):
        child.measure(KeepsNoText, textile[:1], "textile", tmp_path / "out.npz", tmp_path / "cache")


def test_repair_lets_windows_attend_to_their_own_patches() -> None:
    """A stand-in for anomalib's model that runs windows sequence-first, as it does."""
    clip = build(SMALL)
    transformer = clip.visual.transformer
    if not getattr(transformer, "batch_first", True):
        pytest.skip("this open_clip runs sequence-first, where nothing needs repair")

    class SequenceFirst:
        def __init__(self) -> None:
            self.clip = clip

        def _get_window_embeddings(self, windows: torch.Tensor) -> torch.Tensor:
            return transformer(windows.transpose(0, 1)).transpose(0, 1)

    model = SequenceFirst()
    windows = torch.randn(3, 5, 64, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        alone = torch.cat([transformer(window[None]) for window in windows])
        assert (model._get_window_embeddings(windows) - alone).abs().max() > 0.1
        child.repair_windows(model)
        assert (model._get_window_embeddings(windows) - alone).abs().max() < 1e-4
        # Outside of the windows nothing has changed.
        assert (transformer(windows) - alone).abs().max() < 1e-4


def test_every_combination_that_is_listed_is_one_that_runs() -> None:
    for engine, precisions in versus.PRECISIONS.items():
        for precision in precisions:
            assert choose(EngineOptions(engine, precision, "cpu")).precision == precision
