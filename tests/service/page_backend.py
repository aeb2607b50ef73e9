"""The fake backend, with what the page's tests need beside it."""

from __future__ import annotations

import asyncio
from dataclasses import replace

from service.fake_backend import FakeBackend

from winspect.service.contract import CalibrationState, Overloaded, class_key


class PageBackend(FakeBackend):
    """Good samples halve the score, and multiply it with ``scale``; ``busy`` predictions are refused first;
    calibrating takes a moment.

    ``asked`` is what was judged: name, class, good samples, and whether the map was wanted.
    """

    def __init__(self, settings):
        super().__init__(settings)
        self.reset()

    def reset(self):
        """As it was before the first visit."""
        self.now, self.busy, self.asked, self.under_way = "ready", 0, [], None
        self.stored, self.good, self.calibrations = {}, {}, {}
        self.scores, self.scale = {"score_range": [0.0, 1.0], "zero_shot": True}, 1.0

    async def predict(self, question):
        if self.busy:
            self.busy -= 1
            raise Overloaded("64 pictures wait already", 1.0)
        return await super().predict(question)

    def answer(self, question, rgb, seconds):
        answer = super().answer(question, rgb, seconds)
        self.asked.append((question.name, question.category_name, answer.shots, question.maps))
        if not answer.shots:
            return answer
        halved = replace(answer.result, anomaly_score=answer.result.anomaly_score / 2 * self.scale)
        return replace(answer, judgement=replace(answer.judgement, result=halved))

    async def add_good(self, category_name, pictures):
        await super().add_good(category_name, pictures)
        key = class_key(category_name)
        self.good[key] = sorted(set(self.good[key]))  # copies count once
        return len(self.good[key])

    async def start_calibration(self, category_name, max_false_alarms, review=None, *, force=False):
        await super().start_calibration(category_name, max_false_alarms)
        self.under_way = CalibrationState("running", max_false_alarms=max_false_alarms, done=3, total=12)
        asyncio.get_running_loop().call_later(0.5, setattr, self, "under_way", None)

    async def calibration(self, category_name):
        return self.under_way or await super().calibration(category_name)

    async def delete_calibration(self, category_name):
        self.under_way = None
        await super().delete_calibration(category_name)
