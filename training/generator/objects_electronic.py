"""Boards, chips, plugs and keys."""

from __future__ import annotations

import numpy as np

from .canvas import Canvas, View, box, disc, dome
from .noise import Rng, any_colour, chance, clouds, greyish, hsv, ramp, rgb, rng_of
from .objects_metal import finish, metal, metal_body
from .registry import Draw, family
from .surfaces_printed import laid, words

F = np.float32


def slab(
    view: View, far: np.ndarray, colour: np.ndarray, rise: float, rough: float, gloss: float, edge: float = 0.06
) -> Canvas:
    """A plastic or ceramic body of this outline."""
    canvas = Canvas.empty()
    grain = clouds(view.rng, 1.6, 2)
    tone = 0.02 * clouds(view.rng, 40, 2) + F(0.03 * rough) * grain
    canvas.paint(
        view.cover(far),
        np.clip(colour * (1 + tone)[..., None], 0.01, 1),
        dome(far, edge, rise) + F(0.4 * rough) * grain,
        gloss,
    )
    return canvas


@family("chip", "plastic", "parts", is_object=True)
def chip(rng: Rng) -> Draw:
    """An integrated circuit with legs on two or four sides."""
    a, b, legs, four = rng.uniform(0.45, 0.7), rng.uniform(0.35, 0.7), int(rng.integers(3, 11)), chance(rng, 0.5)
    body, pins, text = (
        rgb(greyish(rng, (0.05, 0.25))),
        metal(rng),
        words(rng, int(rng.integers(1, 4)), int(rng.integers(4, 10))),
    )
    reach, wide, bold = rng.uniform(0.12, 0.28), rng.uniform(0.25, 0.38), rng.uniform(0.3, 0.8)

    def draw(view: View) -> Canvas:
        canvas, places = Canvas.empty(), []
        for i in range(legs):
            across, down = a * ((2 * i + 1) / legs - 1), b * ((2 * i + 1) / legs - 1)
            places += [(across, -b - reach / 2, np.pi / 2), (across, b + reach / 2, np.pi / 2)]
            places += [(-a - reach / 2, down, 0.0), (a + reach / 2, down, 0.0)] if four else []
        for part in view.parts(places):
            half = wide * (a if abs(part.y) > b else b) * 2 / legs
            window, x, y = view.local(part, reach + half)
            if x.size:
                leg = box(x, y, reach / 2 + 0.02, half, half * 0.3)
                canvas.paint(
                    view.cover(leg),
                    np.clip(pins * part.tint, 0, 1),
                    dome(leg, half, 4) - 2 * ramp(np.abs(x), 0, reach / 2),
                    0.4,
                    window,
                )
        far = box(view.u, view.v, a, b, 0.02)
        top = slab(view, far, body, 7, 0.6, 0.1)
        canvas.paint(top.alpha, top.colour, top.height, 0.1)
        canvas.paint(laid(view, text, min(a, b) * 0.85).astype(F) * F(bold), (0.8, 0.8, 0.78))
        canvas.multiply(1 - 0.4 * view.cover(disc(view.u + F(a * 0.8), view.v + F(b * 0.78), 0.05)))
        return canvas

    return draw


@family("transistor", "plastic", "parts", is_object=True, free=0.1)
def transistor(rng: Rng) -> Draw:
    """A package with three legs, its tab and a hole, over a perforated board now and then."""
    a, tab, legs, pitch = (
        rng.uniform(0.35, 0.5),
        rng.uniform(0.15, 0.35),
        int(rng.choice([2, 3, 3, 5])),
        rng.uniform(0.18, 0.26),
    )
    body, pins, thick, look = (rgb(greyish(rng, (0.06, 0.25))), metal(rng), rng.uniform(0.03, 0.05), finish(rng))
    text, round_top = words(rng, 2, int(rng.integers(4, 8))), chance(rng, 0.4)

    def draw(view: View) -> Canvas:
        canvas = Canvas.empty()
        if not round_top:
            plate = np.maximum(box(view.u, view.v + F(0.55), a, tab, 0.05), F(0.09) - np.hypot(view.u, view.v + F(0.6)))
            tabc = metal_body(view, view.cover(plate), dome(plate, 0.03, 3), pins, look)
            canvas.paint(tabc.alpha, tabc.colour, tabc.height, 0.2)
        for part in view.parts([((i - (legs - 1) / 2) * pitch, 0.55, np.pi / 2) for i in range(legs)]):
            window, x, y = view.local(part, 0.5)
            if x.size:
                leg = box(x, y, 0.38, thick, thick * 0.5)
                canvas.paint(view.cover(leg), np.clip(pins * part.tint, 0, 1), dome(leg, thick, 4), 0.4, window)
        far = box(view.u, view.v + F(0.15), a, 0.36, 0.04 if not round_top else 0.3)
        top = slab(view, far, body, 9, 0.7, 0.12)
        canvas.paint(top.alpha, top.colour, top.height, 0.12)
        canvas.paint(laid(view, text, 0.75 * a, (0.0, -0.15)).astype(F) * top.alpha * F(0.6), (0.75, 0.75, 0.75))
        return canvas

    return draw


