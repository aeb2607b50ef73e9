"""What SVG files that stand alone share: colours, texts, the frame with its title, and where figures were made."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup, escape

INK, SOFT, LINE, PAPER = "#1c2430", "#5b6675", "#dde2e8", "#ffffff"


def text(
    x: float, y: float, words: str, *, anchor: str = "start", colour: str = SOFT, weight: int = 400, edge: bool = False
) -> str:
    """A line of text; with ``edge``, its letters stand on whatever lies behind them."""
    style = f'text-anchor="{anchor}" fill="{colour}" font-weight="{weight}"'
    if edge:
        style += f' stroke="{PAPER}" stroke-width="3" paint-order="stroke"'
    return f'<text x="{x:.1f}" y="{y:.1f}" {style}>{escape(words)}</text>'


def place(machine: Mapping[str, Any]) -> str:
    """The machine in a few words, from :func:`winspect.system.machine.describe_machine`."""
    return machine["accelerator"] or f"{machine['cpu'] or machine['processor']}, {machine['cores']} cores"


def frame(title: str, subtitle: str, parts: Sequence[str], *, width: int, height: float) -> Markup:
    """The whole file."""
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height:.0f}" width="{width}" '
        f'height="{height:.0f}" role="img" aria-label="{escape(title)}" font-size="12" font-family="sans-serif">'
    )
    paper = f'<rect width="{width}" height="{height:.0f}" fill="{PAPER}"/>'  # readable on a dark page, too
    heading = f'<text x="8" y="20" font-size="14" font-weight="600" fill="{INK}">{escape(title)}</text>'
    return Markup("\n".join([head, paper, heading, text(8, 38, subtitle), *parts, "</svg>\n"]))
