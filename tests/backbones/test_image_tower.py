"""The encoder against open_clip itself and against the slow oracle, on whichever open_clip release is installed."""

from __future__ import annotations

import copy

import open_clip
import oracle
import pytest
import torch
from checkpoints import SMALL, build
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from winspect.backbones.embeddings import LAST, LAST_NORM, WHOLE, Needs, block
from winspect.backbones.image_tower import Block, ImageTower
from winspect.backbones.windows import window_indices
from winspect.errors import ArchitectureError, SettingsError

FULL = Needs((2, 3), 1, (LAST,))

pytestmark = pytest.mark.open_clip_versions


@pytest.fixture(scope="module", params=[SMALL, "ViT-B-32-quickgelu"])
def clip(request):
    """open_clip models in float64: GELU and QuickGELU, grids of 4x4 and 7x7; a first, a middle and a last layer."""
    return build(request.param, layers=3).double()


def pixels_for(clip, batch=2):
    size = clip.visual.image_size
    side = size[0] if isinstance(size, tuple) else size
    return torch.randn(batch, 3, side, side, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def test_image_embedding_is_open_clips_own(clip):
    pixels = pixels_for(clip)
    with torch.inference_mode():
        ours = ImageTower(clip.visual)(pixels, Needs()).image
        theirs = clip.encode_image(pixels)
        slow = torch.stack([oracle.encode_image(clip, tile) for tile in pixels])
    torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(slow, theirs, rtol=1e-10, atol=1e-10)


def test_window_and_patch_embeddings_are_the_oracles(clip):
    pixels = pixels_for(clip, batch=1)
    tower = ImageTower(clip.visual)
    with torch.inference_mode():
        ours = tower(pixels, FULL)
        slow = [oracle.encode_tile(clip, tile) for tile in pixels]
    for scale in (2, 3):
        expected = torch.stack([torch.stack(list(oracle.of_scale(tile.windows, scale).values())) for tile in slow])
        assert ours.windows[scale].shape == expected.shape
        torch.testing.assert_close(ours.windows[scale], expected, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(ours.vectors(LAST), torch.stack([t.patches for t in slow]), rtol=1e-10, atol=1e-10)


def test_a_window_does_not_see_the_other_windows(clip):
    """Changing one patch changes the windows that hold it, and no other."""
    tower = ImageTower(clip.visual)
    with torch.inference_mode():
        tokens, _ = tower.tokens(pixels_for(clip, batch=1))
        changed = tokens.clone()
        changed[:, 1 + 5] *= -1
        differs = (tower.window_embeddings(tokens, 2) - tower.window_embeddings(changed, 2)).abs().amax(dim=2)[0] > 1e-9
    holds = torch.from_numpy((window_indices(tower.grid_hw, 2) == 5).any(axis=1))
    assert torch.equal(differs, holds)


def test_the_oracle_notices_windows_that_are_mixed(clip, monkeypatch):
    """Break the encoder as sequence-first code on a batch-first release does: the comparison must fail."""
    tower = ImageTower(clip.visual)
    pixels = pixels_for(clip, batch=1)
    whole = Block.forward

    def mixed(self, x, *, projected=None, class_token_only=False, causal=False):
        return whole(self, x.transpose(0, 1)).transpose(0, 1)[:, : 1 if class_token_only else None]

    with torch.inference_mode():
        right = tower.window_embeddings(tower.tokens(pixels)[0], 2)
        monkeypatch.setattr(Block, "forward", mixed)
        wrong = tower.window_embeddings(tower.tokens(pixels)[0], 2)
    cosines = nn.functional.cosine_similarity(right, wrong, dim=-1)
    assert cosines.max() < 0.99
    assert wrong.std(dim=1).mean() < right.std(dim=1).mean()


def test_a_picture_does_not_depend_on_its_batch(clip):
    tower = ImageTower(clip.visual)
    pixels = pixels_for(clip, batch=3)
    with torch.inference_mode():
        together, alone = tower(pixels, FULL), tower(pixels[1:2], FULL)
    torch.testing.assert_close(together.windows[3][1:2], alone.windows[3], rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(together.patches[LAST][1:2], alone.patches[LAST], rtol=1e-12, atol=1e-12)


def test_one_layer_is_first_and_last_block_at_once():
    clip = build(SMALL).double()
    clip.visual.transformer.resblocks = clip.visual.transformer.resblocks[:1]
    pixels = pixels_for(clip, batch=1)
    with torch.inference_mode():
        ours = ImageTower(clip.visual)(pixels, FULL).windows[2][0, 0]
        expected = oracle.encode_tile(clip, pixels[0]).windows[2, 0, 0]
    torch.testing.assert_close(ours, expected, rtol=1e-10, atol=1e-10)


def test_dtype_and_device_are_the_weights():
    tower = ImageTower(build(SMALL).visual).to(torch.bfloat16)
    assert (tower.dtype, tower.device) == (torch.bfloat16, torch.device("cpu"))
    with torch.inference_mode():
        embeddings = tower(torch.zeros(1, 3, 64, 64, dtype=torch.bfloat16), FULL)
    assert {embeddings.image.dtype, embeddings.windows[2].dtype, embeddings.patches[LAST].dtype} == {torch.bfloat16}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda visual: setattr(visual, "attn_pool", nn.Identity()), "attention pooling"),
        (lambda visual: setattr(visual, "pool_type", "avg"), "average pooling"),
        (lambda visual: setattr(visual, "global_average_pool", True), "average pooling"),
        (lambda visual: setattr(visual, "input_patchnorm", True), "input patch norm"),
        (lambda visual: setattr(visual, "proj", None), "without proj"),
        (lambda visual: setattr(visual.transformer.resblocks[0], "attn", nn.Identity()), "attention Identity"),
    ],
)
def test_towers_that_windows_cannot_use_are_refused(change, message):
    visual = copy.deepcopy(build(SMALL).visual)
    change(visual)
    with pytest.raises(ArchitectureError, match=message):
        ImageTower(visual)