@family("connector", "plastic", "parts", is_object=True, free=0.1)
def connector(rng: Rng) -> Draw:
    """A housing with rows of pins or sockets."""
    rows, columns, pitch = int(rng.integers(1, 4)), int(rng.integers(3, 12)), 0.0
    body, pins, hollow = rgb(any_colour(rng, (0, 0.7), (0.05, 0.95))), metal(rng), chance(rng, 0.5)
    pitch = min(1.7 / columns, 0.45)
    wall, size, square = rng.uniform(0.06, 0.16), rng.uniform(0.18, 0.33), chance(rng, 0.5)

    def draw(view: View) -> Canvas:
        far = box(view.u, view.v, pitch * columns / 2 + wall * 0.6, pitch * rows / 2 + wall, 0.03)
        canvas = slab(view, far, body, 6, 0.4, 0.2)
        if hollow:
            canvas.paint(
                view.cover(box(view.u, view.v, pitch * columns / 2, pitch * rows / 2 + wall * 0.4, 0.02)),
                body * F(0.35),
                0.0,
            )
        places = [
            ((i - (columns - 1) / 2) * pitch, (j - (rows - 1) / 2) * pitch, 0.0)
            for j in range(rows)
            for i in range(columns)
        ]
        for part in view.parts(places):
            window, x, y = view.local(part, pitch * 0.5)
            if x.size:
                pin = box(x, y, pitch * size, pitch * size) if square else disc(x, y, pitch * size)
                canvas.paint(
                    view.cover(pin), np.clip(pins * part.tint, 0, 1), dome(pin, pitch * size * 0.6, 5), 0.5, window
                )
                if not hollow:
                    canvas.paint(view.cover(disc(x, y, pitch * size * 0.4)), (0.04, 0.04, 0.04), 0.0, 0.0, window)
        return canvas

    return draw


@family("circuit board", "board", "parts", "parts", is_object=True, free=0.1)
def circuit_board(rng: Rng) -> Draw:
    """A board with traces, pads, chips and small components."""
    mask = rgb(hsv(rng.choice([0.35, 0.38, 0.6, 0.0, 0.08, 0.8]), rng.uniform(0.4, 0.9), rng.uniform(0.12, 0.5)))
    copper, a, b = mask * F(rng.uniform(1.25, 1.8)), rng.uniform(0.75, 1.6), rng.uniform(0.5, 1.6)
    layout, cell = rng_of(int(rng.integers(2**31))), rng.uniform(0.05, 0.1)
    grid = np.kron((layout.random((24, 24)) < 0.35).astype(F), np.ones((10, 10), F))
    spots = [
        (float(x), float(y))
        for x, y in layout.uniform(-0.85, 0.85, (int(rng.integers(6, 26)), 2)) * np.array([min(a, 1), min(b, 1)])
    ]
    kinds, sizes, turns = (
        layout.integers(0, 5, len(spots)),
        layout.uniform(0.05, 0.2, len(spots)),
        layout.choice([0, np.pi / 2], len(spots)),
    )
    tones = [
        any_colour(layout, (0, 0.7), (0.05, 0.9)) if layout.random() < 0.4 else greyish(layout, (0.03, 0.9))
        for _ in spots
    ]

    def draw(view: View) -> Canvas:
        far = box(view.u, view.v, a, b, 0.05)
        canvas = slab(view, far, mask, 3, 0.3, 0.25, 0.02)
        along = np.minimum(np.abs(np.mod(view.u / F(cell), 1) - F(0.5)), 1)
        trace = laid(view, grid, 1.0) * (along < 0.22)
        canvas.paint(trace.astype(F) * canvas.alpha, copper)
        for x0, y0 in ((-0.9, -0.9), (0.9, -0.9), (-0.9, 0.9), (0.9, 0.9)):
            r = np.hypot(view.u - F(x0 * min(a, 1)), view.v - F(y0 * min(b, 1)))
            canvas.paint(view.cover(r - F(0.07)) * canvas.alpha, (0.75, 0.72, 0.6), 2.0, 0.4)
            canvas.paint(view.cover(r - F(0.04)) * canvas.alpha, (0.05, 0.05, 0.05), 0.0, 0.0)
        for part in view.parts([(x, y, float(t)) for (x, y), t in zip(spots, turns, strict=True)]):
            _component(
                view,
                canvas,
                part.index,
                part,
                float(sizes[part.index]),
                int(kinds[part.index]),
                np.asarray(tones[part.index], F) * part.tint,
            )
        return canvas

    return draw


