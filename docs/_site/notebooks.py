"""Notebooks as pages: each is run from its first cell to its last, and its cells and outputs become Markdown."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nbformat

_ESCAPES = re.compile(r"\x1b\[[0-9;]*m")
TIMEOUT_S = 300


def run(path: Path) -> Any:
    """The notebook with its outputs; run in its own folder, as Jupyter does.

    Raises:
        nbclient.exceptions.CellExecutionError: a cell failed; has the cell and its traceback.
    """
    from nbclient import NotebookClient

    notebook = nbformat.read(path, as_version=4)
    settings = {"metadata": {"path": str(path.parent)}}
    return NotebookClient(notebook, timeout=TIMEOUT_S, kernel_name="python3", resources=settings).execute()


def pages(folder: Path, *, are_run: bool = True) -> dict[str, str | bytes]:
    """Pages and their pictures, by name, of every notebook in a folder; the notebooks themselves to take away.

    Args:
        are_run: False for their cells alone, which takes no time.
    """
    made: dict[str, str | bytes] = {}
    for path in sorted(folder.glob("*.ipynb")):
        pictures: dict[str, bytes] = {}
        notebook = run(path) if are_run else nbformat.read(path, as_version=4)
        text = "\n\n".join(_cells(notebook, path.stem, pictures))
        note = f"*[Download this notebook]({path.name}). Below it was run as it stands.*"
        text = text.replace(f"{folder.resolve().parent}/", "")  # paths as from the repository
        head, _, rest = text.partition("\n")
        made[f"notebooks/{path.stem}.md"] = f"{head}\n\n{note}\n{rest}\n"
        made |= {f"notebooks/{name}": content for name, content in pictures.items()}
        made[f"notebooks/{path.name}"] = path.read_bytes()
    return made


def _cells(notebook: Any, stem: str, pictures: dict[str, bytes]) -> Iterator[str]:
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            yield cell.source
        elif cell.cell_type == "code":
            yield f"```python\n{cell.source}\n```"
            shown = [part for output in cell.outputs for part in _output(output, stem, pictures)]
            if shown:
                yield '<div class="notebook-output" markdown="1">\n\n' + "\n\n".join(shown) + "\n\n</div>"


def _output(output: Any, stem: str, pictures: dict[str, bytes]) -> Iterator[str]:
    if output.output_type == "stream":
        if output.name == "stdout":
            yield _text(output.text)
        return
    data = output.get("data", {})
    for kind, ending in (("image/png", "png"), ("image/jpeg", "jpg")):
        if kind in data:
            name = f"{stem}-{len(pictures) + 1}.{ending}"
            pictures[name] = base64.b64decode(data[kind])
            yield f"![output of the cell above]({name})"
            return
    if "text/html" in data:
        yield "".join(line.strip() for line in data["text/html"].splitlines())
    elif "text/plain" in data:
        yield _text(data["text/plain"])


def _text(text: str) -> str:
    return f"```text\n{_ESCAPES.sub('', text).rstrip()}\n```"
