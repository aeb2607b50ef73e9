"""The install command that messages print: from a checkout, from a URL, from an index, and on an edge installation."""

from __future__ import annotations

import ast
import json
import sys
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace

import pytest

from winspect.system import installation
from winspect.system.installation import ENGINE_MODULES, engine_extra, install_command

ROOT = Path(__file__).parents[2]
EXTRAS = (ROOT / "pyproject.toml").read_text(encoding="utf-8").partition("[project.optional-dependencies]")[2]


@pytest.fixture
def installed(monkeypatch, tmp_path):
    """An installation elsewhere than in a checkout, with what pip noted of it."""
    monkeypatch.setattr(installation, "__file__", str(tmp_path / "site-packages/winspect/system/installation.py"))

    def install(direct_url: object) -> None:
        def distribution(name):
            if isinstance(direct_url, Exception):
                raise direct_url
            text = direct_url if isinstance(direct_url, str) or direct_url is None else json.dumps(direct_url)
            return SimpleNamespace(read_text=lambda file: text)

        monkeypatch.setattr(metadata, "distribution", distribution)

    return install


def test_a_checkout_that_is_imported_in_place(monkeypatch, tmp_path):
    monkeypatch.chdir(ROOT)
    assert install_command("serve") == 'pip install -e ".[serve]"'
    monkeypatch.chdir(tmp_path)
    assert install_command("full", "ray") == f'pip install -e "{ROOT}[full,ray]"'


@pytest.mark.parametrize("noted", [None, "", "no JSON", "[]", {"url": 3}, {"url": "file:///no/such/winspect.whl"}])
def test_an_index(installed, noted):
    installed(noted)
    assert install_command("serve") == 'pip install "winspect[serve]"'


def test_no_installation_at_all(installed):
    installed(metadata.PackageNotFoundError("winspect"))
    assert install_command("serve") == 'pip install "winspect[serve]"'


def test_what_pip_was_given(installed, tmp_path):
    checkout = tmp_path / "a checkout"
    checkout.mkdir()
    installed({"url": checkout.as_uri(), "dir_info": {"editable": True}})
    assert install_command("serve") == f'pip install -e "{checkout}[serve]"'
    installed({"url": checkout.as_uri(), "dir_info": {}})
    assert install_command("serve") == f'pip install "winspect[serve] @ {checkout.as_uri()}"'
    installed({"url": "https://host/winspect", "vcs_info": {"vcs": "git", "commit_id": "a1b2"}})
    assert install_command("serve") == 'pip install "winspect[serve] @ git+https://host/winspect@a1b2"'


def test_an_edge_installation_stays_one(monkeypatch):
    assert [engine_extra(engine) for engine in ENGINE_MODULES] == ["full", "full", "onnx"]
    for module in ENGINE_MODULES.values():
        monkeypatch.setitem(sys.modules, module, None)
    assert [engine_extra(engine) for engine in ENGINE_MODULES] == ["full", "edge", "edge-onnx"]


def test_every_extra_that_is_named_is_one():
    """And no message spells the command itself."""
    extras = set()
    for path in (ROOT / "src").rglob("*.py"):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for node in ast.walk(tree):
            called = getattr(node.func, "id", "") if isinstance(node, ast.Call) else ""
            if called in ("install_command", "need"):
                named = node.args if called == "install_command" else node.args[1:]  # need's first is a module
                extras |= {argument.value for argument in named if isinstance(argument, ast.Constant)}
            elif isinstance(node, ast.Constant) and path.name != "installation.py":
                assert 'pip install "winspect' not in str(node.value), path
    assert {"full", "serve", "watch", "ray", "onnx", "int8", "demo", "ascend"} <= extras
    assert all(f"\n{extra} = [" in EXTRAS for extra in {*extras, "edge", "edge-onnx"})
