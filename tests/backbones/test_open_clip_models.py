"""Loading against open_clip itself: the same weights must give the same embeddings."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import open_clip
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from winspect.backbones import open_clip_models
from winspect.backbones.open_clip_models import build_on_meta, fill_buffers, load
from winspect.errors import ArchitectureError, PrecisionError, WeightsMissingError
from winspect.weights import configs
from winspect.weights.architectures import architecture

SMALL = "ViT-small-test"
TEXTS = ["a photo of a candle", "a damaged screw, close up", ""]
pytestmark = pytest.mark.filterwarnings("ignore:Importing from timm.models.layers")


def embeddings(model: nn.Module, dtype: torch.dtype = torch.float32) -> tuple[torch.Tensor, torch.Tensor]:
    """Image and text embeddings of fixed inputs, by open_clip's own code."""
    pixels = torch.randn(3, 3, 64, 64, generator=torch.Generator().manual_seed(1)).to(dtype)
    tokens = open_clip.get_tokenizer(SMALL)(TEXTS)
    with torch.no_grad():
        return model.encode_image(pixels).float(), model.encode_text(tokens).float()


@pytest.mark.open_clip_versions
@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_the_loaded_model_is_the_original(original, tmp_path, suffix):
    path = tmp_path / f"w{suffix}"
    save_file(original.state_dict(), path) if suffix == ".safetensors" else torch.save(original.state_dict(), path)
    loaded = load(SMALL, path)
    for got, expected in zip(embeddings(loaded.model), embeddings(original), strict=True):
        torch.testing.assert_close(got, expected, rtol=0, atol=1e-5)
        assert expected.std() > 0.01
    assert not loaded.model.training
    assert not any(p.requires_grad or p.is_meta for p in loaded.model.parameters())
    assert {name: b.shape for name, b in loaded.model.named_buffers()} == {"attn_mask": (77, 77)}
    assert torch.equal(loaded.model.attn_mask, original.attn_mask)
    assert (loaded.name, loaded.tag, loaded.context_length, loaded.precision) == (SMALL, path.name, 77, "fp32")
    assert loaded.preprocess.size == 64
    assert loaded.tokenizer(TEXTS).shape == (3, 77) and loaded.tokenizer(TEXTS).dtype == torch.int64


@pytest.mark.open_clip_versions
@pytest.mark.parametrize(("precision", "dtype"), [("fp16", torch.float16), ("bf16", torch.bfloat16)])
def test_half_precision_is_the_original_rounded(original, checkpoint, precision, dtype):
    loaded = load(SMALL, checkpoint, precision=precision)
    assert {p.dtype for p in loaded.model.parameters()} == {dtype}
    for name, parameter in loaded.model.named_parameters():
        assert torch.equal(parameter, original.get_parameter(name).to(dtype))
    for got, expected in zip(embeddings(loaded.model, dtype), embeddings(original), strict=True):
        assert torch.cosine_similarity(got, expected).min() > 0.999
        assert not torch.equal(got, expected)


def test_half_weights_can_be_loaded_in_full_precision(original, tmp_path):
    torch.save({key: value.half() for key, value in original.state_dict().items()}, tmp_path / "half.pt")
    loaded = load(SMALL, tmp_path / "half.pt")
    assert {p.dtype for p in loaded.model.parameters()} == {torch.float32}
    assert torch.equal(loaded.model.visual.proj, original.visual.proj.half().float())


@pytest.mark.parametrize("precision", ["fp8", "int8", "", "FP16"])
def test_an_unknown_precision_is_refused(checkpoint, precision):
    with pytest.raises(PrecisionError, match=f"'{precision}', need one of fp32, fp16, bf16"):
        load(SMALL, checkpoint, precision=precision)


@pytest.mark.open_clip_versions
def test_quick_gelu_is_built_where_the_weights_need_it(original, checkpoint, monkeypatch):
    """Checked against open_clip's own QuickGELU model; the other activation would visibly change the embeddings."""
    config = open_clip.get_model_config(SMALL)
    quick = open_clip.CLIP(**config, quick_gelu=True).eval()
    quick.load_state_dict(original.state_dict())
    checkpoint.with_name("open_clip_config.json").write_text(json.dumps({"model_cfg": {"quick_gelu": True}}))
    loaded = load(SMALL, checkpoint)
    for got, expected, plain in zip(embeddings(loaded.model), embeddings(quick), embeddings(original), strict=True):
        torch.testing.assert_close(got, expected, rtol=0, atol=1e-5)
        assert not torch.allclose(got, plain, rtol=0, atol=1e-3)
    monkeypatch.setitem(open_clip.factory._MODEL_CONFIGS, f"{SMALL}-quickgelu", {**config, "quick_gelu": True})
    checkpoint.with_name("open_clip_config.json").unlink()
    by_name = load(f"{SMALL}-quickgelu", checkpoint)
    torch.testing.assert_close(embeddings(by_name.model), embeddings(quick), rtol=0, atol=1e-5)


