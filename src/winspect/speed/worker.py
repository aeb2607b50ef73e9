"""Worker processes of a benchmark, asked one job at a time over a pipe: how they are asked, and what they do.

A worker is a process of its own, so that its memory and its libraries' threads are its own.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING, Any

from winspect.errors import PictureError, SettingsError, WinspectError
from winspect.speed.plans import OPENVINO, PLANS
from winspect.system.machine import peak_rss_mb
from winspect.system.terminal import log_to_stderr

if TYPE_CHECKING:
    from winspect.inspector.winclip import WinCLIP
    from winspect.methods.result import Result

NO_PREFETCH = "tile-batch: {} has no cache that weights can be prefetched to"
_GOODBYE_S = 5.0  # from the end of its pipe to the end of a process

Serve = Callable[[Connection, int], None]


class WorkerError(WinspectError):
    """A worker refused, failed or died. ``kind`` is the name of its error's class, or ``died``."""

    def __init__(self, kind: str, message: str) -> None:
        self.kind = kind
        super().__init__(message)


class Worker:
    """A worker process, seen by the process that asks.

    Args:
        serve: what it runs, a function of a module that it can import. It is given its end of the pipe and the level
            of the log, answers each ``(job, options)`` with ``("done", answer)`` or ``("failed", (kind, message))``,
            and returns when the pipe is closed.
    """

    def __init__(self, serve: Serve) -> None:
        # Not forked: a forked process shares memory with this one, and libraries that have started threads break.
        context = multiprocessing.get_context("spawn")
        self._pipe, far_end = context.Pipe()
        self._process = context.Process(target=serve, args=(far_end, logging.getLogger().level), daemon=True)
        self._process.start()
        far_end.close()  # else its death would not be seen

    def ask(self, job: str, **options: Any) -> Any:
        """Send a job and wait for its answer.

        Raises:
            WorkerError: the job failed, or the process died.
        """
        try:
            self._pipe.send((job, options))
            outcome, answer = self._pipe.recv()
        except (EOFError, OSError) as error:
            raise WorkerError("died", self._last_words()) from error
        if outcome == "failed":
            raise WorkerError(*answer)
        return answer

    def _last_words(self) -> str:
        self._process.join(_GOODBYE_S)
        code = self._process.exitcode
        if code is not None and code < 0:
            name = signal.Signals(-code).name
            hint = ": the machine may have run out of memory" if name == "SIGKILL" else ""
            return f"the worker process was ended by {name}{hint}"
        return f"the worker process ended with exit code {code} and without an answer"

    def close(self) -> None:
        """End the process at once: it has nothing to put away. Closing twice does no harm."""
        if not self._pipe.closed:
            self._pipe.close()
            self._process.kill()
            self._process.join()
            self._process.close()


