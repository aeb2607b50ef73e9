"""What :mod:`benchmarks.fuzz` damages, and how each is read; used by its workers.

A family writes an input from a random generator, reads it as winspect does, and says whether what was read can be
right: a damaged file that carries a checksum must be refused, or give what the whole one gives.
"""

from __future__ import annotations

import io
import json
import math
import tarfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
from PIL import Image

EXAMPLE = Path(__file__).parents[1] / "examples" / "textile" / "local_0001.jpg"
HUGE = (
    "0",
    "-1",
    "1e-9",
    "1e308",
    "1e999",
    "nan",
    "1000000",
    "99999999999999999999",
    "[[[[1]]]]",
    "{a: 1}",
    "2024-05-01",
)


class WrongError(Exception):
    """What was read cannot be right."""


@dataclass(frozen=True)
class Family:
    """A kind of input.

    Attributes:
        make: writes an input into a folder; returns what ``read`` takes.
        read: what winspect makes of it; raises :class:`WrongError` for what cannot be right.
    """

    make: Callable[[Random, Path], Any]
    read: Callable[[Any], None]


def need(ok: bool, what: str) -> None:
    """Raise :class:`WrongError` unless ``ok``."""
    if not ok:
        raise WrongError(what)


def damage(content: bytes, rng: Random) -> bytes:
    """Bytes lost, changed, added, doubled or moved; more often near the start, where headers are."""
    data = bytearray(content)
    for _ in range(rng.choice((1, 1, 2, 8))):
        if not data:
            break
        reach = rng.choice((64, 1024, len(data)))
        at = rng.randrange(min(reach, len(data)))
        kind = rng.randrange(7)
        if kind == 0:
            data[at] ^= 1 << rng.randrange(8)
        elif kind == 1:
            data[at] = rng.choice((0, 0xFF, 0x7F, 0x80, rng.randrange(256)))
        elif kind == 2:
            data[at : at + 4] = rng.choice((b"\xff" * 4, b"\0" * 4, b"\x7f\xff\xff\xff", b"\xff\xff\xff\x7f"))
        elif kind == 3:
            del data[rng.randrange(len(data)) :]
        elif kind == 4:
            del data[at : at + rng.randrange(1, 40)]
        elif kind == 5:
            data[at:at] = rng.randbytes(rng.randrange(1, 40))
        else:
            data[at:at] = data[at : at + rng.randrange(1, 200)]
    return bytes(data)


def damage_text(text: str, rng: Random) -> bytes:
    """As :func:`damage`, or with values and marks put in place of others, in one of several encodings."""
    if rng.random() < 0.4:
        return damage(text.encode(), rng)
    parts = list(text)
    for _ in range(rng.choice((1, 2, 5))):
        at = rng.randrange(len(parts) + 1)
        mark = rng.choice(
            ("\0", "\u2028", '"', "'", ",", ";", "\t", "{", "}", "[", "]", ":", "&a ", "*a", "!!x ", "\ud7ff")
        )
        parts[at : at + rng.choice((0, 1, 4))] = rng.choice((mark, rng.choice(HUGE), mark * rng.choice((1, 3000))))
    return "".join(parts).encode(rng.choice(("utf-8", "utf-8", "utf-8-sig", "utf-16", "cp1252")), "replace")


def damage_json(document: Any, rng: Random) -> bytes:
    """One value of a JSON document replaced by a value of another kind or size; or its text damaged."""
    if rng.random() < 0.3:
        return damage_text(json.dumps(document), rng)
    copy = json.loads(json.dumps(document))
    place, key = {"": copy}, ""
    while isinstance(place[key], dict | list) and place[key] and rng.random() < 0.85:
        place = place[key]
        key = rng.choice(list(place) if isinstance(place, dict) else range(len(place)))
    place[key] = rng.choice((None, True, -1, 0, 1e308, 10**30, math.nan, math.inf, "", "x", "../x", "\0", [], {}, [[]]))
    return json.dumps(copy).encode()


def _file(suffixes: dict[str, Callable[[], bytes]], spoil: Callable[[bytes, Random], bytes] = damage) -> Any:
    def make(rng: Random, folder: Path) -> Path:
        suffix = rng.choice(sorted(suffixes))
        path = folder / f"input{suffix}"
        path.write_bytes(spoil(suffixes[suffix](), rng))
        return path

    return make


