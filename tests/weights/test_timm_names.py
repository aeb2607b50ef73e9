"""timm's models by name, folder and file: found, fetched, verified, loaded, or refused with the reason."""

from __future__ import annotations

import hashlib
import json

import pytest
import timm
import timm_models
import torch
from safetensors.torch import load_file, save_file

from winspect import WinCLIP
from winspect.backbones.loading import load_tower
from winspect.errors import (
    ArchitectureError,
    SettingsError,
    UnsafeWeightsError,
    WeightsCorruptError,
    WeightsMismatchError,
    WeightsMissingError,
)
from winspect.weights import sources
from winspect.weights.timm_names import check_timm, timm_source

TINY_VIT = "timm/vit_tiny_patch16_224"
REPO = "timm/vit_tiny_patch16_224.augreg_in21k_ft_in1k"


@pytest.fixture(scope="module")
def weights_of_tiny(tmp_path_factory):
    """The architecture as it is, random weights."""
    model = timm_models.build("vit_tiny_patch16_224", {})
    return model, timm_models.save(model, tmp_path_factory.mktemp("timm") / "tiny.safetensors")


def same(tower, model) -> bool:
    return all(torch.equal(tower.model.state_dict()[key], tensor) for key, tensor in model.state_dict().items())


def test_a_file_is_loaded_whole(weights_of_tiny):
    model, path = weights_of_tiny
    loaded = load_tower(TINY_VIT, path)
    assert (loaded.name, loaded.tag, loaded.activation) == (TINY_VIT, path.name, "gelu")
    assert loaded.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert same(loaded.tower, model)
    # Of the tag that timm takes where none is named, which is not ImageNet's mean.
    assert (loaded.preprocess.size, loaded.preprocess.mean) == (224, (0.5, 0.5, 0.5))
    assert not any(parameter.requires_grad for parameter in loaded.tower.parameters())
    assert loaded.remarks == ()


@pytest.mark.parametrize("suffix", [".pth", ".bin", ".safetensors"])
def test_a_classifier_in_the_file_is_left_out(weights_of_tiny, tmp_path, suffix):
    model, _ = weights_of_tiny
    state = {**model.state_dict(), "head.weight": torch.zeros(1000, 192), "head.bias": torch.zeros(1000)}
    path = tmp_path / f"whole{suffix}"
    save_file(state, path) if suffix == ".safetensors" else torch.save({"state_dict": state}, path)
    assert same(load_tower(TINY_VIT, path).tower, model)


def test_the_hub_is_asked_for_the_tag_s_repository(fake_hub, weights_of_tiny, tmp_path):
    model, path = weights_of_tiny
    fake_hub.files = {"model.safetensors": path.read_bytes()}
    loaded = load_tower(TINY_VIT)
    assert fake_hub.asked == [f"/{REPO}/resolve/main/model.safetensors"]
    assert same(loaded.tower, model)
    assert (loaded.name, loaded.tag) == (TINY_VIT, "augreg_in21k_ft_in1k")
    assert (tmp_path / "cache/weights" / REPO.replace("/", "--") / "model.safetensors").is_file()
    # The same by its full name, and by the tag, without asking again.
    assert load_tower(f"{TINY_VIT}.augreg_in21k_ft_in1k", offline=True).sha256 == loaded.sha256
    assert load_tower(TINY_VIT, "augreg_in21k_ft_in1k", offline=True).name == TINY_VIT
    assert len(fake_hub.asked) == 1
    assert sources.find(TINY_VIT).present


def test_a_file_that_is_not_the_hub_s_is_removed(fake_hub, weights_of_tiny, tmp_path):
    fake_hub.files, fake_hub.etag = {"model.safetensors": weights_of_tiny[1].read_bytes()}, "0" * 64
    with pytest.raises(WeightsCorruptError, match=f"expected {'0' * 64}, got "):
        load_tower(TINY_VIT)
    assert not list((tmp_path / "cache").rglob("*.safetensors"))


