"""Rows: a judgement as an entry of ``--json`` and of the service's replies, and the folder that keeps those of a run.

The folder holds ``predictions.jsonl``, heat maps, raw maps, and at the end ``predictions.csv``. A row is written when
everything it names is on disk, in input order, and flushed at once: whatever stops a run, the rows that are there are
whole, and ``--resume`` goes on behind them.
"""

from __future__ import annotations

import csv
import json
import mmap
import os
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from winspect.calibration.judgement import DecisionRule, Judgement
from winspect.errors import OutputError
from winspect.methods.identity import differences, listed
from winspect.methods.result import Result
from winspect.outputs.maps import MapFiles, short_stem
from winspect.pictures.heatmaps import UNIT_RANGE, ScoreRange
from winspect.system.files import MAPS_FOLDER, make_folder, output_error, replacing
from winspect.system.opening import open_file
from winspect.system.run_folder import begin, read_identity
from winspect.system.terminal import cell

ROWS_FILE, TABLE_FILE, RUN_FILE = "predictions.jsonl", "predictions.csv", "run.json"
COCO_FILE, REPORT_FILE = "defects.coco.json", "report.html"

COLUMNS = ("path", "class", "anomaly_score", "verdict", "threshold", "map", "error", "warning")
"""Columns of ``predictions.csv``."""
REASONS = ("review_threshold", "reason")
"""Entries of rows, and further columns, where there is a verdict ``review`` or rules."""


def row_of(judgement: Judgement, *, map_file: str | None = None) -> dict[str, Any]:
    """A judgement as a row; ``p_value`` is there where a calibration was asked, ``parts`` where scores were combined,
    ``review_threshold`` and ``reason`` where there is a verdict ``review`` or rules,
    ``product`` where a product decides.

    Args:
        map_file: of the heat map or the raw map, as rows name it.
    """
    result = judgement.result
    return {
        "path": result.path,
        "class": result.category_name,
        "anomaly_score": result.anomaly_score,
        "verdict": judgement.verdict,
        "threshold": judgement.threshold,
        "boxes": judgement.boxes,
        "map": map_file,
        "error": None if result.error is None else error_entry(result.error),
        "warning": result.warning,
        **({"p_value": judgement.p_value} if judgement.is_calibrated else {}),
        **({name: getattr(judgement, name) for name in REASONS} if judgement.is_explained else {}),
        **({"parts": dict(result.parts)} if result.parts else {}),
        **({"alignment": result.alignment.document()} if result.alignment else {}),
        **({"product": asdict(judgement.product)} if judgement.product else {}),
    }


def error_entry(error: BaseException) -> dict[str, str]:
    """An error as rows have it."""
    return {"type": type(error).__name__, "message": str(error)}


def line_of(row: Mapping[str, Any]) -> bytes:
    """A row as a line of JSON. File names may hold bytes that are not UTF-8: they are written as escapes."""
    return (json.dumps(row, ensure_ascii=False) + "\n").encode("utf-8", "backslashreplace")


def read_rows(path: Path, start: int = 0) -> Iterator[tuple[dict[str, Any], int]]:
    """Rows of a file, each with the byte at which it ends. A last line without its end is none.

    Args:
        start: byte to read from; where the file is shorter, from its beginning.

    Raises:
        ValueError: a line is not JSON; names the byte at which it ends.
    """
    with open_file(path) as file:
        end = file.seek(start if start < path.stat().st_size else 0)
        for line in file:
            end += len(line)
            if not line.endswith(b"\n"):
                return
            try:
                row = json.loads(line)
            except ValueError as error:
                raise ValueError(f"not a row of predictions at byte {end}") from error
            yield row, end


def remove_cut_line(path: Path) -> int:
    """Remove a last line without its end, as a killed run leaves it; returns its number of bytes."""
    with path.open("r+b") as file:
        size = end = file.seek(0, os.SEEK_END)
        if size:
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
                end = content.rfind(b"\n") + 1
            file.truncate(end)
    return size - end


@dataclass
class Counts:
    """Numbers of rows: all, those with the verdict ``anomalous``, with an error, with a warning, to ``review``."""

    rows: int = 0
    anomalous: int = 0
    failed: int = 0
    warned: int = 0
    review: int = 0

    def add(self, row: Mapping[str, Any]) -> None:
        """Count a row."""
        self.rows += 1
        self.anomalous += row.get("verdict") == "anomalous"
        self.review += row.get("verdict") == "review"
        self.failed += row["error"] is not None
        self.warned += row.get("warning") is not None


