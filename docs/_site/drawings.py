"""The two drawings of docs/how-it-works.md: `python docs/_site/drawings.py docs`. They are kept beside the page."""

from __future__ import annotations

import sys
from pathlib import Path

INK, SOFT, LINE = "#1c2430", "#5b6675", "#cfd6de"
TWO, THREE, HOT = "#1f77b4", "#2a9d5c", "#d1401f"
_SHADES = ("#ffffff", "#fde3b8", "#fdae30", "#f0521e")


def box(x: float, y: float, w: float, h: float, fill: str = "none", line: str = INK, width: float = 1) -> str:
    """A rectangle."""
    return f'<rect x="{x}" y="{y}" width="{w}" height="{h}" fill="{fill}" stroke="{line}" stroke-width="{width}"/>'


def words(x: float, y: float, text: str, *, size: int = 13, fill: str = INK, anchor: str = "middle") -> str:
    """A line of text, its baseline at y."""
    return f'<text x="{x}" y="{y}" font-size="{size}" fill="{fill}" text-anchor="{anchor}">{text}</text>'


def arrow(x: float, y: float, length: float) -> str:
    """An arrow to the right."""
    end = x + length
    return (
        f'<path d="M{x} {y}H{end - 6}" stroke="{INK}" fill="none"/>'
        f'<path d="M{end - 8} {y - 4}L{end} {y}L{end - 8} {y + 4}Z" fill="{INK}"/>'
    )


def grid(x: float, y: float, side: int, cell: float, fills: dict[tuple[int, int], str] | None = None) -> str:
    """A square grid of patches, some of them filled: (row, column) to colour."""
    fills = fills or {}
    return "".join(
        box(x + column * cell, y + row * cell, cell, cell, fills.get((row, column), "#fff"), LINE)
        for row in range(side)
        for column in range(side)
    )


def drawing(width: int, height: int, title: str, *parts: str) -> str:
    """A whole SVG on white."""
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img" '
        f'font-family="system-ui, -apple-system, Segoe UI, Roboto, sans-serif"><title>{title}</title>'
        f'<rect width="{width}" height="{height}" fill="#fff"/>{"".join(parts)}</svg>\n'
    )


def windows() -> str:
    """From patches to windows, and back to a map."""
    cell, top = 12, 46
    left, middle, right = 16, 300, 610
    parts = [grid(left, top, 15, cell, {(6, 8): _SHADES[3]})]
    parts += [box(left + 7 * cell, top + 5 * cell, 2 * cell, 2 * cell, line=TWO, width=3)]
    parts += [box(left + 8 * cell, top + 6 * cell, 3 * cell, 3 * cell, line=THREE, width=3)]
    parts += [words(left + 90, 24, "15 x 15 patches of one picture")]
    parts += [words(left, 252, "196 windows of 2 x 2,", fill=TWO, anchor="start")]
    parts += [words(left, 270, "169 windows of 3 x 3", fill=THREE, anchor="start")]
    parts += [arrow(left + 188, top + 90, 76)]
    for row, (count, colour) in enumerate(((4, TWO), (9, THREE))):
        y = top + 30 + 70 * row
        parts += [box(middle, y, 18, 18, "#e9edf2"), words(middle + 9, y + 14, "c", size=11)]
        parts += [box(middle + 22 + 14 * n, y, 12, 18, colour, colour) for n in range(count)]
        parts += [words(middle, y + 34, f"class token and {count} patches", size=11, fill=SOFT, anchor="start")]
    parts += [words(middle + 70, 24, "each window alone")]
    parts += [words(middle, top + 172, "through the image tower,", size=12, anchor="start")]
    parts += [words(middle, top + 188, "compared with the prompts:", size=12, anchor="start")]
    parts += [words(middle, top + 204, "a score for each window", size=12, anchor="start")]
    parts += [arrow(middle + 186, top + 90, 90)]
    shades = {
        (row, column): _SHADES[3 - max(abs(row - 6), abs(column - 8))] for row in range(4, 9) for column in range(6, 11)
    }
    parts += [grid(right, top, 15, cell, shades), words(right + 90, 24, "the map")]
    parts += [words(right - 14, 252, "a patch: harmonic mean of", size=12, anchor="start")]
    parts += [words(right - 14, 270, "the windows that cover it", size=12, anchor="start")]
    return drawing(812, 290, "Windows of patches, scored alone, become a map", *parts)


def _matrix(x: float, y: float, links: list[tuple[int, int]], colour: str) -> str:
    """Twelve tokens of three windows: which attends to which."""
    cell = 14
    fills = dict.fromkeys(links, colour)
    lines = [box(x + 4 * cell * n, y + 4 * cell * n, 4 * cell, 4 * cell, line=INK, width=1.6) for n in range(3)]
    marks = [
        words(x + 4 * cell * n + 28, y - 7, f"window {n + 1}", size=11, fill=SOFT)
        + words(x - 8, y + 4 * cell * n + 32, f"{n + 1}", size=11, fill=SOFT, anchor="end")
        for n in range(3)
    ]
    return grid(x, y, 12, cell, fills) + "".join(lines + marks)


def constant_maps() -> str:
    """Attention within windows, and across them; the maps of both."""
    within = [(a, b) for a in range(12) for b in range(12) if a // 4 == b // 4]
    across = [(a, b) for a in range(12) for b in range(12) if a % 4 == b % 4]
    top, cell = 84, 14
    parts = []
    for x, title, links, colour, text in (
        (40, "batch of windows first", within, TWO, ("a token sees the tokens", "of its own window")),
        (430, "windows read as the sequence", across, HOT, ("a token sees the same place of", "every other window")),
    ):
        parts += [words(x, 26, title, size=15, anchor="start"), _matrix(x, top, links, colour)]
        parts += [words(x, top + 190 + 18 * n, line, size=12, fill=SOFT, anchor="start") for n, line in enumerate(text)]
        parts += [arrow(x + 178, top + 84, 34)]
    shades = {(r, c): _SHADES[max(0, 3 - max(abs(r - 4), abs(c - 5)))] for r in range(9) for c in range(9)}
    parts += [grid(256, top + 20, 9, cell, shades), words(319, top + 166, "a map", size=12)]
    flat = {(r, c): _SHADES[1] for r in range(9) for c in range(9)}
    parts += [grid(646, top + 20, 9, cell, flat), words(709, top + 166, "one value everywhere", size=12)]
    return drawing(812, 310, "Attention within windows, and across them", *parts)


def main(folder: str) -> None:
    """Write both."""
    for name, made in (("windows.svg", windows()), ("constant-maps.svg", constant_maps())):
        (Path(folder) / name).write_text(made, encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1])
