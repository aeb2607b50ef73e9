"""Making a data set ready: converted into the layout that ``open_dataset`` reads, counted, and checked.

Files are written atomically, so that running an interrupted command again goes on with it: what is there and whole is
kept. The source is only read.
"""

from __future__ import annotations

import csv
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from tqdm import tqdm

from winspect.datasets import open_dataset
from winspect.datasets.items import Dataset, Item
from winspect.datasets.jobs import Job, make_file, new_file, plan_folders, plan_layout, plan_visa, without_repeats
from winspect.datasets.masks import load_mask
from winspect.datasets.official import OFFICIAL, count_items
from winspect.datasets.packaged import PACKAGES, package_folder, read_cells
from winspect.datasets.trees import Tree, left_out_by, left_out_of, open_tree
from winspect.errors import PictureError, SettingsError, SourceError
from winspect.pictures.decoding import decode
from winspect.system.files import make_folder
from winspect.system.terminal import cell

KINDS = ("visa", "mvtec", *PACKAGES)
LINKS = ("copy", "hard")
MANIFEST = "manifest.csv"


@dataclass
class Summary:
    """What was done, and what is there now.

    Attributes:
        dataset, source, out: what was prepared, from where, to where (None: only verified).
        written, kept: files made now, and found whole from before (masks included).
        verified: pictures decoded, each with its mask; 0 where this was not asked for.
        missing: what is not there, each named: files, or counts other than the official ones.
        left_out: pictures that lie where the data set's layout has none, each named; they are not prepared.
        other_files: ending -> files that were left out because they are no pictures or masks.
        failed: files that could not be used: ``{"path", "type", "message"}``.
        categories: name -> ``train_normal``, ``test_normal``, ``test_anomalous``, ``masks``, and ``official``: the
            first three as they should be, or None where no official count is known.
    """

    dataset: str
    source: str
    out: str | None
    written: int = 0
    kept: int = 0
    verified: int = 0
    missing: list[str] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)
    other_files: dict[str, int] = field(default_factory=dict)
    failed: list[dict[str, str]] = field(default_factory=list)
    categories: dict[str, dict[str, Any]] = field(default_factory=dict)

    @property
    def is_complete(self) -> bool:
        """Whether nothing is missing, no picture was left out and nothing failed."""
        return not self.missing and not self.left_out and not self.failed

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {"schema": 1, **asdict(self), "complete": self.is_complete}

    def fail(self, error: PictureError) -> None:
        """Note a file that cannot be used."""
        self.failed.append({"path": error.path, "type": type(error).__name__, "message": error.reason})


def prepare_dataset(
    kind: str,
    *,
    source: str | os.PathLike[str] | None = None,
    out: str | os.PathLike[str] | None = None,
    categories: Sequence[str] | None = None,
    link: str = "copy",
    verify: bool = False,
    progress: bool = False,
) -> Summary:
    """Convert a data set into ``out``, or check it where it is.

    ``visa`` and ``mvtec`` become the MVTec AD layout (VisA's one defect type is ``bad``, its masks 0 and 255), to be
    opened as the same kind. ``elpv`` and ``textile`` become plain folders, to be opened as ``folder``, and a manifest.

    Args:
        kind: one of :data:`KINDS`.
        source: the data set's folder or, for visa and mvtec, its tar; elpv and textile default to the package.
        out: the folder to make. Without it nothing is written, and ``verify`` must be given.
        categories: only these; default: all.
        link: ``"copy"``, or ``"hard"``: hard links to the source's pictures, which take no further space.
        verify: decode every picture and mask of the result (without ``out``: of the source).
        progress: draw bars on stderr.

    Raises:
        SettingsError: an unknown kind or link, options that do not fit together, or ``out`` and ``source`` inside
            each other.
        SourceError: the source is not this data set, is a tar that is cut off, or has no such category.
        MissingExtraError: the package with the pictures is not installed.
        OutputError: ``out`` cannot be written, or the disk is full. What was written so far is kept.
    """
    if isinstance(categories, str):
        categories = [categories]
    place = _check(kind, source, out, link, verify)
    summary = Summary(kind, str(place), None if out is None else str(out))
    if out is None:
        dataset = open_dataset(kind, place, categories=categories)
        if kind not in PACKAGES:
            summary.left_out, summary.other_files = left_out_by(dataset, categories)
        summary.missing += [str(path) for path in dataset.missing()]
        masks_listed = False
    else:
        with open_tree(place) as tree:
            jobs = _plan(kind, tree, categories, summary)
            _make(jobs, tree, Path(out), link, summary, progress)
        if kind in PACKAGES:
            _write_manifest(open_dataset(kind, place, categories=categories), jobs, Path(out))
        dataset = _open_made(kind, Path(out), jobs)
        masks_listed = any(job.is_mask for job in jobs)
    if verify:
        _verify(dataset, summary, progress)
    _count(dataset, categories, summary, need_masks=kind not in PACKAGES and not masks_listed)
    return summary


