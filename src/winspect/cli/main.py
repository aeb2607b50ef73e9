"""``winspect VERB``: finds the verb, runs it, turns errors into messages and exit codes."""

from __future__ import annotations

import argparse
import importlib
import io
import logging
import os
import signal
import sys
from collections.abc import Sequence

from winspect._version import __version__
from winspect.cli.common import Exit, mute_stdout
from winspect.cli.parsing import Parser
from winspect.errors import WinspectError
from winspect.system.installation import install_command
from winspect.system.opening import NotAFileError
from winspect.system.terminal import log_to_stderr, open_streams, say

VERBS = (
    *("demo", "predict", "references", "serve", "ui", "watch", "feedback", "batch", "calibrate", "product", "export"),
    *("evaluate", "benchmark", "profile", "compare", "prepare", "weights", "precision", "doctor", "completion"),
)
"""Verbs in the order of the help; each is a module of its name, whose docstring is its help."""

_SLOW_TO_END = ("torch", "openvino")


def build_parser() -> argparse.ArgumentParser:
    """Build the parser of all verbs."""
    parser = Parser(
        prog="winspect",
        description="Find defects in pictures of parts with no training (WinCLIP), or with a few good samples.",
        epilog="exit codes: 0 done; 1 a check failed; 2 usage error; 3 done, but some inputs failed (each named)",
    )
    parser.add_argument("--version", action="version", version=f"winspect {__version__}")
    verbs = parser.add_subparsers(dest="verb", metavar="VERB", required=True)
    for name in VERBS:
        verb = importlib.import_module(f"winspect.cli.{name}")
        summary, description, epilog, *_ = f"{verb.__doc__ or ''}\n\n\n\n".split("\n\n")  # none under python -OO
        summary = summary[:1].lower() + summary[1:].rstrip(".")
        declared = verbs.add_parser(name, help=summary, description=description, epilog=epilog.rstrip())
        verb.declare(declared)
        declared.set_defaults(run=verb.run)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command line; returns its exit code. Without arguments it is the program's own, and the program ends."""
    code = run(arguments)
    if arguments is None and {*_SLOW_TO_END} & {*sys.modules}:
        _end(code)
    return code


def _end(code: int) -> None:
    """End the process as the interpreter does, but for taking its modules apart, which takes a second.

    Returns where output cannot be flushed: the interpreter's own end says so.
    """
    import atexit
    import threading

    getattr(threading, "_shutdown")()  # noqa: B009  (waits for threads, and ends pools: not in typeshed)
    getattr(atexit, "_run_exitfuncs")()  # noqa: B009
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    except (OSError, ValueError):
        return
    os._exit(code)


def run(arguments: Sequence[str] | None = None) -> int:
    """Run a command line, and turn errors into messages; returns its exit code."""
    open_streams()
    args = build_parser().parse_args(arguments)
    log_to_stderr(logging.INFO if getattr(args, "verbose", False) else logging.WARNING)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a file's name must not stop a run
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # a polite kill ends a run as Ctrl-C does
    try:
        return args.run(args)
    except WinspectError as error:
        say(f"error: {error}")
        return Exit.USAGE
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] == "winspect":
            raise
        say(f"error: {error.name} is not installed: {install_command('full')}")
        return Exit.USAGE
    except KeyboardInterrupt as error:
        say("; ".join(["interrupted", *map(str, error.args)]))
        return Exit.INTERRUPTED
    except BrokenPipeError:
        # The reader of our output went away (`| head`), which is no error.
        mute_stdout()
        return Exit.DONE
    except NotAFileError as error:
        say(f"error: {error.filename}: {error}")
        return Exit.USAGE
    except OSError as error:
        say(f"error: cannot write the output: {error}")
        mute_stdout()
        return Exit.USAGE


if __name__ == "__main__":
    sys.exit(main())
