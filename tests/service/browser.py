"""Visits of the page in a real browser, and what they bring along."""

from __future__ import annotations

import io
import shutil
from contextlib import contextmanager

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("fastapi", reason='the service needs: pip install "winspect[serve]"')
playwright = pytest.importorskip("playwright.sync_api", reason="the page's tests need: pip install playwright")
expect = playwright.expect
expect.set_options(timeout=10_000)

from service.live import Live  # noqa: E402
from service.page_backend import PageBackend  # noqa: E402

from winspect.service.settings import ServiceSettings  # noqa: E402

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here: apt-get install chromium")


def grey(level, *, size=(60, 40), kind="PNG"):
    """A picture that scores level / 255."""
    file = io.BytesIO()
    Image.new("RGB", size, (level, level, level)).save(file, format=kind)
    return file.getvalue()


def files(**levels):
    """Files for an input: a name and a grey level each."""
    return [{"name": f"{name}.png", "mimeType": "image/png", "buffer": grey(level)} for name, level in levels.items()]


def large(name):
    """A picture of more than a megabyte."""
    file = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (800, 600, 3), np.uint8)).save(file, format="PNG")
    return {"name": name, "mimeType": "image/png", "buffer": file.getvalue()}


def served(folder, **limits):
    """The service on a free port, with the page's fake backend."""
    settings = ServiceSettings(data=folder, port=0, **limits)
    return Live(PageBackend(settings), settings)


@pytest.fixture(scope="module")
def service(tmp_path_factory):
    # Few pictures and bytes a request: the page must cut its uploads into chunks, and halve those that are refused.
    with served(tmp_path_factory.mktemp("data"), max_pictures=5, max_upload_mb=1) as service:
        yield service


VIEW = {"width": 1200, "height": 850}


@pytest.fixture(scope="module")
def context():
    with playwright.sync_playwright() as play:
        browser = play.chromium.launch(executable_path=CHROMIUM, headless=True, args=["--no-sandbox"])
        yield browser.new_context(viewport=VIEW)
        browser.close()


@contextmanager
def opened(context, url):
    """A tab, with a session of its own. Nothing may go wrong in it unseen."""
    page = context.new_page()
    page.set_default_timeout(10_000)
    wrong = []
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("console", lambda message: "Content Security" in message.text and wrong.append(message.text))
    page.goto(url)
    yield page
    page.close()
    assert not wrong


@pytest.fixture
def backend(service):
    return service.backend


@pytest.fixture
def page(context, service):
    service.backend.reset()
    with opened(context, service.url) as page:
        yield page


def choose(page, *chosen):
    page.set_input_files("#files", list(chosen))


def score(page, place=0):
    return page.locator("figure .score").nth(place)


def name_class(page, name):
    page.fill("#class", name)
    page.press("#class", "Enter")


def drop(page, event, kind, place="drop", **levels):
    """Drop or paste files, as a browser tells a page of it."""
    given = [[f"{name}.png", list(grey(level))] for name, level in levels.items()]
    page.evaluate(
        """([event, kind, place, given]) => {
            const data = new DataTransfer();
            for (const [name, bytes] of given) {
                data.items.add(new File([new Uint8Array(bytes)], name, { type: "image/png" }));
            }
            const options = { bubbles: true, cancelable: true, dataTransfer: data, clipboardData: data };
            const happened = kind === "drop" ? new DragEvent(event, options) : new ClipboardEvent(event, options);
            document.getElementById(place).dispatchEvent(happened);
        }""",
        [event, kind, place, given],
    )
