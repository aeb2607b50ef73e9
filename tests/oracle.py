"""WinCLIP the slow way, in float64, written from the method and from nothing in winspect: the tests' outside oracle.

Every window goes through the tower alone, every patch is averaged in a loop. Attention is spelled out, so that the
oracle does not depend on whether an open_clip release runs sequence-first or batch-first; its image embedding is
held to open_clip's own ``encode_image`` in test_encoder.py.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image


def attention(block, x, lengths):
    """Plain multi-head self-attention, each sequence alone; x: their tokens one behind the other, (sum, width)."""
    attn = block.attn
    width = x.shape[1]
    q, k, v = (x @ attn.in_proj_weight.T + attn.in_proj_bias).unflatten(1, (3, attn.num_heads, -1)).unbind(1)
    out = torch.empty_like(x)
    start = 0
    for length in lengths:
        own = slice(start, start + length)
        weights = torch.softmax(torch.einsum("ihd,jhd->hij", q[own], k[own]) / q.shape[2] ** 0.5, dim=-1)
        out[own] = torch.einsum("hij,jhd->ihd", weights, v[own]).reshape(length, width)
        start += length
    return out @ attn.out_proj.weight.T + attn.out_proj.bias


def transform(visual, sequences):
    """Sequences (length, width), each alone through the whole tower; the layer before ln_post.

    Everything but attention treats each token by itself, so there the sequences may stand one behind the other.
    """
    lengths = [len(sequence) for sequence in sequences]
    x = torch.cat(sequences)
    for block in visual.transformer.resblocks:
        x = x + block.ls_1(attention(block, block.ln_1(x), lengths))
        x = x + block.ls_2(block.mlp(block.ln_2(x)))
    return x.split(lengths)


@dataclass
class TileVectors:
    image: torch.Tensor  # (D,)
    windows: dict  # (scale, row, column) -> (D,)
    patches: torch.Tensor  # (P, width)


def tokenize(visual, pixels):
    """pixels (3, S, S), normalised, to the tower's tokens (1 + patches, width), and the grid's shape."""
    grid = visual.conv1(pixels[None])[0]
    tokens = torch.cat([visual.class_embedding[None], grid.flatten(1).T]) + visual.positional_embedding
    return visual.ln_pre(tokens), grid.shape[1:]


def pooled(visual, x):
    return visual.ln_post(x[0]) @ visual.proj


def encode_image(model, pixels):
    """The image embedding alone."""
    (whole,) = transform(model.visual, [tokenize(model.visual, pixels)[0]])
    return pooled(model.visual, whole)


def encode_tile(model, pixels):
    """pixels: float64 (3, S, S), normalised."""
    visual = model.visual
    tokens, (rows, columns) = tokenize(visual, pixels)
    sequences = {}
    for scale in (2, 3):
        for row in range(rows - scale + 1):
            for column in range(columns - scale + 1):
                inside = [1 + r * columns + c for r in range(row, row + scale) for c in range(column, column + scale)]
                sequences[scale, row, column] = tokens[[0, *inside]]
    whole, *parts = transform(visual, [tokens, *sequences.values()])
    windows = {at: pooled(visual, part) for at, part in zip(sequences, parts, strict=True)}
    return TileVectors(pooled(visual, whole), windows, whole[1:])


def vectors_of(model, tile, known):
    """A tile's vectors; ``known`` keeps those of one model."""
    key = tile.numpy().tobytes()
    if key not in known:
        known[key] = encode_tile(model, tile)
    return known[key]


def cosine(a, b):
    return float(a @ b / (a.norm() * b.norm()))


def class_score(e, text, tau):
    logits = torch.tensor([cosine(e, text[0]), cosine(e, text[1])], dtype=torch.float64) / tau
    return float(torch.softmax(logits, 0)[1])


def spread(values, scale, shape):
    """Window values by (row, column) to each patch's harmonic mean over the windows that cover it."""
    out = np.zeros(shape)
    for r in range(shape[0]):
        for c in range(shape[1]):
            own = [v for (row, col), v in values.items() if row <= r < row + scale and col <= c < col + scale]
            out[r, c] = 0.0 if min(own) == 0 else len(own) / sum(1 / v for v in own)
    return out


def of_scale(windows, scale):
    return {(row, column): v for (s, row, column), v in windows.items() if s == scale}


def zero_shot(tile, text, tau, shape):
    """Score and patch map of one tile."""
    image = class_score(tile.image, text, tau)
    maps = [np.full(shape, image)]
    for scale in (2, 3):
        scores = {at: class_score(e, text, tau) for at, e in of_scale(tile.windows, scale).items()}
        maps.append(spread(scores, scale, shape))
    return image, 3 / sum(1 / m for m in maps)