def test_offline_without_weights_says_what_to_fetch_and_nothing_is_random(monkeypatch, tmp_path):
    for offline in (True, False):
        monkeypatch.setenv("WINSPECT_OFFLINE", "0" if offline else "1")
        with pytest.raises(WeightsMissingError) as caught:
            load_tower("timm/vit_small_patch14_dinov2.lvd142m", offline=offline)
        assert "the weights lvd142m of timm/vit_small_patch14_dinov2 are not on this machine" in str(caught.value)
        assert "timm/vit_small_patch14_dinov2.lvd142m/resolve/main/model.safetensors" in str(caught.value)
        assert "--weights FILE" in str(caught.value)


def test_tensors_of_another_model_are_listed(weights_of_tiny, tmp_path):
    _, path = weights_of_tiny
    state = load_file(path)
    state["blocks.0.mlp.extra"] = state.pop("blocks.0.mlp.fc1.bias")
    save_file(state, tmp_path / "other.safetensors")
    with pytest.raises(WeightsMismatchError) as caught:
        load_tower(TINY_VIT, tmp_path / "other.safetensors")
    assert "1 missing: blocks.0.mlp.fc1.bias" in str(caught.value)
    assert "1 unexpected: blocks.0.mlp.extra" in str(caught.value)
    with pytest.raises(WeightsMismatchError, match="of another shape"):
        load_tower("timm/vit_small_patch16_224", path)


def test_positions_of_another_size_are_resampled_by_timm_and_that_is_said(tmp_path):
    name, _ = timm_models.KINDS["registers"]
    small = {"depth": 2, "embed_dim": 96, "num_heads": 3}
    model = timm_models.build(name, {**small, "img_size": 70})
    timm_models.save_folder(name, {**small, "img_size": 98}, tmp_path / "vit")
    timm_models.save(model, tmp_path / "vit" / "model.safetensors")
    loaded = load_tower(f"local-dir:{tmp_path / 'vit'}")
    assert loaded.tower.grid_hw == (7, 7)
    assert ["was resampled as timm does it, from 25 positions to 49" in remark for remark in loaded.remarks] == [True]
    model.set_input_size((98, 98))
    assert torch.equal(loaded.tower.model.pos_embed, model.pos_embed)


def test_metas_own_file_of_dinov2_is_read(tmp_path):
    name, arguments = timm_models.KINDS["registers"]
    model = timm_models.save_folder(name, arguments, tmp_path / "vit")
    state = {**model.state_dict(), "mask_token": torch.zeros(1, 96)}
    # Meta's table has the class token's position, and its registers another name.
    state["register_tokens"] = state.pop("reg_token")
    state["pos_embed"] = torch.cat([torch.zeros(1, 1, 96), state["pos_embed"]], dim=1)
    (tmp_path / "vit" / "model.safetensors").unlink()
    torch.save(state, tmp_path / "vit" / "pytorch_model.bin")
    tower = load_tower(f"local-dir:{tmp_path / 'vit'}").tower
    assert torch.equal(tower.model.reg_token, model.reg_token)
    assert torch.equal(tower.model.pos_embed, model.pos_embed)
    assert torch.equal(tower.model.cls_token, model.cls_token)  # Meta's position of it was zero


