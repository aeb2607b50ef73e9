"""The site builds without a warning, its links lead somewhere, and its pages fetch nothing."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
pytest.importorskip("mkdocs", reason="the site needs the extra docs")
_SETTINGS = {"NO_MKDOCS_2_WARNING": "1", "WINSPECT_DOCS_WITHOUT_NOTEBOOKS": "1"}


def load(name):
    """A file of the site's builder as a module."""
    spec = importlib.util.spec_from_file_location(name, ROOT / "docs" / "_site" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The site without its notebooks, which have a test of their own."""
    out = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(out)],
        cwd=ROOT,
        env={**os.environ, **_SETTINGS, "PYTHONPATH": str(ROOT / "src")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return out


def test_links_lead_somewhere_and_nothing_is_fetched(site):
    assert list(load("check").faults(site)) == []


def test_pages_have_what_they_are_made_of(site):
    assert "data.html" in (site / "index.html").read_text()
    assert "anomaly_map" in (site / "reference/index.html").read_text()
    assert "/v1/predict" in (site / "api.html").read_text()


@pytest.mark.parametrize(
    ("page", "fault"),
    [
        ('<a href="gone.html">x</a>', "no such file: gone.html"),
        ('<a href="index.html#gone">x</a>', "no such place: index.html#gone"),
        ('<script src="https://example.org/a.js"></script>', "fetches https://example.org/a.js"),
        ('<link rel="stylesheet" href="//example.org/a.css">', "fetches //example.org/a.css"),
    ],
)
def test_the_check_can_fail(tmp_path, page, fault):
    (tmp_path / "index.html").write_text(f'<h1 id="here">x</h1><a href="#here">x</a>{page}')
    assert [line for line in load("check").faults(tmp_path) if fault in line]
    assert len(list(load("check").faults(tmp_path))) == 1
