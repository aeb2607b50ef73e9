"""Links of the README for a package index, which shows it without the files beside it.

    python .ci/absolute_links.py PYPROJECT README REF

Relative links become those of the repository that pyproject.toml names, at a tag or branch; README is written again.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

_LINK = re.compile(r"(!?)\[((?:[^\[\]]|!\[[^\]]*\]\([^)]*\))*)\]\((?!https?:|#|mailto:)([^)\s]+)\)")
_SOURCE = re.compile(r'(<img[^>]*\ssrc=")(?!https?:)([^"]+)"')


def absolute(text: str, repository: str, ref: str) -> str:
    """Markdown with its relative links as addresses: pictures to their bytes, all else to the page of the file.

    >>> absolute("![a](docs/a.jpg) [b](docs/b.md#c) [d](#e)", "https://host/me/it", "v1")
    '![a](https://host/me/it/raw/v1/docs/a.jpg) [b](https://host/me/it/blob/v1/docs/b.md#c) [d](#e)'
    """

    def linked(match: re.Match[str]) -> str:
        mark, words, target = match.groups()
        kind = "raw" if mark else "blob"
        return f"{mark}[{absolute(words, repository, ref)}]({repository}/{kind}/{ref}/{target})"

    text = _LINK.sub(linked, text)
    return _SOURCE.sub(lambda match: f'{match[1]}{repository}/raw/{ref}/{match[2]}"', text)


def main(pyproject: str, readme: str, ref: str) -> int:
    found = re.search(r'^Repository = "(.+)"$', Path(pyproject).read_text(encoding="utf-8"), re.MULTILINE)
    if found is None:
        print(f"{pyproject}: need Repository in [project.urls]", file=sys.stderr)
        return 2
    path = Path(readme)
    path.write_text(absolute(path.read_text(encoding="utf-8"), found[1], ref), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
