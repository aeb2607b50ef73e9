"""Every error winspect raises on purpose, in one tree.

::

    WinspectError
    ├── UsageError                 the call is wrong; nothing was started (exit code 2)
    │   ├── SettingsError          a setting out of range, an unknown recipe, a bad YAML file
    │   ├── ClassNameError         a class name that cannot be put into a prompt
    │   ├── ReferencesError        too few, or unusable, reference pictures
    │   ├── SourceError            no pictures found, a path that is not there
    │   ├── OutputError            the output folder cannot be written, or is full
    │   ├── FeedbackError          an answer about a picture that is unknown, or has nothing to answer
    │   │   ├── UnknownPictureError  no judged picture has this id or path
    │   │   └── AlreadyJudgedError an answer about a picture that has one, or none to undo
    │   ├── AuditLogError          an audit log that is missing, or was cut or altered; names the line
    │   ├── DeviceError            a device that is unknown or not there
    │   ├── PrecisionError         a precision that is unknown or not to be had on this device
    │   ├── EngineError            an engine that is unknown or not installed
    │   │   └── EngineBuildError   an engine that is installed, but cannot build this model's graph
    │   ├── ForkError              a model is used in a process that was forked after it was loaded
    │   ├── BundleError            an edge bundle that is damaged, foreign, or without the class asked for
    │   ├── ClusterError           a Ray cluster that cannot be reached, or whose machines cannot do the job
    │   └── MissingExtraError      an optional dependency is not installed; names the extra
    ├── PictureError               one picture cannot be used; the run goes on with the others
    │   └── DemandingPictureError  its decoding takes too long for the place that was asked
    ├── WeightsError               the weights cannot be had or used
    │   ├── WeightsMissingError    not on this machine and not to be fetched
    │   ├── WeightsCorruptError    unreadable, truncated, or the hash is wrong
    │   ├── WeightsMismatchError   the file belongs to another architecture
    │   ├── UnsafeWeightsError     the file holds pickled code; it was not run
    │   └── ArchitectureError      an unknown architecture, or one that no recipe can use
    └── DeviceMemoryError          one picture alone does not fit into the device's memory

``UsageError`` is also a ``ValueError``, and ``PictureError`` an ``OSError``, so that code written for
the standard library's exceptions keeps working.
"""

from __future__ import annotations

from os import PathLike, fspath


class WinspectError(Exception):
    """Base of every error raised on purpose. The message says what came, what was wanted, and the fix."""


class UsageError(WinspectError, ValueError):
    """The call is wrong. Nothing was started."""


class SettingsError(UsageError):
    """A setting is out of its range, unknown, or its file cannot be read."""


class ClassNameError(UsageError):
    """A class name that cannot be put into a prompt."""


class ReferencesError(UsageError):
    """Reference pictures are missing, fewer than asked for, or unreadable."""


class SourceError(UsageError):
    """No pictures were found where they were looked for."""


class OutputError(UsageError):
    """The place for results cannot be written."""


class FeedbackError(UsageError):
    """An answer about a picture that is unknown, or that could not be scored."""


class UnknownPictureError(FeedbackError):
    """No judged picture has the id or path that was given."""


class AlreadyJudgedError(FeedbackError):
    """A picture has an answer already, or none to undo. Nothing is lost: the log has what was answered."""


class AuditLogError(UsageError):
    """An audit log that is missing, or was cut or altered. The message names the line."""


class DeviceError(UsageError):
    """A device that is unknown or not on this machine."""


class PrecisionError(UsageError):
    """A precision that is unknown, or that this engine or device does not have."""


class EngineError(UsageError):
    """An engine that is unknown or cannot run here."""


class EngineBuildError(EngineError):
    """An engine that is installed, but cannot build this model's graph."""


class ForkError(UsageError):
    """A model is used in a process that was forked after it was loaded."""


class BundleError(UsageError):
    """An edge bundle that is missing, damaged or foreign, or does not hold the class asked for."""


class ClusterError(UsageError):
    """A Ray cluster that cannot be reached, or whose machines cannot do the job."""


class MissingExtraError(UsageError):
    """An optional dependency is not installed. The message names the extra that brings it."""


class PictureError(WinspectError, OSError):
    """One picture cannot be used. ``path`` names it; the other pictures of a run go on.

    Args:
        path: the file, or a word for a picture that has none (``"<array>"``).
        reason: what is wrong and what to do about it, without the path.
    """

    def __init__(self, path: str | PathLike[str], reason: str) -> None:
        self.path = fspath(path)
        self.reason = reason
        super().__init__(f"{self.path}: {reason}")

    def __reduce__(self) -> tuple[type[PictureError], tuple[str, str]]:
        # OSError's own way of pickling knows one argument only; worker processes send these errors home.
        return type(self), (self.path, self.reason)


class DemandingPictureError(PictureError):
    """A picture that, by its header, takes longer to decode than was allowed here. Nothing was decoded."""


class WeightsError(WinspectError):
    """The weights cannot be had or used."""


class WeightsMissingError(WeightsError):
    """The weights are not on this machine and could not be fetched."""


class WeightsCorruptError(WeightsError):
    """The weights file is unreadable or truncated, or its hash is not the expected one."""


class WeightsMismatchError(WeightsError):
    """The tensors in the file are not those of the architecture."""


class UnsafeWeightsError(WeightsError):
    """The weights file holds pickled code. It was not run."""


class ArchitectureError(WeightsError):
    """An architecture that is unknown, or that no recipe can use."""


class DeviceMemoryError(WinspectError):
    """Not even one picture fits into the device's memory."""
