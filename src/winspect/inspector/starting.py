"""The model that options describe: without torch where an earlier start has kept all that is needed.

``predict``, ``watch`` and ``serve`` load their models here. A model that runs in OpenVINO on the CPU leaves its graphs
in the cache, and a note of what its options meant (:mod:`winspect.inspector.start_notes`). The next start with the same
options on the same machine then compiles these graphs, and imports neither torch nor open_clip. Whatever is missing,
has changed or fails leads to :class:`winspect.WinCLIP`.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from winspect.backbones.embeddings import Embeddings, Needs
from winspect.engines.graph_cache import GraphCache
from winspect.engines.options import check_count
from winspect.inspector.base import DEFAULT_CLASS, Predictor
from winspect.inspector.kept_engine import KeptEngine, KeptGraph, NoGraphError
from winspect.inspector.prompted import Prompted
from winspect.inspector.start_notes import StartNote, file_state, key_of, read_note, write_note
from winspect.methods.identity import Identity
from winspect.methods.winclip.prompts import PromptEnsemble, class_key
from winspect.pictures.alignment import Alignment
from winspect.pictures.roi import Roi
from winspect.pictures.tiles import Preprocess
from winspect.system.arrays import Array, to_numpy
from winspect.weights import cache_folder
from winspect.weights.cache import sha256_of

if TYPE_CHECKING:
    from winspect.inspector.winclip import WinCLIP

logger = logging.getLogger(__name__)


def load(options: Mapping[str, Any]) -> Predictor:
    """Load a model.

    Args:
        options: arguments of :class:`winspect.WinCLIP`.

    Returns:
        A predictor with the identity, warnings and errors of ``WinCLIP(**options)``, and its scores within 1e-6. Give
        it to :func:`keep` once it is known what it is used for.

    Raises:
        WinspectError: as of :class:`winspect.WinCLIP`.
    """
    check_count("workers", options.get("workers"))
    key = key_of(options)
    note = None if key is None else read_note(key, options.get("cache_dir"))
    if note is not None:
        roi, alignment = options.get("roi"), options.get("alignment")
        roi = roi if isinstance(roi, Roi | None) else Roi.load(roi)
        alignment = alignment if isinstance(alignment, Alignment | None) else Alignment(alignment)
        try:
            return KeptPredictor(note, {**options, "roi": roi, "alignment": alignment})
        except Exception as error:
            logger.warning("cannot start from the cache (%s); loading the model with torch", _first_line(error))
    from winspect.inspector.winclip import WinCLIP

    model = WinCLIP(**options)
    model.start_options = options
    return model


class KeptPredictor(Prompted):
    """A model from what an earlier start kept of it. What no kept graph embeds, torch does, which is loaded then.

    Args:
        note: of the options.
        options: arguments of :class:`winspect.WinCLIP`, with ``roi`` and ``alignment`` as values.

    Attributes:
        full: the whole model, once it was needed.
    """

    def __init__(self, note: StartNote, options: Mapping[str, Any]) -> None:
        self.full: WinCLIP | None = None
        self.start_options: Mapping[str, Any] = options
        places: dict[str, Any] = {"roi": options.get("roi"), "alignment": options.get("alignment")}
        words = {name: place and place.words for name, place in places.items()}
        self._kept = replace(Identity.read(note.identity), **words)
        threads: Any = {"plan": options.get("plan") or "auto", "workers": options.get("workers")}
        super().__init__(bit_depth=self._kept.bit_depth, **places, **threads)
        self.model, self.weights_sha256 = self._kept.model, self._kept.weights_sha256
        self.prompts = PromptEnsemble(**note.identity["prompts"])
        self._source = options.get("model", self.model), options.get("weights"), options.get("cache_dir")
        self._cache_folder = cache_folder(options.get("cache_dir"))
        self.grid_hw, self.preprocess = note.grid_hw, Preprocess(**note.preprocess)
        self.method = self._kept.recipe.for_model(note.scoring, self.model)
        cache = GraphCache(self._cache_folder / "graphs", note.weights_key)
        self.engine = KeptEngine(note.graphs, self._kept, note.scoring, cache, note.threads)
        self._read_texts(note.weights_key)
        for reason in note.reasons:
            logger.info("%s", reason)
        for remark in note.remarks:
            logger.warning("%s", remark)

    def _identity(self) -> Identity:
        return self._kept if self.full is None else self.full.identity()

    def _encode_text(self, category_name: str) -> Array:
        return self._averaged_text(category_name)

    def prepare_engine(self, category_name: str = DEFAULT_CLASS, *, maps: bool = True) -> None:
        """See :meth:`Predictor.prepare_engine`; where no kept graph serves, torch's model does from now on."""
        if self.full is None:
            try:
                return super().prepare_engine(category_name, maps=maps)
            except Exception as error:
                _say_why(error)
        few_shot = class_key(category_name) in self._good
        full = self._with_torch()
        full.prepare_needs(self.method.needs(few_shot=few_shot, maps=maps))
        self.engine = full.engine

    def _encode(self, tiles: np.ndarray, needs: Needs) -> Embeddings:
        if self.full is None:
            try:
                return self.engine.encode(tiles, needs)
            except Exception as error:
                _say_why(error)
        full = self._with_torch()
        embeddings = full._encode(tiles, needs)
        self.engine = full.engine  # it may have been replaced
        return embeddings.map(to_numpy)

    def _with_torch(self) -> WinCLIP:
        """The whole model, which runs from now on."""
        if self.full is None:
            from winspect.inspector.winclip import WinCLIP

            self.full = WinCLIP(**self.start_options)
        return self.full


