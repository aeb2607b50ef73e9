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

from winspect.datasets.packaged import open_textile, package_folder, read_cells
from winspect.inspector.winclip import WinCLIP
from winspect.methods.result import Result
from winspect.metrics import auroc
from winspect.outputs.pages import THUMBNAIL_SIDE, data_uri, write_page
from winspect.outputs.rows import Recorder
from winspect.pictures.decoding import decode
from winspect.pictures.find import at_even_steps
from winspect.pictures.heatmaps import UNIT_RANGE, ScoreRange, run_range
from winspect.system.run_folder import locked

PICTURES_PER_LABEL = 8
SHOTS = 4


@dataclass(frozen=True)
class DemoSet:
    """Real pictures of one product.

    Attributes:
        title: for people. ``category_name``: for the prompts. ``source``: where the pictures come from, and licence.
        references: good pictures that are shown to the model, none of them scored.
        pictures: the pictures scored, with whether each is defective.
        whole_set: number of good samples and image AUROC of the bundled model on all pictures of the set, by its card.
    """

    title: str
    category_name: str
    source: str
    references: tuple[Path, ...]
    pictures: tuple[tuple[Path, bool], ...]
    whole_set: tuple[tuple[int, float], ...] = ()


def _choose(good: Sequence[Path], defective: Sequence[Path]) -> dict[str, Any]:
    chosen = at_even_steps(good, SHOTS + PICTURES_PER_LABEL)
    references = chosen[:: len(chosen) // SHOTS]
    rest = [(path, False) for path in chosen if path not in references]
    bad = [(path, True) for path in at_even_steps(defective, PICTURES_PER_LABEL)]
    return {"references": tuple(references), "pictures": (*rest, *bad)}


def textile_set() -> DemoSet:
    """Simulated fabric of the package ``conformal-clip-data``: good, and with local or global defects."""
    items = open_textile().items
    good, local, everywhere = (
        [item.path for item in items if item.defect_type == kind] for kind in ("good", "local", "global")
    )
    half = PICTURES_PER_LABEL // 2
    defective = at_even_steps(local, half) + at_even_steps(everywhere, PICTURES_PER_LABEL - half)
    return DemoSet(
        title="Textile (simulated fabric)",
        category_name="textile",
        source="package conformal-clip-data, Megahed et al. (arXiv 2501.12596), MIT licence",
        whole_set=((SHOTS, 0.903), (0, 0.748)),
        **_choose(good, defective),
    )


def solar_set() -> DemoSet:
    """Solar cells in electroluminescence of the package ``elpv-dataset``; defective from a probability of 1."""
    root = package_folder("elpv")
    cells = read_cells(root)
    good, defective = ([root / name for name, found, _ in cells if found == probability] for probability in (0, 1))
    return DemoSet(
        title="Solar cells",
        category_name="solar cell",
        source="package elpv-dataset, Deitsch et al., CC BY-NC-SA 4.0",
        whole_set=((SHOTS, 0.749), (0, 0.684)),
        **_choose(good, defective),
    )


# The product that the bundled model works on comes first; the fabric's small defects mostly escape it.
DEMO_SETS: tuple[Callable[[], DemoSet], ...] = (solar_set, textile_set)


@dataclass(frozen=True)
class Scored:
    """One set, zero-shot or few-shot.

    Attributes:
        shots: good samples shown; 0 is zero-shot.
        seconds: for all pictures, decoding included, loading and prompts not.
        score_range: of the colours of all its heat maps.
    """

    data: DemoSet
    shots: int
    results: tuple[Result, ...]
    seconds: float
    score_range: ScoreRange | None = UNIT_RANGE

    @property
    def way(self) -> str:
        """Zero-shot, or how many shots."""
        return f"{self.shots}-shot" if self.shots else "zero-shot"

    @property
    def whole_set_auroc(self) -> float | None:
        """What the bundled model's card says of all pictures of the set."""
        return dict(self.data.whole_set).get(self.shots)

    @property
    def image_auroc(self) -> float | None:
        """Of the few pictures of the demo: a rough figure."""
        return auroc([float(r.anomaly_score or 0) for r in self.results], [bad for _, bad in self.data.pictures])


def score_sets(model: WinCLIP, sets: Sequence[DemoSet]) -> Iterator[Scored]:
    """Each set with its references, as the model is best used, then zero-shot."""
    for data in sets:
        for shots in (len(data.references), 0):
            model.forget(data.category_name)
            if shots:
                model.reference(data.references, data.category_name)
            model.prepare_class(data.category_name)
            began = time.perf_counter()
            paths = [path for path, _ in data.pictures]
            results = tuple(model.predict_many(paths, data.category_name, keep_pictures=True))
            seconds = time.perf_counter() - began
            yield Scored(
                data,
                shots,
                results,
                seconds,
                run_range(model.good_levels(data.category_name), limits=model.method.score_range),
            )


def run_demo(out: Path, model: WinCLIP, scored: Sequence[Scored]) -> Path:
    """Write ``predictions.jsonl`` (with the label and the shots of each row), heat maps and the report; returns it."""
    galleries: dict[DemoSet, list[tuple[Scored, list[Path]]]] = {}
    with locked(out), Recorder(out, model.describe()) as recorder:
        for part in scored:
            maps = []
            for result, (_, defective) in zip(part.results, part.data.pictures, strict=True):
                extra = {"label": "anomalous" if defective else "normal", "shots": part.shots}
                maps.append(out / recorder.add(result, score_range=part.score_range, extra=extra)["map"])
            galleries.setdefault(part.data, []).append((part, maps))
    values = {"settings": model.describe(), "galleries": galleries, "thumbnail": _thumbnail}
    return write_page(out / "report.html", "report.html", title="winspect demo", **values)


def _thumbnail(path: Path) -> str:
    """A picture as a data URI, at a thumbnail's size."""
    image = decode(path)
    image.thumbnail((THUMBNAIL_SIDE, THUMBNAIL_SIDE))
    return data_uri(image)
