"""Where results are delivered to, as options say."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from winspect.cli.options import Place, add_options
from winspect.errors import SettingsError

if TYPE_CHECKING:
    from winspect.delivery import Deliveries
    from winspect.delivery.deliverer import Deliverer, ResultsFiles


def add_delivery_options(place: Place) -> None:
    """``--deliver`` and ``--on-anomaly``."""
    add_options(place, "--deliver", "--on-anomaly")


def deliveries_of(args: argparse.Namespace) -> Deliveries:
    """The deliveries of a file or a product, and the command for anomalous pictures; none where none is asked for.

    Raises:
        SettingsError: the file or the command cannot be used.
    """
    from winspect.delivery import CommandSettings, Deliveries, read_deliveries

    given, command_line = getattr(args, "deliver", None), getattr(args, "on_anomaly", None)
    deliveries = given if isinstance(given, Deliveries) else read_deliveries(given) if given else Deliveries()
    if command_line is None:
        return deliveries
    try:
        command = CommandSettings(name="on-anomaly", command=command_line, verdicts=("anomalous",))
    except SettingsError as error:
        raise SettingsError(f"--on-anomaly: {error}") from error
    return Deliveries((*deliveries, command))


def deliverer_of(args: argparse.Namespace, folder: Path, *, results: ResultsFiles | None = None) -> Deliverer | None:
    """What delivers, to be entered when rows come; None where there are no deliveries.

    Args:
        folder: of the spool. results: files that have the rows, too.

    Raises:
        SettingsError, MissingExtraError: a delivery cannot be used.
    """
    deliveries = deliveries_of(args)
    if not deliveries:
        return None
    from winspect.delivery.deliverer import Deliverer

    return Deliverer(deliveries, folder, results=results)
