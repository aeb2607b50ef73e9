"""Predictors that encode the prompts of any class, and keep what they have encoded in the cache. No torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from functools import partial
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np

from winspect.inspector.base import DEFAULT_CLASS, Picture, Predictor
from winspect.inspector.class_state import Learned, learn_once
from winspect.inspector.text_encoder import TextCache, TextEncoder, load_text_tower
from winspect.methods.winclip.prompts import PromptEnsemble, class_key
from winspect.pictures.fingerprints import Fingerprint, fingerprint
from winspect.pictures.tiles import Cut


class Prompted(Predictor):
    """A predictor of a model and its weights, whatever runs them.

    Attributes:
        prompts: states and templates of the class names' prompts.
        weights_sha256: of the weights file.
        start_options: that :func:`winspect.inspector.starting.load` loaded it with; None for a model made otherwise.
    """

    start_options: Mapping[str, Any] | None = None

    prompts: PromptEnsemble
    weights_sha256: str
    _source: tuple[str, str | PathLike[str] | None, str | PathLike[str] | None]
    _cache_folder: Path

    def _read_texts(self, weights_key: str) -> None:
        """Look up texts in the cache from now on.

        Args:
            weights_key: identity of the text tower; see :class:`TextCache`.
        """
        model, weights, cache_dir = self._source
        load_tower = partial(load_text_tower, model, weights, cache_dir, sha256=self.weights_sha256)
        texts = TextCache(self._cache_folder / "text", weights_key)
        self._text = TextEncoder(load_tower, self.prompts, texts, underscores=self.method.underscores)

    def _averaged_text(self, category_name: str) -> np.ndarray:
        """float32 (2, embedding), averaged as the method says."""
        text = self._text(category_name)
        return text.raw if self.method.text_average == "raw" else text.normalised

    def _text_key(self, category_name: str) -> str:
        return class_key(category_name, underscores=self.method.underscores)

    def drop_class(self, category_name: str = DEFAULT_CLASS) -> None:
        """See :meth:`Predictor.drop_class`."""
        super().drop_class(category_name)
        self._text.drop(category_name)

    def _learn(
        self,
        pictures: Sequence[Picture],
        fingerprints: Sequence[Fingerprint],
        category_name: str,
        progress: bool,
        cut: Cut,
    ) -> Learned:
        """As :meth:`Predictor._learn`; a large set is encoded once, not at each start."""
        learned = learn_once(
            self._cache_folder / "references",
            {**self.describe(), "preprocess": asdict(self.preprocess), "cut": cut.document()},
            fingerprints,
            learn=lambda: super(Prompted, self)._learn(pictures, fingerprints, category_name, progress, cut),
            hash_again=lambda: [fingerprint(picture) for picture in pictures],
        )
        return replace(learned, references=learned.references.map(self._as_ours))

    def _as_ours(self, array: Any) -> Any:
        """An array of the cache, or one that is where the embeddings are."""
        return self._on_device(array) if isinstance(array, np.ndarray) else array
