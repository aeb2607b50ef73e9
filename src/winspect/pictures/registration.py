"""Registration of a grey picture to a target of the same size: where each pixel of the target lies in the picture.

Candidates are refined by maximising the enhanced correlation coefficient (Evangelidis and Psarakis, IEEE TPAMI 30,
2008; OpenCV's ``findTransformECC``), coarse to fine, and the one of the highest quality is taken: first the identity
and ORB features with RANSAC; where neither is good enough, turns of the whole target at small size, shifted by a
masked normalised correlation (Padfield, IEEE TIP 21, 2012).

The quality is the correlation of both pictures over what they share, each without its slow changes of light.
Coordinates are in pixels, the centre of the upper left pixel at (0.5, 0.5), so that they scale with the picture.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from winspect.pictures.video import need_opencv

LONGEST = 256
"""Longer side in pixels at which pictures are registered."""
LEAST_OVERLAP = 0.4
"""Share of the target that must lie in the picture."""

_COARSE = 64  # longer side in pixels at which turns are searched
_TURNS = np.arange(-45, 46, 5)
_BEST = 3
_FEATURES, _FEWEST_MATCHES = 400, 8
_WITHIN = 3.0  # pixels: RANSAC
_STEPS = ((0.5, 20), (1.0, 12))  # scale, iterations
_MORE = ((1.0, 60),)  # of the best, where it is not good enough


@dataclass(frozen=True, eq=False)
class Target:
    """What pictures are registered to, with what is computed of it once.

    Args:
        grey: uint8 (height, width), at most :data:`LONGEST` pixels a side.
    """

    grey: np.ndarray

    @cached_property
    def flat(self) -> np.ndarray:
        """Without slow changes of light."""
        return _flat(self.grey)

    @cached_property
    def features(self) -> Any:
        """ORB key points and descriptors."""
        return _features(self.grey)

    @cached_property
    def turned(self) -> list[tuple[float, np.ndarray, np.ndarray]]:
        """Each turn in degrees, with the small target turned by it, and what of it is picture."""
        cv2 = _cv2()
        small = _scaled(self.flat, _COARSE / max(self.grey.shape))
        height, width = small.shape
        found = []
        for turn in _TURNS.tolist():
            matrix = cv2.getRotationMatrix2D(((width - 1) / 2, (height - 1) / 2), turn, 1)
            warped = cv2.warpAffine(small, matrix, (width, height))
            there = cv2.warpAffine(np.ones_like(small), matrix, (width, height)) > 0.99
            found.append((float(turn), warped * there, there))
        return found


def grey_of(rgb: np.ndarray) -> np.ndarray:
    """A picture uint8 (H, W, 3) as it is registered: grey, uint8, at most :data:`LONGEST` pixels a side."""
    cv2 = _cv2()
    height, width = rgb.shape[:2]
    scale = min(1.0, LONGEST / max(height, width))
    size = max(1, round(width * scale)), max(1, round(height * scale))
    return cv2.cvtColor(cv2.resize(rgb, size, interpolation=cv2.INTER_AREA), cv2.COLOR_RGB2GRAY)


def register(grey: np.ndarray, target: Target, kind: str, *, enough: float) -> tuple[np.ndarray, float]:
    """Register a picture.

    Args:
        grey: of :func:`grey_of`, of the target's size.
        kind: ``translation``, ``euclidean`` or ``affine``.
        enough: a quality that is good enough.

    Returns:
        float64 (2, 3), from the target's coordinates to the picture's, both in pixels of ``grey``; and the quality, -1
        to 1.
    """
    flat = _flat(grey)
    best, quality = np.eye(2, 3), quality_of(np.eye(2, 3), flat, target)
    for candidate in _candidates(grey, flat, target, kind):
        refined = _refined(candidate, grey, target, kind)
        found = quality_of(refined, flat, target)
        if found > quality:
            best, quality = refined, found
        if quality >= enough:
            return best, quality
    refined = _refined(best, grey, target, kind, _MORE)
    found = quality_of(refined, flat, target)
    return (refined, found) if found > quality else (best, quality)


def warped(rgb: np.ndarray, matrix: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A picture, uint8 (H, W, 3), as the target lies, mirrored at its edges; and where it is not: bool (H, W)."""
    cv2 = _cv2()
    size, centred = rgb.shape[1::-1], _centred(matrix)
    flags = cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP
    moved = cv2.warpAffine(rgb, centred, size, flags=flags, borderMode=cv2.BORDER_REFLECT_101)
    whole = np.full(rgb.shape[:2], 255, np.uint8)
    return moved, cv2.warpAffine(whole, centred, size, flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP) == 255