@cache
def _saved(kind: str, mode: str, options: str = "{}") -> bytes:
    pixels = np.asarray(Image.open(EXAMPLE).convert("RGB").resize((96, 64)))
    image = Image.fromarray(pixels).convert(mode)
    into = io.BytesIO()
    image.save(into, kind, **json.loads(options))
    return into.getvalue()


PICTURES = {
    ".png": lambda: _saved("PNG", "RGB"),
    ".jpg": lambda: _saved("JPEG", "RGB"),
    ".progressive.jpg": lambda: _saved("JPEG", "RGB", '{"progressive": true}'),
    ".tif": lambda: _saved("TIFF", "RGB"),
    ".lzw.tif": lambda: _saved("TIFF", "RGB", '{"compression": "tiff_lzw"}'),
    ".webp": lambda: _saved("WEBP", "RGB", '{"lossless": true}'),
    ".bmp": lambda: _saved("BMP", "RGB"),
    ".gif": lambda: _saved("GIF", "P"),
    ".ppm": lambda: _saved("PPM", "RGB"),
}


def _read_picture(path: Path) -> None:
    from winspect.pictures.decoding import decode_picture

    decoded = decode_picture(path)
    image = decoded.image
    need(image.mode == "RGB" and min(image.size) > 0, f"got {image.mode} {image.size}")
    if path.name == "input.png" and decoded.warning is None:  # every chunk has a checksum
        whole = Image.open(io.BytesIO(PICTURES[".png"]()))
        need(image.tobytes() == whole.tobytes(), "other pixels without a warning")


def _mask(mode: str, kind: str) -> Callable[[], bytes]:
    def saved() -> bytes:
        mask = np.zeros((64, 96), np.uint8)
        mask[10:30, 20:50] = 255
        into = io.BytesIO()
        Image.fromarray(mask).convert(mode).save(into, kind)
        return into.getvalue()

    return cache(saved)


def _read_mask(path: Path) -> None:
    from winspect.datasets.masks import read_mask

    mask = read_mask(path, size_wh=(96, 64))
    need(mask.dtype == bool and mask.shape == (64, 96), f"got {mask.dtype} {mask.shape}")


_CSV = "image,category,split,label,mask\n" + "".join(
    f"a{n}.png,bolt,test,{'ok' if n % 2 else 'ng'},\n" for n in range(9)
)
_JSONL = "".join(json.dumps({"image": f"a{n}.png", "category": "bolt", "label": n % 2}) + "\n" for n in range(9))


def _make_table(rng: Random, folder: Path) -> Path:
    suffix, text = rng.choice(((".csv", _CSV), (".jsonl", _JSONL), (".csv", _CSV.replace(",", ";"))))
    path = folder / f"table{suffix}"
    path.write_bytes(damage_text(text, rng))
    for number in range(9):
        (folder / f"a{number}.png").write_bytes(b"")
    return path


def _read_table(path: Path) -> None:
    from winspect.datasets import open_dataset

    for item in open_dataset("manifest", path).items:
        need(item.label in ("normal", "anomalous"), f"label {item.label!r}")


_LISTING = {
    split: {
        "bolt": [{"img_path": f"a{n}.png", "mask_path": "", "specie_name": "good", "anomaly": n % 2} for n in range(9)]
    }
    for split in ("train", "test")
}


def _make_listing(rng: Random, folder: Path) -> Path:
    for number in range(9):
        (folder / f"a{number}.png").write_bytes(b"")
    (folder / "meta.json").write_bytes(damage_json(_LISTING, rng))
    return folder


def _read_listing(folder: Path) -> None:
    from winspect.datasets import open_dataset

    for item in open_dataset("meta", folder).items:
        need(item.label in ("normal", "anomalous") and item.split in ("train", "test"), f"{item}")


def _make_tar(rng: Random, folder: Path) -> Path:
    path, mode = rng.choice((("a.tar", "w"), ("a.tar.gz", "w:gz"), ("a.tar.xz", "w:xz")))
    into = io.BytesIO()
    with tarfile.open(fileobj=into, mode=mode, format=rng.choice((tarfile.GNU_FORMAT, tarfile.PAX_FORMAT))) as tar:
        for number in range(4):
            info = tarfile.TarInfo(f"bolt/train/good/{number}.png")
            if rng.random() < 0.2:
                info.pax_headers = {
                    "GNU.sparse.major": "1",
                    "GNU.sparse.minor": "0",
                    "GNU.sparse.realsize": "12000000000",
                }
            content = PICTURES[".png"]()
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    content = into.getvalue()
    (folder / path).write_bytes(content if rng.random() < 0.1 else damage(content, rng))
    return folder / path


