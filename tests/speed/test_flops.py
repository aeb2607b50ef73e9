"""FLOPs and bytes of the image tower, checked against torch's own counter and sums by hand."""

from __future__ import annotations

from contextlib import contextmanager

import pytest
import torch
from checkpoints import SMALL, build
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from winspect.backbones.embeddings import LAST, Needs
from winspect.backbones.image_tower import Block, ImageTower
from winspect.backbones.open_clip_models import load
from winspect.backbones.windows import window_indices
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
    total,
)


def plain(*, width, layers, grid_hw, embedding, patch_size):
    """A tower by its numbers: one convolution over patches of RGB, without bias; MLPs four times as wide."""
    patches, pixels = grid_hw[0] * grid_hw[1], 3 * patch_size**2
    stem = Work(2 * patches * pixels * width, patches * (pixels + width), pixels * width)
    return TowerShape(width, layers, 4 * width, grid_hw, embedding, stem)


PLUS = plain(width=896, layers=12, grid_hw=(15, 15), embedding=640, patch_size=16)
PLAIN = {"share_first": False, "read_last": False}


@pytest.fixture(scope="module")
def tower():
    return ImageTower(build(SMALL).visual).eval()


def gflop(scales=(2, 3), **options):
    work = image_tower_flops(PLUS, **{"scales": scales, "stride": 1, "patches": False, **options})
    return total(work.values()).flops / 1e9


# The tower the project is about


def test_the_plain_tower_costs_what_its_2896_tokens_cost():
    # 24 width^2 per token and layer in linear layers: 3 + 1 + 4 + 4 products of width^2, two FLOPs each.
    tokens = 226 + 196 * 5 + 169 * 10
    work = image_tower_flops(PLUS, scales=(2, 3), stride=1, patches=False, **PLAIN)
    stem_and_head = 2 * 225 * 768 * 896 + 2 * (1 + 196 + 169) * 896 * 640
    assert tokens == 2896
    assert work[LINEAR].flops == 12 * 24 * 896**2 * tokens + stem_and_head
    assert gflop(**PLAIN) == pytest.approx(670, rel=0.01)


def test_the_image_level_alone():
    assert gflop(scales=(), **PLAIN) == pytest.approx(54, rel=0.02)


def test_what_the_savings_save():
    # First block: 2,670 tokens less through 3 width^2. Last: all but 366 of 2,896 less through 1 + 1 + 8 width^2.
    first = 2 * 3 * 896**2 * (2896 - 226) / 1e9
    last = 2 * 10 * 896**2 * (2896 - 366) / 1e9
    assert gflop(read_last=False) == pytest.approx(gflop(**PLAIN) - first, rel=1e-4)
    assert gflop(share_first=False) == pytest.approx(gflop(**PLAIN) - last, rel=1e-3)
    assert gflop() < 0.93 * gflop(**PLAIN)


# The outside oracle


@contextmanager
def counting():
    """Count with torch, attention as plain matrix products: which fused kernels it knows changes with the release."""
    with FlopCounterMode(display=False) as counter, torch.inference_mode(), sdpa_kernel(SDPBackend.MATH):
        yield counter


@pytest.mark.parametrize("patches", [False, True])
@pytest.mark.parametrize(("scales", "stride"), [((), 1), ((2,), 1), ((2, 3), 1), ((2, 3), 2)])
def test_torch_counts_the_same_in_what_the_tower_executes(tower, monkeypatch, scales, stride, patches):
    shape = TowerShape.of(tower)
    projections = []
    project = Block.project

    def counted(block, x, **options):
        projections.append(block is tower.blocks[0])
        return project(block, x, **options)

    monkeypatch.setattr(Block, "project", counted)
    with counting() as counter:
        tower(torch.zeros(1, 3, 64, 64), Needs(scales, stride, (LAST,) if patches else ()))
    work = image_tower_flops(shape, scales=scales, stride=stride, patches=patches)
    # The first projection is counted once; however often the tower repeats it is not what is tested here.
    repeated = (sum(projections) - 1) * 2 * shape.tokens * 3 * shape.width**2
    assert counter.get_total_flops() - repeated == work[LINEAR].flops + work[ATTENTION].flops


def test_torch_counts_the_same_in_sequences_that_pass_one_by_one(tower):
    shape, indices = TowerShape.of(tower), window_indices((4, 4), 2) + 1
    with counting() as counter:
        tokens, _ = tower.tokens(torch.zeros(1, 3, 64, 64))
        windows = torch.cat([tokens[:, :1].expand(len(indices), -1, -1), tokens[0, indices]], dim=1)
        for sequences in (tokens, windows):
            tower.pooled(torch.nn.Sequential(*tower.blocks)(sequences))
    work = image_tower_flops(shape, scales=(2,), stride=1, patches=False, **PLAIN)
    assert counter.get_total_flops() == work[LINEAR].flops + work[ATTENTION].flops


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