def quality_of(matrix: np.ndarray, flat: np.ndarray, target: Target) -> float:
    """The quality of a registration: 0 where less than :data:`LEAST_OVERLAP` of the target lies in the picture."""
    cv2 = _cv2()
    size = flat.shape[::-1]
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    aligned = cv2.warpAffine(flat, _centred(matrix), size, flags=flags)
    there = cv2.warpAffine(np.full(flat.shape, 255, np.uint8), _centred(matrix), size, flags=flags) == 255
    if there.mean() < LEAST_OVERLAP:
        return 0.0
    first, second = aligned[there].astype(np.float64), target.flat[there].astype(np.float64)
    first, second = first - first.mean(), second - second.mean()
    lengths = np.sqrt((first @ first) * (second @ second))
    return float(first @ second / lengths) if lengths else 0.0


def _candidates(grey: np.ndarray, flat: np.ndarray, target: Target, kind: str) -> Iterator[np.ndarray]:
    yield np.eye(2, 3)
    matched = _matched(grey, target, kind)
    if matched is not None:
        yield matched
    yield from _searched(flat, target, kind)


def _matched(grey: np.ndarray, target: Target, kind: str) -> np.ndarray | None:
    """A shift and turn from features; None with too few matches."""
    cv2 = _cv2()
    points, descriptors = _features(grey)
    known, known_descriptors = target.features
    if descriptors is None or known_descriptors is None:
        return None
    matches = cv2.BFMatcher(cv2.NORM_HAMMING, crossCheck=True).match(known_descriptors, descriptors)
    if len(matches) < _FEWEST_MATCHES:
        return None
    here = np.array([known[match.queryIdx].pt for match in matches]) + 0.5
    there = np.array([points[match.trainIdx].pt for match in matches]) + 0.5
    cv2.setRNGSeed(0)
    matrix, kept = cv2.estimateAffinePartial2D(here, there, method=cv2.RANSAC, ransacReprojThreshold=_WITHIN)
    if matrix is None or kept.sum() < _FEWEST_MATCHES:
        return None
    inliers = kept.ravel() > 0
    turn = np.arctan2(matrix[1, 0], matrix[0, 0]) if kind != "translation" else 0.0
    return _shifted(turn, here[inliers].mean(axis=0), there[inliers].mean(axis=0))


def _shifted(turn: float, here: np.ndarray, there: np.ndarray) -> np.ndarray:
    """A turn in radians that brings a point of the target to one of the picture."""
    cosine, sine = np.cos(turn), np.sin(turn)
    rotation = np.array([[cosine, -sine], [sine, cosine]])
    return np.column_stack([rotation, there - rotation @ here])


def _searched(flat: np.ndarray, target: Target, kind: str) -> Iterator[np.ndarray]:
    """The best turns and shifts at small size."""
    scale = _COARSE / max(flat.shape)
    small = _scaled(flat, scale)
    height, width = small.shape
    shape = 2 * height, 2 * width
    spectra = [np.fft.rfft2(values, shape) for values in (small, small * small, np.ones_like(small))]
    found = []
    for turn, turned, there in target.turned:
        if kind == "translation" and turn:
            continue
        value, (down, right) = _best_shift(spectra, turned, there, shape)
        centre = np.array([width, height]) / 2
        # OpenCV turned the target counter-clockwise, with y downwards; the turned one lies in the picture as it is.
        matrix = _shifted(-np.radians(turn), centre, centre + np.array([right, down]))
        matrix[:, 2] /= scale
        found.append((value, matrix))
    found.sort(key=lambda entry: -entry[0])
    yield from (matrix for _, matrix in found[:_BEST])


