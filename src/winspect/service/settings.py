"""Every limit of the service, with its unit. What the command line does not give keeps the default that stands here."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from winspect.errors import SettingsError

if TYPE_CHECKING:
    from winspect.calibration import Rules, Verdicts
    from winspect.delivery import DeliverySettings
    from winspect.drift import DriftSettings
    from winspect.feedback import FeedbackSettings

MEGABYTE = 2**20


def _option(group: str, metavar: str, text: str) -> dict[str, str]:
    """Metadata of a field that is an option of ``winspect serve`` too; ``{}`` in its help is the default."""
    return {"group": group, "metavar": metavar, "help": text}


_network, _limit = partial(_option, "network"), partial(_option, "limits")


@dataclass(frozen=True)
class ServiceSettings:
    """Limits of the service, and how long it waits. A megabyte is 2**20 bytes.

    Attributes:
        data: folder of ``winspect.sqlite3``: references, good pictures and calibrations.
        classes: the only classes that may be asked for; None for any.
        allowed_hosts: what the service is called beside loopback's names and ``host``; with a key and none of these,
            anything.
        refuse_stale: do not start beside a stored calibration for another model: its class would have no verdict.
        page: serve the web page at ``/``.
        drift: what is watched for drift; None for nothing.
        feedback: how answers of operators are taken; None for none, and no audit log.
        verdicts, rules: what decides beside the calibration of a class, for every class; None for nothing. A threshold
            in a request replaces the levels, not the rules.
        deliveries: where rows are delivered to.
        max_references: of one class. ``max_good_pictures``: of one class, to calibrate with.
        max_classes: classes that anything is stored of; and other names whose prompts are kept encoded: the one not
            asked for longest makes room for the next.
        overlay_side: the longer side of an overlay at most, in pixels.
        hang_s: a model process that says nothing for so long while it is asked is ended and started again.
        load_s: for a model process to load and warm up; downloading weights counts.
        backoff_s: before a model process that ended is started again; doubled each time, up to ``most_backoff_s``.

    Raises:
        SettingsError: a limit out of its range.
    """

    data: Path
    classes: tuple[str, ...] | None = None
    allowed_hosts: tuple[str, ...] = ()
    refuse_stale: bool = False
    page: bool = True
    drift: DriftSettings | None = None
    deliveries: Sequence[DeliverySettings] = ()
    feedback: FeedbackSettings | None = None
    verdicts: Verdicts | None = None
    rules: Rules | None = None
    host: str = field(
        default="127.0.0.1", metadata=_network("ADDRESS", "where to listen (default: {}, this machine alone)")
    )
    port: int = field(default=8080, metadata=_network("N", "default: {}; 0 is one that is free"))
    api_key_file: Path | None = field(
        default=None, metadata=_network("FILE", "let in who has one of its keys, one a line")
    )
    tls_cert: Path | None = field(default=None, metadata=_network("FILE", "serve HTTPS with this certificate (PEM)"))
    tls_key: Path | None = field(default=None, metadata=_network("FILE", "the certificate's key (PEM)"))
    max_queue: int = field(default=64, metadata=_limit("N", "pictures that wait at most (default: {}); then 429"))
    deadline_s: float = field(default=30.0, metadata=_limit("SECONDS", "for an answer (default: {}); then 504"))
    max_upload_mb: float = field(default=32.0, metadata=_limit("MB", "of one request (default: {})"))
    max_pixels: int = field(default=50_000_000, metadata=_limit("N", "of one picture (default: {})"))
    max_store_mb: float = field(default=4096.0, metadata=_limit("MB", "of all stored pictures (default: {}); then 507"))
    max_pictures: int = field(default=16, metadata=_limit("N", "of one request (default: {})"))
    max_batch: int = field(default=32, metadata=_limit("N", "pictures scored together at most (default: {})"))
    drain_s: float = field(default=30.0, metadata=_limit("SECONDS", "for what is queued at the end (default: {})"))
    body_timeout_s: float = field(
        default=20.0, metadata=_limit("SECONDS", "for a request's body to arrive (default: {}); then 408")
    )
    max_references: int = 64
    max_good_pictures: int = 10_000
    max_classes: int = 1_000
    overlay_side: int = 1024
    hang_s: float = 120.0
    load_s: float = 1_800.0
    backoff_s: float = 0.5
    most_backoff_s: float = 30.0

    def __post_init__(self) -> None:
        for field_ in fields(self):
            value = getattr(self, field_.name)
            if field_.type == "int" and (type(value) is not int or value < (0 if field_.name == "port" else 1)):
                raise SettingsError(f"{field_.name}: got {value!r}, need a whole number from 1")
            if field_.type == "float" and not (_is_number(value) and value > 0):
                raise SettingsError(f"{field_.name}: got {value!r}, need a number above 0")
        if self.port > 65535:
            raise SettingsError(f"port: got {self.port}, need 0 to 65535")
        if (self.tls_cert is None) != (self.tls_key is None):
            raise SettingsError("TLS needs a certificate and its key: give both, or neither")
        if self.classes is not None and not self.classes:
            raise SettingsError("classes: got none, need at least one; leave the option out to allow any")

    @property
    def max_upload_bytes(self) -> int:
        """Upload limit of one request, in bytes."""
        return int(self.max_upload_mb * MEGABYTE)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


@dataclass(frozen=True)
class ModelSpec:
    """Model of a process; it is sent there, so that all of it can be pickled.

    Attributes:
        options: arguments of :class:`winspect.WinCLIP`, but for ``device`` where ``devices`` are named.
        devices: one process each; empty for a single process on the options' own device.
        loader: ``module:function``, called with this specification and a device or None; for tests, and for
            other models. What it returns must do what the worker asks of :class:`winspect.WinCLIP`.
    """

    options: Mapping[str, Any] = field(default_factory=dict)
    devices: tuple[str, ...] = ()
    loader: str = "winspect.service.pool.worker:load_model"
