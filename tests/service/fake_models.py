"""A model that judges by brightness at once, and misbehaves where the class' name says so. It needs no torch."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import numpy as np

from winspect.errors import DeviceError, ReferencesError, WeightsMissingError
from winspect.methods.registry import get_method
from winspect.methods.result import Result
from winspect.methods.winclip.prompts import PromptEnsemble
from winspect.pictures.tiles import WHOLE, Preprocess, prepare
from winspect.service.settings import ModelSpec

LOADER = "service.fake_models:load"


def spec(*, devices=(), **options):
    """A specification of the fake. Options: see :func:`load`."""
    return ModelSpec(options, devices=tuple(devices), loader=LOADER)


def load(own_spec, device):
    """``log``: a file that noteworthy calls are appended to. ``broken``: how loading ends, while the file exists."""
    options = dict(own_spec.options)
    if (broken := options.get("broken")) and Path(broken).exists():
        what = Path(broken).read_text()
        if what == "dies":
            os._exit(7)
        if what == "hangs":
            time.sleep(1000)
        raise {"missing": WeightsMissingError, "device": DeviceError}[what](f"the fake is {what}")
    return Fake(options, device)


class Fake:
    """Score: the picture's mean brightness in 0..1, halved; few-shot half of the references' summed brightness more,
    over 100. So both picture and references can be told from it."""

    def __init__(self, options, device):
        self.options, self.device = options, device
        self.preprocess = Preprocess(size=8, mean=(0, 0, 0), std=(1, 1, 1))
        self.cut = WHOLE
        self.method = get_method("paper")  # for the range of its scores
        self.references = {}
        self.note("load")

    def note(self, *words):
        if log := self.options.get("log"):
            with Path(log).open("a") as file:
                print(os.getpid(), *words, file=file)

    def describe(self):
        return {
            "winspect": "0",
            "model": self.options.get("model", "fake"),
            "weights": "none",
            "weights_sha256": "0" * 64,
            "recipe": {"name": "fake"},
            "prompts": {"normal_states": PromptEnsemble().normal_states},
            "engine": "fake",
            "precision": "fp32",
            "device": self.device or "cpu",
        }

    def cut_of(self, category_name):
        return self.cut

    def prepare_class(self, category_name):
        self.note("class", category_name)

    def prepare_engine(self, category_name, *, maps):
        self.note("engine", category_name, maps)

    def reference(self, pictures, category_name):
        self.note("reference", category_name, len(pictures))
        if category_name == "refuses references":
            raise ReferencesError("the fake does not want them")
        self.references[category_name] = sum(brightness(prepare(one, self.preprocess)) for one in pictures)

    def drop_class(self, category_name):
        self.note("drop", category_name)
        self.references.pop(category_name, None)

    def good_levels(self, category_name):
        return ()

    def forget(self, category_name):
        self.note("forget", category_name)
        self.references.pop(category_name, None)

    def predict_prepared(self, items, category_name, *, maps=True, zero_shot=False):
        if category_name == "dies":
            os.kill(os.getpid(), signal.SIGKILL)
        if category_name == "hangs":
            time.sleep(1000)
        if category_name == "slow":
            time.sleep(0.3)
        if category_name == "picky" and any(brightness(item) < 0.1 for item in items):
            raise ValueError("/secret/path: too dark")
        time.sleep(self.options.get("seconds", 0.0) * len(items))
        few = 0.0 if zero_shot else self.references.get(category_name, 0.0) / 100
        return [self.result(item, category_name, few) for item in items]

    def result(self, item, category_name, few):
        score = brightness(item) / 2 + few
        maps = np.full((len(item.boxes), 2, 2), score, np.float32)
        return Result(
            item.name, category_name, score, maps, tuple(item.boxes), item.size_wh, item.rgb, statistics=item.statistics
        )


def brightness(item):
    return float(item.tiles.mean())
