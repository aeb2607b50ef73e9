"""Every step of docs/optimisation-log.md, on and off in turn: ``python -m benchmarks.steps --json FILE``.

Random weights of ViT-B-16-plus-240, one real picture, all windows. Each step is a pair of functions that do the same
work; they are run in turn, round by round, and what is printed is the median of the ratios within a round.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median
from typing import Any

import torch

from benchmarks.measuring import ROOT, in_turn, machine, median_ratio, random_weights, write_json
from winspect.backbones.image_tower import ImageTower
from winspect.backbones.open_clip_models import load
from winspect.backbones.text_tower import TextTower
from winspect.engines.compiled import OpenVINOGraph
from winspect.engines.openvino_engine import OpenVINOEngine
from winspect.engines.torch_engine import TorchEngine
from winspect.engines.tower_graph import Layout
from winspect.inspector.text_encoder import TextCache, TextEncoder
from winspect.methods.winclip.prompts import PromptEnsemble
from winspect.pictures.tiles import prepare

MODEL, CLASS = "ViT-B-16-plus-240", "metal nut"
PICTURE = ROOT / "examples" / "textile" / "local_0001.jpg"
WINDOWS = {"scales": (2, 3), "stride": 1, "patches": False}

Pair = tuple[str, Callable[[], object], Callable[[], object]]
"""A step's name, the work without it, the work with it."""


class Subject:
    """The model, and the picture's tile float32 (1, 3, 240, 240)."""

    def __init__(self, weights: Path) -> None:
        self.loaded = load(MODEL, weights)
        self.tile = torch.from_numpy(prepare(PICTURE, self.loaded.preprocess).tiles)

    def tower(self) -> ImageTower:
        """A new one, as engines may change its precision."""
        return ImageTower(load(MODEL, self.loaded.path).model.visual).eval()

    def torch(self, precision: str) -> Callable[[], object]:
        """A pass in torch."""
        engine = TorchEngine(self.tower(), torch.device("cpu"), precision)
        return lambda: engine.encode(self.tile, **WINDOWS)

    def graph(self, precision: str, *, options: dict[str, Any] | None = None, **layout: Any) -> Callable[[], object]:
        """A pass of OpenVINO's graph."""
        engine = OpenVINOEngine(self.tower(), precision=precision)
        engine._options.update(options or {})
        where = Layout(engine.tower.grid_hw, (2, 3), 1, False, 1, **layout)
        compiled = OpenVINOGraph(engine._compiled(where))
        with torch.inference_mode():
            tokens = engine.tower.tokens(self.tile)[0].flatten(0, 1).numpy()
        return lambda: (compiled(tokens), engine)


def text_steps(subject: Subject) -> Iterator[Pair]:
    """Prompts of a new class."""
    normal, anomalous = PromptEnsemble().prompts(CLASS)
    loaded, tower = subject.loaded, TextTower(subject.loaded.model, subject.loaded.tokenizer).eval()
    tokens = loaded.tokenizer(normal + anomalous)
    longest = int(tokens.argmax(dim=-1).max()) + 1

    def whole(length: int) -> None:
        with torch.inference_mode():
            for part in tokens.split(64):
                encode(part, length)

    def encode(part: torch.Tensor, length: int) -> torch.Tensor:
        x = tower.text.token_embedding(part[:, :length]) + tower.text.positional_embedding[:length]
        for block in tower.blocks:
            x = block(x, causal=True)
        return tower.text.ln_final(x) @ tower.text.text_projection

    def all_77() -> None:
        whole(tokens.shape[1])

    yield "prompts: to the longest end-of-text only", all_77, lambda: whole(longest)
    yield "prompts: each prefix once", all_77, lambda: tower(normal + anomalous)
    cache = TextCache(Path(tempfile.mkdtemp()), "steps")
    TextEncoder(lambda: tower, PromptEnsemble(), cache)(CLASS)

    def cached() -> None:
        TextEncoder(lambda: tower, PromptEnsemble(), cache)(CLASS)

    yield "prompts: cached on disk", all_77, cached


def image_steps(subject: Subject) -> Iterator[Pair]:
    """One picture with all its windows."""
    fp32 = subject.graph("fp32")
    yield "first block's projection shared", subject.graph("fp32", share_first=False), fp32
    yield "last block only where read", subject.graph("fp32", read_last=False), fp32
    yield "both", subject.graph("fp32", share_first=False, read_last=False), fp32
    eager = subject.torch("fp32")
    yield "OpenVINO fp32 instead of torch fp32", eager, fp32
    yield "torch bf16 instead of torch fp32", eager, subject.torch("bf16")
    yield "torch fp16 instead of torch fp32", eager, subject.torch("fp16")
    bf16 = subject.graph("bf16")
    yield "OpenVINO bf16 instead of OpenVINO fp32", fp32, bf16
    yield "OpenVINO bf16 instead of torch bf16", subject.torch("bf16"), bf16


def compiled_steps(subject: Subject) -> Iterator[Pair]:
    """torch.compile, which takes minutes to build."""
    for precision in ("fp32", "bf16"):
        tower = subject.tower().to(dtype=torch.float32 if precision == "fp32" else torch.bfloat16)
        pixels = subject.tile.to(tower.dtype)
        compiled = torch.compile(tower)

        def run(call: Callable[..., object], pixels: torch.Tensor = pixels) -> object:
            with torch.inference_mode():
                return call(pixels, **WINDOWS)

        began = time.perf_counter()
        run(compiled)
        print(f"torch.compile {precision}: {time.perf_counter() - began:.0f} s to build", flush=True)
        yield f"torch.compile {precision}", lambda t=tower: run(t), lambda c=compiled: run(c)


STEPS = {"text": text_steps, "image": image_steps, "compile": compiled_steps}


def measure(pair: Pair, rounds: int) -> dict[str, Any]:
    """Medians in ms, and the median ratio: above 1 the step is faster."""
    name, without, with_step = pair
    seconds = in_turn({"without": without, "with": with_step}, rounds, warm_up=1)
    found = {
        "step": name,
        "without_ms": round(1000 * median(seconds["without"]), 1),
        "with_ms": round(1000 * median(seconds["with"]), 1),
        "speedup": round(median_ratio(seconds["without"], seconds["with"]), 3),
    }
    print(f"{found['speedup']:8.3f}x  {found['without_ms']:9.1f} -> {found['with_ms']:9.1f} ms  {name}", flush=True)
    return found


def main() -> None:
    """Measure all steps."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.steps", description=__doc__)
    parser.add_argument("--json", type=Path, help="the file to write")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--weights", type=Path, help="a checkpoint of the architecture; random ones otherwise")
    parser.add_argument("--parts", default="text,image", help="text, image, compile (takes minutes to build)")
    options = parser.parse_args()
    facts = machine()
    with tempfile.TemporaryDirectory() as folder:
        subject = Subject(options.weights or random_weights(MODEL, Path(folder)))
        found = []
        for part in options.parts.split(","):
            found += [measure(pair, options.rounds) for pair in STEPS[part](subject)]
    report = {"machine": facts, "model": MODEL, "rounds": options.rounds, "steps": found}
    write_json(options.json, report, indent=1)


if __name__ == "__main__":
    main()
