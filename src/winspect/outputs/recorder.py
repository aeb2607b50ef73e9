"""Results on disk as they come: ``predictions.jsonl``, heat maps, raw maps, and at the end ``predictions.csv``.

A row is written when everything it names is on disk, in input order, and flushed at once: whatever stops a run,
the rows that are there are whole, and ``--resume`` goes on behind them.
"""

from __future__ import annotations

import csv
import json
from collections import deque
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, TextIO, cast

import numpy as np

from winspect.calibration.verdict import verdict_of
from winspect.errors import OutputError
from winspect.methods.result import Result
from winspect.pictures.heatmaps import UNIT_RANGE, ScoreRange, judged_overlay, save_png
from winspect.system.files import MAPS_FOLDER, make_folder, output_error, replacing
from winspect.system.opening import open_file, open_text
from winspect.system.run_folder import begin, differences, read_identity
from winspect.system.terminal import cell

if TYPE_CHECKING:
    from winspect.calibration import Calibration, Defects, RegionRule

ROWS_FILE, TABLE_FILE, RUN_FILE = "predictions.jsonl", "predictions.csv", "run.json"
COCO_FILE = "defects.coco.json"
COLUMNS = ("path", "class", "anomaly_score", "verdict", "threshold", "map", "error", "warning")
MASK_ENDING = "_mask.png"

# Heat maps under way at a time; bounds memory when writing is slower than judging.
_WRITERS = 2
_MOST_WAITING = 8


def to_row(
    result: Result,
    *,
    threshold: float | None = None,
    calibration: Calibration | None = None,
    regions: RegionRule | None = None,
    map_file: str | None = None,
) -> dict[str, Any]:
    """A result as a row of ``predictions.jsonl``. The verdict is null without a threshold.

    Args:
        threshold: scores from here on are anomalous; in place of the calibration's.
        calibration: scores above its threshold are anomalous; it adds ``p_value`` to the row.
        regions: which defects get boxes; ``boxes`` are null without it, and without maps.
    """
    verdict: str | None = None
    p_value: dict[str, float | None] = {}
    if calibration is not None:
        decision = calibration.decide(result)
        p_value = {"p_value": decision.p_value}
        if threshold is None:
            verdict, threshold = decision.verdict, decision.threshold
    if verdict is None and result.anomaly_score is not None and threshold is not None:
        verdict = verdict_of(result.anomaly_score, threshold, anomalous_at=True)
    error = result.error and {"type": type(result.error).__name__, "message": str(result.error)}
    return {
        "path": result.path,
        "class": result.category_name,
        "anomaly_score": result.anomaly_score,
        "verdict": verdict,
        "threshold": threshold,
        "boxes": boxes_of(None if regions is None else regions.find(result, verdict)),
        "map": map_file,
        "error": error,
        "warning": result.warning,
        **p_value,
    }


def overlay_of(result: Result, row: Mapping[str, Any], score_range: ScoreRange | None) -> np.ndarray:
    """The heat map over a result's picture, with what its row says, as :func:`judged_overlay` draws it."""
    if result.picture_rgb is None or result.anomaly_map is None:
        raise ValueError(f"{result.path}: a result without its picture and its maps has no overlay")
    said = {"score": row["anomaly_score"], "verdict": row["verdict"], "boxes": row["boxes"]}
    return judged_overlay(result.picture_rgb, result.anomaly_map, score_range, **said)


def boxes_of(defects: Defects | None) -> list[list[int]] | None:
    """``boxes`` of a row: x0, y0, x1, y1 in pixels of each region, the last two exclusive; null for none looked for."""
    return None if defects is None else [list(box) for box in defects.boxes]