def count_of_verdicts(counts: Counts) -> str:
    """Pictures with a verdict other than normal, in words.

    >>> count_of_verdicts(Counts(rows=9, anomalous=2)), count_of_verdicts(Counts(rows=9, anomalous=2, review=1))
    ('2 anomalous', '2 anomalous, 1 to review')
    """
    return f"{counts.anomalous:,} anomalous" + (f", {counts.review:,} to review" if counts.review else "")


def count_of_warnings(number: int) -> str:
    """The end of a summary line, empty where there are none.

    >>> count_of_warnings(1), count_of_warnings(3), count_of_warnings(0)
    (', 1 picture with a warning', ', 3 pictures with a warning', '')
    """
    return f", {number:,} picture{'s' * (number != 1)} with a warning" if number else ""


class Recorder:
    """Writes the results of one run into a folder. Use it in a with-block.

    Args:
        folder: made when it is not there; :func:`winspect.system.run_folder.locked` keeps other runs from it.
        run: model, weights, recipe, class, references, ... Kept in ``run.json``; resuming compares it.
        rule: what decides; its regions get ``boxes`` in the rows, and a ``mask`` in ``maps/``.
        overlays: write a heat map over each picture to ``maps/``.
        raw_maps: write each map as float32 ``.npz`` (``anomaly_map``: height x width) to ``maps/``.
        score_range: of the heat maps' colours; None stretches them to each picture.
        resume: keep the rows that are there.

    Attributes:
        done: paths of the rows that were there; ``counts``: of these rows.
        written: number of rows in the file, those included.

    Raises:
        OutputError: the folder cannot be written, or it holds another run and ``resume`` was asked for.
    """

    WRITERS, MOST_WAITING = 2, 8  # heat maps under way: bounds memory when writing is slower than scoring

    def __init__(
        self,
        folder: Path,
        run: Mapping[str, Any],
        *,
        rule: DecisionRule | None = None,
        overlays: bool = True,
        raw_maps: bool = False,
        score_range: ScoreRange | None = UNIT_RANGE,
        resume: bool = False,
    ) -> None:
        self.folder = make_folder(folder)
        self.rule, self.score_range = rule or DecisionRule(), score_range
        self.maps = MapFiles(folder, overlays=overlays, raw_maps=raw_maps, masks=self.rule.regions is not None)
        run = json.loads(json.dumps(run))
        if resume:
            _check_same_run(folder, run)
        self.done, self.counts = _earlier_rows(folder / ROWS_FILE) if resume else ([], Counts())
        earlier = {
            "empty": [folder / ROWS_FILE],
            "remove": [folder / name for name in (TABLE_FILE, COCO_FILE, REPORT_FILE)],
        }
        begin(folder / RUN_FILE, run, **({} if resume else earlier))
        if overlays or raw_maps or self.maps.masks:
            make_folder(folder / MAPS_FOLDER)
        self.written = self._count = len(self.done)
        self._waiting: deque[Future[None]] = deque()
        self._is_whole = True  # no row has failed to be written: the next may follow

    def __enter__(self) -> Recorder:
        path = self.folder / ROWS_FILE
        try:
            self._rows = path.open("ab" if self.done else "wb")
        except OSError as error:
            raise output_error(path, error) from error
        self._writers = ThreadPoolExecutor(self.WRITERS, thread_name_prefix="winspect-writer")
        # One thread keeps the rows in order; and Ctrl-C, which reaches the main thread alone, cannot cut a row.
        self._scribe = ThreadPoolExecutor(1, thread_name_prefix="winspect-scribe")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            # After an interruption what was scored before it is kept; after an error in writing nothing more can be.
            if not isinstance(error, OutputError):
                self._wait(leave=0)
        finally:
            self._writers.shutdown(wait=True, cancel_futures=True)
            self._scribe.shutdown(wait=True)
            try:
                self._rows.close()
            except OSError as close_error:
                if error is None:
                    raise output_error(self.folder / ROWS_FILE, close_error) from close_error
        if error is None:
            rows = (row for row, _ in read_rows(self.folder / ROWS_FILE))
            columns = columns_of(with_p_values=self.rule.calibration is not None, with_reasons=self.rule.is_explained)
            write_table(self.folder / TABLE_FILE, columns, messages_of(rows))

    def add(
        self, result: Result, *, score_range: ScoreRange | None = None, extra: Mapping[str, Any] | None = None
    ) -> dict[str, Any]:
        """Take the next result, and return its row, which reaches the file once its maps are written.

        Args:
            score_range: of this heat map's colours, in place of the run's.
            extra: further entries of the row.
        """
        stem = f"{MAPS_FOLDER}/{self._count:06d}_{short_stem(result.path)}"
        judgement = self.rule.decide(result)
        row = row_of(judgement, map_file=self.maps.map_name(judgement, stem))
        if self.maps.masks:
            row["mask"] = self.maps.mask_name(judgement, stem)
        row.update(extra or {})
        self._count += 1
        maps = self._writers.submit(self.maps.write, judgement, stem, score_range or self.score_range)
        self._waiting.append(self._scribe.submit(self._write_row, row, maps))
        self._wait(leave=self.MOST_WAITING)
        return row

    def _wait(self, leave: int) -> None:
        while len(self._waiting) > leave:
            self._waiting[0].result()
            self._waiting.popleft()

    def _write_row(self, row: dict[str, Any], maps: Future[None]) -> None:
        if not self._is_whole:
            return
        self._is_whole = False
        maps.result()
        try:
            self._rows.write(line_of(row))
            self._rows.flush()
        except OSError as error:
            raise output_error(self.folder / ROWS_FILE, error) from error
        self.written += 1
        self._is_whole = True


