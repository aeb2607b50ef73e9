"""`winspect serve` with the fake backend in the model's place: ``python serve_fake.py SECONDS_PER_PICTURE OPTIONS``.

It answers "load" on stdin's first line with readiness, so that a test decides when the model is loaded.
"""

from __future__ import annotations

import asyncio
import sys
import threading

from winspect.cli import main as cli
from winspect.errors import WeightsMissingError
from winspect.service import backend


def run():
    from tests.service.fake_backend import FakeBackend

    class Loading(FakeBackend):
        def __init__(self, settings, spec):
            super().__init__(settings)
            self.lag_s = float(sys.argv[1])

        async def start(self):
            loop = asyncio.get_running_loop()
            threading.Thread(target=self.read, args=(loop,), daemon=True).start()

        def read(self, loop):
            word = sys.stdin.readline().strip()
            if word == "fail":
                self.load_error = WeightsMissingError("no weights here")
            loop.call_soon_threadsafe(self.set_ready)

    backend.Backend = Loading
    return cli.main(["serve", *sys.argv[2:]])


if __name__ == "__main__":
    sys.exit(run())
