"""Installed extras, and the command that adds to them. Importing this imports neither torch nor numpy."""

from __future__ import annotations

import importlib
import json
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from urllib.parse import urlsplit

from winspect.errors import MissingExtraError

ENGINE_MODULES = {"torch": "torch", "openvino": "openvino", "onnx": "onnxruntime"}
"""The module that each engine needs."""

EDGE_EXTRAS = {"torch": "full", "openvino": "edge", "onnx": "edge-onnx"}
"""The extra that brings each engine to an edge installation."""


def is_installed(engine: str) -> bool:
    """Whether an engine can be imported here; looked up, not tried."""
    return engine in ENGINE_MODULES and _has(ENGINE_MODULES[engine])


def engine_extra(engine: str) -> str:
    """The extra that brings an engine to this installation: one without torch, for edge bundles alone, stays one."""
    return ({"torch": "full", "openvino": "full"} if _has("torch") else EDGE_EXTRAS).get(engine, engine)


def install_command(*extras: str) -> str:
    """The pip command that adds extras, from where winspect itself was installed: a checkout, a URL, or an index."""
    chosen = f"[{','.join(extras)}]" if extras else ""
    checkout, url = _origin()
    if checkout is not None:
        place = "." if Path.cwd() == checkout else str(checkout)
        return f'pip install -e "{place}{chosen}"'
    return f'pip install "winspect{chosen}{f" @ {url}" if url else ""}"'


def need(module: str, extra: str, *, job: str) -> ModuleType:
    """Import what an extra brings.

    Args:
        job: what needs it, for the message.

    Raises:
        MissingExtraError: it is not installed, or cannot be imported.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise MissingExtraError(f"{job} needs: {install_command(extra)}") from error
    except ImportError as error:  # a broken installation, or a system library that is not there
        raise MissingExtraError(
            f"{job} needs {module}, which cannot be imported ({error}): {install_command(extra)}"
        ) from error


def _origin() -> tuple[Path | None, str | None]:
    """The checkout that is imported in place, or the URL that pip was given; neither for an index."""
    source = Path(__file__).resolve().parents[2]
    if source.name == "src" and (source.parent / "pyproject.toml").is_file():
        return source.parent, None
    document = _direct_url()
    url = document.get("url")
    if not isinstance(url, str):
        return None, None
    from urllib.request import url2pathname  # slow to import, and only a message needs it

    if url.startswith("file:") and not (place := Path(url2pathname(urlsplit(url).path))).exists():
        return None, None  # an archive that was removed after the installation
    if document.get("dir_info", {}).get("editable"):
        return place, None
    vcs = document.get("vcs_info")
    return None, f"{vcs['vcs']}+{url}@{vcs['commit_id']}" if vcs else url


def _direct_url() -> dict:
    """Read pip's record of the installation; empty for one from an index, and for none."""
    from importlib import metadata  # slow to import, and only a message needs it

    try:
        text = metadata.distribution("winspect").read_text("direct_url.json")
        document = json.loads(text or "{}")
    except (metadata.PackageNotFoundError, OSError, ValueError):
        return {}
    return document if isinstance(document, dict) else {}


def _has(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ValueError:  # blocked, or without a spec
        return False