def test_a_folder_with_timm_s_configuration(tmp_path):
    name, arguments = timm_models.ROTARY["dinov3"]
    model = timm_models.save_folder(name, arguments, tmp_path / "dino")
    before = torch.random.get_rng_state()
    loaded = load_tower(f"local-dir:{tmp_path / 'dino'}")
    assert torch.equal(torch.random.get_rng_state(), before)
    assert (loaded.name, loaded.tag, loaded.preprocess.size) == ("local-dir:dino", "model.safetensors", 256)
    assert loaded.preprocess.mean == (0.485, 0.456, 0.406)
    assert same(loaded.tower, model)
    assert loaded.remarks == (
        "local-dir:dino: its weights come under dinov3-license; read it before you use what they give",
    )
    assert torch.equal(loaded.tower.model.rope.periods, model.rope.periods)
    with pytest.raises(SettingsError, match="brings its own weights"):
        load_tower(f"local-dir:{tmp_path / 'dino'}", tmp_path / "dino" / "model.safetensors")


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (lambda c: c.update(architecture="resnet18"), ArchitectureError, "timm's resnet is no plain ViT"),
        (lambda c: c.update(architecture="vit_none"), ArchitectureError, "timm .* does not have it"),
        (lambda c: c["model_args"].update(depht=3), ArchitectureError, "cannot build it .*depht"),
        (lambda c: c["pretrained_cfg"].update(input_size=[3, 98, 70]), ArchitectureError, "98 x 70; need a square"),
        (lambda c: c["pretrained_cfg"].update(mean="no"), ArchitectureError, "pictures cannot be used"),
        (lambda c: c.pop("architecture"), WeightsCorruptError, "cannot be read as timm's configuration"),
    ],
)
def test_configurations_that_cannot_be_used(tmp_path, change, error, message):
    timm_models.save_folder(*timm_models.KINDS["layer scale"], tmp_path / "vit")
    path = tmp_path / "vit" / "config.json"
    config = json.loads(path.read_text())
    change(config)
    path.write_text(json.dumps(config))
    with pytest.raises(error, match=message):
        load_tower(f"local-dir:{tmp_path / 'vit'}")


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff\xfe", b'{"architecture": 1}'])
def test_configurations_that_are_none(tmp_path, content):
    (tmp_path / "config.json").write_bytes(content)
    with pytest.raises((WeightsCorruptError, ArchitectureError), match=r"config\.json|unknown model"):
        load_tower(f"local-dir:{tmp_path}")


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ("timm/resnet50", "timm's resnet is no plain ViT.*choose one of its vit_ or eva models"),
        ("timm/swin_tiny_patch4_window7_224.ms_in1k", "swin_transformer is no plain ViT"),
        ("timm/vit_smal_patch14_dinov2", "did you mean .*timm/vit_small_patch14_dinov2"),
        ("timm/qqqqqqqq", "unknown model 'timm/qqqqqqqq'"),
        ("timm/", "unknown model 'timm/'"),
    ],
)
def test_other_models_are_refused_before_any_download(model, message):
    with pytest.raises(ArchitectureError, match=message):
        load_tower(model)


def test_a_hybrid_is_refused(tmp_path):
    with pytest.raises(ArchitectureError):
        load_tower("timm/vit_tiny_r_s16_p8_224", timm_models.save(torch.nn.Linear(1, 1), tmp_path / "w.safetensors"))


def test_tags_and_files_that_are_not_there(tmp_path):
    for model, weights in ((f"{TINY_VIT}.nothing", None), (TINY_VIT, "nothing"), (TINY_VIT, tmp_path / "no.pth")):
        with pytest.raises(WeightsMissingError, match="timm has augreg_in21k, augreg_in21k_ft_in1k; or give a file"):
            load_tower(model, weights)
    with pytest.raises(WeightsMissingError, match="give a file with --weights FILE"):
        load_tower("timm/vit_tiny_patch16_384.nothing")


def test_a_file_that_would_run_code_is_not_loaded(tmp_path):
    class Evil:
        def __reduce__(self):
            return print, ("ran",)

    torch.save({"a": Evil()}, tmp_path / "evil.pth")
    with pytest.raises(UnsafeWeightsError, match="would call"):
        load_tower(TINY_VIT, tmp_path / "evil.pth")


def test_every_name_of_timm_s_plain_vits_has_a_source(tmp_path):
    usable = 0
    for full in timm.list_pretrained(["vit_*", "eva*", "deit*"]):
        try:
            check_timm(full.partition(".")[0])
        except ArchitectureError:
            continue
        if "sapiens2" in full:  # its pictures are no squares
            continue
        source = timm_source(f"timm/{full}", None, tmp_path)
        usable += 1
        assert source.full_name == f"timm/{full}"
    assert usable > 300


@pytest.mark.parametrize("engine", ["torch", "openvino"])
def test_recipes_that_read_text_are_refused_with_what_works(weights_of_tiny, engine):
    for recipe in ("paper", "tiles"):
        with pytest.raises(ArchitectureError, match="choose recipe memory, subspace or mutual"):
            WinCLIP(TINY_VIT, weights=weights_of_tiny[1], engine=engine, device="cpu", recipe=recipe)
