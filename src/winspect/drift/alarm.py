"""The object that takes rows, of any number of lines, and says when a line has drifted, since when, and where it shows.

What it cannot keep now, as on a full disk, it leaves out: the inspection goes on, :attr:`DriftAlarm.trouble` says so,
and the guarantee holds, for which pictures are left out has nothing to do with what is in them.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
import sqlite3
import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from winspect.drift.line import MOST_VALUES, Line, LineState, values_of
from winspect.drift.ranks import OnlineRanks
from winspect.drift.report import exposition
from winspect.drift.settings import DriftSettings
from winspect.drift.state import FILE, DriftFile, Kept, Seen
from winspect.errors import OutputError
from winspect.system.files import make_folder, output_error, write_file, write_json

logger = logging.getLogger(__name__)

REPORT_FILE, METRICS_FILE = "drift.json", "drift.prom"
_REPORT_EVERY = 100  # pictures
MOST_SHOWN = 8
"""Pictures that show an alarm."""
_MOST_LOADED = 32  # lines whose ranks are in memory
_ROUNDING_ONLY = ("engine", "device", "winspect")  # they move no score by more than rounding


def identity_of(document: Mapping[str, Any]) -> str:
    """Digest of what a line is watched with: when it changes, the line begins a new life.

    Args:
        document: what scores and decides, as ``run.json`` has it; release, engine and device do not count.
    """
    text = json.dumps({name: value for name, value in document.items() if name not in _ROUNDING_ONLY}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def line_of(row: Mapping[str, Any]) -> str:
    """The line that a row belongs to: its class, and its camera where it has one."""
    return f"{row['class']} at {row['source']}" if row.get("source") else row["class"]


def utc_now() -> datetime:
    """The time, in UTC."""
    return datetime.now(timezone.utc)


@dataclass
class _Loaded:
    """A line in memory, with what is kept beside its state."""

    line: Line
    identity: str
    began: str

    def kept(self, state: LineState) -> Kept:
        return Kept(self.identity, self.began, state)


class DriftAlarm:
    """See the module. Any thread may call it.

    Args:
        folder: of ``drift.sqlite3``; made when it is not there.
        settings: what is watched.
        identity: of what scores and decides, see :func:`identity_of`.
        reports: also write ``drift.json`` and ``drift.prom`` there, for people and for the node exporter of Prometheus:
            when something happens, and every hundred pictures.
        clock: gives the time in UTC.
        most_values: see :data:`winspect.drift.line.MOST_VALUES`.

    Attributes:
        trouble: why the newest picture could not be kept; None when it was.
        left_out: how many could not be kept since this was made.

    Raises:
        OutputError: the folder cannot be written, or another process watches with it.
    """

    def __init__(
        self,
        folder: Path,
        settings: DriftSettings | None = None,
        *,
        identity: str = "",
        reports: bool = False,
        clock: Callable[[], datetime] = utc_now,
        most_values: int = MOST_VALUES,
    ) -> None:
        self.folder, self.settings = make_folder(folder), settings or DriftSettings()
        self.trouble: str | None = None
        self.left_out = 0
        self._identity, self._reports, self._clock, self._most_values = identity, reports, clock, most_values
        self._file = DriftFile(folder / FILE)
        self._lock = threading.Lock()
        self._loaded: OrderedDict[str, _Loaded] = OrderedDict()
        self._states = {name: kept for name in self._file.lines() if (kept := self._file.line(name)) is not None}

    def __enter__(self) -> DriftAlarm:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Write the reports for the last time, and close the file."""
        with self._lock:
            self._report()
            with suppress(sqlite3.Error):
                self._file.close()

    def take(
        self,
        row: Mapping[str, Any],
        statistics: Mapping[str, float] | None,
        *,
        identity: str | None = None,
        line: str | None = None,
    ) -> dict[str, Any] | None:
        """Take a picture into account.

        Args:
            row: as ``predictions.jsonl`` has it; ``time``, ``id`` and ``product`` where it has them.
            statistics: as :func:`winspect.pictures.statistics.picture_statistics` has them.
            identity: where it is another than at the beginning; another product or revision in the row is another
                identity, too. When it changes, the line begins a new life.
            line: what the picture belongs to; None for its class and its camera.

        Returns:
            The alarm, as :meth:`documents` has it, where this picture gives it; else None.
        """
        values = values_of(row, statistics)
        if not values:
            return None
        product = row.get("product") or {}
        whole = identity_of(
            {
                "with": self._identity if identity is None else identity,
                "settings": self.settings.document(),
                "product": [product.get("name"), product.get("revision")],
            }
        )
        time = row.get("time") or self._clock().isoformat(timespec="milliseconds")
        with self._lock:
            try:
                alarm = self._take(line or line_of(row), whole, Seen(time, row["path"], row.get("id"), values))
            except (sqlite3.Error, OSError, OutputError) as error:
                self._note_trouble(error)
                return None
            self.trouble = None
            return alarm

    def _take(self, name: str, identity: str, seen: Seen) -> dict[str, Any] | None:
        loaded = self._line(name, identity, seen.time)
        line, before = loaded.line, loaded.line.state
        after = line.after(seen.values)
        forget_before = after.pictures - self._most_values if line.begins_anew(after.pictures) else 0
        self._file.add(name, loaded.kept(after), seen, forget_before=forget_before)
        line.accept(after, seen.values)
        self._states[name] = loaded.kept(after)
        is_new = after.crossing is not None and before.crossing is None
        alarm = self._alarm(name) if is_new else None
        if alarm is not None:
            logger.warning("%s: %s", name, alarm_in_words(alarm))
        if is_new or after.pictures % _REPORT_EVERY == 1:
            self._report()
        return alarm

    def _line(self, name: str, identity: str, time: str) -> _Loaded:
        """The line in memory: the one there, the one that was kept, or a new life."""
        kept = self._states.get(name)
        if kept is None or kept.identity != identity:
            kept = self._new_life(name, identity, time, kept)
            self._loaded.pop(name, None)
        if name not in self._loaded:
            line = Line(name, self.settings, kept.state, self._most_values)
            for statistic in self.settings.statistics:
                line.ranks[statistic] = OnlineRanks(self._file.values(name, statistic, line.first_ranked))
            self._loaded[name] = _Loaded(line, kept.identity, kept.began)
            while len(self._loaded) > _MOST_LOADED:
                self._loaded.popitem(last=False)
        self._loaded.move_to_end(name)
        return self._loaded[name]

    def _new_life(self, name: str, identity: str, time: str, last: Kept | None) -> Kept:
        life = 1 if last is None else last.state.life + 1
        kept = Kept(identity, time, LineState.new(self.settings, life))
        self._file.begin(name, kept)
        self._states[name] = kept
        if last is not None:
            logger.warning("%s: product, calibration, model or settings have changed: drift is watched anew", name)
        return kept

    def reset(self, line: str | None = None) -> list[str]:
        """Begin a new life, as after the lamp was replaced; returns the lines that did.

        Args:
            line: None for all of them.

        Raises:
            OutputError: it cannot be written.
        """
        time = self._clock().isoformat(timespec="milliseconds")
        with self._lock:
            names = [name for name in self._states if line in (None, name)]
            for name in names:
                state = LineState.new(self.settings, self._states[name].state.life + 1)
                kept = Kept(self._states[name].identity, time, state)
                try:
                    self._file.begin(name, kept)
                except sqlite3.Error as error:
                    raise output_error(self.folder / FILE, OSError(0, str(error))) from error
                self._states[name] = kept
                self._loaded.pop(name, None)
            self._report()
        return names

    def _note_trouble(self, error: Exception) -> None:
        if self.trouble is None:
            logger.warning("%s: a picture is left out of the drift alarm: %s", self.folder / FILE, error)
        self.trouble = str(error)
        self.left_out += 1

    # -- what it says

    def in_words(self) -> str:
        """Alarms and trouble, for a line of status; empty for nothing."""
        with self._lock:
            alarms = [self._alarm(name, shown=0) for name in self._states]
        words = [alarm_in_words(alarm) for alarm in alarms if alarm is not None]
        if self.trouble is not None:
            words.append(f"{self.left_out} pictures left out of the drift alarm: {self.trouble}")
        return "; ".join(words)

    def documents(self, *, shown: int = MOST_SHOWN, newest: int = 0) -> list[dict[str, Any]]:
        """Every line: its life, its evidence by statistic, and its alarm.

        Args:
            shown: pictures of an alarm, at most. newest: newest pictures with their values, at most.
        """
        with self._lock:
            return [self._document(name, shown, newest) for name in sorted(self._states)]

    def _document(self, name: str, shown: int = MOST_SHOWN, newest: int = 0) -> dict[str, Any]:
        kept = self._states[name]
        statistics = {
            statistic: {
                "log10_martingale": martingale.log_capital / math.log(10),
                "direction": martingale.winner[0],
                "values": martingale.steps,
            }
            for statistic, martingale in kept.state.martingales.items()
        }
        pictures = {"newest": [_shown(seen) for seen in self._file.newest(name, newest)]} if newest else {}
        return {
            "line": name,
            "life": kept.state.life,
            "began": kept.began,
            "pictures": kept.state.pictures,
            "rate": self.settings.rate,
            "log10_bound": self.settings.log_bound / math.log(10),
            "statistics": statistics,
            "alarm": self._alarm(name, shown),
            **pictures,
        }

    def _alarm(self, name: str, shown: int = MOST_SHOWN) -> dict[str, Any] | None:
        """The alarm of a line: what moved, since when, noticed when, and the pictures that show it most.

        Where the file cannot be read now, the alarm is given without pictures.
        """
        state = self._states[name].state
        crossing = state.crossing
        if crossing is None:
            return None
        since, noticed, farthest = None, None, list[Seen]()
        with suppress(sqlite3.Error):
            since, noticed = (self._file.picture(name, number) for number in (crossing.since, crossing.number))
            farthest = self._file.farthest(name, crossing, shown) if shown else []
        return {
            "statistic": crossing.statistic,
            "direction": crossing.direction,
            "since": None if since is None else _shown(since),
            "noticed": None if noticed is None else _shown(noticed),
            "pictures_since": state.pictures - crossing.since + 1,
            "pictures": [_shown(seen) for seen in farthest],
        }

    def _report(self) -> None:
        if not self._reports:
            return
        with suppress(OutputError, sqlite3.Error):  # the next one will tell
            documents = [self._document(name) for name in sorted(self._states)]
            write_json(self.folder / REPORT_FILE, {"schema": 1, "lines": documents, **self._troubles()})
            write_file(self.folder / METRICS_FILE, exposition(documents, self.left_out))

    def _troubles(self) -> dict[str, Any]:
        return {"trouble": self.trouble, "left_out": self.left_out}


def alarm_in_words(alarm: Mapping[str, Any]) -> str:
    """An alarm in a sentence, as of :meth:`DriftAlarm.documents`."""
    since = alarm["since"]
    place = "" if since is None else f" since {since['time']} ({since['path']})"
    return f"DRIFT: {alarm['statistic']} {alarm['direction']}{place}, {alarm['pictures_since']} pictures"


def _shown(seen: Seen) -> dict[str, Any]:
    return {"time": seen.time, "path": seen.path, "id": seen.id, "values": dict(seen.values)}