def columns_of(*, with_p_values: bool, with_reasons: bool = False) -> tuple[str, ...]:
    """Columns of a table of rows."""
    return (*COLUMNS, *(("p_value",) if with_p_values else ()), *(REASONS if with_reasons else ()))


def messages_of(rows: Iterable[Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
    """The rows of a table, in which an error is its message."""
    return ({**row, "error": row["error"] and row["error"]["message"]} for row in rows)


def write_table(
    path: Path, columns: Sequence[str], rows: Iterable[Mapping[str, Any]], *, with_bom: bool = False
) -> None:
    """Write rows as CSV, atomically, in UTF-8; see :func:`winspect.system.terminal.cell`.

    Args:
        with_bom: begin with a byte order mark, by which Excel knows UTF-8 when a double click opens the file.

    Raises:
        OutputError: the file cannot be written.
    """
    with (
        replacing(path) as temporary,
        # File names may hold bytes that are not UTF-8; what Python makes of them is written as escapes.
        temporary.open(
            "w", encoding="utf-8-sig" if with_bom else "utf-8", errors="backslashreplace", newline=""
        ) as file,
    ):
        table = csv.writer(file)
        table.writerow(columns)
        table.writerows([cell(row.get(column)) for column in columns] for row in rows)


def _check_same_run(folder: Path, run: Mapping[str, Any]) -> None:
    path, fix = folder / RUN_FILE, "start again without --resume"
    earlier = read_identity(path, fix=fix)
    if earlier is None and (folder / ROWS_FILE).exists():
        raise OutputError(f"{folder}: holds rows, but no {RUN_FILE} that says of which run; {fix}")
    if earlier is not None and (different := differences(earlier, run)):
        raise OutputError(
            f"{path}: this folder holds another run (different {listed(different)}); choose another --out, or {fix}"
        )


def _earlier_rows(path: Path) -> tuple[list[str], Counts]:
    """The paths of the rows in a file, and their counts; a cut last line is removed."""
    done, counts = [], Counts()
    try:
        for row, _ in read_rows(path):
            done.append(row["path"])
            counts.add(row)
        remove_cut_line(path)
    except FileNotFoundError:
        return [], Counts()
    except (ValueError, KeyError, TypeError) as error:
        raise OutputError(
            f"{path}: line {counts.rows + 1} is not a row of predictions; start again without --resume"
        ) from error
    except OSError as error:
        raise output_error(path, error) from error
    return done, counts


def still_to_do(pictures: Sequence[Path], recorder: Recorder) -> Sequence[Path]:
    """The pictures behind those that a resumed run has scored already.

    Raises:
        OutputError: the rows are not those of the first pictures.
    """
    done = recorder.done
    if done != [str(picture) for picture in pictures[: len(done)]]:
        raise OutputError(
            "the pictures are not those of the run to go on with (some were added, removed or renamed); "
            "choose another --out, or start again without --resume"
        )
    return pictures[len(done) :]
