"""memory, subspace and mutual from a checkpoint's file to the score: timm, open_clip, torchvision, Pillow and SciPy.

In float64, written from the methods' descriptions, with the libraries that their authors use. Nothing of winspect, and
nothing of the other oracles.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import open_clip
import timm
import torch
from PIL import Image
from safetensors.torch import load_file
from scipy.ndimage import gaussian_filter
from torch.nn import functional as F
from torchvision import transforms


def picture(path, size, mean, std, *, square, patch):
    """Float64 (1, 3, height, width)."""
    resize = transforms.Resize((size, size) if square else size, interpolation=transforms.InterpolationMode.BICUBIC)
    with Image.open(path) as file:
        image = resize(file.convert("RGB"))
    pixels = torch.from_numpy(np.asarray(image).astype(np.float64) / 255)
    pixels = (pixels - torch.tensor(mean, dtype=torch.float64)) / torch.tensor(std, dtype=torch.float64)
    height, width = (side - side % patch for side in pixels.shape[:2])
    return pixels.permute(2, 0, 1)[None, :, :height, :width]


def hw_of(path):
    """Height and width of a picture's file."""
    with Image.open(path) as file:
        return file.size[::-1]


@dataclass
class Features:
    blocks: dict  # block, from 1 -> (1, C, h, w), no norm
    normed: torch.Tensor  # the last block behind the norm, (1, C, h, w)
    image: torch.Tensor | None  # (1, D), projected


class Timm:
    patch = 16

    def __init__(self, name, path):
        self.model = timm.create_model(name, pretrained=False, dynamic_img_size=True)
        self.model.load_state_dict(load_file(path))
        self.model.eval().double()
        self.mean, self.std = self.model.pretrained_cfg["mean"], self.model.pretrained_cfg["std"]

    @torch.inference_mode()
    def __call__(self, pixels):
        maps = self.model.forward_intermediates(pixels, norm=False, intermediates_only=True)
        tokens = self.model.forward_features(pixels)[:, self.model.num_prefix_tokens :]
        return Features(dict(enumerate(maps, 1)), tokens.transpose(1, 2).reshape(maps[-1].shape), None)