def associate(tile, references, shape, visual=None):
    """Patch map of the distances to the nearest reference vector, mean over scales 2, 3 and patches.

    ``visual`` gives patch tokens through its last layer norm first.
    """

    def distance(vector, known):
        return 0.5 * (1 - max(cosine(vector, k) for k in known))

    maps = []
    for scale in (2, 3):
        known = [e for reference in references for e in of_scale(reference.windows, scale).values()]
        stacked = torch.stack(known)
        stacked = stacked / stacked.norm(dim=1, keepdim=True)
        values = {
            at: 0.5 * (1 - float((stacked @ (e / e.norm())).max())) for at, e in of_scale(tile.windows, scale).items()
        }
        maps.append(spread(values, scale, shape))

    def compared(vector):
        return vector if visual is None else visual.ln_post(vector)

    known = [compared(vector) for reference in references for vector in reference.patches]
    stacked = torch.stack(known)
    stacked = stacked / stacked.norm(dim=1, keepdim=True)
    own = [compared(vector) for vector in tile.patches]
    patches = [0.5 * (1 - float((stacked @ (vector / vector.norm())).max())) for vector in own]
    maps.append(np.array(patches).reshape(shape))
    return sum(maps) / 3


def text_embeddings(model, tokenizer, normal, anomalous, recipe):
    """All 77 tokens of every prompt, one prompt at a time, by open_clip itself."""
    sides = []
    for prompts in (normal, anomalous):
        embeddings = torch.cat([model.encode_text(tokenizer([prompt])) for prompt in prompts])
        if recipe == "tiles":
            embeddings = embeddings / embeddings.norm(dim=1, keepdim=True)
            mean = embeddings.mean(dim=0)
            sides.append(mean / mean.norm())
        else:
            sides.append(embeddings.mean(dim=0))
    return sides


def boxes(width, height, recipe):
    """Every tile the base program cuts, repeats among them."""
    if recipe == "paper" or width == height:
        return [(0, 0, width, height)]
    side, long = min(width, height), max(width, height)
    starts = [min(start, long - side) for start in range(0, long, int(0.8 * side))]
    return [(s, 0, s + side, side) if width > height else (0, s, side, s + side) for s in starts]


def cut(rgb, recipe, size, mean, std):
    """Normalised float64 tiles of a picture, and their boxes."""
    picture = Image.fromarray(rgb)
    places = boxes(picture.width, picture.height, recipe)
    tiles = []
    for box in places:
        tile = np.asarray(picture.crop(box).resize((size, size), Image.Resampling.BICUBIC), np.float64) / 255
        tiles.append(torch.from_numpy(((tile - mean) / std).transpose(2, 0, 1).copy()))
    return tiles, places


def bilinear(patch_map, height, width):
    """align_corners=False upsampling, spelled out."""

    def weights(n_out, n_in):
        matrix = np.zeros((n_out, n_in))
        for i in range(n_out):
            x = max((i + 0.5) * n_in / n_out - 0.5, 0.0)
            low = min(int(x), n_in - 1)
            high = min(low + 1, n_in - 1)
            matrix[i, low] += 1 - (x - low)
            matrix[i, high] += x - low
        return matrix

    return weights(height, patch_map.shape[0]) @ patch_map @ weights(width, patch_map.shape[1]).T


def predict(
    model, text, rgb, recipe, size, mean, std, references=(), known=None, repeats=True, same_tile=False, norm=False
):
    """Score and map (height, width) of one picture.

    Args:
        model: an open_clip model in float64; ``text``: its two text embeddings for the recipe.
        references: of each good sample, the TileVectors of its tiles. ``known``: a dict that keeps tile vectors.
        repeats: count a tile that comes twice twice in the means. The map averages distinct tiles in any case.
        same_tile: tile i against tile i of the references, mean of the tiles' maxima.
        norm: patch tokens through ln_post before they are compared.
    """
    tau = 0.07 if recipe == "paper" else 0.01
    shape = tuple(model.visual.grid_size)
    tiles, places = cut(rgb, recipe, size, mean, std)
    scores, maps, strongest = [], {}, []
    for number, (tile, place) in enumerate(zip(tiles, places, strict=True)):
        if place in maps and not repeats:
            continue
        vectors = vectors_of(model, tile, {} if known is None else known)
        score, patch_map = zero_shot(vectors, text, tau, shape)
        if references:
            pool = [good[number] for good in references] if same_tile else [own for good in references for own in good]
            association = associate(vectors, pool, shape, model.visual if norm else None)
            strongest.append(association.max())
            patch_map = (patch_map + association) / 2
        scores.append(score)
        maps[place] = patch_map
    score = float(np.mean(scores))
    if references:
        score = (score + (np.mean(strongest) if same_tile else max(strongest))) / 2
    height, width = rgb.shape[:2]
    total, count = np.zeros((height, width)), np.zeros((height, width))
    for (x0, y0, x1, y1), patch_map in maps.items():
        total[y0:y1, x0:x1] += bilinear(patch_map, y1 - y0, x1 - x0)
        count[y0:y1, x0:x1] += 1
    return score, total / count
