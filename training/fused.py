"""Fit what recipe ``fused`` expects of good pictures, and the scale of its scores, on generated product lines.

Priors: the largest likelihood of the good pictures' values, given what the references of their draw say. Scales: those
of :func:`training.calibrate.logistic`. Half of the lines are fitted on, the other half's figures are reported.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from training.lines import DRAWS, Draw, ScoredLine
from training.losses import PATCH_COVERAGE
from training.measure import auroc
from training.scaling import DEFECTIVE_PATCHES, logistic
from winspect.methods.fused.method import PARTS, FusedSettings
from winspect.methods.fused.standard import Prior, centre_and_scale

CROWDED = ("fine", "coarse")
"""Parts whose expected mean goes by the crowding of the references."""
_ROUNDS = 300
_MAP_STEP = 4  # of the patches that map scales are fitted on, along rows and columns


def fit(lines: Sequence[ScoredLine]) -> FusedSettings:
    """Priors and scales, rounded as they are kept."""
    draws = [draw for line in lines for draw in line.draws]
    settings = replace(FusedSettings(), **{part: fit_prior(draws, number) for number, part in enumerate(PARTS)})
    images, bad, patches, bad_patches = [], [], [], []
    for line in lines:
        for draw in line.draws:
            images.append(soft_images(draw, settings))
            bad.append(draw.defective)
            maps = soft_maps(draw, settings)[:, ::_MAP_STEP, ::_MAP_STEP]
            cover = _coverage(line, draw)[:, ::_MAP_STEP, ::_MAP_STEP]
            known = (cover >= PATCH_COVERAGE) | (cover == 0)
            patches.append(maps[known])
            bad_patches.append(cover[known] >= PATCH_COVERAGE)
    image_scale, image_centre = logistic(_tensor(images), _tensor(bad))
    map_scale, map_centre = logistic(_tensor(patches), _tensor(bad_patches))
    map_centre += math.log(1 / DEFECTIVE_PATCHES - 1) / map_scale
    return replace(
        settings,
        image_scale=round(image_scale, 3),
        image_centre=round(image_centre, 3),
        map_scale=round(map_scale, 3),
        map_centre=round(map_centre, 3),
    )


def fit_prior(draws: Sequence[Draw], part: int) -> Prior:
    """The prior under which good pictures' values are most likely; each number of references weighs the same."""
    with_others = [len(draw.left_out) for draw in draws]
    count, samples = (torch.tensor(numbers).double() for numbers in (with_others, [draw.samples for draw in draws]))
    mean, squares = (
        torch.tensor(
            [float(function(draw.left_out[:, part])) if len(draw.left_out) else 0.0 for draw in draws]
        ).double()
        for function in (np.mean, lambda values: len(values) * np.var(values))
    )
    crowding = torch.tensor([float(draw.crowdings[part]) for draw in draws]).double()
    goods = [draw.values[~draw.defective, part] for draw in draws]
    owner = torch.from_numpy(np.repeat(np.arange(len(draws)), [len(values) for values in goods]))
    values = torch.from_numpy(np.concatenate(goods))
    weight = torch.tensor([1 / DRAWS[draw.samples] / len(values) for draw, values in zip(draws, goods, strict=True)])
    weight = weight.double()[owner] / weight.sum()
    start = [float(values.mean()), 0.0, 0.05, math.log(float(values.std()) / 2), 0.0, 1.0]
    numbers = torch.tensor(start).double().requires_grad_()
    optimiser = torch.optim.LBFGS([numbers], max_iter=_ROUNDS, line_search_fn="strong_wolfe", tolerance_grad=1e-7)

    def loss() -> Tensor:
        optimiser.zero_grad()
        centre, scale, freedom = _predictive(numbers, count, samples, mean, squares, crowding)
        found = -(
            weight * torch.distributions.StudentT(freedom[owner], centre[owner], scale[owner]).log_prob(values)
        ).sum()
        found.backward()
        if numbers.grad is not None and PARTS[part] not in CROWDED:
            numbers.grad[1] = 0
        return found

    optimiser.step(loss)  # type: ignore[no-untyped-call]
    fitted = numbers.detach()
    return Prior(*(round(float(value), 4) for value in (*fitted[:3], *fitted[3:].exp())))


