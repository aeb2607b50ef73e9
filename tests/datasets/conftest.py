"""Miniatures of the public data sets, with the names and layout of the real ones and pictures of 16x12 pixels."""

from __future__ import annotations

import csv
import hashlib
import io
import os
import tarfile
from itertools import groupby
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from winspect.datasets.official import OFFICIAL, Counts

OFFICIAL_SPLIT = Path(__file__).parents[3] / "shared" / "reference" / "visa_1cls.csv"
SIZE_WH = (16, 12)


def save_picture(path: Path, value: int = 120) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", SIZE_WH, (value % 256, 90, 60)).save(path)
    return path


def save_mask(path: Path, *, size_wh=SIZE_WH, values=(1, 3)) -> Path:
    """Grey, 0 but for two columns with small values, as VisA has them."""
    path.parent.mkdir(parents=True, exist_ok=True)
    mask = np.zeros(size_wh[::-1], dtype=np.uint8)
    for column, value in enumerate(values):
        mask[2:5, 4 + column] = value
    Image.fromarray(mask).save(path)
    return path


def hash_tree(root: Path) -> dict[str, str]:
    """Every file with its contents' hash, its inode and time."""
    return {
        str(path.relative_to(root)): (
            hashlib.sha256(path.read_bytes()).hexdigest(),
            path.stat().st_ino,
            path.stat().st_mtime_ns,
        )
        for path in sorted(root.rglob("*"))
        if path.is_file()
    }


def visa_rows() -> list[dict[str, str]]:
    """The official split where it is at hand, else rows with the official counts and numbered names."""
    if OFFICIAL_SPLIT.is_file():
        with OFFICIAL_SPLIT.open(newline="") as file:
            return list(csv.DictReader(file))
    rows = []
    for category, counts in OFFICIAL["visa"].items():
        numbers = iter(range(10_000))
        for split, label, count in (
            ("train", "normal", counts.train_normal),
            ("test", "normal", counts.test_normal),
            ("test", "anomaly", counts.test_anomalous),
        ):
            numbers = iter(range(1000)) if label == "anomaly" else numbers
            for _ in range(count):
                folder = "Normal" if label == "normal" else "Anomaly"
                name = f"{category}/Data/Images/{folder}/{next(numbers):04}.JPG"
                mask = name.replace("Images", "Masks").replace(".JPG", ".png") if label == "anomaly" else ""
                rows.append({"object": category, "split": split, "label": label, "image": name, "mask": mask})
    return rows


def few_rows(count: int = 2) -> list[dict[str, str]]:
    """The first ``count`` of each category, split and label."""
    rows = visa_rows()
    key = lambda row: (row["object"], row["split"], row["label"])  # noqa: E731
    return [row for _, group in groupby(sorted(rows, key=key), key) for row in list(group)[:count]]


def write_split(root: Path, rows: list[dict[str, str]]) -> Path:
    path = root / "split_csv" / "1cls.csv"
    path.parent.mkdir(parents=True, exist_ok=True)
    text = io.StringIO()
    writer = csv.DictWriter(text, ("object", "split", "label", "image", "mask"))
    writer.writeheader()
    writer.writerows(rows)
    path.write_text(text.getvalue())
    return path


def pack_tree(source: Path, path: Path, *, top: str = "", mode: str = "w") -> Path:
    with tarfile.open(path, mode) as tar:
        for name in sorted(os.listdir(source)):
            tar.add(source / name, arcname=f"{top}{name}")
    return path


@pytest.fixture(scope="session")
def mini() -> SimpleNamespace:
    """What makes and inspects miniatures."""
    return SimpleNamespace(
        size_wh=SIZE_WH,
        official_split=OFFICIAL_SPLIT,
        picture=save_picture,
        mask=save_mask,
        hash_tree=hash_tree,
        visa_rows=visa_rows,
        few_rows=few_rows,
        write_split=write_split,
        pack=pack_tree,
    )


@pytest.fixture(scope="session")
def visa_source(tmp_path_factory) -> Path:
    """VisA as downloaded: all twelve categories, two pictures per split and label."""
    root = tmp_path_factory.mktemp("visa") / "VisA"
    rows = few_rows()
    write_split(root, rows)
    for number, row in enumerate(rows):
        save_picture(root / row["image"], number)
        if row["mask"]:
            save_mask(root / row["mask"])
    (root / "candle" / "image_anno.csv").write_text(
        "image,label,mask\n"
        + "".join(
            f'{row["image"]},"{"normal" if row["label"] == "normal" else "chunk of wax missing,stuck"}",{row["mask"]}\n'
            for row in rows
            if row["object"] == "candle"
        )
    )
    return root


@pytest.fixture
def few_official(monkeypatch):
    """The miniature's counts as the official ones."""
    monkeypatch.setitem(OFFICIAL, "visa", dict.fromkeys(OFFICIAL["visa"], Counts(2, 2, 2)))


@pytest.fixture
def mvtec_source(tmp_path) -> Path:
    """Two categories in the MVTec AD layout."""
    root = tmp_path / "mvtec"
    for category in ("bottle", "grid"):
        for number in range(3):
            save_picture(root / category / "train" / "good" / f"{number:03}.png", number)
        for type_name in ("good", "broken", "dirt"):
            for number in range(2):
                save_picture(root / category / "test" / type_name / f"{number:03}.png", number)
                if type_name != "good":
                    save_mask(root / category / "ground_truth" / type_name / f"{number:03}_mask.png", values=(255, 255))
        (root / category / "license.txt").write_text("terms")
    return root
