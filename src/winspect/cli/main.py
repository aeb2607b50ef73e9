"""``winspect VERB``: finds the verb, runs it, turns errors into messages and exit codes."""

from __future__ import annotations

import argparse
import io
import logging
import signal
import sys
from collections.abc import Sequence

from winspect._version import __version__
from winspect.cli import (
    batch,
    benchmark,
    calibrate,
    compare,
    demo,
    doctor,
    evaluate,
    export,
    precision,
    predict,
    prepare,
    profile,
    serve,
    ui,
    watch,
    weights,
)
from winspect.cli.common import EXIT_DONE, EXIT_INTERRUPTED, EXIT_USAGE, mute_stdout
from winspect.errors import WinspectError

VERBS = (
    demo,
    predict,
    serve,
    ui,
    watch,
    batch,
    calibrate,
    export,
    evaluate,
    benchmark,
    profile,
    compare,
    prepare,
    weights,
    precision,
    doctor,
)


def build_parser() -> argparse.ArgumentParser:
    """The parser of every verb."""
    parser = argparse.ArgumentParser(
        prog="winspect",
        description="Find defects in pictures of parts with no training (WinCLIP), or with a few good samples.",
        epilog="exit codes: 0 done; 1 a check said no; 2 wrong use; 3 done, but some inputs failed (each named)",
    )
    parser.add_argument("--version", action="version", version=f"winspect {__version__}")
    verbs = parser.add_subparsers(dest="verb", metavar="VERB", required=True)
    for verb in VERBS:
        verb.add_parser(verbs)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command line; returns its exit code."""
    args = build_parser().parse_args(arguments)
    logging.basicConfig(
        level=logging.INFO if getattr(args, "verbose", False) else logging.WARNING,
        format="winspect: %(message)s",
        stream=sys.stderr,
        force=True,
    )
    logging.captureWarnings(True)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a file's name must not stop a run
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # a polite kill ends a run as Ctrl-C does
    try:
        return args.run(args)
    except WinspectError as error:
        print(f"winspect: error: {error}", file=sys.stderr)
        return EXIT_USAGE
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] == "winspect":
            raise
        from winspect.system.installation import install_command

        print(f"winspect: error: {error.name} is not installed: {install_command('full')}", file=sys.stderr)
        return EXIT_USAGE
    except KeyboardInterrupt:
        print("winspect: interrupted", file=sys.stderr)
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        # The reader of our output went away (`| head`): nothing is wrong, and nothing more can be said.
        mute_stdout()
        return EXIT_DONE
    except OSError as error:
        print(f"winspect: error: cannot write the output: {error}", file=sys.stderr)
        mute_stdout()
        return EXIT_USAGE


if __name__ == "__main__":
    sys.exit(main())
