"""From a family and a seed to a clean picture, its defective twin, the mask and good references."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from . import defects_area, faults  # noqa: F401  they register their marks
from .camera import Light, Sensor, develop, draw_light, draw_sensor, expose, jitter, merge, shade
from .canvas import Canvas, Edit, View
from .defects import MARKS
from .faults import EDITS, draw_edit
from .grounds import draw_ground
from .noise import SIZE, Field, Rng, chance, log_uniform, rng_of
from .registry import REGISTRY, Draw, Family

FLOOR = 3.0  # grey levels: a smaller difference before noise does not count as defect
VISIBLE = 6.0
LEAK = 0.04  # share of the difference that may lie away from the mask
SMALLEST, LARGEST_LOCAL = 0.0008, 0.16
GLOBAL = frozenset(
    {
        "density_change",
        "turned_texture",
        "worn",
        "smear",
        "uneven",
        "coarse",
        "ghost_print",
        "band",
        "dead_region",
        "bend",
        "broken",
    }
)
ATTEMPTS = 60


@dataclass(frozen=True)
class Pair:
    """A good and a defective picture of the same item.

    ``clean_rgb``, ``defect_rgb``: uint8 (240, 240, 3), equal but for the defect. ``mask``: bool (240, 240), true where
    the defect shows. ``reference_rgb``: uint8 (R, 240, 240, 3), other good items of the same product line.
    ``mask_fraction``: share of true pixels in the mask.
    """

    clean_rgb: NDArray[np.uint8]
    defect_rgb: NDArray[np.uint8]
    mask: NDArray[np.bool_]
    reference_rgb: NDArray[np.uint8]
    family: str
    noun: str
    defects: tuple[str, ...]
    mask_fraction: float


@dataclass(frozen=True)
class Product:
    """What all items of one product line share."""

    family: Family
    draw: Draw
    ground: Draw
    light: Light
    sensor: Sensor
    angle: float
    zoom: float
    free: bool
    play: float  # how far items shift and turn on the line
    shadow: tuple[float, float, float]

    def view(self, seed: int) -> View:
        """The pose of item ``seed``."""
        rng = rng_of(seed, "pose")
        angle = rng.uniform(0, 2 * np.pi) if self.free else self.angle + rng.normal(0, 0.5) * self.play
        shift = rng.normal(0, 0.5, 2) * self.play
        zoom = self.zoom * float(np.exp(rng.normal(0, 0.01)))
        return View(seed, angle, zoom, (float(shift[0]), float(shift[1])))

    def item(self, view: View) -> Canvas:
        canvas = self.draw(view)
        canvas.angle = view.angle
        return canvas

    def levels(self, item: Canvas, seed: int) -> np.ndarray:
        """The picture before noise, float32 (240, 240, 3), grey levels."""
        if item.alpha.min() < 1:
            item = merge(item, self.ground(View(seed ^ 0x5EED, self.angle * 0.3)), self.shadow)
        light = jitter(self.light, rng_of(seed, "light"))
        return develop(shade(item, light, seed), self.sensor)


def make_product(family: str, seed: int) -> Product:
    """Draw a product line. Deterministic in (family, seed); KeyError for an unknown family."""
    kind = REGISTRY[family]
    rng = rng_of(family, seed, "product")
    turned = chance(rng, 0.35) and not kind.aligned
    low, high = (
        (0.95, 1.08)
        if kind.aligned
        else (0.7, 1.5)
        if not kind.is_object
        else (1.25, 2.0)
        if chance(rng, 0.12)
        else (0.65, 1.25)
    )
    return Product(
        family=kind,
        draw=kind.build(rng),
        ground=draw_ground(rng),
        light=draw_light(rng, kind.emission),
        sensor=draw_sensor(rng, kind.grey_share),
        angle=float(rng.uniform(0, 2 * np.pi) if turned else rng.choice([0.0, 0.0, np.pi / 2]) + rng.normal(0, 0.03)),
        zoom=log_uniform(rng, low, high),
        free=chance(rng, kind.free) if kind.is_object else False,
        play=log_uniform(rng, 0.01, 0.08),
        shadow=(rng.normal(0, 4), rng.normal(0, 4), rng.uniform(0, 0.6)),
    )


@dataclass(frozen=True)
class Line:
    """Pictures of different items of one product line.

    ``good_rgb``: uint8 (G, 240, 240, 3). ``defective_rgb``: uint8 (D, 240, 240, 3). ``masks``: bool (D, 240, 240), true
    where the defect of each defective picture shows.
    """

    good_rgb: NDArray[np.uint8]
    defective_rgb: NDArray[np.uint8]
    masks: NDArray[np.bool_]


def make_pair(family: str, seed: int, *, references: int = 2) -> Pair:
    """Draw a product line, an item with and without defect, and ``references`` further good items.

    Deterministic in (family, seed). KeyError for an unknown family; RuntimeError if no visible defect was found.
    """
    product = make_product(family, seed)
    item_seed = _seed(family, seed, 0)
    clean, defect, mask, names = _defective(product, item_seed, rng_of(family, seed, "defect"))
    good = [_good(product, _seed(family, seed, 1 + i)) for i in range(references)]
    return Pair(
        clean_rgb=expose(clean, product.sensor, item_seed),
        defect_rgb=expose(defect, product.sensor, item_seed),
        mask=mask,
        reference_rgb=np.stack(good) if good else np.zeros((0, SIZE, SIZE, 3), np.uint8),
        family=family,
        noun=product.family.noun,
        defects=names,
        mask_fraction=float(mask.mean()),
    )


def make_line(family: str, seed: int, *, good: int, defective: int) -> Line:
    """Draw a product line, ``good`` items without and ``defective`` further items with a defect, at least one of each.

    Deterministic in (family, seed, good). KeyError for an unknown family; RuntimeError if no visible defect was found.
    """
    product = make_product(family, seed)
    seeds = [_seed(family, seed, i) for i in range(good + defective)]
    damaged = [_defective(product, s, rng_of(family, seed, "defect", s)) for s in seeds[good:]]
    return Line(
        good_rgb=np.stack([_good(product, s) for s in seeds[:good]]),
        defective_rgb=np.stack(
            [expose(picture, product.sensor, s) for s, (_, picture, _, _) in zip(seeds[good:], damaged, strict=True)]
        ),
        masks=np.stack([mask for _, _, mask, _ in damaged]),
    )


def _good(product: Product, seed: int) -> NDArray[np.uint8]:
    return expose(product.levels(product.item(product.view(seed)), seed), product.sensor, seed)


def _defective(
    product: Product, seed: int, rng: Rng
) -> tuple[np.ndarray, np.ndarray, NDArray[np.bool_], tuple[str, ...]]:
    """An item without and with a defect, before noise; the mask; the defects' names."""
    view = product.view(seed)
    item = product.item(view)
    clean = product.levels(item.copy(), seed)
    for _ in range(ATTEMPTS):
        names = _names(product.family, view, rng)
        damaged = _damage(product, item, seed, names, rng)
        defect = product.levels(damaged, seed)
        mask = visible_mask(clean, defect, product.sensor, bool(GLOBAL & set(names)))
        if mask is not None:
            return clean, defect, mask, names
    raise RuntimeError(f"no visible defect on {product.family.name!r}, item {seed}, in {ATTEMPTS} attempts")


