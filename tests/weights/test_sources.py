"""Where weights come from: tags, files, the cache; and the messages when they cannot be had."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import open_clip
import pytest
import torch

from winspect.backbones.open_clip_models import load
from winspect.errors import (
    ArchitectureError,
    SettingsError,
    WeightsCorruptError,
    WeightsMismatchError,
    WeightsMissingError,
)
from winspect.pictures.tiles import Preprocess
from winspect.weights import configs, sources
from winspect.weights.architectures import list_architectures
from winspect.weights.fetching import Repository, Url
from winspect.weights.tags import find_tag, hash_in_name, tag_names

SMALL = "ViT-small-test"


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("ViT-B-16-plus-24", "ViT-B-16-plus-240"),
        ("vit-b-16-PLUS-240", "ViT-B-16-plus-240"),
        ("winspect-tinny", "winspect-tiny"),
    ],
)
def test_an_unknown_model_names_the_nearest(typed, meant):
    with pytest.raises(ArchitectureError, match=f"unknown model '{typed}'.*did you mean .*{meant}"):
        sources.resolve(typed)


def test_a_model_unlike_any_other_says_how_to_list_them():
    with pytest.raises(ArchitectureError, match="weights list --all"):
        sources.resolve("qqqq")


@pytest.mark.parametrize(
    ("model", "reason"),
    [
        ("RN50", "a ResNet"),
        ("convnext_base", "timm's convnext_base"),
        ("coca_ViT-B-32", "pools over all tokens"),
        ("roberta-ViT-B-32", "roberta-base"),
    ],
)
def test_an_architecture_that_windows_cannot_use_is_refused_before_any_download(model, reason):
    with pytest.raises(ArchitectureError, match=f"'{model}' cannot be used.*{reason}.*ViT-B-16-plus-240"):
        sources.resolve(model)


def test_pooling_other_than_the_class_token_is_refused(monkeypatch):
    config = open_clip.get_model_config(SMALL)
    config["vision_cfg"]["pool_type"] = "avg"
    monkeypatch.setitem(open_clip.factory._MODEL_CONFIGS, SMALL, config)
    with pytest.raises(ArchitectureError, match="pools by 'avg'"):
        sources.resolve(SMALL)


def test_an_input_that_is_not_square_is_refused(monkeypatch):
    config = open_clip.get_model_config(SMALL)
    config["vision_cfg"]["image_size"] = [64, 128]
    monkeypatch.setitem(open_clip.factory._MODEL_CONFIGS, SMALL, config)
    with pytest.raises(ArchitectureError, match="64 x 128"):
        sources.find(SMALL, "w.pt")


def test_the_default_weights_are_the_papers(tmp_path):
    source = sources.find("ViT-B-16-plus-240", cache_dir=tmp_path)
    assert source.tag == "laion400m_e31"
    assert source.path == tmp_path / "weights" / "vit_b_16_plus_240-laion400m_e31-8fb26589.pt"
    assert source.sha256_prefix == "8fb26589"
    assert source.preprocess == Preprocess(240)
    assert not source.present


def test_openai_s_spelling_with_a_slash_is_understood():
    assert sources.find("ViT-B/16-plus-240").model == "ViT-B-16-plus-240"


def test_offline_without_weights_says_what_to_fetch_where_to_put_it_and_what_works(tmp_path):
    with pytest.raises(WeightsMissingError) as caught:
        load("ViT-B-16-plus-240", cache_dir=tmp_path, offline=True)
    message = str(caught.value)
    assert "https://github.com/mlfoundations/open_clip/releases/download/" in message
    assert f"put it at {tmp_path}/weights/vit_b_16_plus_240-laion400m_e31-8fb26589.pt" in message
    assert "--weights FILE" in message and "--model winspect-tiny works now" in message


@pytest.mark.parametrize("variable", ["WINSPECT_OFFLINE", "HF_HUB_OFFLINE"])
def test_offline_can_be_said_by_the_environment(monkeypatch, variable):
    monkeypatch.setenv(variable, "1")
    with pytest.raises(WeightsMissingError, match="offline, as asked"):
        sources.resolve("ViT-B-16-plus-240")


def test_no_weights_are_chosen_silently():
    with pytest.raises(WeightsMissingError, match=r"ViT-B-32, which has no default; its tags: .*laion2b_e16.*FILE"):
        sources.resolve("ViT-B-32")


def test_an_architecture_without_tags_asks_for_a_file():
    with pytest.raises(WeightsMissingError, match="no pretrained tag for ViT-small-test: give a file"):
        sources.resolve(SMALL)


def test_a_mistyped_tag_lists_the_tags():
    with pytest.raises(WeightsMissingError, match=r"'laion400m_e13' is neither .* did you mean .*laion400m_e31"):
        sources.resolve("ViT-B-16-plus-240", "laion400m_e13")


@pytest.mark.parametrize("name", ["nowhere/w", "w.safetensors", "w.pt"])
def test_a_path_that_is_not_there_is_said_to_be_none(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(WeightsMissingError, match=f"^{name}: no such weights file$"):
        sources.resolve(SMALL, name)


@pytest.mark.parametrize("name", ["x" * 500, "", "nul\0byte"])
def test_a_name_that_no_file_can_have_is_no_tag_either(name):
    with pytest.raises(WeightsMissingError, match="is neither a pretrained tag of ViT-small-test nor a file here"):
        sources.resolve(SMALL, name)


def test_a_folder_is_not_a_file(checkpoint):
    with pytest.raises(WeightsMissingError, match=r"is a folder; name the weights file in it \(small\.pt\)"):
        sources.resolve(SMALL, checkpoint.parent)


def test_the_bundled_model_takes_no_other_weights():
    with pytest.raises(SettingsError, match=r"winspect-tiny carries its own weights, got 'x\.pt'"):
        sources.resolve("winspect-tiny", "x.pt")


def test_a_tag_is_downloaded_verified_and_loaded(serve, small_tag, checkpoint, original, tmp_path):
    server = serve(checkpoint.read_bytes())
    small_tag("good", url=server.url(f"small-{server.sha256[:8]}.pt"), interpolation="bilinear")
    loaded = load(SMALL, "good")
    assert loaded.path == tmp_path / "cache" / "weights" / f"small-{server.sha256[:8]}.pt"
    assert loaded.sha256 == server.sha256 and loaded.tag == "good"
    assert loaded.preprocess == Preprocess(64, (0.1, 0.2, 0.3), (0.4, 0.5, 0.6), "bilinear")
    assert torch.equal(loaded.model.visual.proj, original.visual.proj)
    assert load(SMALL, "GOOD", offline=True).sha256 == server.sha256
    assert len(server.requests) == 1


def test_a_download_with_the_wrong_hash_is_not_kept(serve, small_tag, checkpoint, tmp_path):
    server = serve(checkpoint.read_bytes())
    small_tag("bad", url=server.url("small-0badc0de.pt"))
    with pytest.raises(WeightsCorruptError, match=rf"expected 0badc0de\.\.\., got {server.sha256}"):
        sources.resolve(SMALL, "bad")
    assert not list((tmp_path / "cache" / "weights").glob("small*.pt"))


def test_a_server_that_is_down_gives_the_same_help_as_being_offline(serve, small_tag):
    server = serve(b"")
    small_tag("far", url=server.url("small-0badc0de.pt"))
    server.shutdown()
    server.server_close()
    with pytest.raises(WeightsMissingError, match=r"cannot be reached.*Fetch http://.*put it at .*winspect-tiny works"):
        sources.resolve(SMALL, "far")


def test_a_damaged_file_in_the_cache_is_seen_and_pull_replaces_it(serve, small_tag, checkpoint, tmp_path):
    server = serve(checkpoint.read_bytes())
    small_tag("good", url=server.url(f"small-{server.sha256[:8]}.pt"))
    path = sources.pull(SMALL, "good").path
    path.write_bytes(b"damaged")
    with pytest.raises(WeightsCorruptError, match="delete it and run again"):
        load(SMALL, "good")
    assert sources.pull(SMALL, "good").path.read_bytes() == server.content


def test_pull_deletes_no_file_of_the_users(checkpoint):
    path = checkpoint.rename(checkpoint.with_name("small-0badc0de.pt"))
    with pytest.raises(WeightsCorruptError):
        sources.pull(SMALL, str(path))
    assert path.exists()


def test_the_hash_in_a_local_file_s_name_is_checked(checkpoint):
    sha256 = hashlib.sha256(checkpoint.read_bytes()).hexdigest()
    right = shutil.copy(checkpoint, checkpoint.with_name(f"mine-{sha256[:8]}.pt"))
    assert load(SMALL, right).sha256 == sha256
    wrong = shutil.copy(checkpoint, checkpoint.with_name("mine-8fb26589.pt"))
    with pytest.raises(
        WeightsCorruptError, match=rf"mine-8fb26589\.pt.*expected 8fb26589\.\.\., got {sha256}.*rename it"
    ):
        load(SMALL, wrong)


@pytest.mark.parametrize(
    ("name", "digits"),
    [
        ("vit_b_16_plus_240-laion400m_e31-8fb26589.pt", "8fb26589"),
        ("vit_l_14-laion400m_e31-69988bb6.pt", "69988bb6"),
        ("model-" + "a" * 64 + ".safetensors", "a" * 64),
        ("model-20261122.pt", None),
        ("model-8fb2658.pt", None),
        ("model_8fb26589.pt", None),
        ("model-8FB26589.pt", None),
        ("model.pt", None),
    ],
)
def test_the_hash_is_read_from_the_name(name, digits):
    assert hash_in_name(name) == digits


def test_eight_decimal_digits_are_a_hash_in_a_name_that_open_clip_lists(small_tag, checkpoint):
    small_tag("digits", url="https://example.org/w-12345678.pt")
    assert sources.find(SMALL, "digits").sha256_prefix == "12345678"
    assert sources.find(SMALL, checkpoint.rename(checkpoint.with_name("w-12345678.pt"))).sha256_prefix == "12345678"


def test_a_tag_wins_over_a_file_of_its_name_and_a_path_is_a_file(small_tag, checkpoint, monkeypatch):
    small_tag("mine", url="https://example.org/w-0badc0de.pt")
    monkeypatch.chdir(checkpoint.parent)
    checkpoint.rename("mine")
    assert sources.find(SMALL, "mine").kind == "tag"
    assert sources.find(SMALL, Path("mine")).kind == "file"


def test_a_file_downloaded_by_hand_keeps_its_tag_s_settings(small_tag, checkpoint):
    small_tag("quick", url="https://example.org/quick.pt?download=1", quick_gelu=True)
    source = sources.find(SMALL, checkpoint.rename(checkpoint.with_name("quick.pt")))
    assert source.kind == "file" and source.tag == "quick.pt" and source.address is None
    assert source.quick_gelu and source.preprocess.mean == (0.1, 0.2, 0.3)


def test_open_clip_s_configuration_beside_a_file_is_read(checkpoint):
    settings = {"mean": [0.5, 0.5, 0.5], "std": [0.25, 0.25, 0.25], "interpolation": "bilinear", "size": [9, 9]}
    config = {"model_cfg": {"quick_gelu": True}, "preprocess_cfg": settings}
    checkpoint.with_name("open_clip_config.json").write_text(json.dumps(config))
    source = sources.find(SMALL, checkpoint)
    assert source.quick_gelu
    assert source.preprocess == Preprocess(64, (0.5, 0.5, 0.5), (0.25, 0.25, 0.25), "bilinear")


@pytest.mark.parametrize(
    "content", ["{", "[]", '{"preprocess_cfg": {"mean": 3}}', '{"preprocess_cfg": {"mean": [1, 2]}}']
)
def test_a_broken_configuration_beside_a_file_is_an_error(checkpoint, content):
    checkpoint.with_name("open_clip_config.json").write_text(content)
    with pytest.raises(WeightsCorruptError, match=r"open_clip_config\.json: cannot be read"):
        sources.find(SMALL, checkpoint)


def test_every_tag_open_clip_lists_is_understood(tmp_path):
    """Against open_clip's own table: normalisation, activation; and an address that leads to tensors, not programs."""
    seen = 0
    for model in list_architectures():
        for name in tag_names(model):
            config, tag = open_clip.get_pretrained_cfg(model, name), find_tag(model, name, tmp_path)
            assert tag.preprocess.mean == tuple(config["mean"]) and tag.preprocess.std == tuple(config["std"])
            assert bool(tag.quick_gelu) == config.get("quick_gelu", model.endswith("-quickgelu"))
            assert "openaipublic" not in tag.address
            assert (tag.sha256_prefix is not None) == isinstance(tag.origin, Url)
            seen += 1
    assert seen > 50


