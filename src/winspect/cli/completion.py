"""Print a script that completes the command line in a shell.

Print a script that completes verbs, options, their words and file names. bash: winspect completion bash >
~/.local/share/bash-completion/completions/winspect; zsh: > DIR/_winspect, for a DIR of $fpath; fish: >
~/.config/fish/completions/winspect.fish
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from winspect.cli.common import Exit
from winspect.cli.options import add_option
from winspect.system.installation import need

SHELLS = ("bash", "zsh", "fish", "tcsh")
_WORDS = re.compile(r"[a-z0-9+-]+(\|[a-z0-9+-]+)+")
_NAMES_OF_FILES = ("PICTURE", "NORMALS", "SOURCE", "BASELINE", "OTHER", "DIR|FILE")


def declare(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    add_option(parser, "shell", "|".join(SHELLS), "the shell to complete in", choices=SHELLS)


def run(args: argparse.Namespace) -> int:
    """Print the script; returns the exit code."""
    from winspect.cli.main import build_parser

    print(script(build_parser(), args.shell))
    return Exit.DONE


def script(parser: argparse.ArgumentParser, shell: str) -> str:
    """A completion script for a parser.

    Args:
        shell: of :data:`SHELLS`.

    Raises:
        MissingExtraError: shtab, which writes those of bash, zsh and tcsh, is not installed.
    """
    for _, verb in verbs_of(parser):
        for action in verb._actions:
            if action.choices is None and (choices := _choices(action)):
                action.choices = choices
    if shell == "fish":
        return "\n".join(_fish(parser))
    shtab = need("shtab", "completion", job=f"completion in {shell}")
    for _, verb in verbs_of(parser):
        for action in verb._actions:
            if action.choices is None and _is_file(action):
                action.complete = shtab.FILE  # type: ignore[attr-defined]
    return str(shtab.complete(parser, shell))


def verbs_of(parser: argparse.ArgumentParser) -> Iterator[tuple[str, argparse.ArgumentParser]]:
    """Each verb with its parser, in the help's order; those of a verb follow it: ``weights``, ``weights pull``."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for name, verb in action.choices.items():
                yield name, verb
                yield from ((f"{name} {below}", each) for below, each in verbs_of(verb))


def summaries(parser: argparse.ArgumentParser) -> dict[str, str]:
    """The line that the help has for each verb of a parser."""
    groups = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
    return {choice.dest: choice.help or "" for group in groups for choice in group._choices_actions}


def _choices(action: argparse.Action) -> tuple[str, ...]:
    """The words of a metavar such as ``fp32|bf16``; none where it names something else than words."""
    metavar = action.metavar if isinstance(action.metavar, str) and action.nargs != 0 else ""
    return tuple(metavar.split("|")) if _WORDS.fullmatch(metavar) else ()


def _is_file(action: argparse.Action) -> bool:
    return action.type is Path or action.metavar in _NAMES_OF_FILES


def _fish(parser: argparse.ArgumentParser) -> Iterator[str]:
    """``complete`` of fish, a line per verb and option."""
    program = parser.prog
    yield f"complete -c {program} -f"
    for name, summary in summaries(parser).items():
        yield f"complete -c {program} -n __fish_use_subcommand -a {name} -d {_quoted(summary)}"
    for name, verb in verbs_of(parser):
        condition = " ".join(f"__fish_seen_subcommand_from {word}; and" for word in name.split())
        when = f"complete -c {program} -n {_quoted(condition.removesuffix('; and'))}"
        for below, summary in summaries(verb).items():
            yield f"{when} -a {below} -d {_quoted(summary)}"
        for action in verb._actions:
            yield from _fish_options(when, action)


def _fish_options(when: str, action: Any) -> Iterator[str]:
    if not action.option_strings:
        if _is_file(action):
            yield f"{when} -F"
        return
    names = " ".join(f"-l {name[2:]}" if name.startswith("--") else f"-s {name[1:]}" for name in action.option_strings)
    value = "" if action.nargs == 0 else " -r -F" if _is_file(action) else " -x"
    words = f" -a {_quoted(' '.join(action.choices))}" if action.choices else ""
    yield f"{when} {names}{value}{words} -d {_quoted(action.help or '')}"


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace("'", "\\'").replace("%%", "%")
    return f"'{escaped}'"
