"""Requests to an application without a socket, each on a loop of its own, as a caller's program would make them."""

from __future__ import annotations

import asyncio
import io

import httpx
import numpy as np
from PIL import Image

from tests.service.fake_backend import FakeBackend
from winspect.service.http.app import create_app
from winspect.service.settings import ServiceSettings


def settings(tmp_path, **limits):
    return ServiceSettings(data=tmp_path, **{"port": 0, **limits})


def picture(brightness=100, size_wh=(60, 40)):
    """A grey picture as the array (height, width, 3)."""
    return np.full((size_wh[1], size_wh[0], 3), brightness, np.uint8)


def encoded(rgb, ending="PNG", **options):
    file = io.BytesIO()
    image = rgb if isinstance(rgb, Image.Image) else Image.fromarray(rgb)
    image.save(file, format=ending, **options)
    return file.getvalue()


class Service:
    """An application on the fake backend. Calls are answered one after the other."""

    def __init__(self, tmp_path, **limits):
        self.settings = settings(tmp_path, **limits)
        self.loop = asyncio.new_event_loop()
        self.backend = self.run(self.made())
        self.app = create_app(self.backend, self.settings)
        self.backend.set_ready()
        self.client = httpx.AsyncClient(
            transport=httpx.ASGITransport(self.app, raise_app_exceptions=False), base_url="http://service"
        )

    async def made(self):
        return FakeBackend(self.settings)

    def run(self, coroutine):
        return self.loop.run_until_complete(coroutine)

    def ask(self, method, path, **options):
        return self.run(self.client.request(method, path, **options))

    def get(self, path, **options):
        return self.ask("GET", path, **options)

    def post(self, path, **options):
        return self.ask("POST", path, **options)

    def predict(self, content, name="part.png", **fields):
        return self.post("/v1/predict", files={"pictures": (name, content)}, data=fields)

    def metric(self, name, **labels):
        from prometheus_client.parser import text_string_to_metric_families

        for family in text_string_to_metric_families(self.get("/metrics").text):
            for sample in family.samples:
                if sample.name == name and labels.items() <= sample.labels.items():
                    return sample.value
        raise KeyError(name)

    def close(self):
        self.run(self.client.aclose())
        self.loop.close()
