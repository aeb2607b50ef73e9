"""Fixtures of a small architecture that open_clip builds in no time, and a checkpoint of it."""

from __future__ import annotations

from pathlib import Path

import open_clip
import pytest
import torch
from torch import nn

SMALL = "ViT-small-test"
SMALL_CONFIG = {
    "embed_dim": 24,
    "vision_cfg": {"image_size": 64, "layers": 2, "width": 64, "patch_size": 16},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 2},
}


@pytest.fixture(scope="session")
def small_config() -> dict[str, object]:
    return SMALL_CONFIG


@pytest.fixture(autouse=True)
def small_architecture(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> str:
    """open_clip knows the small architecture; nothing outside the test's folder is read or written."""
    monkeypatch.setitem(open_clip.factory._MODEL_CONFIGS, SMALL, SMALL_CONFIG)
    monkeypatch.setenv("WINSPECT_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("WINSPECT_OFFLINE", raising=False)
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub-cache"))
    return SMALL


@pytest.fixture
def original() -> nn.Module:
    """The small model as open_clip itself builds it: the oracle."""
    torch.manual_seed(0)
    return open_clip.CLIP(**SMALL_CONFIG).eval()


@pytest.fixture
def checkpoint(original: nn.Module, tmp_path: Path) -> Path:
    """The oracle's weights as ``torch.save`` writes them."""
    path = tmp_path / "small.pt"
    torch.save(original.state_dict(), path)
    return path
