"""The README's first picture: `python -m benchmarks.first_picture docs/first.jpg`.

The generated example part, by the bundled model with its four good samples: three defective images and a good one, with
heat maps on one scale, and their scores. The figures of all twelve test images are those of `winspect evaluate`.
"""

from __future__ import annotations

import sys
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from benchmarks.measuring import ROOT
from winspect import WinCLIP
from winspect.methods.result import Result
from winspect.pictures.heatmaps import heat_overlay, run_range

PART = ROOT / "examples" / "hex_nut"
SHOWN = ("defective/1", "defective/3", "defective/5", "good/1")
SIDE, GAP, FOOT = 220, 8, 26


def results() -> tuple[dict[str, Result], tuple[float, float]]:
    """The images shown, by name, and the range of colours that the good samples give."""
    model = WinCLIP("winspect-tiny", device="cpu")
    model.reference(PART / "train" / "good", "hex nut")
    paths = [PART / "test" / f"{name}.jpg" for name in SHOWN]
    found = dict(zip(SHOWN, model.predict_many(paths, "hex nut", keep_pictures=True), strict=True))
    span = run_range(model.good_levels("hex nut"), limits=model.method.score_range)
    assert span is not None  # there are four good samples
    return found, span


def draw() -> Image.Image:
    """Images above, heat maps below, scores under them."""
    found, span = results()
    sheet = Image.new("RGB", (len(SHOWN) * (SIDE + GAP) - GAP, 2 * SIDE + GAP + FOOT), "white")
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(size=17)
    for place, (name, result) in enumerate(found.items()):
        left = place * (SIDE + GAP)
        rows = (result.picture_rgb, heat_overlay(result.picture_rgb, result.anomaly_map, span))
        for row, rgb in enumerate(rows):
            sheet.paste(Image.fromarray(rgb).resize((SIDE, SIDE)), (left, row * (SIDE + GAP)))
        text = f"{name.partition('/')[0]}: {result.anomaly_score:.2f}"
        pen.text((left + SIDE / 2, 2 * SIDE + GAP + FOOT / 2), text, fill="black", font=font, anchor="mm")
    return sheet


if __name__ == "__main__":
    draw().save(Path(sys.argv[1]), quality=88)
