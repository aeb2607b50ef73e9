"""Every limit of the service, with its unit. What the command line does not give keeps the default that stands here."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from winspect.errors import SettingsError

MEGABYTE = 2**20


@dataclass(frozen=True)
class ServiceSettings:
    """Limits of the service, and how long it waits.

    Attributes:
        data: folder of ``winspect.sqlite3``: references, good pictures and calibrations.
        classes: the only classes that may be asked for; None for any.
        host, port: where it listens; port 0 is one that is free.
        allowed_hosts: what the service is called beside loopback's names and ``host``; with a key and none of these,
            anything.
        max_queue: pictures that wait for the model at most; what comes on top is refused at once.
        deadline_s: for a request that names none, and the longest it may name.
        max_upload_mb: of one request, in units of 2**20 bytes.
        max_pixels: of one picture, by its header.
        max_pictures: of one request.
        max_references: of one class. ``max_good_pictures``: of one class, to calibrate with.
        max_store_mb: of all stored pictures together, in units of 2**20 bytes.
        max_classes: classes that anything is stored of; and other names whose prompts are kept encoded: the one not
            asked for longest makes room for the next.
        max_batch: pictures in one call of the model at most.
        overlay_side: the longer side of an overlay at most, in pixels.
        drain_s: for what is queued when the service ends.
        body_timeout_s: for a request's body to arrive.
        hang_s: a model process that says nothing for so long while it is asked is ended and started again.
        load_s: for a model process to load and warm up; downloading weights counts.
        backoff_s: before a model process that ended is started again; doubled each time, up to ``most_backoff_s``.
        refuse_stale: do not start beside a stored calibration for another model: its class would have no verdict.
        page: serve the web page at ``/``.
        api_key_file: one key a line; None lets everyone in.
        tls_cert, tls_key: PEM files; both or none.

    Raises:
        SettingsError: a limit out of its range.
    """

    data: Path
    classes: tuple[str, ...] | None = None
    host: str = "127.0.0.1"
    port: int = 8080
    max_queue: int = 64
    deadline_s: float = 30.0
    max_upload_mb: float = 32.0
    max_pixels: int = 50_000_000
    max_pictures: int = 16
    max_references: int = 64
    max_good_pictures: int = 10_000
    max_store_mb: float = 4096.0
    max_classes: int = 1_000
    max_batch: int = 32
    overlay_side: int = 1024
    drain_s: float = 30.0
    body_timeout_s: float = 20.0
    hang_s: float = 120.0
    load_s: float = 1_800.0
    backoff_s: float = 0.5
    most_backoff_s: float = 30.0
    refuse_stale: bool = False
    page: bool = True
    allowed_hosts: tuple[str, ...] = ()
    api_key_file: Path | None = None
    tls_cert: Path | None = None
    tls_key: Path | None = None

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
