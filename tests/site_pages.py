"""Blocks of README and of the site's pages, and a folder of pictures as they name it."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

ROOT = Path(__file__).parents[1]
PAGES = {path.relative_to(ROOT).as_posix(): path for path in [ROOT / "README.md", *sorted(ROOT.glob("docs/*.md"))]}
_BLOCK = re.compile(r"^( *)```(\w+)?[^\n]*\n(.*?)^\1```", flags=re.MULTILINE | re.DOTALL)
_SHIFT = 3
_PART = ROOT / "examples" / "hex_nut"


def text_of(page: str) -> str:
    """A page as it is written."""
    return PAGES[page].read_text(encoding="utf-8")


def blocks(page: str, *languages: str) -> list[str]:
    """The fenced blocks of some languages, without their indentation."""
    found = _BLOCK.findall(text_of(page))
    return [re.sub(rf"(?m)^{indent}", "", block) for indent, language, block in found if language in languages]


def calls(block: str) -> Iterator[list[str]]:
    """The calls of winspect in a block of commands, as arguments: what stands before the first ``>``."""
    for line in block.replace("\\\n", " ").splitlines():
        words = shlex.split(line.removeprefix("$ "), comments=True)
        while words and re.fullmatch(r"[A-Z_0-9]+=.*", words[0]):
            words.pop(0)
        if words[:1] == ["winspect"]:
            yield words[1 : words.index(">") if ">" in words else None]


def commands(page: str, *languages: str) -> Iterator[list[str]]:
    """The calls of winspect in a page's blocks of commands."""
    for block in blocks(page, *(languages or ("console", "sh"))):
        yield from calls(block)


def link_targets(page: str) -> list[tuple[str, str]]:
    """Links of a page within the repository: the file, and the place in it."""
    prose = _BLOCK.sub("", text_of(page))
    return re.findall(r"\]\((?!https?:|mailto:)([^)#\s]*)#?([^)\s]*)\)", prose)


def slug(heading: str) -> str:
    """The name of a heading's place, as GitHub and the site make it."""
    return re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")


def places(path: Path) -> set[str]:
    """The places of a page that links can name."""
    prose = _BLOCK.sub("", path.read_text(encoding="utf-8"))
    return {slug(heading) for heading in re.findall(r"^#+ (.*)$", prose, flags=re.MULTILINE)}


def write_pictures(folder: Path, *, good: int) -> None:
    """Write the folders that pages name: ``good``, ``samples``, ``new``, ``pictures``, ``parts``, ``examples`` and
    ``incoming``, which is empty.

    Args:
        good: number of good pictures: the example part's, shifted by a few pixels each.
    """
    (folder / "examples").symlink_to(ROOT / "examples")
    (folder / "incoming").mkdir()
    for name, kinds in (("samples", "train/good"), ("new", "test/*"), ("pictures", "test/*")):
        (folder / name).mkdir()
        for number, path in enumerate(sorted(_PART.glob(f"{kinds}/*.jpg"))):
            (folder / name / f"{number}.jpg").write_bytes(path.read_bytes())
    for name, kind in (("OK", "*/good/*.jpg"), ("NG", "test/defective/*.jpg"), ("masks", "ground_truth/defective/*")):
        (folder / "parts" / "hex_nut" / name).mkdir(parents=True)
        for path in sorted(_PART.glob(kind)):
            split = f"{path.parts[-3]}-" if name == "OK" else ""  # a number may be in both
            (folder / "parts" / "hex_nut" / name / f"{split}{path.name}").write_bytes(path.read_bytes())
    (folder / "good").mkdir()
    originals = [np.asarray(Image.open(path)) for path in sorted(_PART.glob("*/good/*.jpg"))]
    for number in range(good):
        original = originals[number % len(originals)]
        down, right = divmod(number // len(originals), 2 * _SHIFT + 1)
        shifted = np.pad(original, ((_SHIFT, _SHIFT), (_SHIFT, _SHIFT), (0, 0)), mode="edge")
        height, width, _ = original.shape
        crop = shifted[down : down + height, right : right + width]
        Image.fromarray(crop).save(folder / "good" / f"{number:03}.png")
