"""The history of a product: a line for each revision, in a log beside the product that only grows.

It is an audit log (:mod:`winspect.feedback.chain`) in a folder of its own: each line has the hash of the one before.
"""

from __future__ import annotations

import getpass
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from winspect.errors import SettingsError
from winspect.feedback.chain import AuditLog
from winspect.feedback.verifying import verify
from winspect.system.entries import entry

EVENT = "product"
_ENDING = ".history"
_NOTHING = object()


@dataclass(frozen=True)
class Change:
    """An entry that differs between two revisions.

    Attributes:
        key: as in ``model.recipe``; ``file good/1.png`` for the hash of a file.
        before, after: as JSON has them; None for what is not there.
    """

    key: str
    before: Any
    after: Any

    def in_words(self) -> str:
        """The entry with both values."""
        return f"{self.key}: {_words(self.before)} -> {_words(self.after)}"


@dataclass(frozen=True)
class HistoryEntry:
    """What was recorded of a revision.

    Attributes:
        time: ISO 8601, UTC.
        user: name of the system's user.
        verb: what recorded it, as in ``product check --update``.
        revision: that was made.
        changes: against the revision before.
        document, files: the product then, and the hashes of its files.
    """

    time: str
    user: str
    verb: str
    revision: int
    changes: tuple[Change, ...]
    document: Mapping[str, Any]
    files: Mapping[str, str]

    def line(self) -> dict[str, Any]:
        """The entry, as the log has it."""
        return {"event": EVENT, **asdict(self)}

    @classmethod
    def now(
        cls, verb: str, document: Mapping[str, Any], files: Mapping[str, str], before: HistoryEntry | None
    ) -> HistoryEntry:
        """The entry of a change that is made now.

        Args:
            before: the entry of the revision before; None for a new product.
        """
        known = ({}, {}) if before is None else (before.document, before.files)
        found = () if before is None else tuple(changes(*known, document, files))
        moment = datetime.now(timezone.utc).isoformat(timespec="seconds")
        return cls(moment, user_name(), verb, document["revision"], found, document, files)


def history_log(product: Path) -> AuditLog:
    """The log of a product's history, in a folder beside it."""
    return AuditLog(product.with_name(product.stem + _ENDING))


def history_folder(product: Path) -> Path:
    """The folder of a product's history."""
    return product.with_name(product.stem + _ENDING)


def read_history(product: Path) -> list[HistoryEntry]:
    """The entries, oldest first; none where there is no history.

    Raises:
        SettingsError: the file cannot be read, or a line was altered, removed, inserted or cut; names the line.
    """
    folder = history_folder(product)
    log = history_log(product)
    if not log.is_there:
        return []
    fix = "restore the folder, or move it away to begin a new history"
    if problems := verify(folder).problems:
        first = problems[0]
        raise SettingsError(f"{folder}: {first.file}, line {first.line}: {first.message}; {fix}")
    try:
        return [_read(entry) for entry in log.new_entries() if entry["event"] == EVENT]
    except (SettingsError, TypeError, KeyError) as error:
        raise SettingsError(f"{folder}: no history of a product ({error}); {fix}") from error


def _read(document: Mapping[str, Any]) -> HistoryEntry:
    found = [
        Change(entry(change, "key", str), change["before"], change["after"])
        for change in entry(document, "changes", list)
    ]
    return HistoryEntry(
        time=entry(document, "time", str),
        user=entry(document, "user", str),
        verb=entry(document, "verb", str),
        revision=entry(document, "revision", int),
        changes=tuple(found),
        document=entry(document, "document", dict),
        files=entry(document, "files", dict),
    )


def changes(
    document: Mapping[str, Any], files: Mapping[str, str], now: Mapping[str, Any], files_now: Mapping[str, str]
) -> list[Change]:
    """The entries in which a product differs from an earlier one, but for the revision; by key."""
    before, after = (
        {**_flat(each), **{f"file {name}": sha256 for name, sha256 in hashes.items()}}
        for each, hashes in ((document, files), (now, files_now))
    )
    keys = [key for key in dict.fromkeys((*before, *after)) if key != "revision"]
    return [
        Change(key, before.get(key), after.get(key))
        for key in keys
        if before.get(key, _NOTHING) != after.get(key, _NOTHING)
    ]


def user_name() -> str:
    """Name of the user who runs the program, as the system has it; ``unknown`` where it has none."""
    try:
        return getpass.getuser()
    except (OSError, KeyError, ImportError):
        return "unknown"


def _flat(document: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in document.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) and value else {f"{prefix}{key}": value}
    return flat


def _words(value: Any) -> str:
    return "none" if value is None else value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