def _best_shift(
    spectra: list[np.ndarray], turned: np.ndarray, there: np.ndarray, shape: tuple[int, int]
) -> tuple[float, tuple[int, int]]:
    """The shift of the turned target at which its correlation with the picture over their overlap is highest."""
    picture, squares, ones = spectra
    mask = there.astype(np.float64)
    kernel, kernel_squares, kernel_mask = (np.conj(np.fft.rfft2(each, shape)) for each in (turned, turned**2, mask))

    def sums(first: np.ndarray, second: np.ndarray) -> np.ndarray:
        return np.fft.irfft2(first * second, shape)

    count = np.maximum(np.rint(sums(ones, kernel_mask)), 1)
    both, first, second = sums(picture, kernel), sums(picture, kernel_mask), sums(ones, kernel)
    spread = (sums(squares, kernel_mask) - first**2 / count) * (sums(ones, kernel_squares) - second**2 / count)
    values = (both - first * second / count) / np.sqrt(np.maximum(spread, 1e-9))
    values[count < LEAST_OVERLAP * there.size] = -1
    down, right = divmod(int(values.argmax()), shape[1])
    wrapped = down - shape[0] * (down > shape[0] // 2), right - shape[1] * (right > shape[1] // 2)
    return float(values.max()), wrapped


def _refined(
    matrix: np.ndarray, grey: np.ndarray, target: Target, kind: str, steps: Sequence[tuple[float, int]] = _STEPS
) -> np.ndarray:
    """The transform of the highest correlation near another one."""
    cv2 = _cv2()
    motion = {
        "translation": cv2.MOTION_TRANSLATION,
        "euclidean": cv2.MOTION_EUCLIDEAN,
        "affine": cv2.MOTION_AFFINE,
    }[kind]
    for scale, iterations in steps:
        scaled = matrix * [1, 1, scale]
        criteria = cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_COUNT, iterations, 1e-4
        first, second = _scaled(target.grey, scale), _scaled(grey, scale)
        try:
            _, found = cv2.findTransformECC(
                first, second, _centred(scaled).astype(np.float32), motion, criteria, None, 5
            )
        except cv2.error:  # no overlap, or nothing to correlate
            return matrix
        matrix = _uncentred(found.astype(np.float64)) / [1, 1, scale]
    return matrix


def _centred(matrix: np.ndarray) -> np.ndarray:
    """For OpenCV, to which the centre of the upper left pixel is (0, 0)."""
    shifted: np.ndarray = matrix.copy()
    shifted[:, 2] += matrix[:, :2] @ [0.5, 0.5] - 0.5
    return shifted


def _uncentred(matrix: np.ndarray) -> np.ndarray:
    shifted: np.ndarray = matrix.copy()
    shifted[:, 2] -= matrix[:, :2] @ [0.5, 0.5] - 0.5
    return shifted


def _flat(grey: np.ndarray) -> np.ndarray:
    """A picture without slow changes of light, and without the noise of single pixels: float32."""
    cv2 = _cv2()
    values = grey.astype(np.float32)
    side = max(grey.shape)
    return cv2.GaussianBlur(values, (0, 0), side / 160) - cv2.GaussianBlur(values, (0, 0), side / 16)


def _features(grey: np.ndarray) -> Any:
    return _cv2().ORB_create(_FEATURES, fastThreshold=10).detectAndCompute(grey, None)


def _scaled(values: np.ndarray, scale: float) -> np.ndarray:
    cv2 = _cv2()
    if scale == 1:
        return values
    size = max(1, round(values.shape[1] * scale)), max(1, round(values.shape[0] * scale))
    return cv2.resize(values, size, interpolation=cv2.INTER_AREA)


def _cv2() -> Any:
    return need_opencv("alignment")
