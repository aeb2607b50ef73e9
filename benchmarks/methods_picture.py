"""The picture of docs/methods.md: `python -m benchmarks.methods_picture docs/methods.jpg`.

The generated example part under each recipe, with the bundled model: two defective pictures and a good one. Each recipe
has one scale of colours for its three maps; colour starts at the median of the good test pictures' highest values,
and is strongest at the highest value shown. The number below a map is the picture's score.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from benchmarks.measuring import ROOT
from winspect import WinCLIP
from winspect.methods.result import Result
from winspect.pictures.heatmaps import heat_overlay

PART = ROOT / "examples" / "hex_nut"
SHOWN = ("defective/1", "defective/3", "good/1")
SIDE, GAP, HEAD, FOOT = 176, 8, 46, 22


@dataclass(frozen=True)
class Column:
    """A recipe with the bundled model.

    Attributes:
        title: a line, and one below it.
        references: whether it is shown the four good samples.
    """

    title: tuple[str, str]
    recipe: str
    settings: dict[str, Any]
    references: bool = True

    def results(self) -> dict[str, Result]:
        """Of all twelve test pictures, by name."""
        model = WinCLIP("winspect-tiny", device="cpu", recipe=self.recipe, settings=self.settings)
        if self.references:
            model.reference(PART / "train" / "good", "hex nut")
        found = model.predict_many(PART / "test", "hex nut", keep_pictures=True)
        return {f"{Path(str(result.path)).parent.name}/{Path(str(result.path)).stem}": result for result in found}


COLUMNS = (
    Column(("log", "the name alone"), "log", {}, references=False),
    Column(("log", "4 good samples"), "log", {}),
    Column(("memory", "4, stem_8, 448 px"), "memory", {"layer": "stem_8", "size": 448, "rotations": 0}),
    Column(("subspace", "4, 240 px"), "subspace", {"size": 240, "rotations": 0}),
    Column(("mutual", "12 unlabelled, 240 px"), "mutual", {}, references=False),
)


def scale(results: dict[str, Result]) -> tuple[float, float]:
    """Where colour starts and is strongest, for all maps of a recipe."""
    highest = {name: float(result.anomaly_map.max()) for name, result in results.items()}
    good = [value for name, value in highest.items() if name.startswith("good")]
    return float(np.median(good)), max(highest[name] for name in SHOWN)


def draw(columns: dict[tuple[str, str], dict[str, Result]]) -> Image.Image:
    """Titles, the pictures as they are, and a column for each recipe."""
    width = (len(columns) + 1) * (SIDE + GAP) - GAP
    sheet = Image.new("RGB", (width, HEAD + len(SHOWN) * (SIDE + FOOT + GAP) - GAP), "white")
    pen, bold, plain = ImageDraw.Draw(sheet), ImageFont.load_default(size=18), ImageFont.load_default(size=14)
    first = next(iter(columns.values()))
    for place, (title, results) in enumerate([(("picture", ""), first), *columns.items()]):
        left, span = place * (SIDE + GAP), scale(results)
        pen.text((left + SIDE / 2, 12), title[0], fill="black", font=bold, anchor="mm")
        pen.text((left + SIDE / 2, 33), title[1], fill="black", font=plain, anchor="mm")
        for row, name in enumerate(SHOWN):
            result, top = results[name], HEAD + row * (SIDE + FOOT + GAP)
            rgb = result.picture_rgb if place == 0 else heat_overlay(result.picture_rgb, result.anomaly_map, span)
            sheet.paste(Image.fromarray(rgb).resize((SIDE, SIDE)), (left, top))
            caption = name if place == 0 else f"{result.anomaly_score:.3g}"
            pen.text((left + SIDE / 2, top + SIDE + FOOT / 2), caption, fill="black", font=plain, anchor="mm")
    return sheet


def main() -> None:
    """Write the picture."""
    draw({column.title: column.results() for column in COLUMNS}).save(Path(sys.argv[1]), quality=85)


if __name__ == "__main__":
    main()
