"""Demonstration: two products, photographed and simulated, inspected zero-shot and few-shot by the bundled model.

The pictures come from two packages (extra ``demo``) and are taken at even steps through each set,
not chosen by how well they do.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from winspect.errors import MissingExtraError
from winspect.inspector.winclip import WinCLIP
from winspect.methods.result import Result
from winspect.metrics import auroc
from winspect.outputs.recorder import Recorder
from winspect.outputs.report import Gallery, Picture, write_report
from winspect.pictures.heatmaps import UNIT_RANGE, ScoreRange, run_range
from winspect.system.installation import install_command
from winspect.system.run_folder import locked

PICTURES_PER_LABEL = 8
SHOTS = 4


@dataclass(frozen=True)
class DemoSet:
    """Real pictures of one product.

    Attributes:
        title: for people. ``category_name``: for the prompts. ``source``: where the pictures come from, and licence.
        references: good pictures that are shown to the model, none of them judged.
        pictures: the pictures judged, with whether each is defective.
    """

    title: str
    category_name: str
    source: str
    references: tuple[Path, ...]
    pictures: tuple[tuple[Path, bool], ...]


def _at_even_steps(paths: Sequence[Path], count: int) -> list[Path]:
    return [paths[number] for number in np.linspace(0, len(paths) - 1, count).round().astype(int)]


def _choose(good: Sequence[Path], defective: Sequence[Path]) -> dict[str, Any]:
    chosen = _at_even_steps(good, SHOTS + PICTURES_PER_LABEL)
    references = chosen[:: len(chosen) // SHOTS]
    judged = [path for path in chosen if path not in references]
    bad = _at_even_steps(defective, PICTURES_PER_LABEL)
    return {
        "references": tuple(references),
        "pictures": tuple([(path, False) for path in judged] + [(path, True) for path in bad]),
    }


def textile_set() -> DemoSet:
    """Simulated fabric of the package ``conformal-clip-data``: good, and with local or global defects."""
    try:
        import conformal_clip_data as data
    except ImportError as error:
        raise _missing("conformal-clip-data") from error
    local, everywhere = sorted(data.local_dir().glob("*.jpg")), sorted(data.global_dir().glob("*.jpg"))
    half = PICTURES_PER_LABEL // 2
    defective = _at_even_steps(local, half) + _at_even_steps(everywhere, PICTURES_PER_LABEL - half)
    return DemoSet(
        title="Textile (simulated fabric)",
        category_name="textile",
        source="package conformal-clip-data, Megahed et al. (arXiv 2501.12596), MIT licence",
        **_choose(sorted(data.nominal_dir().glob("*.jpg")), defective),
    )


def solar_set() -> DemoSet:
    """Solar cells in electroluminescence of the package ``elpv-dataset``; defective from a probability of 1."""
    try:
        import elpv_dataset
    except ImportError as error:
        raise _missing("elpv-dataset") from error
    root = Path(elpv_dataset.__file__).parent / "data"
    table = np.genfromtxt(root / "labels.csv", dtype=["U32", "f8", "U8"], names=["path", "probability", "kind"])
    paths = [root / name for name in table["path"]]
    return DemoSet(
        title="Solar cells",
        category_name="solar cell",
        source="package elpv-dataset, Deitsch et al., CC BY-NC-SA 4.0",
        **_choose(
            [path for path, p in zip(paths, table["probability"], strict=True) if p == 0],
            [path for path, p in zip(paths, table["probability"], strict=True) if p == 1],
        ),
    )


def _missing(package: str) -> MissingExtraError:
    return MissingExtraError(f"the demo needs the pictures of {package}: {install_command('demo')}")


# The product that the bundled model works on comes first; the fabric's small defects mostly escape it.
DEMO_SETS: tuple[Callable[[], DemoSet], ...] = (solar_set, textile_set)


@dataclass(frozen=True)
class Judged:
    """One set, judged in one way.

    Attributes:
        shots: good samples shown; 0 is zero-shot.
        seconds: for all pictures, decoding included, loading and prompts not.
        score_range: of the colours of all its heat maps.
    """

    data: DemoSet
    shots: int
    results: tuple[Result, ...]
    seconds: float
    score_range: ScoreRange = UNIT_RANGE

    @property
    def image_auroc(self) -> float | None:
        """Of the few pictures of the demo: a rough figure."""
        return auroc([float(r.anomaly_score or 0) for r in self.results], [bad for _, bad in self.data.pictures])


def judge_sets(model: WinCLIP, sets: Sequence[DemoSet]) -> Iterator[Judged]:
    """Each set zero-shot, then with its references."""
    for data in sets:
        for shots in (0, len(data.references)):
            model.forget(data.category_name)
            if shots:
                model.reference(data.references, data.category_name)
            model.prepare_class(data.category_name)
            began = time.perf_counter()
            paths = [path for path, _ in data.pictures]
            results = tuple(model.predict_many(paths, data.category_name, keep_pictures=True))
            seconds = time.perf_counter() - began
            yield Judged(data, shots, results, seconds, run_range(model.good_levels(data.category_name)))


def run_demo(out: Path, model: WinCLIP, judged: Sequence[Judged]) -> Path:
    """Write ``predictions.jsonl`` (with the label and the shots of each row), heat maps and the report; returns it."""
    maps: dict[tuple[str, int, str], str] = {}
    with locked(out), Recorder(out, model.describe()) as recorder:
        for part in judged:
            for result, (_, defective) in zip(part.results, part.data.pictures, strict=True):
                extra = {"label": "anomalous" if defective else "normal", "shots": part.shots}
                row = recorder.add(result, score_range=part.score_range, extra=extra)
                maps[part.data.title, part.shots, result.path] = row["map"]
    galleries = [_gallery([part for part in judged if part.data is data], maps, out) for data in _distinct(judged)]
    return write_report(out / "report.html", title="winspect demo", settings=model.describe(), galleries=galleries)


def _distinct(judged: Sequence[Judged]) -> list[DemoSet]:
    return list(dict.fromkeys(part.data for part in judged))


def _gallery(parts: Sequence[Judged], maps: dict[tuple[str, int, str], str], out: Path) -> Gallery:
    data = parts[0].data
    names = ["zero-shot" if part.shots == 0 else f"{part.shots}-shot" for part in parts]
    pictures = []
    for number, (path, defective) in enumerate(data.pictures):
        pictures.append(
            Picture(
                name=f"{path.parent.name}/{path.name}",
                label="defective" if defective else "good",
                file=path,
                overlays=tuple(out / maps[data.title, part.shots, str(path)] for part in parts),
                scores=tuple(part.results[number].anomaly_score for part in parts),
                warning="; ".join(dict.fromkeys(filter(None, (part.results[number].warning for part in parts)))),
            )
        )
    return Gallery(
        title=data.title,
        source=data.source,
        columns=tuple(names),
        figures=tuple(
            {"image AUROC": part.image_auroc, "pictures/s": len(part.results) / part.seconds} for part in parts
        ),
        pictures=tuple(pictures),
    )
