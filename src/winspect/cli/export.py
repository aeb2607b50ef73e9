"""Write an edge bundle.

Write a folder that inspects pictures of some classes with NumPy, Pillow and one engine alone: `winspect predict
--bundle DIR`, or WinCLIP.load(DIR), where winspect has extra edge (or edge-onnx) and no other. The bundle's scores are
checked against the model's first. Where a recipe keeps the pictures' aspect ratio, it inspects pictures of the shape of
the first good sample.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from winspect.cli.common import Exit, check_recipe, good_samples, load_model, print_result
from winspect.cli.decisions import load_calibration
from winspect.cli.options import add_option, add_options, add_run_options
from winspect.cli.product_options import use_product
from winspect.errors import SettingsError
from winspect.system.terminal import show

ENGINES = ("openvino", "onnx")


def declare(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    classes = "the classes it shall inspect (default: the calibration's)"
    add_option(parser, "--class", "NAME", classes, dest="categories", nargs="+")
    add_options(
        parser,
        *("--product", "--reference", "--shots", "--calibration", "--review"),
        reference="good samples of the class, for few-shot scores",
        calibration="a file of `winspect calibrate` to put in",
        review="put in with the calibration: of good pictures at most this share is review or anomalous",
    )
    add_option(parser, "--add", None, "add the class to the bundle in --out, or replace it there")
    add_option(parser, "--out", "DIR", "the bundle's folder", required=True)
    add_run_options(parser)


def run(args: argparse.Namespace) -> int:
    """Write the bundle; returns the exit code."""
    use_product(args)
    categories, difference = export_bundle(args, args.out)
    size = sum(path.stat().st_size for path in args.out.rglob("*") if path.is_file())
    summary = {"out": str(args.out), "classes": categories, "engine": args.engine, "bytes": size}
    what = f"{size / 1e6:.1f} MB; scores within {difference:.1g} of the model's"
    text = f"{args.out}: {', '.join(categories)} for {args.engine}, {what}"
    print_result(args, {"schema": 1, **summary, "largest_difference": difference}, partial(show, text))
    return Exit.DONE


def export_bundle(args: argparse.Namespace, out: Path) -> tuple[list[str], float]:
    """Write the bundle that the options describe, after :func:`use_product`.

    Returns:
        Its classes, and the largest difference between its scores and the model's.
    """
    args.engine = args.engine or "openvino"
    if args.engine not in ENGINES:
        raise SettingsError(f"--engine: got {args.engine!r}, a bundle runs in one of {', '.join(ENGINES)}")
    calibration = load_calibration(args)
    if args.review is not None:
        if calibration is None:
            raise SettingsError("--review needs --calibration FILE: a rate of good pictures is kept by its scores")
        calibration = replace(calibration, review=args.review)
    categories = args.categories or ([calibration.class_name] if calibration else [])
    if not categories:
        raise SettingsError("--class: name the classes that the bundle shall inspect")
    if len(categories) > 1 and (args.reference or calibration):
        raise SettingsError(
            f"--reference and --calibration belong to one class, got {', '.join(categories)}: export one, then the "
            "others with --add"
        )
    references = good_samples(args)
    check_recipe(args, calibration, alone_in="an edge bundle", scored_as=categories[0])
    from winspect.inspector.export import export

    model = load_model(args, calibration)
    if references:
        model.reference(references, categories[0], shots=args.shots, progress=True)
    calibrations = {} if calibration is None else {categories[0]: calibration}
    products = {} if args.product_used is None else {categories[0]: args.product_used.document(packed=True)}
    shape_wh = _size_of(references[0]) if references and model.preprocess.aspect else None
    more: dict[str, Any] = {"calibrations": calibrations, "products": products, "picture_wh": shape_wh}
    return categories, export(model, categories, out, add=args.add, **more)


def _size_of(picture: Path) -> tuple[int, int]:
    """Width and height of a good sample: the bundle is for pictures of its shape."""
    from winspect.pictures.decoding import read_rgb

    height, width, _ = read_rgb(picture).shape
    return width, height
