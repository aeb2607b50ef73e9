"""Tags on the Hugging Face hub, through its own library, against a small hub of our own."""

from __future__ import annotations

import hashlib

import huggingface_hub
import pytest
import torch
from safetensors.torch import save_file

from winspect.backbones.open_clip_models import load
from winspect.errors import WeightsCorruptError, WeightsMissingError
from winspect.weights import sources
from winspect.weights.fetching import FetchError, Repository

SMALL = "ViT-small-test"
REPO = "someone/model"


@pytest.fixture
def safetensors_bytes(original, tmp_path) -> bytes:
    save_file(original.state_dict(), tmp_path / "w.safetensors")
    return (tmp_path / "w.safetensors").read_bytes()


def test_the_safe_file_is_fetched_verified_and_found_again(fake_hub, small_tag, safetensors_bytes, original, tmp_path):
    fake_hub.files = {"open_clip_model.safetensors": safetensors_bytes, "open_clip_pytorch_model.bin": b"not this"}
    small_tag("hubbed", hf_hub=f"{REPO}/")
    loaded = load(SMALL, "hubbed")
    assert loaded.path == tmp_path / "cache" / "weights" / "someone--model" / "open_clip_model.safetensors"
    assert loaded.sha256 == hashlib.sha256(safetensors_bytes).hexdigest()
    assert torch.equal(loaded.model.visual.proj, original.visual.proj)
    assert load(SMALL, "hubbed", offline=True).sha256 == loaded.sha256


def test_where_there_is_no_safe_file_the_other_is_fetched(fake_hub, small_tag, checkpoint):
    fake_hub.files = {"open_clip_pytorch_model.bin": checkpoint.read_bytes()}
    small_tag("hubbed", hf_hub=f"{REPO}/")
    assert sources.resolve(SMALL, "hubbed").path.name == "open_clip_pytorch_model.bin"
    assert sources.find(SMALL, "hubbed").present


def test_a_repository_without_weights_is_said_to_have_none(fake_hub, small_tag):
    small_tag("hubbed", hf_hub=f"{REPO}/")
    with pytest.raises(WeightsMissingError, match=r"has none of open_clip_model\.safetensors, open_clip_pytorch"):
        sources.resolve(SMALL, "hubbed")


def test_a_hub_in_trouble_gives_the_help_for_being_offline(fake_hub, small_tag, tmp_path):
    fake_hub.down = True
    small_tag("hubbed", hf_hub=f"{REPO}/")
    with pytest.raises(WeightsMissingError) as caught:
        sources.resolve(SMALL, "hubbed")
    assert f"Fetch {fake_hub.endpoint}/{REPO}/resolve/main/open_clip_model.safetensors" in str(caught.value)
    assert f"put it at {tmp_path}/cache/weights/someone--model/open_clip_model.safetensors" in str(caught.value)


def test_a_file_that_is_not_the_hub_s_is_removed(fake_hub, small_tag, safetensors_bytes, tmp_path):
    fake_hub.files, fake_hub.etag = {"open_clip_model.safetensors": safetensors_bytes}, "0" * 64
    small_tag("hubbed", hf_hub=f"{REPO}/")
    with pytest.raises(WeightsCorruptError, match=f"expected {'0' * 64}, got "):
        sources.resolve(SMALL, "hubbed")
    assert not list((tmp_path / "cache").rglob("*.safetensors"))


def test_a_file_put_there_by_hand_is_used(small_tag, safetensors_bytes, tmp_path):
    small_tag("hubbed", hf_hub=f"{REPO}/")
    path = sources.find(SMALL, "hubbed").path
    path.parent.mkdir(parents=True)
    path.write_bytes(safetensors_bytes)
    assert load(SMALL, "hubbed", offline=True).path == path


def test_the_hub_s_own_cache_is_used(monkeypatch, tmp_path):
    (tmp_path / "blob.bin").write_bytes(b"x")
    answers = {"a.safetensors": None, "a.bin": str(tmp_path / "blob.bin")}
    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", lambda _, file: answers[file])
    assert Repository(REPO, ("a.safetensors", "a.bin")).find(tmp_path / "none") == tmp_path / "blob.bin"


def test_a_hub_library_set_to_stay_offline_is_an_error(monkeypatch, tmp_path):
    def refuse(*_, **__):
        raise huggingface_hub.utils.LocalEntryNotFoundError("")

    monkeypatch.setattr(huggingface_hub, "get_hf_file_metadata", refuse)
    with pytest.raises(FetchError, match="LocalEntryNotFoundError"):
        Repository(REPO, ("a.bin",)).fetch(tmp_path)


def test_a_hash_of_another_kind_is_not_compared(fake_hub, tmp_path):
    fake_hub.files, fake_hub.etag = {"a.bin": b"x"}, "not-a-sha256"
    assert Repository(REPO, ("a.bin",)).fetch(tmp_path).read_bytes() == b"x"