def test_old_open_clip_lists_openai_s_archive_under_its_hash(small_tag):
    small_tag("openai", url="https://openaipublic.azureedge.net/clip/models/" + "a" * 64 + "/ViT.pt")
    source = sources.find(SMALL, "openai")
    assert (source.path.name, source.sha256_prefix) == ("ViT.pt", "a" * 64)
    small_tag("openai", url="https://openaipublic.azureedge.net/clip/" + "a" * 64 + "/ViT.pt", hf_hub="timm/vit/")
    source = sources.find(SMALL, "openai")  # the hub has its tensors alone
    assert (source.path.name, source.sha256_prefix) == ("open_clip_model.safetensors", None)


@pytest.mark.parametrize(
    ("name", "twin_url", "quick"),
    [("e31", "https://example.org/e31.pt", True), ("e31", "https://example.org/other.pt", False), ("dfn2b", "", True)],
)
def test_old_open_clip_tells_quick_gelu_by_the_twin_architecture(
    small_tag, monkeypatch, tmp_path, name, twin_url, quick
):
    monkeypatch.setitem(open_clip.pretrained._PRETRAINED, "ViT-B-32", {"openai": {"url": ""}})  # no "quick_gelu"
    small_tag(name, url="https://example.org/e31.pt")
    monkeypatch.setitem(open_clip.pretrained._PRETRAINED, f"{SMALL}-quickgelu", {name: {"url": twin_url}})
    assert bool(find_tag(SMALL, name, tmp_path).quick_gelu) is quick