def _check(kind: str, source: Any, out: Any, link: str, verify: bool) -> Path:
    """The source's place, once everything fits together."""
    if kind not in KINDS:
        raise SettingsError(f"got the data set {kind!r}, need one of {', '.join(KINDS)}")
    if link not in LINKS:
        raise SettingsError(f"got --link {link}, need one of {', '.join(LINKS)}")
    if source is None and kind not in PACKAGES:
        raise SettingsError(f"{kind} is not part of a package: name its folder or tar (--source)")
    place = package_folder(kind) if source is None else Path(source)
    if out is None:
        if not verify:
            raise SettingsError("nothing to do: name the folder to make (--out), or check the source (--verify)")
        if place.is_file():
            raise SettingsError(f"{place}: an archive is checked once it is converted: name a folder (--out)")
        return place
    if link == "hard" and place.is_file():
        raise SettingsError(f"{place}: files in an archive cannot be hard-linked: use --link copy")
    inner, outer = Path(out).resolve(), place.resolve()
    if inner.is_relative_to(outer) or outer.is_relative_to(inner):
        raise SettingsError(
            f"--out {out} and --source {place} are inside each other: choose an --out beside the source"
        )
    return place


def _plan(kind: str, tree: Tree, categories: Sequence[str] | None, summary: Summary) -> list[Job]:
    """The files to make."""
    if kind in PACKAGES:
        jobs = plan_folders(open_dataset(kind, tree.root, categories=categories))
    else:
        jobs = (plan_visa if kind == "visa" else plan_layout)(tree, categories)
        summary.left_out, summary.other_files = left_out_of(tree, (job.source for job in jobs), categories)
    jobs = without_repeats(jobs, tree.root)
    if all(tree.size_bytes(job.source) is None for job in jobs):
        problem = f"none of the {len(jobs)} files that the data set names is there, as {tree.place(jobs[0].source)}"
        raise SourceError(f"{tree.root}: {problem}: name the folder that holds them, or get the data set again")
    return jobs


def _make(jobs: Sequence[Job], tree: Tree, out: Path, link: str, summary: Summary, progress: bool) -> None:
    make_folder(out)
    in_turn = sorted(jobs, key=lambda job: tree.position(job.source))
    for job in tqdm(in_turn, desc=f"prepare {summary.dataset}", unit="file", disable=not progress):
        if tree.size_bytes(job.source) is None:
            summary.missing.append(tree.place(job.source))
            continue
        try:
            is_new = make_file(job, tree, out / job.target, link)
        except PictureError as error:
            summary.fail(error)
        else:
            summary.written += is_new
            summary.kept += not is_new


def _open_made(kind: str, out: Path, jobs: Sequence[Job]) -> Dataset:
    """What was made, no more: ``out`` may hold other categories from before."""
    made = [job for job in jobs if not job.is_mask and (out / job.target).is_file()]
    if not made:
        return Dataset(kind, out, (), ())  # every single file failed; the summary names them
    exist = list(dict.fromkeys(job.target.partition("/")[0] for job in made))
    return open_dataset("folder" if kind in PACKAGES else kind, out, categories=exist)


def _write_manifest(dataset: Dataset, jobs: Sequence[Job], out: Path) -> None:
    """Write every picture with its label, and the further columns of the package."""
    cells = read_cells(dataset.root) if dataset.name == "elpv" else []
    extra = {dataset.root / name: (f"{probability:.4f}", kind) for name, probability, kind in cells}
    with new_file(out / MANIFEST) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(
            ("image", "category", "split", "label", "defect_type", *(("probability", "kind") if cells else ()))
        )
        for job, item in zip(jobs, dataset.items, strict=True):
            texts = map(cell, (item.category, item.split, item.label, item.defect_type))
            # A path that a spreadsheet would take for a formula is the same file with its folder in front.
            image = job.target if cell(job.target) == job.target else f"./{job.target}"
            writer.writerow((image, *texts, *extra.get(item.path, ())))


def _verify(dataset: Dataset, summary: Summary, progress: bool) -> None:
    """Decode every picture that is there, with its mask where the data set has masks at all."""
    items = [item for item in dataset.items if item.path.is_file()]
    pool = ThreadPoolExecutor(os.cpu_count())
    try:
        checks = pool.map(_trouble_with, items)
        for error in tqdm(checks, total=len(items), desc="verify", unit="picture", disable=not progress):
            summary.verified += 1
            if error is not None:
                summary.fail(error)
    finally:
        pool.shutdown(cancel_futures=True)  # so that an interruption does not wait for all that is left


def _trouble_with(item: Item) -> PictureError | None:
    try:
        size_wh = decode(item.path).size
        if item.mask is not None and item.mask.is_file() and not load_mask(item, size_wh).any():
            return PictureError(item.mask, "the mask is empty, its picture labelled defective")
    except PictureError as error:
        return error
    return None


def _count(dataset: Dataset, categories: Sequence[str] | None, summary: Summary, *, need_masks: bool) -> None:
    """Compare what is there with the official counts, and each anomalous picture with its mask."""
    official = OFFICIAL[summary.dataset]
    if summary.dataset == "mvtec" and not set(dataset.categories) & set(official):
        official = {}  # the user's data set in this layout
    for category in categories or dict.fromkeys((*dataset.categories, *official)):
        there = [item for item in dataset.items if item.category == category and item.path.is_file()]
        counts = asdict(count_items(there))
        expected = asdict(official[category]) if category in official else None
        masks = sum(item.mask is not None and item.mask.is_file() for item in there)
        summary.categories[category] = {**counts, "masks": masks, "official": expected}
        summary.missing += [
            f"{category}: {counts[name]} {name.replace('_', ' ')} pictures, officially {count}"
            for name, count in (expected or {}).items()
            if counts[name] != count
        ]
        if need_masks:
            unmasked = [item for item in there if item.is_anomalous and item.mask is None]
            summary.missing += [f"{item.path}: no mask for it" for item in unmasked]
