"""Results of many pictures: a list with tables and a page. No torch."""

from __future__ import annotations

import html
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

from PIL import Image

from winspect.errors import OutputError, WinspectError
from winspect.inspector.prediction import Prediction, decision_rule
from winspect.methods.result import Result
from winspect.outputs.predictions import THUMBNAIL, View, write_predictions
from winspect.outputs.rows import Counts, columns_of, count_of_verdicts, messages_of, row_of, write_table
from winspect.system.files import make_folder
from winspect.system.installation import need

if TYPE_CHECKING:
    from winspect.calibration import Calibration

_MOST_SHOWN = 20


class Results(Sequence[Prediction]):
    """Results in the order of their pictures: a sequence, of which a slice is one, too.

    A picture that could not be used has its place in it, with an ``error``; see :attr:`failed`.

    Args:
        results: of ``predict_many``, which is for more pictures than fit into memory, or any others.
        model: what scored them, for :meth:`report`: ``WinCLIP.describe()``.
    """

    def __init__(self, results: Iterable[Result], *, model: Mapping[str, Any] | None = None) -> None:
        self._items = tuple(result if isinstance(result, Prediction) else Prediction.of(result) for result in results)
        self.model = model

    def __len__(self) -> int:
        return len(self._items)

    @overload
    def __getitem__(self, place: int) -> Prediction: ...

    @overload
    def __getitem__(self, place: slice) -> Results: ...

    def __getitem__(self, place: int | slice) -> Prediction | Results:
        return self._with(self._items[place]) if isinstance(place, slice) else self._items[place]

    def __repr__(self) -> str:
        verdicts = [result.verdict for result in self if result.verdict is not None]
        counts = Counts(len(verdicts), verdicts.count("anomalous"), review=verdicts.count("review"))
        anomalous = count_of_verdicts(counts) if verdicts else "no verdicts"
        return f"{type(self).__name__}({len(self)} pictures, {anomalous}, {len(self.failed)} failed)"

    def _with(self, results: Iterable[Result]) -> Results:
        return Results(results, model=self.model)

    @property
    def failed(self) -> Results:
        """Those of pictures that could not be used."""
        return self._with(result for result in self if result.error is not None)

    def decide(
        self,
        *,
        threshold: float | None = None,
        calibration: Calibration | None = None,
        pixel_threshold: float | None = None,
        min_area: float | None = None,
        review: float | None = None,
        review_threshold: float | None = None,
        rules: str | os.PathLike[str] | None = None,
    ) -> Results:
        """The same results, decided on anew: see :meth:`Prediction.decide`."""
        more: dict[str, Any] = {"review": review, "review_threshold": review_threshold, "rules": rules}
        more["roi"] = next((result.roi for result in self), None)
        rule = decision_rule(threshold, calibration, pixel_threshold, min_area, **more)  # also without results
        return self._with(result.decided_by(rule) for result in self)

    def _rows(self) -> Iterator[dict[str, Any]]:
        return (row_of(result.judgement) for result in self)

    def _table(self) -> tuple[tuple[str, ...], Iterator[dict[str, Any]]]:
        """The columns, but for the files of maps, and the rows with errors in words."""
        judged = [result.judgement for result in self]
        columns = columns_of(
            with_p_values=any(each.is_calibrated for each in judged),
            with_reasons=any(each.is_explained for each in judged),
        )
        return tuple(name for name in columns if name != "map"), messages_of(self._rows())

    def to_pandas(self) -> Any:
        """A ``pandas.DataFrame``, a row for each picture; needs the extra ``tables``.

        Columns of ``predictions.csv``: path, class, anomaly_score, verdict, threshold, error, warning, p_value with a
        calibration, review_threshold and reason with a verdict ``review`` or rules; numbers as float64. NaN, or None in
        text, is what there is not.

        Raises:
            MissingExtraError: pandas is not installed.
        """
        pandas = need("pandas", "tables", job="to_pandas")
        columns, rows = self._table()
        frame = pandas.DataFrame([[row.get(name) for name in columns] for row in rows], columns=list(columns))
        numbers = [name for name in ("anomaly_score", "threshold", "p_value", "review_threshold") if name in columns]
        return frame.astype(dict.fromkeys(numbers, "float64"))

    def to_csv(self, path: str | os.PathLike[str], *, with_bom: bool = False) -> Path:
        """Write the same table as CSV, atomically, in UTF-8; folders are made.

        A spreadsheet takes no cell for a formula: see :func:`winspect.system.terminal.cell`.

        Args:
            with_bom: begin with a byte order mark, by which Excel knows UTF-8 when a double click opens the file.

        Raises:
            OutputError: a folder, or a place that cannot be written.
        """
        target = _file(path, "scores.csv")
        write_table(target, *self._table(), with_bom=with_bom)
        return target

    def report(self, path: str | os.PathLike[str], *, title: str = "Predictions") -> Path:
        """Write a page that stands alone: the most anomalous pictures with their heat maps, and the scores of all.

        Heat maps of pictures that were not kept are drawn on the files, which are read again. Needs the extra ``full``.

        Args:
            path: of the HTML file; folders are made.

        Raises:
            OutputError: a folder, or a place that cannot be written.
            MissingExtraError: jinja2 is not installed.
        """
        target = _file(path, "report.html")
        entries = ((row_of(result.judgement), partial(_view, result)) for result in self)
        return write_predictions(target, entries, title=title, model=self.model)

    def _repr_html_(self) -> str:
        """For notebooks: the first scores as a table."""
        columns, rows = self._table()
        shown = [row for row, _ in zip(rows, range(_MOST_SHOWN), strict=False)]
        head = "".join(f"<th>{html.escape(name)}</th>" for name in columns)
        body = "".join(f"<tr>{''.join(f'<td>{_cell(row.get(name))}</td>' for name in columns)}</tr>" for row in shown)
        more = f"<p>and {len(self) - len(shown)} more</p>" if len(self) > len(shown) else ""
        return f"<p>{html.escape(repr(self))}</p><table><tr>{head}</tr>{body}</table>{more}"


def _cell(value: Any) -> str:
    text = "" if value is None else f"{value:.4f}" if isinstance(value, float) else str(value)
    return html.escape(text)


def _file(path: str | os.PathLike[str], example: str) -> Path:
    """The file to write, in a folder that is there."""
    target = Path(path)
    if target.is_dir():
        raise OutputError(f"{target}: this is a folder; name a file in it, such as {target / example}")
    make_folder(target.parent)
    return target


def _view(result: Prediction) -> View:
    """A picture and its heat map for a page; or what is missing."""
    try:
        picture = Image.fromarray(result.thumbnail(THUMBNAIL))
    except (WinspectError, OSError) as error:
        return View(problem=str(error))
    try:
        return View(picture, result.plot(longest=THUMBNAIL))
    except WinspectError as error:
        return View(picture, problem=str(error))