class HostReads(TorchDispatchMode):
    """Operators that read a tensor of the host."""

    def __init__(self):
        super().__init__()
        self.found = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        if any(isinstance(x, torch.Tensor) and x.device.type == "cpu" for x in tree_leaves((args, kwargs))):
            self.found.append(function.name())
        return function(*args, **(kwargs or {}))


def test_a_pass_copies_nothing_from_the_host():
    """A captured graph must not; the first pass of a shape may. The meta device stands for an accelerator."""
    tower = ImageTower(build(SMALL).visual).to("meta")
    pixels = torch.zeros(2, 3, 64, 64, device="meta")
    with torch.inference_mode():
        tower(pixels, FULL)
        with HostReads() as reads:
            tower(pixels, FULL)
    assert reads.found == []


# Other sizes, and the blocks


def at_size(clip, image_hw):
    """The same weights in a model of another size, its positions resized by open_clip itself: the oracle."""
    name = {64: SMALL, 224: "ViT-B-32-quickgelu"}[clip.visual.image_size[0]]
    config = open_clip.get_model_config(name)
    config.pop("custom_text", None)
    config["vision_cfg"] |= {"image_size": image_hw, "layers": len(clip.visual.transformer.resblocks)}
    config["text_cfg"] |= {"layers": len(clip.transformer.resblocks)}
    other, state = open_clip.model.CLIP(**config).double().eval(), clip.state_dict()
    open_clip.model.resize_pos_embed(state, other)
    other.load_state_dict(state)
    return other.requires_grad_(False)


