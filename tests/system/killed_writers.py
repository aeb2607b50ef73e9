"""Writers of results folders that are killed before each of their steps; run as a program of its own, without threads.

Each case: a folder holds an OLD run, a NEW run starts anew in it and is killed before its n-th operation on files, for
every n. Whoever goes on afterwards, as OLD or as NEW, is refused or finds what that run has written, nothing else.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import threading
from pathlib import Path

import numpy as np

from winspect import Result
from winspect.errors import OutputError
from winspect.evaluation.run import PartFiles, read_part
from winspect.outputs.rows import Recorder
from winspect.system.run_folder import locked
from winspect.watch.results import WatchResults

FILE_EVENTS = {"open", "os.remove", "os.rename", "os.truncate"}
OLD, NEW = {"model": "old"}, {"model": "new"}


def killed_before(step: int, folder: Path, work) -> bool:
    """Whether a child that does the work was killed before its step; it ends by itself where there are fewer."""
    child = os.fork()
    if child == 0:
        seen = 0

        def hook(event, arguments):
            nonlocal seen
            if event in FILE_EVENTS and str(arguments[0]).startswith(str(folder)):
                seen += 1
                if seen == step:
                    os._exit(9)

        sys.addaudithook(hook)
        work(folder)
        os._exit(0)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert code in (0, 9), code
    return code == 9


def predict(folder: Path, run: dict, *, resume: bool = False) -> list[str]:
    """As `winspect predict` does; returns the rows that were taken for this run's."""
    with locked(folder), Recorder(folder, run, overlays=False, raw_maps=True, resume=resume) as recorder:
        done = list(recorder.done)
        for number in range(2):
            maps = np.ones((1, 2, 2), np.float32)
            path = f"{run['model']}{number}"
            recorder.add(Result(path, "nut", 0.5, tile_maps=maps, tile_boxes=((0, 0, 4, 4),), size_wh=(4, 4)))
    return done


def evaluate(folder: Path, run: dict, *, resume: bool = False) -> list[str]:
    """As `winspect evaluate` does, --fresh without resume."""
    with locked(folder):
        parts = PartFiles(folder, fresh=not resume)
        parts.begin({**run, "seeds": [0]}, ["a", "b"])
        done = [read_part(folder, name, 0)["model"] for name in "ab" if parts.is_done(name, 0)]
        for name in "ab":
            parts.write(name, 0, run)
    return done


def check(name: str, write, root: Path) -> int:
    """Every kill of one writer; returns how many there were."""
    for step in range(1, 100):
        folder = root / f"{name}{step}"
        folder.mkdir()
        write(folder, OLD)
        if not killed_before(step, folder, lambda place: write(place, NEW)):
            return step - 1
        for run in (OLD, NEW):
            copy = shutil.copytree(folder, root / f"{name}{step}-{run['model']}")
            try:
                done = write(copy, run, resume=True)
            except OutputError:
                continue
            assert all(row.startswith(run["model"]) for row in done), (name, step, run, done)
    raise AssertionError("the writer never came to its end")


def check_watch(root: Path) -> int:
    """A watch that changes its model: at no time does its folder forget whose it is."""

    def write(place: Path) -> None:
        with WatchResults(place, stop=threading.Event()) as results:
            results.describe("/in", NEW)

    for step in range(1, 100):
        folder = root / f"watch{step}"
        with WatchResults(folder, stop=threading.Event()) as results:
            results.describe("/in", OLD)
        if not killed_before(step, folder, write):
            return step - 1
        assert json.loads((folder / "run.json").read_text())["source"] == "/in", step
        write(folder)
        kept = [json.loads(path.read_text())["model"] for path in folder.glob("run*.json")]
        assert sorted({*kept}) == ["new", "old"], (step, kept)
    raise AssertionError("the writer never came to its end")


if __name__ == "__main__":
    place = Path(sys.argv[1])
    print(json.dumps([check("predict", predict, place), check("evaluate", evaluate, place), check_watch(place)]))
