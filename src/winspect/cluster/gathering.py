"""Rows in any order, gathered until all of a part are there."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from winspect.cluster.reading import as_results
from winspect.cluster.stages import JUDGED
from winspect.methods.result import Result


@dataclass
class _Waiting:
    """The rows of a part that are there."""

    results: list[Result | None]
    left: int
    seconds: float = 0.0


class Gathering:
    """The rows of parts that are not whole yet; a part is handed on when its last row has come.

    It is what :class:`winspect.cluster.filling.Filling` fills.

    Args:
        sizes: part -> its number of pictures. Ordinals count through all parts, in this order.
        whole: called with a part, its results in order, and the seconds that workers took for it.
        advance: called after each picture.
    """

    def __init__(
        self,
        sizes: Mapping[str, int],
        whole: Callable[[str, list[Result], float], None],
        advance: Callable[[], object],
    ) -> None:
        self.schema = JUDGED.remove(JUDGED.get_field_index("ordinal"))
        self.rows_done = self.failed = 0
        self._whole, self._advance = whole, advance
        self._received = np.zeros(sum(sizes.values()), bool)
        ends = np.cumsum(list(sizes.values()), dtype=np.int64).tolist()
        self._starts = {key: end - size for (key, size), end in zip(sizes.items(), ends, strict=True)}
        self._waiting = {key: _Waiting([None] * size, size) for key, size in sizes.items()}
        for key, size in sizes.items():
            if not size:
                self._hand_on(key)

    def add(self, rows: pa.Table) -> None:
        """Take rows of :data:`winspect.cluster.stages.JUDGED`, in any order; what came before is dropped."""
        spent = [rows[name].fill_null(0).to_pylist() for name in ("decode_s", "judge_s")]
        for ordinal, result, *seconds in zip(rows["ordinal"].to_pylist(), as_results(rows), *spent, strict=True):
            if self._received[ordinal]:
                continue
            self._received[ordinal] = True
            self.rows_done += 1
            self.failed += result.error is not None
            self._advance()
            key = result.category_name
            part = self._waiting[key]
            part.results[ordinal - self._starts[key]] = result
            part.left -= 1
            part.seconds += sum(seconds)
            if not part.left:
                self._hand_on(key)

    def lacking(self) -> np.ndarray:
        """int64: the ordinals that have not come yet, in order."""
        return np.flatnonzero(~self._received)

    def _hand_on(self, key: str) -> None:
        part = self._waiting.pop(key)
        self._whole(key, [result for result in part.results if result is not None], part.seconds)