@pytest.mark.parametrize("patches_hw", [(3, 6), (6, 3), (5, 5), (8, 9)])
def test_another_size_is_open_clips_model_of_that_size(clip, patches_hw):
    tower = ImageTower(clip.visual)
    image_hw = tuple(side * tower.patch for side in patches_hw)
    pixels = torch.randn(2, 3, *image_hw, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    other = at_size(clip, image_hw)
    with torch.inference_mode():
        ours = tower(pixels, FULL)
        again = tower(pixels[:1], FULL)
        expected = [oracle.encode_tile(other, tile) for tile in pixels]
        theirs = other.encode_image(pixels)
    assert ours.grid_hw == patches_hw
    torch.testing.assert_close(ours.image, theirs, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(ours.vectors(LAST), torch.stack([t.patches for t in expected]), rtol=1e-10, atol=1e-10)
    for scale in (2, 3):
        windows = torch.stack([torch.stack(list(oracle.of_scale(tile.windows, scale).values())) for tile in expected])
        torch.testing.assert_close(ours.windows[scale], windows, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(again.image, ours.image[:1], rtol=1e-12, atol=1e-12)
    assert len(tower._resized) == 1


def test_positions_follow_the_tower_to_another_precision(clip):
    tower = ImageTower(copy.deepcopy(clip.visual))
    side = 5 * tower.patch
    with torch.inference_mode():
        tower(torch.zeros(1, 3, side, side, dtype=torch.float64), Needs())
        tower.to(torch.bfloat16)
        found = tower(torch.zeros(1, 3, side, side, dtype=torch.bfloat16), Needs()).image
    assert found.dtype == torch.bfloat16


def residual_stream(visual, pixels):
    """The tokens of one picture behind each block, block by block."""
    x, _ = oracle.tokenize(visual, pixels)
    for module in visual.transformer.resblocks:
        x = x + module.ls_1(oracle.attention(module, module.ln_1(x), [len(x)]))
        x = x + module.ls_2(module.mlp(module.ln_2(x)))
        yield x


@pytest.mark.parametrize("numbers", [(1,), (2,), (1, 3), (3,), (3, 2, 1)])
def test_blocks_are_the_residual_stream_behind_each(clip, numbers):
    tower, pixels = ImageTower(clip.visual), pixels_for(clip)
    layers = tuple(map(block, numbers))
    with torch.inference_mode():
        ours = tower(pixels, Needs(layers=layers))
        stream = [list(residual_stream(clip.visual, tile)) for tile in pixels]
        image = clip.encode_image(pixels)
    assert tuple(ours.patches) == layers
    for number in numbers:
        expected = torch.stack([tile[number - 1][1:] for tile in stream])
        torch.testing.assert_close(ours.vectors(block(number)), expected, rtol=1e-10, atol=1e-10)
        assert ours.patches[block(number)].shape[1:3] == tower.grid_hw
    if 3 in numbers:  # the last: the pass has the class token anyway
        torch.testing.assert_close(ours.image, image, rtol=1e-10, atol=1e-10)
    else:
        assert ours.image.shape == (2, 0)


def test_all_layers_together_are_those_of_single_passes(clip):
    tower, pixels = ImageTower(clip.visual), pixels_for(clip, batch=1)
    layers = (LAST_NORM, block(2), LAST, block(3))
    with torch.inference_mode():
        together = tower(pixels, Needs((2,), 1, layers))
        for layer in layers:
            alone = tower(pixels, Needs(layers=(layer,)))
            torch.testing.assert_close(together.patches[layer], alone.patches[layer], rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(together.patches[LAST], together.patches[block(3)], rtol=0, atol=0)


def test_the_whole_is_the_image_at_the_tiles_size(clip):
    tower = ImageTower(clip.visual)
    side, small = 5 * tower.patch, 3 * tower.patch
    pixels = torch.randn(2, 3, side, side, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    with torch.inference_mode():
        both = tower(pixels, Needs((2,), 1, (WHOLE,), tower_size=small))
        image, shrunk = (tower(pixels, Needs(tower_size=size)).image for size in (None, small))
        same = tower(pixels, Needs(layers=(WHOLE,)))
    torch.testing.assert_close(both.patches[WHOLE], image[:, None, None], rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(both.image, shrunk, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(same.patches[WHOLE], image[:, None, None], rtol=1e-12, atol=1e-12)


def test_blocks_behind_the_last_one_needed_do_not_run(clip):
    visual = copy.deepcopy(clip.visual)
    visual.transformer.resblocks[2].register_forward_hook(lambda *_: pytest.fail("ran"))
    tower = ImageTower(visual)
    tower.blocks[2].forward = lambda *_, **__: pytest.fail("ran")
    with torch.inference_mode():
        tower(pixels_for(clip, batch=1), Needs(layers=(block(2),)))


def test_layers_and_sizes_that_are_not_there_are_refused(clip):
    tower = ImageTower(clip.visual)
    for layer in (block(4), block(0), "block_x", "stem_8"):
        with pytest.raises(ArchitectureError, match=f"needs patches of {layer}, this model has .*block_1, block_2"):
            tower.check(Needs(layers=(layer,)))
    tower.check(Needs(layers=(block(1), block(3))))
    side = tower.patch
    with pytest.raises(SettingsError, match=f"got tiles of {2 * side}x{side + 1} pixels for patches of {side}x{side}"):
        tower(torch.zeros(1, 3, side + 1, 2 * side, dtype=torch.float64), Needs())