def serve(pipe: Connection, log_level: int) -> None:
    """Answer jobs until the pipe is closed, in a process of its own."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all processes; the one that asked ends this one
    os.dup2(2, 1)  # stdout is the JSON's, whatever a library prints
    log_to_stderr(log_level)
    jobs = Jobs()
    with suppress(EOFError, OSError):  # the process that asked is gone
        while True:
            pipe.send(jobs.answer(*pipe.recv()))


class Jobs:
    """The jobs by name. Options and answers are plain values."""

    model: WinCLIP
    gemms: list[Any]

    def answer(self, job: str, options: dict[str, Any]) -> tuple[str, Any]:
        """``("done", answer)``, or ``("failed", (kind, message))``: the process that asked decides what follows."""
        try:
            return "done", getattr(self, job)(**options)
        except Exception as error:
            return "failed", (type(error).__name__, str(error) or repr(error))

    def survey(self, model: dict[str, Any], category_name: str, pictures: list[str]) -> dict[str, Any]:
        """Find out what must be known before anything is measured; leaves the prompts of the class in the cache.

        Then no worker has to encode them, and the peak memory of all is comparable.

        Raises:
            SettingsError: the model has no text, and every plan compares with it.
        """
        from winspect.engines.devices import resolve_device
        from winspect.inspector.winclip import WinCLIP
        from winspect.weights import DEFAULT_MODEL
        from winspect.weights.timm_names import is_timm

        if is_timm(name := str(model.get("model", DEFAULT_MODEL))):
            raise SettingsError(
                f"the plans of a benchmark compare pictures with text, which {name} has none of: time it with "
                "`winspect profile --recipe memory`, or choose a CLIP such as ViT-B-16-plus-240"
            )

        # On the CPU: nothing is measured here.
        on_cpu = {"engine": "torch", "precision": "fp32", "recipe": "paper", "device": "cpu"}
        loaded = WinCLIP(**{**model, **on_cpu})
        loaded.prepare_class(category_name)
        name = model.get("device", "auto")
        device = name if name.startswith(OPENVINO) else str(resolve_device(name))
        tiles, failed = count_tiles(loaded, pictures)
        return {
            "model": loaded.model,
            "weights": loaded.weights,
            "weights_sha256": loaded.weights_sha256,
            "device": device,
            "tiles": tiles,
            "failed": failed,
            **_work(loaded, device, model.get("batch_size")),
        }

    def load(
        self,
        model: dict[str, Any],
        plan: str,
        *,
        engine: str,
        precision: str,
        category_name: str,
        pictures: Sequence[str],
        maps: bool,
        warm_up: int,
    ) -> dict[str, Any]:
        """Load the model that one combination measures, and run the rounds that are forgotten.

        Options are those of :func:`winspect.speed.benchmark.run_benchmark`.

        Returns:
            What really runs: engine, precision, device, recipe, and a note where it is not what the plan says.
        """
        from winspect.inspector.winclip import WinCLIP

        chosen = PLANS[plan]
        self.pictures, self.category_name, self.maps = list(pictures), category_name, maps or chosen.maps
        how = {"engine": engine, "precision": precision, "recipe": chosen.recipe, "plan": chosen.execution}
        self.model = WinCLIP(**{**model, **how})
        self.model.prepare_class(category_name)
        for _ in range(warm_up):
            self.round()
        runs = self.model.engine
        openvino_device = getattr(runs, "openvino_device", "CPU")
        device = str(runs.device) if openvino_device == "CPU" else f"{OPENVINO}{openvino_device}"
        fetched = plan != "prefetch" or device.startswith("npu")
        return {
            "engine": runs.name,
            "precision": runs.precision,
            "device": device,
            "recipe": self.model.method.name,
            "maps": self.maps,
            "batch_size": runs.batch_size,
            "note": None if fetched else NO_PREFETCH.format(device),
            "peak_rss_mb": peak_rss_mb(),
        }

    def round(self) -> dict[str, Any]:
        """Offline: all pictures, as fast as they go. Single-stream: one after the other, each waited for."""
        results, offline_s = self._timed(self.pictures)
        return {
            "images_per_s": len(self.pictures) / offline_s,
            "latency_ms": [1000 * self._timed([picture])[1] for picture in self.pictures],
            "scores": [result.anomaly_score for result in results],
            "peak_rss_mb": peak_rss_mb(),
        }

    def _timed(self, pictures: Sequence[str]) -> tuple[list[Result], float]:
        """The results of some pictures, and the seconds they took."""
        results: list[Result] = []
        began = time.perf_counter()
        for result in self.model.predict_many(pictures, self.category_name, maps=self.maps):
            if result.error is not None:
                raise result.error
            if self.maps and result.anomaly_map is None:
                raise PictureError(result.path, "got no map although maps were asked for")
            results.append(result)
        return results, time.perf_counter() - began

    def gemm_open(self, **options: Any) -> list[dict[str, Any]]:
        """Build the matrix products; those that cannot be built are answered with an ``error``."""
        from winspect.speed.gemm import open_gemms

        self.gemms = open_gemms(**options)
        return [gemm.names for gemm in self.gemms]

    def gemm_round(self, repetitions: int) -> list[list[float]]:
        """GFLOP/s of every product, repetition by repetition; none of those that could not be built."""
        return [gemm.rates(repetitions) for gemm in self.gemms]


def count_tiles(model: WinCLIP, pictures: Sequence[str]) -> tuple[dict[str, int], dict[str, str]]:
    """Tiles of recipe ``tiles`` of each picture that can be used, and why the others cannot."""
    from winspect.pictures.tiles import Cut, prepare

    cut = Cut(tiling=True, stride_fraction=model.method.cut.stride_fraction)
    tiles, failed = {}, {}
    for picture in pictures:
        try:
            tiles[picture] = len(prepare(picture, model.preprocess, cut).tiles)
        except PictureError as error:
            failed[picture] = error.reason
    return tiles, failed


def _work(model: WinCLIP, device: str, batch_size: int | None) -> dict[str, Any]:
    """FLOPs of the matrix products of one tile, alone and with its windows, and the sizes of their matrices."""
    from winspect.backbones.embeddings import Needs
    from winspect.engines.torch_engine import DEFAULT_BATCH_SIZES
    from winspect.speed.flops import ATTENTION, LINEAR, TowerShape, image_tower_flops

    shape, needs = TowerShape.of(model.engine.tower), model.method.needs(few_shot=False, maps=True)
    flops = {}
    for name, of_tile in (("image", Needs()), ("windows", needs)):
        work = image_tower_flops(shape, of_tile)
        flops[name] = work[LINEAR].flops + work[ATTENTION].flops
    windowed = sum(count * length for count, length in shape.sequences(needs))
    batch = batch_size or DEFAULT_BATCH_SIZES.get(device.partition(":")[0], 1)
    rows = [batch * shape.tokens, windowed if device == "cpu" else batch * windowed]
    return {"flops_per_tile": flops, "layer": {"width": shape.width, "hidden": shape.mlp_width, "rows": rows}}