def _seed(family: str, seed: int, item: int) -> int:
    return int(rng_of(family, seed, "item", item).integers(0, 2**31))


def _names(family: Family, view: View, rng: Rng) -> tuple[str, ...]:
    """One defect, seldom two; structural ones only for items made of parts."""
    choices = [d for d in family.defects if view.used_parts or d not in EDITS]
    count = 2 if chance(rng, 0.12) else 1
    return tuple(dict.fromkeys(str(rng.choice(choices)) for _ in range(count)))


def _damage(product: Product, item: Canvas, seed: int, names: tuple[str, ...], rng: Rng) -> Canvas:
    edits = [draw_edit(n, rng) for n in names if n in EDITS]
    damaged = _redraw(product, seed, edits[0]) if edits else item.copy()
    for name in names:
        if name in MARKS:
            MARKS[name](damaged, rng)
    np.clip(damaged.colour, 0, 1.2, out=damaged.colour)
    np.clip(damaged.alpha, 0, 1, out=damaged.alpha)
    np.clip(damaged.gloss, 0, 1, out=damaged.gloss)
    return damaged


def _redraw(product: Product, seed: int, edit: Edit) -> Canvas:
    view = product.view(seed)
    view.edit = edit
    return product.item(view)


def visible_mask(clean: Field, defect: Field, sensor: Sensor, may_be_large: bool) -> NDArray[np.bool_] | None:
    """Where the twins differ visibly; None if that is nowhere, too little or too much."""
    difference = np.abs(clean - defect).max(2)
    smooth = cv2.blur(difference, (3, 3))
    peak = float(smooth.max())
    noise = sensor.gauss + 0.7 * sensor.shot
    if peak < max(VISIBLE, 1.3 * noise):
        return None
    found = (smooth > min(max(FLOOR, 0.1 * peak), 6.0)).astype(np.uint8)
    size = 3 if found.mean() < 0.004 else 7
    found = cv2.morphologyEx(found, cv2.MORPH_CLOSE, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (size, size)))
    mask = found.astype(bool)
    share = float(mask.mean())
    if not SMALLEST <= share <= (1.0 if may_be_large else LARGEST_LOCAL):
        return None
    if difference[cv2.dilate(found, np.ones((17, 17), np.uint8)) == 0].sum() > LEAK * difference.sum():
        return None
    grey = clean.mean(2)
    busy = float((grey - cv2.blur(grey, (9, 9)))[mask].std())
    strong = float(np.quantile(difference[mask], 0.8))
    return mask if strong > max(VISIBLE, 0.7 * busy) else None
