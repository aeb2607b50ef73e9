"""Inspect pictures over HTTP.

Inspect pictures over HTTP: POST /v1/predict, the Open Inference Protocol v2 under /v2, Prometheus metrics at /metrics,
a web page at / (docs/deploy.md). It ends on SIGTERM, after answering what is queued.

exit codes: 0 ended on a signal; 2 usage error, as a port in use, or a model, key or certificate that fails
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from winspect.cli.common import Exit, check_recipe, expand_references, model_options
from winspect.cli.decisions import drift_settings, feedback_settings
from winspect.cli.deliveries import add_delivery_options, deliveries_of
from winspect.cli.options import add_model_options, add_options
from winspect.cli.product_options import use_products
from winspect.errors import MissingExtraError, ReferencesError
from winspect.service.settings import ModelSpec, ServiceSettings
from winspect.system.files import home_folder
from winspect.system.installation import install_command
from winspect.system.opening import read_bytes
from winspect.system.terminal import say

if TYPE_CHECKING:
    from winspect.product.document import Product
    from winspect.service.backend import Backend

_KINDS = {"int": int, "float": float, "str": str, "Path | None": Path}


def declare(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    what = parser.add_argument_group("what is inspected")
    what.add_argument(
        "--class",
        dest="classes",
        action="append",
        metavar="NAME",
        help="serve this class, and no others; may be repeated (default: any)",
    )
    what.add_argument(
        "--product",
        nargs="+",
        type=Path,
        metavar="FILE",
        help="serve these products of `winspect product`, and no others: their class, good samples, calibration",
    )
    add_store_options(what)
    add_options(
        what,
        *("--reference", "--review", "--rules", "--drift", "--audit-rate"),
        reference="good samples of the one --class",
        rules="rules on defects, and [verdict], as TOML, for every class: docs/line.md",
    )
    what.add_argument(
        "--feedback",
        action="store_true",
        help="take answers of operators, and keep an audit log and pictures to review in --data; so does --audit-rate",
    )
    add_delivery_options(parser.add_argument_group("results to the machine beside"))
    network = parser.add_argument_group("network")
    _add_settings(network)
    network.add_argument(
        "--allowed-host",
        dest="allowed_hosts",
        action="append",
        metavar="NAME",
        help="also answer requests for this Host; may be repeated (default: loopback and --host; with keys, any)",
    )
    network.add_argument("--no-page", dest="page", action="store_false", help="no web page")
    _add_settings(parser.add_argument_group("limits"))
    add_model_options(parser)
    parser.add_argument(
        "--devices", nargs="+", metavar="DEVICE", help="a model process on each of these devices, as in cuda:0 cuda:1"
    )
    add_options(parser, "--verbose", verbose="also a line per request, on stderr")


def add_store_options(group: argparse._ArgumentGroup) -> None:
    """``--data``, ``--calibration`` and ``--allow-stale``."""
    group.add_argument(
        "--calibration", nargs="+", type=Path, metavar="FILE", help="thresholds by files of `winspect calibrate`"
    )
    group.add_argument(
        "--data",
        type=Path,
        metavar="DIR",
        help="where references and calibrations are kept (default: winspect in $XDG_DATA_HOME or ~/.local/share)",
    )
    group.add_argument(
        "--allow-stale",
        action="store_true",
        help="start although a stored calibration is for another model: its class has no verdict until it is "
        "calibrated again",
    )


def _add_settings(group: argparse._ArgumentGroup) -> None:
    """The settings' own options of a group; the default of what is not given stands there."""
    for setting in fields(ServiceSettings):
        if setting.metadata.get("group") == group.title:
            option = "--" + setting.name.removesuffix("_s").replace("_", "-")
            default = f"{setting.default:.0f}" if isinstance(setting.default, int | float) else setting.default
            group.add_argument(
                option,
                dest=setting.name,
                type=_KINDS[str(setting.type)],
                metavar=setting.metadata["metavar"],
                help=setting.metadata["help"].format(default),
            )


