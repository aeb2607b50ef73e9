"""The parser of the command line: its errors say what may have been meant, and how to write it."""

from __future__ import annotations

import argparse
import difflib
import os
import shlex
import sys
from collections.abc import Collection, Iterator, Sequence
from typing import Any, NoReturn

from winspect.system.terminal import printable

GUIDE = """\
winspect finds defects in pictures of parts, with no training.

  winspect demo --out runs/demo                     see it work, without a network
  winspect predict PICTURES --class "hex nut"       score pictures by the part's name; more is more anomalous
  winspect predict NEW --reference GOOD --out OUT   compare with a few good samples; heat maps in OUT
  winspect calibrate GOOD --out part.json           a threshold from good pictures, for predict --calibration
  winspect ui                                       the same in your browser

Add --model winspect-tiny to use the bundled model: nothing is fetched.
winspect --help lists the verbs, winspect VERB --help the options of one."""


class Parser(argparse.ArgumentParser):
    """Parser whose errors suggest a fix. They repeat arguments, which may be names of files: safe to print."""

    _words: Sequence[str] = ()

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Parse; no words at all get a guide, and what is unknown is an error of the verb, not of the program."""
        self._words = list(sys.argv[1:] if args is None else args)
        if not self._words and " " not in self.prog:
            self.exit(2, f"{GUIDE}\n")
        found, unknown = super().parse_known_args(args, namespace)
        if unknown:
            self.error(f"unrecognized arguments: {' '.join(unknown)}")
        return found, unknown

    def error(self, message: str) -> NoReturn:
        """Print what must be given, what is wrong and what was probably meant, and exit with 2."""
        hints = [*self._verb_hints(), *self._option_hints(), *self._greedy_hints(message)]
        hints += self._folder_hints(message)
        formatter = self._get_formatter()
        needed = [action for action in self._actions if action.required or not action.option_strings]
        formatter.add_usage(self.usage, needed, [])
        usage = f"{formatter.format_help().rstrip()} [OPTION]...; {self.prog} --help lists the options"
        self.exit(2, f"{usage}\n{self.prog}: error: {printable('; '.join([message, *hints]))}\n")

    def _verb_hints(self) -> Iterator[str]:
        verbs = next((action for action in self._actions if isinstance(action, argparse._SubParsersAction)), None)
        word = next((word for word in self._words if not word.startswith("-")), None)
        if verbs is None or word is None or word in verbs.choices:
            return
        if close := closest(word, verbs.choices):
            yield f"did you mean {self.prog} {close}?"
        elif "predict" in verbs.choices and os.path.exists(word):
            yield f"to score it: {self.prog} predict {shlex.join(self._words)}"

    def _option_hints(self) -> Iterator[str]:
        known = [name for name in self._option_string_actions if name.startswith("--")]
        for name in dict.fromkeys(_option_names(self._words)):
            is_known = name in self._option_string_actions or any(each.startswith(name) for each in known)
            close = None if is_known else closest(f"--{name.lstrip('-').replace('_', '-')}", known)
            if close is not None:
                yield f"did you mean {close}?"

    def _greedy_hints(self, message: str) -> Iterator[str]:
        """An option with several values has taken the positional argument that is missing."""
        missing = message.partition("are required: ")[2].split(", ")
        names = [str(action.metavar or action.dest) for action in self._actions if not action.option_strings]
        positional = next((name for name in names if name in missing), None)
        taken = self._last_greedy() if positional else None
        if taken is None:
            return
        place, count = taken
        option, values = self._words[place], self._words[place + 1 : place + 1 + count]
        hint = f"{option} takes every name that follows it, here {', '.join(values)}; name {positional} before it"
        if count > 1:
            rest = [*self._words[: place + count], *self._words[place + count + 1 :]]
            hint += f": {self.prog} {shlex.join([values[-1], *rest])}"
        yield hint

    def _folder_hints(self, message: str) -> Iterator[str]:
        """A folder was named without an option, as in ``evaluate parts/``."""
        folder = next((word for word in self._words if os.path.isdir(word)), None)
        if folder is None or "--root" not in self._option_string_actions or "--root" in self._words:
            return
        if "--dataset" in message.partition("are required: ")[2].split(", "):
            yield f"for a folder of good and one of defective pictures: --dataset folder --root {shlex.quote(folder)}"
        elif message.startswith("unrecognized arguments: "):
            yield f"did you mean --root {shlex.quote(folder)}?"

    def _last_greedy(self) -> tuple[int, int] | None:
        """Place of the last option that takes several values and has some, and how many it has taken."""
        found = None
        for place, word in enumerate(self._words):
            action = self._option_string_actions.get(word)
            if action is not None and action.nargs in ("+", "*"):
                values = self._words[place + 1 :]
                count = next((n for n, value in enumerate(values) if value.startswith("-")), len(values))
                found = (place, count) if count else found
        return found


def closest(word: str, known: Collection[str]) -> str | None:
    """The known word that is most like another; None where none is.

    >>> closest("pridict", ["predict", "prepare"]), closest("xyz", ["predict"])
    ('predict', None)
    """
    return next(iter(difflib.get_close_matches(word, known, n=1, cutoff=0.65)), None)


def _option_names(words: Sequence[str]) -> Iterator[str]:
    """Words that look like long options, without their values; ``--`` ends them."""
    for word in words:
        if word == "--":
            return
        if word.startswith("-") and len(word) > 2 and not word[1].isdigit() and word[1] != ".":
            yield word.partition("=")[0]
