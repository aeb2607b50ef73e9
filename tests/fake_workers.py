"""Worker processes of a benchmark that answer at once, without a model, and misbehave when told to."""

from __future__ import annotations

import os
import signal
from pathlib import Path

IMAGES_PER_S = {"serial": 2.0, "tile-batch": 4.0, "prefetch": 4.0, "paper": 0.5}
PEAK_MB = 300.0


def fake_serve(pipe, log_level):
    """Answers as a real worker does. ``model`` says what happens: ``log`` is a file that every job is noted in, and
    ``broken`` maps an engine to ``refused``, or to how its process ends in the second round."""
    name, rounds, options = "yardstick", 0, {}
    while True:
        try:
            job, given = pipe.recv()
        except EOFError:
            return
        options = given.get("model", options)
        if job == "load":
            name = f"{given['plan']} {given['engine']} {given['precision']}"
        if log := options.get("log"):
            with Path(log).open("a") as file:
                file.write(f"{job}: {name}\n")
        engine = name.split()[1] if job in ("load", "round") else job
        ending = options.get("broken", {}).get(engine)
        rounds += job == "round"
        if ending == "refused":
            pipe.send(("failed", ("EngineError", f"{engine} is not installed")))
        elif ending and (rounds == 2 or job.startswith("gemm")):
            os._exit(7) if ending == "exits" else os.kill(os.getpid(), signal.SIGKILL)
        else:
            pipe.send(("done", answer(job, given, name)))


def answer(job, given, name):
    if job == "survey":
        readable = [path for path in given["pictures"] if "bad" not in path]
        return {
            "model": "fake",
            "weights": None,
            "weights_sha256": "0" * 64,
            "device": "cpu",
            "tiles": {path: 2 for path in readable},
            "failed": {path: "cannot be read" for path in given["pictures"] if path not in readable},
            "flops_per_tile": {"image": 10**9, "windows": 10**10},
            "layer": {"width": 8, "hidden": 32, "rows": [4]},
        }
    if job == "gemm_open":
        sizes = {"rows": 4, "width": 8, "hidden": 32, "error": None}
        return [{"engine": "torch", "precision": own, **sizes} for own in given["precisions"]]
    if job == "gemm_round":
        return [[100.0] * given["repetitions"], [200.0] * given["repetitions"]]
    plan, engine, precision = name.split()
    if job == "load":
        note = "the same as tile-batch" if plan == "prefetch" else None
        maps = given["maps"] or plan == "paper"
        described = {"engine": engine, "precision": precision, "device": "cpu", "maps": maps, "batch_size": 4}
        return {**described, "recipe": "paper" if plan == "paper" else "tiles", "note": note, "peak_rss_mb": PEAK_MB}
    faster = 2 if engine != "torch" else 1
    rate = IMAGES_PER_S[plan] * faster
    return {"images_per_s": rate, "latency_ms": [1000 / rate] * 2, "scores": [0.25, 0.5], "peak_rss_mb": PEAK_MB}


def small_serve(pipe, log_level):
    """A real worker that knows the small architecture of the tests."""
    from checkpoints import register_small

    from winspect.speed.worker import serve

    register_small()
    serve(pipe, log_level)
