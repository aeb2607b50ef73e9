"""The manual page, made from the parser: ``python -m winspect.cli.manual > winspect.1``."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Iterator

from winspect._version import __version__
from winspect.cli.completion import verbs_of


def manual(parser: argparse.ArgumentParser) -> str:
    """A page of section 1 in the macros of man(7)."""
    return "\n".join(_lines(parser)) + "\n"


def _lines(parser: argparse.ArgumentParser) -> Iterator[str]:
    program = parser.prog
    yield f'.TH {program.upper()} 1 "" "{program} {__version__}" "User Commands"'
    yield ".SH NAME"
    yield f"{program} \\- find defects in pictures of parts with no training"
    yield ".SH SYNOPSIS"
    yield f".B {program}"
    yield "VERB [OPTION]..."
    yield ".SH DESCRIPTION"
    yield _escaped(parser.description or "")
    for name, verb in verbs_of(parser):
        yield f'.SH "{name.upper()}"'
        yield f".B {_escaped(_usage(verb))}"
        yield ".PP"
        yield _escaped(verb.description or "")
        yield from _options(verb)
        yield from _epilog(verb)
    yield ".SH EXIT STATUS"
    yield _escaped((parser.epilog or "").removeprefix("exit codes: "))


def _usage(verb: argparse.ArgumentParser) -> str:
    text = " ".join(verb.format_usage().split())
    return text.removeprefix("usage: ")


def _options(verb: argparse.ArgumentParser) -> Iterator[str]:
    formatter = verb._get_formatter()
    for action in verb._actions:
        if action.help is None or isinstance(action, argparse._SubParsersAction):
            continue
        yield ".TP"
        yield f".B {_escaped(formatter._format_action_invocation(action))}"
        yield _escaped(formatter._expand_help(action))


def _epilog(verb: argparse.ArgumentParser) -> Iterator[str]:
    if not verb.epilog:
        return
    is_drawn = verb.formatter_class is argparse.RawDescriptionHelpFormatter
    yield ".PP"
    yield from (".nf", *map(_escaped, verb.epilog.splitlines()), ".fi") if is_drawn else (_escaped(verb.epilog),)


def _escaped(text: str) -> str:
    """Text that no macro processor takes for a request or an escape; line breaks are spaces."""
    text = re.sub(r"\s*\n\s*", " ", text).replace("\\", "\\e").replace("-", "\\-")
    return f"\\&{text}" if text[:1] in (".", "'") else text


if __name__ == "__main__":
    from winspect.cli.main import build_parser

    sys.stdout.write(manual(build_parser()))
