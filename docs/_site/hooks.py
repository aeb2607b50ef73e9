"""What the site has beside docs/*.md, for MkDocs: pages of files that stand elsewhere, the HTTP API, the notebooks.

A fact has one place. The home page is README.md, the model card stands beside its weights, and links between these
files are turned into links between their pages.
"""

from __future__ import annotations

import os
import posixpath
import re
import sys
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
sys.path[:0] = [str(HERE), str(ROOT / "src")]

import http_api  # noqa: E402

import notebooks  # noqa: E402

PAGES = {
    "README.md": "index.md",
    "src/winspect/weights/winspect-tiny/MODEL_CARD.md": "model-card.md",
    "examples/README.md": "examples.md",
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "NOTICE": "licence.md",
    "LICENSE": "licence.md",
}
"""Files outside docs/ that have a page: file in the repository -> page."""
FIRST_NOTEBOOK = "notebooks/quick_start.md"
_LINK = re.compile(r"(\]\()([^)#\s]+)((?:#[^)\s]*)?\))")
_PLAIN = "{title}\n\n```text\n{text}\n```\n"


def pages_from_files() -> dict[str, str]:
    """The text of each page that is a file outside docs/."""
    made = {page: (ROOT / file).read_text(encoding="utf-8") for file, page in PAGES.items() if file.endswith(".md")}
    parts = [
        _PLAIN.format(title=f"# {title}" if name == "NOTICE" else f"## {title}", text=(ROOT / name).read_text("utf-8"))
        for name, title in (("NOTICE", "Licence and notices"), ("LICENSE", "Apache-2.0"))
    ]
    return {**made, "licence.md": "".join(parts)}


def on_files(files: Any, config: Any) -> Any:
    """Add the pages that are made."""
    are_run = not os.environ.get("WINSPECT_DOCS_WITHOUT_NOTEBOOKS")
    of_notebooks = notebooks.pages(ROOT / "notebooks", are_run=are_run)
    made: dict[str, str | bytes] = {**pages_from_files(), **http_api.pages(), **of_notebooks}
    for name, content in made.items():
        files.append(File.generated(config, name, content=content))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Point links to files of the repository at their pages."""
    origins = {target: file for file, target in PAGES.items() if target != "licence.md"}
    origin = origins.get(page.file.src_uri, f"docs/{page.file.src_uri}")
    return _LINK.sub(lambda found: found[1] + retarget(found[2], origin, page.file.src_uri) + found[3], markdown)


def retarget(link: str, origin: str, page: str) -> str:
    """A link of a file as a link of its page.

    >>> retarget("docs/data.md", "README.md", "index.md"), retarget("../examples/README.md", "docs/x.md", "x.md")
    ('data.md', 'examples.md')
    >>> retarget("https://example.org", "README.md", "index.md")
    'https://example.org'
    """
    if "://" in link or link.startswith("mailto:"):
        return link
    file = posixpath.normpath(posixpath.join(posixpath.dirname(origin), link))
    target = PAGES.get(file, file.removeprefix("docs/") if file.startswith("docs/") else None)
    if file == "notebooks":
        target = FIRST_NOTEBOOK
    elif file.startswith("notebooks/"):
        target = file.replace(".ipynb", ".md")
    return link if target is None else posixpath.relpath(target, posixpath.dirname(page) or ".")
