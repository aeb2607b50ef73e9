"""A backend in an event loop of its own, for tests that ask it one thing after the other."""

from __future__ import annotations

import asyncio
import io
import threading
import time

import numpy as np
from PIL import Image

from winspect.service.backend import Backend
from winspect.service.contract import Question
from winspect.service.settings import ServiceSettings


class Running:
    """Use it in a with-block; ``ask`` runs a coroutine of the backend's and returns what it gives."""

    def __init__(self, folder, spec, *, wait=True, **settings):
        options = {"backoff_s": 0.05, "most_backoff_s": 0.2, "hang_s": 30.0, **settings}
        self.backend = Backend(ServiceSettings(folder, **options), spec)
        self.wait = wait
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self.loop.run_forever)

    def __enter__(self):
        self.thread.start()
        self.ask(self.backend.start())
        if self.wait:
            self.ask(self.backend.wait_ready())
        return self

    def __exit__(self, *error):
        self.ask(self.backend.drain(5))
        self.ask(self.loop.shutdown_default_executor())
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join(10)
        self.loop.close()

    def ask(self, coroutine, timeout=180):
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop).result(timeout)

    def predict(self, content, category_name="part", *, within=20.0, name="part.png", maps=True, **options):
        question = Question(name, content, category_name, time.monotonic() + within, maps=maps, **options)
        return self.ask(self.backend.predict(question))

    def together(self, asked):
        """Predictions of (picture, class, options), all at once; exceptions as values."""

        async def all_of_them():
            deadline = time.monotonic() + 20
            questions = [
                Question("part.png", content, key, deadline, **{"maps": True, **options})
                for content, key, options in asked
            ]
            return await asyncio.gather(*map(self.backend.predict, questions), return_exceptions=True)

        return self.ask(all_of_them())

    @property
    def model_pid(self):
        """The model process that has run for longest; None while there is none."""
        return next((process.pid for process in self.backend.fleet.processes), None)

    def until(self, condition, seconds=20.0):
        """Wait for a condition on the backend."""
        end = time.monotonic() + seconds
        while not condition(self.backend):
            assert time.monotonic() < end, "it did not come"
            time.sleep(0.01)


def grey(level, size=(16, 12)):
    """A grey PNG of this level, 0 to 255."""
    return png(np.full((size[1], size[0], 3), level, np.uint8))


def png(rgb):
    file = io.BytesIO()
    Image.fromarray(rgb).save(file, "PNG")
    return file.getvalue()


def score_of(level, references=()):
    """What the fake gives, by hand."""
    return level / 255 / 2 + sum(one / 255 for one in references) / 100