class OpenClip:
    def __init__(self, name, path):
        self.model = open_clip.create_model(name, pretrained=None, precision="fp32")
        self.model.load_state_dict(load_file(path))
        self.model.eval().double()
        self.patch = self.model.visual.patch_size[0]
        self.mean, self.std = open_clip.OPENAI_DATASET_MEAN, open_clip.OPENAI_DATASET_STD

    @torch.inference_mode()
    def __call__(self, pixels):
        found, visual = [], self.model.visual
        hooks = [
            block.register_forward_hook(lambda *call: found.append(call[-1])) for block in visual.transformer.resblocks
        ]
        image = self.model.encode_image(pixels)
        for hook in hooks:
            hook.remove()
        tokens = [each if len(each) == 1 else each.transpose(0, 1) for each in found]  # older releases: sequence first
        shape = (1, -1, pixels.shape[2] // self.patch, pixels.shape[3] // self.patch)
        maps = [each[:, 1:].transpose(1, 2).reshape(shape) for each in tokens]
        normed = visual.ln_post(tokens[-1][:, 1:]).transpose(1, 2).reshape(shape)
        return Features(dict(enumerate(maps, 1)), normed, image)


def top(values, share=0.01):
    ordered = np.sort(np.ravel(values))[::-1]
    return ordered[: max(1, int(share * ordered.size))].mean()


def memory(tower, goods, pictures, *, size):
    """Score and map of each picture."""

    def features(path):
        return tower(picture(path, size, tower.mean, tower.std, square=False, patch=tower.patch)).normed[0]

    known = torch.cat([F.normalize(features(path).flatten(1).T, dim=1) for path in goods])
    found = []
    for path in pictures:
        patches = features(path)
        cosines = F.normalize(patches.flatten(1).T, dim=1) @ known.T
        distances = (1 - cosines.max(dim=1).values).reshape(patches.shape[1:])
        enlarged = F.interpolate(distances[None, None], hw_of(path), mode="bilinear", align_corners=False)[0, 0]
        found.append((top(distances), gaussian_filter(enlarged.numpy(), sigma=4)))
    return found


def subspace(tower, goods, pictures, *, size, blocks, variance=0.99):
    """Score and map, at the model's size, of each picture."""

    def features(path):
        found = tower(picture(path, size, tower.mean, tower.std, square=True, patch=tower.patch))
        return torch.stack([found.blocks[number][0] for number in blocks]).mean(dim=0)

    rows = torch.cat([features(path).flatten(1).T for path in goods])
    mean = rows.mean(dim=0)
    values, vectors = torch.linalg.eigh(torch.cov(rows.T))
    values, vectors = values.flip(0), vectors.flip(1)
    count = int((values.cumsum(0) / values.sum() < variance).sum()) + 1
    basis = vectors[:, :count]
    kernel = np.exp(-0.5 * (np.arange(-1, 2) / 4) ** 2)
    weights = torch.from_numpy(np.outer(kernel, kernel) / np.outer(kernel, kernel).sum())[None, None]
    found = []
    for path in pictures:
        patches = features(path)
        apart = patches.flatten(1).T - mean
        squares = ((apart - apart @ basis @ basis.T) ** 2).sum(dim=1).reshape(1, 1, *patches.shape[1:])
        enlarged = F.interpolate(squares, (size, size), mode="bilinear", align_corners=False)
        smooth = F.conv2d(F.pad(enlarged, (1, 1, 1, 1), mode="reflect"), weights)[0, 0].numpy()
        found.append((top(smooth), smooth))
    return found


def mutual(tower, pictures, *, size, blocks, counts=(1, 2, 3), share=0.3):
    """Scores of a batch, and its maps on the patch grid."""
    found = [tower(picture(path, size, tower.mean, tower.std, square=True, patch=tower.patch)) for path in pictures]
    of_sides = []
    for side in (1, 3, 5):
        of_blocks = []
        for block in blocks:
            vectors = [_neighbourhoods(features.blocks[block], side) for features in found]
            of_blocks.append(_mutual(vectors, share))
        of_sides.append(np.mean(of_blocks, axis=0))
    shape = found[0].normed.shape[2:]
    maps = np.mean(of_sides, axis=0).reshape(len(pictures), *shape)
    enlarged = F.interpolate(torch.from_numpy(maps)[:, None], (size, size), mode="bilinear", align_corners=True)
    scores = enlarged.amax(dim=(1, 2, 3))
    scores = (scores - scores.min()) / (scores.max() - scores.min())
    if found[0].image is None:
        return enlarged.amax(dim=(1, 2, 3)).numpy(), maps
    units = F.normalize(torch.cat([features.image for features in found]), dim=1)
    likeness = units @ units.T
    averaged = []
    for count in counts:
        kept = torch.zeros_like(likeness)
        values, places = likeness.topk(count, dim=1)
        kept.scatter_(1, places, values)
        averaged.append(kept / kept.sum(dim=1, keepdim=True) @ scores)
    return torch.stack(averaged).mean(dim=0).numpy(), maps


def _neighbourhoods(features, side):
    """(1, C, h, w) to unit vectors (patches, C)."""
    features = F.layer_norm(features[0], features.shape[1:], eps=1e-5)
    flat = F.unfold(features[None], side, padding=side // 2)[0].T  # (patches, C * side * side), channel by channel
    return F.normalize(F.adaptive_avg_pool1d(flat[:, None], features.shape[0])[:, 0], dim=1)


def _mutual(vectors, share):
    rows = []
    for number, patches in enumerate(vectors):
        others = [
            torch.cdist(patches, other).min(dim=1).values for place, other in enumerate(vectors) if place != number
        ]
        nearest = torch.stack(others).sort(dim=0).values
        rows.append(nearest[: max(1, int(share * len(others)))].mean(dim=0).numpy())
    return np.array(rows)
