"""The drift alarm of a service: one state, whichever model process has scored a picture."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

from winspect.calibration import Calibration, DecisionRule
from winspect.drift.alarm import MOST_SHOWN, DriftAlarm, identity_of
from winspect.drift.report import figures
from winspect.outputs.rows import row_of
from winspect.service.contract import Answer, Question, UnknownClass
from winspect.service.settings import ServiceSettings

_MOST_IDENTITIES = 1000


class ServiceDrift:
    """Takes the answers of a service, in a thread of its own; a line is a class.

    Args:
        settings: with ``drift``.
        described: gives the description of the model that runs.
    """

    def __init__(self, settings: ServiceSettings, described: Callable[[], Mapping[str, Any] | None]) -> None:
        self._alarm = DriftAlarm(settings.data, settings.drift)
        self._described = described
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="winspect-drift")
        self._model: tuple[Mapping[str, Any] | None, str] = (None, "")
        self._identities: dict[tuple[Any, ...], str] = {}

    async def take(self, question: Question, answer: Answer, calibration: Calibration | None) -> None:
        """Take an answer into account.

        What is called normal is the calibration's to say, whatever threshold a caller has: only a rule that is fixed
        keeps the guarantee. Answers that were asked for without the class' good samples are left out.

        Args:
            question: as the caller asked it.
            calibration: the class's; None where it has none.
        """
        if question.zero_shot or answer.result.error is not None:
            return
        row = {**row_of(answer.judgement), "id": answer.id}
        if question.threshold is not None:
            row["verdict"] = DecisionRule(calibration=calibration).verdicts_only().decide(answer.result).verdict
        identity = self._identity(answer.references, calibration)
        job = partial(self._alarm.take, row, answer.result.statistics, identity=identity)
        try:
            taking = asyncio.get_running_loop().run_in_executor(self._thread, job)
        except RuntimeError:  # the service has ended under this answer, which is given all the same
            return
        await taking

    def _identity(self, references: tuple[str, ...], calibration: Calibration | None) -> str:
        described = self._described() or {}
        if described is not self._model[0]:
            self._model = described, identity_of(described)
        model = self._model[1]
        made = None if calibration is None else (calibration.date, calibration.threshold)
        key = (model, references, made)
        if key not in self._identities:
            if len(self._identities) >= _MOST_IDENTITIES:
                self._identities.clear()
            self._identities[key] = identity_of({"model": model, "references": references, "made": made})
        return self._identities[key]

    async def documents(self, line: str | None = None, *, newest: int = 0) -> list[dict[str, Any]]:
        """What is known of the lines, as of :meth:`winspect.drift.alarm.DriftAlarm.documents`.

        Args:
            line: a class; None for all.
            newest: newest pictures with their values, at most.

        Raises:
            UnknownClass: nothing of it has been inspected.
        """
        documents = await asyncio.to_thread(self._alarm.documents, shown=MOST_SHOWN, newest=newest)
        found = [document for document in documents if line in (None, document["line"])]
        if line is not None and not found:
            raise UnknownClass(f"no picture of {line!r} has been watched for drift")
        return found

    async def reset(self, line: str) -> None:
        """Begin anew, as after the lamp was replaced.

        Raises:
            UnknownClass: nothing of it has been inspected.
            OutputError: the disk is full.
        """
        if not await asyncio.to_thread(self._alarm.reset, line):
            raise UnknownClass(f"no picture of {line!r} has been watched for drift")

    @property
    def trouble(self) -> str | None:
        """Why the newest picture could not be kept; None when it was."""
        return self._alarm.trouble

    def figures(self) -> dict[str, float | dict[str, float]]:
        """The metrics: see :func:`winspect.drift.report.figures`."""
        return figures(self._alarm.documents(shown=0), self._alarm.left_out)

    def close(self) -> None:
        """Take what is under way, and close the file."""
        self._thread.shutdown(wait=True)
        self._alarm.close()