def _read_tar(path: Path) -> None:
    from winspect.datasets.prepare import prepare_dataset

    summary = prepare_dataset("mvtec", source=path, out=path.parent / "made", progress=False)
    need(summary.written + len(summary.failed) + len(summary.missing) > 0, "nothing written, nothing said")


_PROMPTS = "normal_states: ['{}', 'good {}']\nanomalous_states: ['bad {}']\ntemplates: ['a photo of {}.']\n"
_NAMES = "pcb1: printed circuit board\n01: bolt\nmetal_nut: nut\n"


def _make_yaml(rng: Random, folder: Path) -> Path:
    name, text = rng.choice((("prompts.yaml", _PROMPTS), ("names.yaml", _NAMES)))
    (folder / name).write_bytes(damage_text(text, rng))
    return folder / name


def _read_yaml(path: Path) -> None:
    from winspect.evaluation.class_names import read_class_names
    from winspect.methods.winclip.prompts import PromptEnsemble

    if path.name == "names.yaml":
        names = read_class_names(path)
        need(all(isinstance(part, str) for pair in names.items() for part in pair), f"{names}")
    else:
        normal, anomalous = PromptEnsemble.from_yaml(path).prompts("bolt")
        need(all("bolt" in prompt for prompt in (*normal, *anomalous)), "a prompt without the class")


def _make_setting(rng: Random, folder: Path) -> list[str]:
    from winspect.methods.winclip.recipes import Recipe

    names = [*Recipe.__dataclass_fields__, "x", ""]
    values = (*HUGE, "sum", "log", "true", "2,3", "[2]", "same", "&a [*a]", "[" * 5000, "!!python/name:os.system ''")
    pairs = [f"{rng.choice(names)}={rng.choice(values)}" for _ in range(rng.randrange(1, 3))]
    return [damage_text(pair, rng).decode("utf-8", "surrogateescape") if rng.random() < 0.3 else pair for pair in pairs]


def _read_setting(pairs: list[str]) -> None:
    from winspect.cli.common import parse_settings
    from winspect.methods.winclip.recipes import get_recipe

    recipe = get_recipe("paper", parse_settings(pairs))
    need(0 < recipe.temperature < math.inf and 0 < recipe.tile_stride <= 1, f"{recipe}")


@cache
def _calibration() -> Any:
    from winspect import WinCLIP
    from winspect.inspector.calibrating import calibrate

    rng = np.random.default_rng(0)
    pictures = [rng.integers(90, 130, (60, 60, 3), np.uint8) for _ in range(4)]
    return calibrate(WinCLIP("winspect-tiny", device="cpu", engine="torch"), pictures, "bolt", max_false_alarms=0.3)


@cache
def _calibration_document() -> str:
    return json.dumps(_calibration().document())


def _make_calibration(rng: Random, folder: Path) -> Path:
    (folder / "calibration.json").write_bytes(damage_json(json.loads(_calibration_document()), rng))
    return folder / "calibration.json"


def _read_calibration(path: Path) -> None:
    from winspect.calibration import Calibration

    calibration = Calibration.load(path)
    need(0 <= calibration.threshold <= 1, f"threshold {calibration.threshold}")
    need(isinstance(repr(calibration), str) and isinstance(calibration.class_name, str), "no class name")
    calibration.model_options({})


@cache
def _tensors() -> dict[str, Any]:
    import torch

    generator = torch.Generator().manual_seed(0)
    return {f"visual.{n}.weight": torch.randn(8, 4, generator=generator) for n in range(5)}


@cache
def _checkpoint(kind: str) -> bytes:
    import torch
    from safetensors.torch import save

    into = io.BytesIO()
    if kind == "safetensors":
        return save(_tensors())
    if kind == "script":
        part = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Linear(8, 2))
        torch.jit.save(torch.jit.trace(part, torch.zeros(1, 4)), into)
        return into.getvalue()
    torch.save(_tensors(), into, _use_new_zipfile_serialization=kind == "zip")
    return into.getvalue()


def _make_weights(rng: Random, folder: Path) -> Path:
    name, kind = rng.choice(
        (("w.pt", "zip"), ("old.pt", "legacy"), ("w.safetensors", "safetensors"), ("jit.pt", "script"))
    )
    content = _checkpoint(kind)
    if kind in ("zip", "script") and rng.random() < 0.4:
        content = damaged_entry(content, rng)
    (folder / name).write_bytes(content if rng.random() < 0.05 else damage(content, rng))
    return folder / name