def run(args: argparse.Namespace) -> int:
    """Serve; returns the exit code."""
    need_extra("serving")
    from winspect.service.serving import serve

    products = use_products(args)
    if not hasattr(args, "deliver") and any("deliveries" in product.sections for product in products):
        say("the deliveries of a product are those of winspect watch: this service delivers nothing")
    settings = settings_of(args)
    references = references_of(args)
    args.device = args.device or next(iter(args.devices or ()), None)  # each process has one of its own
    backend = backend_of(args, settings, devices=tuple(args.devices or ()))
    if references:
        backend.seed(args.classes[0], references)
    for product in products:
        seed_product(backend, product)
    serve(backend, settings, say=say, access_log=args.verbose)
    return Exit.DONE


def need_extra(what: str) -> None:
    """Import what serves.

    Raises:
        MissingExtraError: a package of the extra is not installed; says what needs it.
    """
    try:
        import winspect.service.serving  # noqa: F401
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("winspect"):
            raise
        raise MissingExtraError(f"{what} needs {error.name}: {install_command('serve')}") from error


def data_folder() -> Path:
    """Default folder of a user's references and calibrations."""
    return Path(os.environ.get("XDG_DATA_HOME") or home_folder("XDG_DATA_HOME") / ".local" / "share") / "winspect"


def settings_of(args: argparse.Namespace) -> ServiceSettings:
    """Settings as the options say.

    Raises:
        SettingsError: a value out of its range.
    """
    given: dict[str, Any] = {
        setting.name: tuple(value) if isinstance(value, list) else value
        for setting in fields(ServiceSettings)
        if (value := getattr(args, setting.name, None)) is not None
    }
    if getattr(args, "review", None) is not None or getattr(args, "rules", None) is not None:
        from winspect.calibration.rules_file import chosen_verdicts

        names = ("--review", "threshold", "review_threshold")
        given["verdicts"], given["rules"] = chosen_verdicts(args.rules, review=args.review, names=names)
    return ServiceSettings(
        **{
            **given,
            "data": args.data or data_folder(),
            "refuse_stale": not args.allow_stale,
            "drift": drift_settings(args),
            "deliveries": deliveries_of(args).items,
            "feedback": feedback_settings(args) if args.feedback or args.audit_rate is not None else None,
        }
    )


def backend_of(args: argparse.Namespace, settings: ServiceSettings, devices: tuple[str, ...] = ()) -> Backend:
    """The backend of a model, with the calibrations that were named.

    Raises:
        SettingsError: a calibration cannot be used.
        UnknownClass: one is of a class that is not served.
    """
    from winspect.calibration import Calibration
    from winspect.service.backend import Backend

    calibrations = [Calibration.load(path) for path in args.calibration or ()]
    options = model_options(args, calibrations=calibrations)
    check_recipe(args, calibrations[0] if calibrations else None, alone_in="a service")
    backend = Backend(settings, ModelSpec(options=options, devices=devices))
    for calibration in calibrations:
        backend.seed(calibration.class_name, calibration=calibration)
    return backend


def seed_product(backend: Backend, product: Product) -> None:
    """Give a backend the good samples and the calibration of a product."""
    from winspect.calibration import Calibration
    from winspect.product.named_files import reference_files

    shots = None if product.references is None else product.references.shots
    references = _read(reference_files(product)[:shots])
    calibration = None if product.calibration is None else Calibration.load(product.place(product.calibration))
    backend.seed(product.class_name, references, calibration, product.mark)


def references_of(args: argparse.Namespace) -> list[tuple[str, bytes]]:
    """Names and files of ``--reference``.

    Raises:
        ReferencesError: there is not one class, or a file cannot be read.
    """
    if not args.reference:
        return []
    if len(args.classes or ()) != 1:
        raise ReferencesError("--reference needs exactly one --class, whose good samples they are")
    return _read(expand_references(args.reference))


def _read(paths: Sequence[Path]) -> list[tuple[str, bytes]]:
    pictures = []
    for path in paths:
        try:
            pictures.append((path.name, read_bytes(path)))
        except OSError as error:
            raise ReferencesError(f"--reference: {path}: cannot read it: {error.strerror}") from error
    return pictures
