"""Set, show or clear the default precision.

The precision of runs on this machine that name none. --precision is for a single run and never changes it;
$WINSPECT_PRECISION overrides it; a run with a calibration or a bundle uses theirs.
"""

from __future__ import annotations

import argparse
import json

from winspect.cli.common import Exit
from winspect.cli.options import add_option, add_options
from winspect.system.preferences import PRECISION_VARIABLE, clear_precision, default_precision, set_precision
from winspect.system.terminal import say


def declare(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    actions = parser.add_subparsers(dest="action", metavar="set|show|clear", required=True)
    setting = actions.add_parser("set", help="make a precision the default")
    gate = "auto: bf16 where weights pass the precision gate"
    add_option(setting, "precision", "auto|fp32|bf16|fp16|int8", gate)
    showing = actions.add_parser("show", help="print the default and where it comes from")
    add_options(showing, "--json")
    actions.add_parser("clear", help="go back to fp32")


def run(args: argparse.Namespace) -> int:
    """Set, show or clear; returns the exit code."""
    if args.action == "set":
        from winspect.engines.choice import choose
        from winspect.engines.options import EngineOptions

        choose(EngineOptions(precision=args.precision))  # what cannot run here is refused now, not in every later run
        print(f"default precision {args.precision}, kept in {set_precision(args.precision)}")
    elif args.action == "clear":
        print("default precision fp32; " + ("the setting is removed" if clear_precision() else "nothing was set"))
    default = default_precision()
    if args.action != "show":
        if PRECISION_VARIABLE in default.source:
            say(f"{default.source} overrides it: {default.precision}")
    elif args.json:
        print(json.dumps({"schema": 1, "precision": default.precision or "fp32", "source": default.source}))
    else:
        print(f"{default.precision or 'fp32'} ({default.source})")
    return Exit.DONE