@pytest.mark.parametrize("grid_hw", [(4, 4), (5, 7), (15, 15)])
@pytest.mark.parametrize(("scale", "stride"), [(1, 1), (2, 1), (2, 2), (3, 1), (3, 2), (3, 3), (4, 3)])
def test_windows_are_counted_as_they_are_cut(grid_hw, scale, stride):
    shape = plain(width=8, layers=1, grid_hw=grid_hw, embedding=4, patch_size=2)
    assert shape.windows(scale, stride) == len(window_indices(grid_hw, scale, stride))


# A tower small enough for a sheet of paper: 2 patches of 1 pixel, width 2, MLP 8, embedding 3, one layer


SMALLEST = plain(width=2, layers=1, grid_hw=(1, 2), embedding=3, patch_size=1)


def test_every_class_by_hand():
    work = image_tower_flops(SMALLEST, scales=(), stride=1, patches=False, **PLAIN)
    # 3 tokens. Stem: 2 patches x 3 numbers -> 2. Then 2 -> 6, 2 -> 2, 2 -> 8, 8 -> 2 on 3 rows, 2 -> 3 on 1 row.
    assert work[LINEAR] == Work(
        flops=2 * (2 * 6 + 3 * (12 + 4 + 16 + 16) + 6),
        values=2 * 5 + 3 * (8 + 4 + 10 + 10) + 5,
        weights=6 + (12 + 6) + (4 + 2) + (16 + 8) + (16 + 2) + 6,
    )
    # 3 x 3 pairs of tokens, 2 numbers each, twice; queries, keys, values in, one matrix out.
    assert work[ATTENTION] == Work(flops=2 * 2 * 3 * 3 * 2, values=4 * 3 * 2)
    # ln_pre, ln_1 and ln_2 on 3 rows, ln_post on 1; weight and bias each.
    assert work[LAYER_NORM] == Work(flops=7 * 10 * 2, values=2 * 10 * 2, weights=4 * 4)
    # Positions; GELU on 3 x 8; two residual sums.
    assert work[OTHER] == Work(flops=6 + 5 * 24 + 12, values=12 + 48 + 36, weights=6)


def test_the_last_block_by_hand():
    saved = image_tower_flops(SMALLEST, scales=(), stride=1, patches=False)
    # Keys and values of 3 rows; query, output and MLP of the class token alone.
    assert saved[LINEAR].flops == 2 * (2 * 6 + 3 * 8 + (4 + 4 + 16 + 16) + 6)
    assert saved[ATTENTION] == Work(flops=2 * 2 * 1 * 3 * 2, values=2 * (1 + 3) * 2)
    with_patches = image_tower_flops(SMALLEST, scales=(), stride=1, patches=True)
    whole = image_tower_flops(SMALLEST, scales=(), stride=1, patches=True, **PLAIN)
    assert with_patches[ATTENTION] == whole[ATTENTION]
    assert with_patches[LINEAR].flops == whole[LINEAR].flops


def test_windows_pay_for_their_copies():
    with_windows = image_tower_flops(SMALLEST, scales=(1,), stride=1, patches=False)[OTHER]
    apart = image_tower_flops(SMALLEST, scales=(1,), stride=1, patches=False, **PLAIN)[OTHER]
    assert with_windows.values != apart.values
    two = plain(width=2, layers=2, grid_hw=(1, 2), embedding=3, patch_size=1)
    shared, own = (
        image_tower_flops(two, scales=(1,), stride=1, patches=False, share_first=share, read_last=False)[OTHER]
        for share in (True, False)
    )
    # 2 windows of 2 tokens, 2 numbers each: queries, keys and values are copied, read and written.
    assert shared.values - own.values == 3 * 2 * (2 * 2 * 2)


def test_scaled_residuals_cost_more():
    scaled = TowerShape(**{**vars(SMALLEST), "layer_scale": True})
    less, more = (
        image_tower_flops(shape, scales=(), stride=1, patches=False, **PLAIN)[OTHER] for shape in (SMALLEST, scaled)
    )
    assert more.flops - less.flops == 2 * 3 * 2
    assert more.weights - less.weights == 2 * 2


def test_every_class_is_there_in_order():
    assert tuple(image_tower_flops(PLUS, scales=(2, 3), stride=1, patches=False)) == CLASSES


def test_bytes_share_the_weights_among_the_tiles_of_a_pass():
    work = Work(values=1000, weights=600)
    assert work.moved_bytes() == 6400
    assert work.moved_bytes(batch=3, element_bytes=2) == 2400