def test_a_custom_text_model_is_built_as_open_clip_does(tmp_path, monkeypatch):
    config = {**open_clip.get_model_config(SMALL), "custom_text": True}
    monkeypatch.setitem(open_clip.factory._MODEL_CONFIGS, SMALL, config)
    torch.manual_seed(0)
    original = open_clip.create_model(SMALL).eval()
    assert isinstance(original, open_clip.CustomTextCLIP)
    torch.save(original.state_dict(), tmp_path / "w.pt")
    loaded = load(SMALL, tmp_path / "w.pt")
    assert isinstance(loaded.model, open_clip.CustomTextCLIP)
    torch.testing.assert_close(embeddings(loaded.model), embeddings(original), rtol=0, atol=1e-5)


def test_loading_is_never_random(checkpoint, monkeypatch):
    """No generator is touched, and two loads agree whatever the seed."""
    torch.manual_seed(1)
    state = torch.random.get_rng_state()
    first = load(SMALL, checkpoint)
    assert torch.equal(torch.random.get_rng_state(), state)
    torch.manual_seed(2)
    second = load(SMALL, checkpoint)
    assert all(torch.equal(a, b) for a, b in zip(first.model.parameters(), second.model.parameters(), strict=True))


def test_the_model_outlives_its_file(original, checkpoint):
    loaded = load(SMALL, checkpoint)
    checkpoint.unlink()
    torch.testing.assert_close(embeddings(loaded.model), embeddings(original), rtol=0, atol=1e-5)


def test_a_buffer_winspect_does_not_know_is_an_error():
    model = build_on_meta(architecture(SMALL))
    fill_buffers(model, torch.float32)
    model.visual.register_buffer("rope", torch.empty(3, device="meta"), persistent=False)
    with pytest.raises(ArchitectureError, match=r"computes the buffer 'visual\.rope'"):
        fill_buffers(model, torch.float32)


def test_a_tokenizer_that_cannot_be_had_names_the_package(checkpoint, monkeypatch):
    config = open_clip.get_model_config(SMALL)
    config["text_cfg"]["hf_tokenizer_name"] = "someone/words"
    monkeypatch.setitem(open_clip.factory._MODEL_CONFIGS, SMALL, config)

    def missing(_):
        raise ImportError("no transformers here")

    monkeypatch.setattr(open_clip, "get_tokenizer", missing)
    with pytest.raises(WeightsMissingError, match=r"tokenizer someone/words .*no transformers here.*pip install"):
        load(SMALL, checkpoint)


def test_a_bundled_model_comes_with_its_own_preprocessing(original, monkeypatch, tmp_path):
    """The way there; what the bundled model can do is tested elsewhere."""
    settings = {"size": 64, "mean": [0.5] * 3, "std": [0.25] * 3, "interpolation": "bicubic"}
    (tmp_path / "config.json").write_text(json.dumps({"model_cfg": {}, "preprocess": settings}))
    (tmp_path / "model.safetensors").write_bytes(b"weights")
    monkeypatch.setattr(configs, "BUNDLED_FOLDER", tmp_path)
    monkeypatch.setattr(open_clip_models, "load_tiny", lambda folder: original if folder == tmp_path else None)
    loaded = load("winspect-tiny", precision="bf16")
    assert (loaded.name, loaded.tag) == ("winspect-tiny", "bundled")
    assert loaded.preprocess.std == (0.25,) * 3
    assert loaded.model.visual.proj.dtype == torch.bfloat16
    assert loaded.tokenizer(TEXTS).shape == (3, 77)


MEASURE = """
import re, sys, torch
from pathlib import Path
import open_clip
from winspect.backbones.open_clip_models import load
open_clip.factory._MODEL_CONFIGS["big"] = eval(sys.argv[2])
peak_bytes = lambda: int(re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1]) * 1024
before = peak_bytes()
loaded = load("big", sys.argv[1], precision=sys.argv[3])
touched = sum(float(p.sum(dtype=torch.float32)) for p in loaded.model.parameters())
assert touched == touched
print(peak_bytes() - before)
"""
BIG_CONFIG = {
    "embed_dim": 512,
    "vision_cfg": {"image_size": 64, "layers": 16, "width": 640, "patch_size": 16},
    "text_cfg": {"width": 256, "heads": 4, "layers": 2},
}


@pytest.fixture(scope="module")
def big_checkpoints(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """About 370 MB of random weights, in both formats."""
    folder = tmp_path_factory.mktemp("big")
    shapes = {name: tensor.shape for name, tensor in build_on_meta(BIG_CONFIG).state_dict().items()}
    state = {name: torch.empty(shape).uniform_(-1, 1) for name, shape in shapes.items()}
    paths = {suffix: folder / f"big.{suffix}" for suffix in ("pt", "safetensors")}
    torch.save(state, paths["pt"])
    save_file(state, paths["safetensors"])
    return paths


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the peak is read from /proc")
@pytest.mark.parametrize(("suffix", "precision"), [("pt", "fp32"), ("safetensors", "bf16")])
def test_the_peak_memory_is_under_twice_the_weights(big_checkpoints, suffix, precision):
    """Every page of the weights is touched, so that a mapped file counts in full."""
    path = big_checkpoints[suffix]
    size = path.stat().st_size
    command = [sys.executable, "-c", MEASURE, str(path), repr(BIG_CONFIG), precision]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    grown = int(done.stdout)
    print(f"{suffix} {precision}: {size / 1e6:.0f} MB of weights, peak {grown / size:.2f} times that")
    assert 300e6 < size < 400e6
    assert 0.9 * size < grown < 2 * size