def damaged_entry(content: bytes, rng: Random) -> bytes:
    """A zip whose checksums are right, and one of whose files is damaged."""
    into = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as old, zipfile.ZipFile(into, "w") as new:
        names = old.namelist()
        spoilt = rng.choice([name for name in names if name.endswith(".pkl")] if rng.random() < 0.7 else names)
        for name in names:
            new.writestr(name, damage(old.read(name), rng) if name == spoilt else old.read(name))
    return into.getvalue()


def _read_weights(path: Path) -> None:
    import torch

    from winspect.weights.architectures import architectures_like
    from winspect.weights.checkpoint import check_zip, is_openai, read_tensors

    check_zip(path)
    tensors = read_tensors(path)
    is_openai(tensors)
    architectures_like({name: tuple(tensor.shape) for name, tensor in tensors.items()})
    for tensor in tensors.values():
        need(isinstance(tensor, torch.Tensor), f"{type(tensor)}")
        tensor.contiguous().sum()  # reads all of its bytes


@cache
def _bundle(folder: Path) -> tuple[Path, float]:
    from winspect import WinCLIP
    from winspect.inspector.edge import load_bundle
    from winspect.inspector.export import export

    model = WinCLIP("winspect-tiny", device="cpu", engine="onnx", precision="fp32")
    model.reference([EXAMPLE], "textile")
    export(model, ["textile"], folder / "whole")
    return folder / "whole", load_bundle(folder / "whole").predict(EXAMPLE, "textile").anomaly_score


def _make_bundle(rng: Random, folder: Path) -> Path:
    import shutil

    whole, _ = _bundle(folder.parent)
    place = folder / "bundle"
    shutil.copytree(whole, place, copy_function=_hard_link)
    files = sorted(path for path in place.rglob("*") if path.is_file())
    spoilt = rng.choice([place / "bundle.json", place / "preprocessing.json", *files])
    content = spoilt.read_bytes()
    spoilt.unlink()
    is_json = spoilt.suffix == ".json" and rng.random() < 0.7
    spoilt.write_bytes(damage_json(json.loads(content), rng) if is_json else damage(content, rng))
    if spoilt.name != "bundle.json" and rng.random() < 0.5:  # with the hash of the damaged file, as an attacker would
        _hash_anew(place, spoilt)
    return place


def _hard_link(source: str, target: str) -> None:
    Path(target).hardlink_to(source)


def _hash_anew(place: Path, spoilt: Path) -> None:
    from winspect.weights.cache import hash_file

    document = json.loads((place / "bundle.json").read_text())
    document["sha256"][spoilt.relative_to(place).as_posix()] = hash_file(spoilt)
    (place / "bundle.json").unlink()
    (place / "bundle.json").write_text(json.dumps(document))
    (place / ".hashed").touch()


def _read_bundle(place: Path) -> None:
    from winspect.inspector.edge import load_bundle

    whole, right = _bundle(place.parents[1])
    hashed = (place / ".hashed").is_file()
    (place / ".hashed").unlink(missing_ok=True)
    score = load_bundle(place).predict(EXAMPLE, "textile").anomaly_score
    need(0 <= score <= 1, f"score {score}")
    same = (place / "bundle.json").read_bytes() == (whole / "bundle.json").read_bytes()
    need(hashed or not same or abs(score - right) < 1e-6, f"score {score}, not {right}, from a damaged file")


FAMILIES = {
    "pictures": Family(_file(PICTURES), _read_picture),
    "masks": Family(
        _file(
            {
                ".png": _mask("L", "PNG"),
                ".one.png": _mask("1", "PNG"),
                ".bmp": _mask("L", "BMP"),
                ".tif": _mask("L", "TIFF"),
            }
        ),
        _read_mask,
    ),
    "tables": Family(_make_table, _read_table),
    "listings": Family(_make_listing, _read_listing),
    "calibrations": Family(_make_calibration, _read_calibration),
    "yaml": Family(_make_yaml, _read_yaml),
    "settings": Family(_make_setting, _read_setting),
    "tars": Family(_make_tar, _read_tar),
    "weights": Family(_make_weights, _read_weights),
    "bundles": Family(_make_bundle, _read_bundle),
}
