"""Say what is installed, what would be chosen and what is broken, for problem reports.

Print what a problem report needs: releases, processor, memory, devices, engines, what auto chooses and why, cache and
weights. With the options of a call that went wrong it reports what that call would use. Nothing is fetched.

exit codes: 0 nothing is broken; 1 something is, named at the end; 2 usage error
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import redirect_stdout
from functools import partial
from typing import Any

from winspect.cli.common import Exit, given, print_result
from winspect.cli.options import MODEL_VARIABLE, add_options
from winspect.system.terminal import show
from winspect.weights import DEFAULT_MODEL


def declare(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    add_options(
        parser.add_argument_group("model"),
        *("--model", "--weights", "--device", "--engine", "--precision"),
        model=f"the model whose weights to look for (default: ${MODEL_VARIABLE} or {DEFAULT_MODEL})",
        weights="which weights of the model to look for",
        precision="default: what `winspect precision` says, or fp32",
    )
    add_options(parser, "--calibration", "--json", calibration="the calibration of the call")


def run(args: argparse.Namespace) -> int:
    """Examine and print; returns 1 where something is broken."""
    from winspect.cli.examination import examine

    with redirect_stdout(sys.stderr):  # what libraries print when they are imported stays out of the report
        report = examine(
            args.model or os.environ.get(MODEL_VARIABLE) or DEFAULT_MODEL,
            weights=args.weights,
            options=given(args, "device", "engine", "precision"),
            calibration=args.calibration,
        )
    print_result(args, report, partial(show, *lines_of(report)))
    return Exit.CHECK_FAILED if report["problems"] else Exit.DONE


def lines_of(report: Mapping[str, Any]) -> list[str]:
    """The report as text: each label once, in front of its first line."""
    previous = ""
    lines = []
    for label, text in _rows(report):
        lines.append(f"{label if label != previous else '':12}{text}".rstrip())
        previous = label
    return lines


def _rows(report: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    releases = report["versions"]
    yield "winspect", releases["winspect"]
    yield "python", f"{releases['python']} ({report['executable']})"
    yield "system", report["system"]
    libraries = {name: release for name, release in releases.items() if name not in ("winspect", "python")}
    yield "libraries", ", ".join(f"{name} {release}" for name, release in libraries.items() if release)
    if absent := [name for name, release in libraries.items() if not release]:
        yield "libraries", f"not installed: {', '.join(absent)}"
    yield from _cpu_rows(report["cpu"])
    for device in report["devices"]:
        yield "devices", f"{device['device']}: {_known(device['name'])}, {_known(device['memory_mb'], ' MB')}"
    for name, engine in report["engines"].items():
        state = "can be used" if engine["usable"] else "is broken" if engine["installed"] else "is not installed"
        yield "engines", f"{name} {state}" + (f": {engine['install']}" if engine["install"] else "")
    if choice := report["choice"]:
        yield "chosen", f"{choice['engine']} in {choice['precision']} on {choice['device']}, recipe {choice['recipe']}"
        yield from (("chosen", f"- {reason}") for reason in choice["reasons"])
    cache = report["cache"]
    sizes = ", ".join(f"{part} {size:g} MB" for part, size in cache["size_mb"].items())
    state = "" if cache["writable"] else ", cannot be written"
    yield "cache", f"{cache['folder']}: {sizes}; {_known(cache['free_mb'], ' MB')} free{state}"
    if weights := report["weights"]:
        fetch = f"not here yet, fetched on first use; now: winspect weights pull {weights['model']} {weights['tag']}"
        here = f"{weights['path']}, {_known(weights['size_mb'], ' MB')}"
        yield "weights", f"{weights['model']} {weights['tag']}: {fetch if weights['size_mb'] is None else here}"
    yield from (("environment", f"{name}={value}") for name, value in report["environment"].items())
    yield from (("notes", note) for note in report["notes"])
    yield from (("problems", problem) for problem in report["problems"] or ["none found"])


def _cpu_rows(cpu: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    yield "cpu", f"{_known(cpu['name'])}, {cpu['cores']} {'core' if cpu['cores'] == 1 else 'cores'} to be used"
    for word, value in (("has", True), ("has not", False), ("not known", None)):
        if names := [name for name, has in cpu["features"].items() if has is value]:
            yield "cpu", f"{word}: {' '.join(names)}"
    native = {True: "in hardware", False: "not in hardware", None: "not known"}[cpu["native_bf16"]]
    yield "cpu", f"bf16: {native}"


def _known(value: object, unit: str = "") -> str:
    return "not known" if value is None else f"{value}{unit}"