def _predictive(
    numbers: Tensor, count: Tensor, samples: Tensor, mean: Tensor, squares: Tensor, crowding: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """:func:`winspect.methods.fused.standard.centre_and_scale` of many draws, differentiable, and the freedom."""
    base, slope, doubling = numbers[:3]
    spread, strength, freedom = numbers[3:].exp()
    expected = base + slope * crowding - doubling * samples.log2()
    found = mean - doubling * (samples / (samples - 1).clamp(min=1)).log2()
    weight = strength + count
    centre = (strength * expected + count * found) / weight
    total = freedom * spread**2 + squares + strength * count / weight * (found - expected) ** 2
    return centre, ((1 + 1 / weight) * total / (freedom + count)).sqrt(), freedom + count


def standard_of(draw: Draw, settings: FusedSettings) -> np.ndarray:
    """Centre and scale of each part: (4, 2)."""
    return np.array(
        [
            centre_and_scale(
                getattr(settings, part), draw.left_out[:, n], samples=draw.samples, crowding=float(draw.crowdings[n])
            )
            for n, part in enumerate(PARTS)
        ]
    )


def soft_images(draw: Draw, settings: FusedSettings, values: np.ndarray | None = None) -> np.ndarray:
    """(pictures,) of the draw's values, or of others (pictures, 4)."""
    standard = standard_of(draw, settings)
    values = draw.values if values is None else values
    return np.logaddexp.reduce((values - standard[:, 0]) / standard[:, 1], axis=1)


def soft_maps(draw: Draw, settings: FusedSettings) -> np.ndarray:
    """(pictures, 56, 56)."""
    centre, scale = standard_of(draw, settings)[:3].T
    return np.logaddexp.reduce(
        (draw.maps.astype(np.float32) - centre[:, None, None, None]) / scale[:, None, None, None]
    )


def _coverage(line: ScoredLine, draw: Draw) -> np.ndarray:
    """How much of each patch of the draw's pictures a mask covers, good pictures first."""
    return np.concatenate([np.zeros((int((~draw.defective).sum()), *line.coverage.shape[1:])), line.coverage])


def _tensor(parts: Sequence[np.ndarray]) -> Tensor:
    return torch.from_numpy(np.concatenate([part.ravel() for part in parts]))


def figures(lines: Sequence[ScoredLine], settings: FusedSettings) -> dict[str, dict[str, list[float]]]:
    """method -> references -> image AUROC within a line, over all lines, and of pictures that were changed as a whole
    within a line; and pixel AUROC within a picture."""
    found: dict[str, dict[str, list[float]]] = {}
    for samples in DRAWS:
        drawn = [(line, draw) for line in lines for draw in line.draws if draw.samples == samples]
        by_method = {
            "fused": [(soft_images(draw, settings), soft_images(draw, settings, draw.changed)) for _, draw in drawn],
            "log": [(draw.log, draw.log_changed) for _, draw in drawn],
            **{
                f"fused: {part} alone": [(draw.values[:, n], draw.changed[:, n]) for _, draw in drawn]
                for n, part in enumerate(PARTS)
            },
        }
        for method, scores in by_method.items():
            good = [scored[~draw.defective] for (scored, _), (_, draw) in zip(scores, drawn, strict=True)]
            bad = [scored[draw.defective] for (scored, _), (_, draw) in zip(scores, drawn, strict=True)]
            within = [auroc(ours, others) for ours, others in zip(bad, good, strict=True)]
            whole = [auroc(changed, others) for (_, changed), others in zip(scores, good, strict=True)]
            pooled = auroc(np.concatenate(bad), np.concatenate(good))
            pixels = _pixel_auroc(drawn, settings) if method == "fused" else math.nan
            row = [float(np.mean(within)), pooled, float(np.mean(whole)), pixels]
            found.setdefault(method, {})[str(samples)] = row
    return found


def _pixel_auroc(drawn: Sequence[tuple[ScoredLine, Draw]], settings: FusedSettings) -> float:
    found = []
    for line, draw in drawn:
        for own, cover in zip(soft_maps(draw, settings)[draw.defective], line.coverage, strict=True):
            if (cover >= PATCH_COVERAGE).any() and (cover == 0).any():
                found.append(auroc(own[cover >= PATCH_COVERAGE], own[cover == 0]))
    return float(np.mean(found))
