"""``winspect serve``: judge pictures over HTTP."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from winspect.cli.common import EXIT_DONE, expand_references, model_options
from winspect.cli.options import add_model_options, add_options
from winspect.errors import MissingExtraError, ReferencesError
from winspect.system.files import home_folder
from winspect.system.installation import install_command
from winspect.system.opening import read_bytes
from winspect.system.terminal import say

if TYPE_CHECKING:
    from winspect.calibration import Calibration
    from winspect.service.backend import Backend
    from winspect.service.settings import ServiceSettings

# Option -> field of ServiceSettings; what is not given keeps the default that stands there.
_SETTINGS = {
    "host": "host",
    "port": "port",
    "max_queue": "max_queue",
    "deadline": "deadline_s",
    "max_upload_mb": "max_upload_mb",
    "max_store_mb": "max_store_mb",
    "max_pixels": "max_pixels",
    "max_pictures": "max_pictures",
    "max_batch": "max_batch",
    "drain": "drain_s",
    "body_timeout": "body_timeout_s",
    "api_key_file": "api_key_file",
    "tls_cert": "tls_cert",
    "tls_key": "tls_key",
}


def add_parser(verbs: argparse._SubParsersAction) -> None:
    """Declare the verb."""
    parser = verbs.add_parser(
        "serve",
        help="judge pictures over HTTP",
        description="Judge pictures over HTTP: POST /v1/predict, the Open Inference Protocol v2 under /v2, Prometheus "
        "metrics at /metrics, a web page at / (docs/deploy.md). It ends on SIGTERM, after answering what is queued.",
        epilog="exit codes: 0 ended as told; 2 wrong use, as a port in use, or a model, key or certificate that fails",
    )
    what = parser.add_argument_group("what is judged")
    what.add_argument(
        "--class",
        dest="classes",
        action="append",
        metavar="NAME",
        help="serve this class, and no others; may be repeated (default: any)",
    )
    add_store_options(what)
    add_options(what, "--reference", reference="good samples of the one --class")
    _add_limits(parser)
    add_model_options(parser)
    parser.add_argument(
        "--devices", nargs="+", metavar="DEVICE", help="a model process on each of these devices, as in cuda:0 cuda:1"
    )
    add_options(parser, "--verbose", verbose="also a line per request, on stderr")
    parser.set_defaults(run=run)


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


def _add_limits(parser: argparse.ArgumentParser) -> None:
    network = parser.add_argument_group("network")
    network.add_argument("--host", metavar="ADDRESS", help="where to listen (default: 127.0.0.1, this machine alone)")
    network.add_argument(
        "--allowed-host",
        dest="allowed_hosts",
        action="append",
        metavar="NAME",
        help="also answer requests for this Host; may be repeated (default: loopback and --host; with keys, any)",
    )
    network.add_argument("--port", type=int, metavar="N", help="default: 8080; 0 is one that is free")
    network.add_argument("--api-key-file", type=Path, metavar="FILE", help="let in who has one of its keys, one a line")
    network.add_argument("--tls-cert", type=Path, metavar="FILE", help="serve HTTPS with this certificate (PEM)")
    network.add_argument("--tls-key", type=Path, metavar="FILE", help="the certificate's key (PEM)")
    network.add_argument("--no-page", action="store_true", help="no web page")
    limits = parser.add_argument_group("limits")
    limits.add_argument("--max-queue", type=int, metavar="N", help="pictures that wait at most (default: 64); then 429")
    limits.add_argument("--deadline", type=float, metavar="SECONDS", help="for an answer (default: 30); then 504")
    limits.add_argument("--max-upload-mb", type=float, metavar="MB", help="of one request (default: 32)")
    limits.add_argument("--max-pixels", type=int, metavar="N", help="of one picture (default: 50000000)")
    limits.add_argument(
        "--max-store-mb", type=float, metavar="MB", help="of all stored pictures (default: 4096); then 507"
    )
    limits.add_argument("--max-pictures", type=int, metavar="N", help="of one request (default: 16)")
    limits.add_argument("--max-batch", type=int, metavar="N", help="pictures judged together at most (default: 32)")
    limits.add_argument("--drain", type=float, metavar="SECONDS", help="for what is queued at the end (default: 30)")
    limits.add_argument(
        "--body-timeout", type=float, metavar="SECONDS", help="for a request to arrive (default: 20); then 408"
    )


def run(args: argparse.Namespace) -> int:
    """Serve; returns the exit code."""
    need_extra("serving")
    from winspect.service.serving import serve

    settings = _settings(args)
    backend = _backend(args, settings)
    serve(backend, settings, say=say, access_log=args.verbose)
    return EXIT_DONE


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
    """Where a user's references and calibrations are kept unless told otherwise."""
    return Path(os.environ.get("XDG_DATA_HOME") or home_folder("XDG_DATA_HOME") / ".local" / "share") / "winspect"


def _settings(args: argparse.Namespace) -> ServiceSettings:
    from winspect.service.settings import ServiceSettings

    given: dict[str, Any] = {
        name: value for option, name in _SETTINGS.items() if (value := getattr(args, option)) is not None
    }
    classes = None if args.classes is None else tuple(args.classes)
    if args.allowed_hosts:
        given["allowed_hosts"] = tuple(args.allowed_hosts)
    return ServiceSettings(classes=classes, page=not args.no_page, data=args.data or data_folder(), **given)


def load_calibrations(args: argparse.Namespace) -> list[Calibration]:
    """The calibrations that were named.

    Raises:
        SettingsError: a file cannot be used.
    """
    from winspect.calibration import Calibration

    return [Calibration.load(path) for path in args.calibration or ()]


def seed_calibrations(backend: Backend, calibrations: Sequence[Calibration], *, allow_stale: bool) -> None:
    """Put calibrations into the store; ``allow_stale`` as the option says.

    Raises:
        UnknownClass: a class that is not served.
    """
    backend.refuse_stale = not allow_stale
    for calibration in calibrations:
        backend.seed(calibration.class_name, calibration=calibration)


def _backend(args: argparse.Namespace, settings: ServiceSettings) -> Backend:
    """The backend with the references and calibrations that were named."""
    from winspect.service.backend import Backend
    from winspect.service.settings import ModelSpec

    calibrations = load_calibrations(args)
    args.device = args.device or next(iter(args.devices or ()), None)  # each process has one of its own
    options = model_options(args, calibrations=calibrations)
    references = _references(args)
    backend = Backend(settings, ModelSpec(options=options, devices=tuple(args.devices or ())))
    if references:
        backend.seed(settings.classes[0], references)  # type: ignore[index]
    seed_calibrations(backend, calibrations, allow_stale=args.allow_stale)
    return backend


def _references(args: argparse.Namespace) -> list[tuple[str, bytes]]:
    if not args.reference:
        return []
    if len(args.classes or ()) != 1:
        raise ReferencesError("--reference needs exactly one --class, whose good samples they are")
    pictures = []
    for path in expand_references(args.reference):
        try:
            pictures.append((path.name, read_bytes(path)))
        except OSError as error:
            raise ReferencesError(f"--reference: {path}: cannot read it: {error.strerror}") from error
    return pictures
