"""FLOPs and bytes of the image tower, checked against torch's own counter and sums by hand."""

from __future__ import annotations

from contextlib import contextmanager

import pytest
import timm_models
import torch
from checkpoints import SMALL, build
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from winspect.backbones.embeddings import LAST, Needs
from winspect.backbones.image_tower import ImageTower
from winspect.backbones.open_clip_models import load
from winspect.backbones.timm_tower import TimmTower
from winspect.errors import ArchitectureError
from winspect.speed.flops import (
    ATTENTION,
    CLASSES,
    LAYER_NORM,
    LINEAR,
    OTHER,
    TowerShape,
    Work,
    image_tower_flops,
)


def plain(*, width, layers, grid_hw, embedding, patch_size):
    """A tower by its numbers: one convolution over patches of RGB, without bias; MLPs four times as wide."""
    patches, pixels = grid_hw[0] * grid_hw[1], 3 * patch_size**2
    stem = Work(2 * patches * pixels * width, patches * (pixels + width), pixels * width)
    return TowerShape(width, layers, 4 * width, grid_hw, embedding, stem)


PLUS = plain(width=896, layers=12, grid_hw=(15, 15), embedding=640, patch_size=16)


@pytest.fixture(scope="module")
def tower():
    return ImageTower(build(SMALL).visual).eval()


# The tower the project is about


def test_what_the_tower_with_2896_tokens_costs():
    tokens, read, width = 226 + 196 * 5 + 169 * 10, 1 + 196 + 169, 896
    assert tokens == 2896
    work = image_tower_flops(PLUS, Needs((2, 3)))
    stem_and_head = 2 * 225 * 768 * width + 2 * read * width * 640
    # Products of width^2 per token, two FLOPs each: 3 + 1 + 4 + 4 in a block. The first projects the tile's 226 tokens
    # alone; the last reads keys and values of all, and computes 1 + 1 + 4 + 4 for the class tokens.
    products = 3 * 226 + 9 * tokens + 10 * 12 * tokens + 2 * tokens + 10 * read
    assert work[LINEAR].flops == 2 * width**2 * products + stem_and_head


def test_the_image_level_alone():
    products = 12 * 11 * 226 + 2 * 226 + 10
    stem_and_head = 2 * 225 * 768 * 896 + 2 * 896 * 640
    assert image_tower_flops(PLUS, Needs())[LINEAR].flops == 2 * 896**2 * products + stem_and_head


# The outside oracle


@contextmanager
def counting():
    """Count with torch, attention as plain matrix products: which fused kernels it knows changes with the release."""
    with FlopCounterMode(display=False) as counter, torch.inference_mode(), sdpa_kernel(SDPBackend.MATH):
        yield counter


@pytest.mark.parametrize("layers", [(), (LAST,)])
@pytest.mark.parametrize(("scales", "stride"), [((), 1), ((2,), 1), ((2, 3), 1), ((2, 3), 2)])
def test_torch_counts_the_same_in_what_the_tower_executes(tower, scales, stride, layers):
    needs = Needs(scales, stride, layers)
    with counting() as counter:
        tower(torch.zeros(1, 3, 64, 64), needs)
    work = image_tower_flops(TowerShape.of(tower), needs)
    assert counter.get_total_flops() == work[LINEAR].flops + work[ATTENTION].flops


@pytest.mark.parametrize("kind", timm_models.KINDS)
@pytest.mark.parametrize("layers", [("last_norm",), ("block_2",), ("block_1", "block_3")])
def test_torch_counts_the_same_of_timm(kind, layers):
    """At another size than the model's, with registers, and where the last blocks are not run."""
    tower = TimmTower(timm_models.build(*timm_models.KINDS[kind])).eval()
    image_hw = (5 * tower.patch, 7 * tower.patch)
    with counting() as counter:
        tower(torch.zeros(1, 3, *image_hw), Needs(layers=layers))
    shape = TowerShape.of(tower, image_hw)
    work = image_tower_flops(shape, Needs(layers=layers))
    assert counter.get_total_flops() == work[LINEAR].flops + work[ATTENTION].flops
    assert (shape.grid_hw, shape.layer_scale) == ((5, 7), kind != "plain")


def test_a_gated_mlp_is_refused():
    name = "vit_giant_patch14_reg4_dinov2"
    tower = TimmTower(timm_models.build(name, {"depth": 1, "embed_dim": 96, "num_heads": 3, "img_size": 98}))
    with pytest.raises(ArchitectureError, match="or a gated one"):
        TowerShape.of(tower)


def test_the_bundled_model_and_its_stem():
    tower = ImageTower(load("winspect-tiny").model.visual).eval()
    with counting() as counter:
        tower.conv1(torch.zeros(1, 3, *tower.image_hw))
    stem = TowerShape.of(tower).patch_embedding
    # torch counts a grouped convolution as what it does; distances between patches are no part of the products.
    assert stem.flops == pytest.approx(counter.get_total_flops(), rel=0.05)
    weights = sum(weight.numel() for name, weight in tower.conv1.named_parameters() if "norm" not in name)
    assert stem.weights == weights


