"""timm's vision transformers against a slow oracle in float64, and against timm itself."""

from __future__ import annotations

import pytest
import timm
import timm_models
import torch
from timm.layers import resample_abs_pos_embed

from winspect.backbones.embeddings import Needs, block
from winspect.backbones.timm_tower import TimmTower
from winspect.errors import ArchitectureError, SettingsError

ALL = ("last", "last_norm", "block_1", "block_2", "block_3")


@pytest.fixture(scope="module", params=timm_models.KINDS)
def plain(request):
    return timm_models.build(*timm_models.KINDS[request.param])


@pytest.fixture(scope="module", params=timm_models.ROTARY)
def rotary(request):
    return timm_models.build(*timm_models.ROTARY[request.param])


def pixels_of(tower, patches_hw, count=2):
    generator = torch.Generator().manual_seed(1)
    return torch.randn(count, 3, *(side * tower.patch for side in patches_hw), generator=generator)


def close(ours, expected, tolerance):
    assert ours.shape == expected.shape
    assert float((ours.double() - expected.double()).abs().max() / expected.abs().max()) < tolerance


@pytest.mark.parametrize("patches_hw", [None, (5, 8), (9, 4), (6, 6)], ids=str)
def test_every_layer_is_the_oracles(plain, patches_hw):
    tower = TimmTower(plain).eval()
    own = tower.grid_hw
    pixels = pixels_of(tower, patches_hw or own)
    prefix = 0 if plain.no_embed_class else 1
    positions = None
    if patches_hw:
        positions = resample_abs_pos_embed(plain.pos_embed, list(patches_hw), list(own), num_prefix_tokens=prefix)[0]
    with torch.inference_mode():
        found = tower(pixels, Needs(layers=ALL))
    heads = plain.blocks[0].attn.num_heads
    for number, picture in enumerate(pixels):
        expected = timm_models.oracle(plain.state_dict(), picture, heads=heads, positions=positions)
        for layer in ALL:
            assert found.patches[layer].shape[1:3] == (patches_hw or own) == found.grid_hw
            close(found.vectors(layer)[number], expected[layer], 1e-5)
        close(found.image[number], expected["image"], 1e-5)


def test_the_oracle_can_fail(plain):
    """Other weights in one block are seen behind it, and not in front of it."""
    tower, state = TimmTower(plain).eval(), plain.state_dict()
    pixels = pixels_of(tower, tower.grid_hw, 1)
    state["blocks.1.attn.qkv.weight"] = state["blocks.1.attn.qkv.weight"].flip(0)
    with torch.inference_mode():
        found = tower(pixels, Needs(layers=ALL))
    expected = timm_models.oracle(state, pixels[0], heads=plain.blocks[0].attn.num_heads)
    close(found.vectors("block_1")[0], expected["block_1"], 1e-5)
    with pytest.raises(AssertionError):
        close(found.vectors("block_2")[0], expected["block_2"], 1e-3)


@pytest.mark.parametrize("patches_hw", [None, (5, 8), (9, 4)], ids=str)
def test_rotary_models_are_timms(rotary, patches_hw):
    tower = TimmTower(rotary).eval()
    pixels = pixels_of(tower, patches_hw or tower.grid_hw)
    with torch.inference_mode():
        found = tower(pixels, Needs(layers=ALL))
        again = tower(pixels, Needs(layers=ALL))
        final, blocks = rotary.forward_intermediates(pixels)
        image = rotary.forward_head(final, pre_logits=True)
    close(found.image, image, 1e-6)
    close(found.vectors("last_norm"), final[:, rotary.num_prefix_tokens :], 1e-6)
    for number, expected in enumerate(blocks, 1):
        close(found.patches[block(number)].permute(0, 3, 1, 2), expected, 1e-6)
    assert torch.equal(again.image, found.image)


def test_a_pass_ends_with_the_last_block_that_is_needed(plain, monkeypatch):
    tower = TimmTower(plain).eval()
    pixels = pixels_of(tower, (3, 4), 1)
    with torch.inference_mode():
        whole = tower(pixels, Needs(layers=(block(2), block(3))))
        monkeypatch.setattr(plain.blocks[2], "forward", lambda *_: pytest.fail("ran"))
        found = tower(pixels, Needs(layers=(block(2),)))
    torch.testing.assert_close(found.patches[block(2)], whole.patches[block(2)], rtol=0, atol=0)
    assert found.image.shape == (1, 0)
    assert whole.image.shape == (1, plain.embed_dim)


def test_what_it_cannot_give_is_refused(plain):
    tower = TimmTower(plain)
    with pytest.raises(ArchitectureError, match=r"windows.*choose recipe memory, subspace or mutual"):
        tower.check(Needs((2, 3)))
    with pytest.raises(ArchitectureError, match="needs patches of stem, block_4, this model has last, last_norm"):
        tower.check(Needs(layers=("stem", "block_4", "last")))
    side = tower.patch
    with pytest.raises(SettingsError, match=f"got tiles of {side + 1}x{side} pixels"):
        tower(torch.zeros(1, 3, side, side + 1), Needs())
    assert not tower.has_text


@pytest.mark.parametrize("name", ["resnet18", "swin_tiny_patch4_window7_224", "vit_tiny_r_s16_p8_224"])
def test_other_models_are_refused(name):
    with torch.device("meta"):
        model = timm.create_model(name)
    with pytest.raises(ArchitectureError, match="need a plain ViT"):
        TimmTower(model)