def _component(view: View, canvas: Canvas, _: int, part: object, size: float, kind: int, tone: np.ndarray) -> None:
    window, x, y = view.local(part, size * 1.6)  # type: ignore[arg-type]
    if not x.size:
        return
    tin = (0.78, 0.78, 0.76)
    if kind == 0:  # round capacitor
        can = disc(x, y, size * 0.7)
        canvas.paint(view.cover(can), tone, dome(can, size * 0.2, 8), 0.3, window)
        canvas.paint(view.cover(np.maximum(can, F(size * 0.25) - x)), tone * F(0.4), 8.0, 0.1, window)
    elif kind in (1, 2):  # two-terminal block
        canvas.paint(view.cover(box(x, y, size * 0.8, size * 0.36, 0.01)), tin, 2.0, 0.5, window)
        block = box(x, y, size * 0.5, size * 0.36, 0.01)
        canvas.paint(view.cover(block), np.clip(tone, 0, 1), dome(block, size * 0.15, 5), 0.15, window)
    elif kind == 3:  # small chip with legs
        comb = np.maximum(np.abs(y) - F(size), np.abs(x) - F(size * 0.9))
        legs = np.maximum(comb, (np.abs(np.mod(x / F(size * 0.3), 1) - F(0.5)) - F(0.25)) * F(size * 0.3))
        canvas.paint(view.cover(legs), tin, 2.0, 0.5, window)
        block = box(x, y, size * 0.95, size * 0.7, 0.01)
        canvas.paint(view.cover(block), np.clip(tone * F(0.25), 0, 1), dome(block, size * 0.1, 6), 0.1, window)
    else:  # row of solder pads
        pad = np.maximum(
            box(x, y, size, size * 0.25),
            np.hypot((np.mod(x / F(size * 0.5), 1) - F(0.5)) * F(size * 0.5), y) - F(size * 0.2),
        )
        canvas.paint(view.cover(pad), tin, dome(pad, size * 0.2, 3), 0.7, window)


@family("keypad", "plastic", "parts", is_object=True, free=0.05)
def keypad(rng: Rng) -> Draw:
    rows, columns = int(rng.integers(2, 6)), int(rng.integers(2, 7))
    case, keys = (rgb(any_colour(rng, (0, 0.5), (0.05, 0.9))), rgb(any_colour(rng, (0, 0.6), (0.05, 0.95))))
    pitch = 1.7 / max(rows, columns)
    sheets, gap, round_off = (
        [words(rng, 1, 1) for _ in range(rows * columns)],
        rng.uniform(0.38, 0.46),
        rng.uniform(0.02, 0.3),
    )
    letter = rgb(greyish(rng, (0.85, 1)) if keys.mean() < 0.5 else greyish(rng, (0.02, 0.15)))

    def draw(view: View) -> Canvas:
        far = box(view.u, view.v, pitch * columns / 2 + 0.07, pitch * rows / 2 + 0.07, 0.06)
        canvas = slab(view, far, case, 4, 0.5, 0.15)
        for part in view.parts(
            [
                ((i - (columns - 1) / 2) * pitch, (j - (rows - 1) / 2) * pitch, 0.0)
                for j in range(rows)
                for i in range(columns)
            ]
        ):
            window, x, y = view.local(part, pitch * 0.7)
            if not x.size:
                continue
            key = box(x, y, pitch * gap, pitch * gap, pitch * gap * round_off)
            canvas.paint(view.cover(key), np.clip(keys * part.tint, 0, 1), dome(key, pitch * 0.2, 6), 0.2, window)
            sheet = sheets[part.index]
            at = ((np.clip(t / F(pitch * 0.45), -0.999, 0.999) + 1) * F(len(sheet) / 2) for t in (x, y))
            cols, lines = (t.astype(np.int32) for t in at)
            canvas.paint(sheet[lines, cols] * view.cover(key), letter, window=window)
        return canvas

    return draw