# Shapes


def test_a_shape_is_read_from_its_tower(tower):
    shape = TowerShape.of(tower)
    assert shape.patch_embedding == Work(2 * 16 * 768 * 64, 3 * 64 * 64 + 16 * 64, 64 * 768)
    assert shape == plain(width=64, layers=3, grid_hw=(4, 4), embedding=48, patch_size=16)


def test_an_mlp_that_cannot_be_counted_is_refused():
    tower = ImageTower(build(SMALL).visual).eval()
    tower.blocks[0].mlp = torch.nn.Identity()
    with pytest.raises(ArchitectureError, match="MLP Identity without c_fc"):
        TowerShape.of(tower)


def test_looking_at_a_tower_leaves_nothing_behind(tower):
    TowerShape.of(tower)
    assert not any(module._forward_hooks for module in tower.modules())


def test_sequences_are_the_tile_and_its_windows():
    shape = plain(width=8, layers=1, grid_hw=(5, 7), embedding=4, patch_size=2)
    assert shape.sequences(Needs()) == [(1, 36)]
    assert shape.sequences(Needs((2, 3), 2)) == [(1, 36), (3 * 4, 5), (2 * 3, 10)]


# A tower small enough for a sheet of paper: 2 patches of 1 pixel, width 2, MLP 8, embedding 3, one layer


SMALLEST = plain(width=2, layers=1, grid_hw=(1, 2), embedding=3, patch_size=1)


def test_every_class_by_hand():
    work = image_tower_flops(SMALLEST, Needs(layers=(LAST,)))
    # 3 tokens. Stem: 2 patches x 3 numbers -> 2. Then 2 -> 6, 2 -> 2, 2 -> 8, 8 -> 2 on 3 rows, 2 -> 3 on 1 row.
    assert work[LINEAR] == Work(
        flops=2 * (2 * 6 + 3 * (12 + 4 + 16 + 16) + 6),
        values=2 * 5 + 3 * (4 + 6 + 4 + 10 + 10) + 5,  # queries apart from keys and values
        weights=6 + (12 + 6) + (4 + 2) + (16 + 8) + (16 + 2) + 6,
    )
    # 3 x 3 pairs of tokens, 2 numbers each, twice; queries, keys, values in, one matrix out.
    assert work[ATTENTION] == Work(flops=2 * 2 * 3 * 3 * 2, values=4 * 3 * 2)
    # ln_pre, ln_1 and ln_2 on 3 rows, ln_post on 1; weight and bias each.
    assert work[LAYER_NORM] == Work(flops=7 * 10 * 2, values=2 * 10 * 2, weights=4 * 4)
    # Positions; GELU on 3 x 8; two residual sums; copies of the rows that are read.
    assert work[OTHER] == Work(flops=6 + 5 * 24 + 12, values=12 + 48 + 36 + 2 * 2 * 3 * 2, weights=6)


def test_the_last_block_by_hand():
    saved = image_tower_flops(SMALLEST, Needs())
    # Keys and values of 3 rows; query, output and MLP of the class token alone.
    assert saved[LINEAR].flops == 2 * (2 * 6 + 3 * 8 + (4 + 4 + 16 + 16) + 6)
    assert saved[ATTENTION] == Work(flops=2 * 2 * 1 * 3 * 2, values=2 * (1 + 3) * 2)


def test_windows_pay_for_their_copies():
    two = plain(width=2, layers=2, grid_hw=(1, 2), embedding=3, patch_size=1)
    alone, windows = (image_tower_flops(two, needs)[OTHER].values for needs in (Needs(), Needs((1,))))
    # 2 windows of 2 tokens, 2 numbers each. Copied, read and written: tokens, queries, keys, values, and the 2 class
    # tokens twice in the last block. GELU on 4 x 8 and 2 x 8, sums of 4 x 2 and 2 x 2 twice.
    copies = 2 * (4 * (2 * 2 * 2) + 2 * 2 * 2)
    assert windows - alone == copies + 2 * (4 + 2) * 8 + 2 * 3 * (4 + 2) * 2


def test_scaled_residuals_cost_more():
    scaled = TowerShape(**{**vars(SMALLEST), "layer_scale": True})
    less, more = (image_tower_flops(shape, Needs(layers=(LAST,)))[OTHER] for shape in (SMALLEST, scaled))
    assert more.flops - less.flops == 2 * 3 * 2
    assert more.weights - less.weights == 2 * 2


def test_every_class_is_there_in_order():
    assert tuple(image_tower_flops(PLUS, Needs((2, 3)))) == CLASSES


def test_bytes_share_the_weights_among_the_tiles_of_a_pass():
    work = Work(values=1000, weights=600)
    assert work.moved_bytes() == 6400
    assert work.moved_bytes(batch=3, element_bytes=2) == 2400