def test_a_url_without_a_hash_gives_way_to_the_hub(small_tag, tmp_path):
    small_tag("meta", url="https://example.org/b32.pt", hf_hub="someone/model/")
    files = ("open_clip_model.safetensors", "open_clip_pytorch_model.bin")
    assert find_tag(SMALL, "meta", tmp_path).origin == Repository("someone/model", files)
    small_tag("plain", url="https://example.org/b32.pt")
    assert find_tag(SMALL, "plain", tmp_path).origin == Url("https://example.org/b32.pt")


@pytest.mark.parametrize(
    ("file", "files"),
    [("w.bin", ("w.safetensors", "w.bin")), ("w.pth", ("w.safetensors", "w.pth")), ("w.pt", ("w.pt",))],
)
def test_a_hub_file_may_have_a_safer_twin(small_tag, tmp_path, file, files):
    small_tag("named", hf_hub=f"someone/model/{file}")
    assert find_tag(SMALL, "named", tmp_path).origin == Repository("someone/model", files)


def test_weights_for_another_architecture_do_not_load(checkpoint):
    with pytest.raises(WeightsMismatchError, match="not weights of ViT-B-32"):
        load("ViT-B-32", checkpoint)


def test_the_bundled_model_is_described_by_its_own_file(tmp_path, monkeypatch):
    settings = {"size": 48, "mean": [0.5, 0.5, 0.5], "std": [0.2, 0.2, 0.2], "interpolation": "bilinear"}
    monkeypatch.setattr(configs, "BUNDLED_FOLDER", tmp_path)
    config = tmp_path / "config.json"
    config.write_text(json.dumps({"model_cfg": {}, "preprocess": settings}))
    assert sources.find("winspect-tiny").preprocess == Preprocess(48, (0.5,) * 3, (0.2,) * 3, "bilinear")
    with pytest.raises(WeightsMissingError, match="install it again"):
        load("winspect-tiny")
    config.write_text(json.dumps({"model_cfg": {}}))
    with pytest.raises(WeightsCorruptError, match='has no "preprocess"'):
        sources.find("winspect-tiny")