class Recorder:
    """Writes the results of one run into a folder. Use it in a with-block.

    Args:
        folder: made when it is not there; :func:`winspect.system.run_folder.locked` keeps other runs from it.
        run: what was run: model, weights, recipe, class, references. Kept in ``run.json``; resuming compares it.
        overlays: write a heat map over each picture to ``maps/``.
        raw_maps: write each map as float32 ``.npz`` (``anomaly_map``: height x width) to ``maps/``.
        threshold, calibration: what decides; see :func:`to_row`.
        regions: which defects get ``boxes`` in the rows, and a ``mask`` in ``maps/``; None for none.
        score_range: of the heat maps' colours; None stretches them to each picture.
        resume: keep the rows that are there.

    Attributes:
        done: paths of the rows that were there; ``failed``: how many of them have an error; ``warned``: a warning.
        written: rows in the file, those included.

    Raises:
        OutputError: the folder cannot be written, or it holds another run and ``resume`` was asked for.
    """

    def __init__(
        self,
        folder: Path,
        run: dict[str, Any],
        *,
        overlays: bool = True,
        raw_maps: bool = False,
        threshold: float | None = None,
        calibration: Calibration | None = None,
        regions: RegionRule | None = None,
        score_range: ScoreRange | None = UNIT_RANGE,
        resume: bool = False,
    ) -> None:
        self.folder = make_folder(folder)
        self.overlays, self.raw_maps, self.threshold = overlays, raw_maps, threshold
        self.calibration = calibration
        self.regions, self.score_range = regions, score_range
        run = json.loads(json.dumps(run))
        if resume:
            _check_same_run(folder, run)
        self.done, self.failed, self.warned = _whole_rows(folder / ROWS_FILE) if resume else ([], 0, 0)
        earlier = {"empty": [folder / ROWS_FILE], "remove": [folder / TABLE_FILE, folder / COCO_FILE]}
        begin(folder / RUN_FILE, run, **({} if resume else earlier))
        if overlays or raw_maps or regions:
            make_folder(folder / MAPS_FOLDER)
        self.written = self._count = len(self.done)
        self._waiting: deque[Future[None]] = deque()
        self._is_whole = True  # no row has failed to be written: the next may follow

    def __enter__(self) -> Recorder:
        path = self.folder / ROWS_FILE
        try:
            self._rows: TextIO = _open_text(path, "a" if self.done else "w")
        except OSError as error:
            raise output_error(path, error) from error
        self._writers = ThreadPoolExecutor(_WRITERS, thread_name_prefix="winspect-writer")
        # One thread keeps the rows in order; and Ctrl-C, which reaches the main thread alone, cannot cut a row.
        self._scribe = ThreadPoolExecutor(1, thread_name_prefix="winspect-scribe")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            # After an interruption what was judged before it is kept; after an error in writing nothing more can be.
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
            self._write_table()

    def add(
        self,
        result: Result,
        *,
        score_range: ScoreRange | None = None,
        extra: Mapping[str, Any] | None = None,
    ) -> dict[str, Any]:
        """Take the next result, and return its row, which reaches the file once its maps are written.

        Args:
            score_range: of this heat map's colours, in place of the run's.
            extra: further entries of the row.
        """
        has_overlay = self.overlays and result.picture_rgb is not None
        has_map = result.error is None and (has_overlay or self.raw_maps)
        stem = f"{self._count:06d}_{short_stem(result.path)}"
        name = f"{MAPS_FOLDER}/{stem}.{'png' if has_overlay else 'npz'}" if has_map else None
        row = to_row(result, threshold=self.threshold, calibration=self.calibration, map_file=name)
        mask = None
        if self.regions is not None:
            defects = self.regions.find(result, row["verdict"])
            mask = None if defects is None else defects.mask
            row["mask"] = None if defects is None else f"{MAPS_FOLDER}/{stem}{MASK_ENDING}"
            row["boxes"] = boxes_of(defects)
        row.update(extra or {})
        self._count += 1
        maps = self._writers.submit(self._write_maps, result, stem, score_range or self.score_range, mask, row)
        self._waiting.append(self._scribe.submit(self._write_row, row, maps))
        self._wait(leave=_MOST_WAITING)
        return row

    def _write_maps(
        self, result: Result, stem: str, score_range: ScoreRange | None, mask: np.ndarray | None, row: dict[str, Any]
    ) -> None:
        if result.anomaly_map is None:
            return
        folder = self.folder / MAPS_FOLDER
        if self.overlays and result.picture_rgb is not None:
            save_png(overlay_of(result, row, score_range), folder / f"{stem}.png")
        if self.raw_maps:
            with replacing(folder / f"{stem}.npz") as temporary, temporary.open("wb") as file:
                np.savez_compressed(file, anomaly_map=result.anomaly_map)
        if mask is not None:
            save_png(mask.astype(np.uint8) * 255, folder / f"{stem}{MASK_ENDING}")

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
            self._rows.write(json.dumps(row, ensure_ascii=False) + "\n")
            self._rows.flush()
        except OSError as error:
            raise output_error(self.folder / ROWS_FILE, error) from error
        self.written += 1
        self._is_whole = True

    def _write_table(self) -> None:
        rows = self.folder / ROWS_FILE
        columns = COLUMNS if self.calibration is None else (*COLUMNS, "p_value")
        with (
            replacing(self.folder / TABLE_FILE) as temporary,
            _open_text(temporary, "w", newline="") as file,
        ):
            table = csv.writer(file)
            table.writerow(columns)
            with open_text(rows) as lines:
                for line in lines:
                    row = json.loads(line)
                    row["error"] = row["error"] and row["error"]["message"]
                    table.writerow([cell(row.get(column)) for column in columns])


def _open_text(path: Path, mode: str, newline: str | None = None) -> TextIO:
    # File names may hold bytes that are no UTF-8; what Python makes of them can be written escaped, as JSON does too.
    return cast(TextIO, path.open(mode, encoding="utf-8", errors="backslashreplace", newline=newline))


def short_stem(path: str) -> str:
    """The name of a picture without its ending, short enough to be part of a file name on any system."""
    return Path(path).stem.encode("utf-8", "replace")[:80].decode("utf-8", "ignore")


def _check_same_run(folder: Path, run: dict[str, Any]) -> None:
    path, fix = folder / RUN_FILE, "start again without --resume"
    earlier = read_identity(path, fix=fix)
    if earlier is None and (folder / ROWS_FILE).exists():
        raise OutputError(f"{folder}: holds rows, but no {RUN_FILE} that says of which run; {fix}")
    # Good samples are those of the same contents, wherever they lie.
    ignore = ("references",) if "references_sha256" in run else ()
    if earlier is not None and (different := differences(earlier, run, ignore=ignore)):
        raise OutputError(
            f"{path}: this folder holds another run (different {', '.join(different)}); choose another --out, or {fix}"
        )


def _whole_rows(path: Path) -> tuple[list[str], int, int]:
    """The paths of the rows in a file, how many failed and how many have a warning; a cut last line is removed."""
    done, failed, warned, whole = [], 0, 0, 0
    try:
        with open_file(path) as lines:
            for line in lines:
                if not line.endswith(b"\n"):
                    break
                row = json.loads(line)
                done.append(row["path"])
                failed += row["error"] is not None
                warned += row.get("warning") is not None
                whole += len(line)
        with path.open("r+b") as file:
            file.truncate(whole)
    except FileNotFoundError:
        return [], 0, 0
    except (ValueError, KeyError, TypeError) as error:
        raise OutputError(
            f"{path}: line {len(done) + 1} is not a row of predictions; start again without --resume"
        ) from error
    except OSError as error:
        raise output_error(path, error) from error
    return done, failed, warned


def still_to_do(pictures: Sequence[Path], recorder: Recorder) -> Sequence[Path]:
    """The pictures behind those that a resumed run has judged already.

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