def _say_why(error: Exception) -> None:
    if isinstance(error, NoGraphError):  # each kind of use is kept when it has been met
        logger.info("%s; loading the model with torch", error)
    else:
        logger.warning("the graph in the cache fails (%s); loading the model with torch", _first_line(error))


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]


def keep(model: Predictor, category_name: str = DEFAULT_CLASS) -> None:
    """Keep what the next start needs to score a class as this one does, with or without good samples.

    Where that fails, or the model has another engine, the next start takes as long as this one.

    Args:
        model: of :func:`load`; nothing is kept of others.
    """
    whole: Any = model.full if isinstance(model, KeptPredictor) else model
    options = getattr(model, "start_options", None)
    key = None if whole is None or options is None else key_of(options)
    if key is None or not os.access(_nearest(whole._cache_folder), os.W_OK):
        return
    try:
        _keep(whole, key, few_shot=bool(model.references_of(category_name)))
    except Exception as error:  # OpenVINO's are RuntimeErrors; of a full disk as well
        logger.info("cannot keep a start without torch in %s (%s)", whole._cache_folder, _first_line(error))


def _keep(model: WinCLIP, key: Mapping[str, Any], *, few_shot: bool) -> None:
    from winspect.engines.openvino_engine import OpenVINOEngine
    from winspect.weights.sources import resolve

    engine: Any = model.engine
    if type(engine) is not OpenVINOEngine or engine.openvino_device != "CPU" or engine.precision != "fp32":
        return
    name, weights, cache_dir = model._source
    source = resolve(name, weights, cache_dir=cache_dir, offline=True)
    files = _files_of(source.path, source.kind)
    if sha256_of(source.path, cache_dir) != model.weights_sha256:  # changed since the model was loaded
        return
    needs, without = (model.method.needs(few_shot=kind, maps=True) for kind in (True, False))
    if not few_shot and not needs.gives(without):
        needs = without
    tile_hw = engine.image_hw
    seen_hw = needs.seen_hw(tile_hw)
    grid_hw = seen_hw[0] // engine.tower.patch, seen_hw[1] // engine.tower.patch
    graph = KeptGraph(needs, tile_hw, grid_hw, engine.is_traced(needs), engine.keep(needs))
    known = read_note(key, cache_dir, level=logging.DEBUG)  # load() has said it
    others = [other for other in known.graphs if (other.needs, other.tile_hw) != (needs, tile_hw)] if known else []
    is_auto = key["device"] == key["engine"] == "auto"
    note = StartNote(
        identity=replace(model.identity(), roi=None, alignment=None).document(),
        scoring=dict(model.method.scoring),
        preprocess=asdict(model.preprocess),
        grid_hw=model.grid_hw,
        weights_key=model._weights_key,
        graphs=tuple(sorted([graph, *others], key=lambda each: each.needs.layers)),
        threads=engine.threads,
        remarks=tuple(model.remarks),
        reasons=(*(["device auto: cpu"] if is_auto else ()), *model.reasons),
        files=files,
    )
    write_note(key, note, cache_dir)


def _files_of(path: Path, kind: str) -> tuple[Any, ...]:
    """States of the weights, and of what is beside them that options also lead to."""
    beside = [path.with_name(name) for name in ("open_clip_config.json", "config.json")]
    folder = [] if kind == "file" and not any(map(Path.is_file, beside)) else [path.parent]
    return tuple(map(file_state, [path, *beside, *folder]))


def _nearest(folder: Path) -> Path:
    """The folder, or the first around it that is there."""
    return next(place for place in (folder, *folder.parents) if place.exists())
