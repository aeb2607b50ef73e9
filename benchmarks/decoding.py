"""What decoding costs: time and memory per pixel of every format, and the check of JPEG data.

    python -m benchmarks.decoding [--side 3000] [--json FILE]

Seconds are those of a core, which other work on the machine hardly changes. Linux. ``formats``: each file is decoded in
a process of its own; memory is what its peak grew by. The budget's figures (winspect.pictures.budget) are these,
rounded up. ``jpeg``: the same pictures through ``predict_many`` with the strict decoder, which gives libjpeg's
warnings, and with Pillow's, which hides them, in turn.
"""

from __future__ import annotations

import argparse
import io
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from PIL import Image

from benchmarks.measuring import in_turn, machine, write_json

_DECODE = """
import json, re, sys, time
import numpy as np
from winspect.pictures.decoding import decode
def peak():
    return 1024 * int(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1])
decode(np.zeros((9, 9, 3), np.uint8))
before, began = peak(), time.process_time()
decode(sys.argv[1], demanding="here")
print(json.dumps([time.process_time() - began, peak() - before]))
"""
FORMATS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "JPEG": ("RGB", "JPEG", {"quality": 90}),
    "JPEG, progressive": ("RGB", "JPEG", {"quality": 90, "progressive": True}),
    "JPEG, CMYK": ("CMYK", "JPEG", {}),
    "PNG": ("RGB", "PNG", {"compress_level": 1}),
    "PNG, 16-bit grey": ("I;16", "PNG", {"compress_level": 1}),
    "WebP, lossless": ("RGB", "WEBP", {"lossless": True, "method": 0}),
    "WebP": ("RGB", "WEBP", {"method": 0}),
    "TIFF, LZW": ("RGB", "TIFF", {"compression": "tiff_lzw"}),
    "BMP": ("RGB", "BMP", {}),
    "GIF": ("P", "GIF", {}),
    "PNM": ("RGB", "PPM", {}),
    "JPEG 2000": ("RGB", "JPEG2000", {}),
}
ROUNDS, PICTURES = 3, 16


def photo(side: int) -> Image.Image:
    """Smooth colours with noise: compresses as photographs do."""
    random = np.random.default_rng(0)
    small = random.integers(0, 256, (side // 16, side // 16, 3), np.uint8)
    pixels = np.asarray(Image.fromarray(small).resize((side, side), Image.Resampling.BICUBIC)).astype(np.int16)
    pixels += random.integers(-6, 7, pixels.shape, np.int8)
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def measure_formats(side: int) -> dict[str, Any]:
    """Of each, per pixel: nanoseconds, and bytes at the peak."""
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, (mode, kind, options) in FORMATS.items():
            image, path = photo(side), Path(folder) / "picture"
            if mode == "I;16":
                image = Image.fromarray(np.asarray(image)[:, :, 0].astype(np.uint16) * 257)
            (image if mode in (image.mode, "I;16") else image.convert(mode)).save(path, kind, **options)
            run = subprocess.run([sys.executable, "-c", _DECODE, str(path)], capture_output=True, check=True)
            seconds, size = json.loads(run.stdout)
            found[name] = {
                "ns_per_pixel": round(1e9 * seconds / side**2, 1),
                "bytes_per_pixel": round(size / side**2, 1),
            }
    return found


def measure_jpeg(size_wh: tuple[int, int]) -> dict[str, Any]:
    """Milliseconds of decoding alone, and of a picture in ``predict_many`` of the bundled model, with the check and
    without."""
    from winspect import WinCLIP
    from winspect.pictures import jpeg
    from winspect.pictures.decoding import decode

    file = io.BytesIO()
    photo(max(size_wh)).crop((0, 0, *size_wh)).save(file, "JPEG", quality=90)
    model = WinCLIP("winspect-tiny", device="cpu")
    pictures = [file.getvalue()] * PICTURES
    list(model.predict_many(pictures, "textile", maps=False))

    def job(check: bool, work: Callable[[], object]) -> Callable[[], None]:
        def run() -> None:
            jpeg.has_strict_decoder = check
            work()

        return run

    def predict() -> list[Any]:
        return list(model.predict_many(pictures, "textile", maps=False))

    works = {"decode": lambda: decode(pictures[0]), "predict": predict}
    seconds = in_turn(
        {
            f"{name}_ms_{'with' if check else 'without'}_check": job(check, work)
            for check in (True, False)
            for name, work in works.items()
        },
        ROUNDS,
        clock=time.process_time,
    )
    jpeg.has_strict_decoder = True
    return {
        "size": list(size_wh),
        "bytes": len(file.getvalue()),
        **{
            name: round(1000 * median(taken) / (PICTURES if name.startswith("predict") else 1), 2)
            for name, taken in seconds.items()
        },
    }


def main() -> None:
    """Measure all."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--side", type=int, default=3000)
    parser.add_argument("--json", type=Path, metavar="FILE")
    args = parser.parse_args()
    results: dict[str, Any] = {"machine": machine()}
    results["formats"] = measure_formats(args.side)
    results["jpeg"] = [measure_jpeg(size_wh) for size_wh in ((640, 480), (1600, 1200), (4000, 3000))]
    print(json.dumps(results, indent=1))
    write_json(args.json, results, indent=1)


if __name__ == "__main__":
    main()
