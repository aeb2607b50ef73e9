"""Check the built site: `python docs/_site/check.py build/site`. Links lead somewhere, and nothing is fetched.

MkDocs checks links between pages; this looks at what was built: every link to a file or to a place in it, from the
navigation and from generated parts too, and every script, style, picture and font, none of which may come from a host.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

_FETCHED = {"script": "src", "img": "src", "iframe": "src", "source": "src", "video": "src", "link": "href"}
_QUIET_LINKS = {"canonical", "prev", "next", "alternate"}
_URL_IN_STYLE = re.compile(r"(?:url\(|@import\s+)['\"]?((?:https?:)?//[^'\")\s]+)")


class Page(HTMLParser):
    """What a page links to, what it fetches, and its places."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.links: list[str] = []
        self.fetched: list[str] = []
        self.places: set[str] = {""}
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note a tag's links and places."""
        given = {name: value or "" for name, value in attrs}
        self.places |= {given[name] for name in ("id", "name") if name in given}
        if tag == "a" and "href" in given:
            self.links.append(given["href"])
        if tag in _FETCHED and _FETCHED[tag] in given and given.get("rel") not in _QUIET_LINKS:
            self.fetched.append(given[_FETCHED[tag]])


def faults(site: Path) -> Iterator[str]:
    """What is wrong with the site, a line each."""
    pages = {path.resolve(): Page(path) for path in sorted(site.rglob("*.html"))}
    if not pages:
        yield f"{site}: no pages"
    for path, page in pages.items():
        for link in [*page.links, *page.fetched]:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                if link in page.fetched and parts.scheme != "data":
                    yield f"{path.relative_to(site.resolve())}: fetches {link}"
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            if path.name == "404.html" and link.startswith("/"):
                target = (site / unquote(parts.path).lstrip("/")).resolve()
            if target.is_dir():
                target /= "index.html"
            if not target.is_file():
                yield f"{path.relative_to(site.resolve())}: no such file: {link}"
            elif target in pages and unquote(parts.fragment) not in pages[target].places:
                yield f"{path.relative_to(site.resolve())}: no such place: {link}"
    for path in sorted(site.rglob("*.css")):
        for found in _URL_IN_STYLE.findall(path.read_text(encoding="utf-8")):
            yield f"{path.relative_to(site)}: fetches {found}"


def main(site: str) -> int:
    """Print the faults; 1 if there are any."""
    found = list(faults(Path(site)))
    print("\n".join(found) or f"{site}: every link leads somewhere, nothing is fetched from a host")
    return int(bool(found))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
