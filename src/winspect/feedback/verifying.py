"""Checks an audit log line by line, and names the lines that were altered, removed, inserted or cut."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any, Literal

from winspect.errors import AuditLogError
from winspect.feedback.chain import AUDIT_FOLDER, START, Head, entry_of, hash_of, log_files, read_head

Damage = Literal["altered", "removed", "inserted", "cut"]


@dataclass(frozen=True)
class Problem:
    """A place at which the chain does not hold.

    Attributes:
        file, line: of the log, counted from 1: the altered or inserted line itself, the one behind those removed, or
            the last one that is left.
        kind: ``cut``: the end of the log, or of its last line, is missing.
    """

    file: str
    line: int
    kind: Damage
    message: str


@dataclass(frozen=True)
class Verified:
    """What was found.

    Attributes:
        lines: of all files. first: number of the first; above 1 where older files were moved away.
        head: number and hash of the last line.
        problems: in the order of the lines; none where the chain holds.
    """

    files: int
    lines: int
    first: int
    head: Head
    problems: tuple[Problem, ...]


@dataclass(frozen=True)
class _Line:
    file: str
    number: int
    content: bytes
    entry: dict[str, Any] | None

    @property
    def n(self) -> int | None:
        value = (self.entry or {}).get("n")
        return value if isinstance(value, int) else None

    @property
    def previous(self) -> str | None:
        return (self.entry or {}).get("previous")


def verify(folder: Path, *, head: str | None = None) -> Verified:
    """Check the audit log of a folder.

    Args:
        folder: of a watch's results, or a service's data.
        head: hash of a line that was noted elsewhere; it must be one of the lines.

    Raises:
        AuditLogError: there is no log.
    """
    files = log_files(folder)
    if not files:
        raise AuditLogError(f"{folder}: holds no audit log: a folder of `winspect watch --out`, or a service's --data?")
    checked = _Chain(read_head(folder / AUDIT_FOLDER), head)
    lines = chain.from_iterable(map(_lines, files))
    last, line = None, next(lines, None)
    while line is not None:
        following = next(lines, None)
        if following is None and not line.content.endswith(b"\n"):
            checked.problem(line, "cut", "the last line is cut off: a crash, or somebody; the next writer removes it")
            break
        checked.take(line, following)
        last, line = line, following
    checked.finish(last or _Line(files[-1].name, 0, b"", None))
    return Verified(len(files), checked.lines, checked.first, checked.head, tuple(checked.problems))


class _Chain:
    """The lines so far.

    Args:
        known: what ``head.json`` says. noted: a hash that somebody has kept.
    """

    def __init__(self, known: Head | None, noted: str | None) -> None:
        self.known, self.noted = known, noted
        self.lines, self.first = 0, 0
        self.head, self._before = Head(0, START), START
        self.problems: list[Problem] = []
        self._previous: _Line | None = None

    def problem(self, line: _Line, kind: Damage, message: str) -> None:
        """Note a problem."""
        self.problems.append(Problem(line.file, line.number, kind, f"{line.file}, line {line.number}: {message}"))

    def take(self, line: _Line, following: _Line | None) -> None:
        """Check the next line."""
        self.lines += 1
        digest = hash_of(line.content)
        if line.n is None or line.previous is None:
            self.problem(line, "altered", "altered: it is no entry of an audit log")
            line = _Line(line.file, line.number, line.content, {"n": self.head.n + 1})
        elif self._previous is None:
            self.first = line.n
            if line.n == 1 and line.previous != START:
                self.problem(line, "altered", "altered: it is the first line, and names one before it")
        elif line.previous != self.head.sha256:
            self._explain(line, digest, following)
        elif line.n != self.head.n + 1:
            self.problem(line, "altered", f"altered: it has the number {line.n}, need {self.head.n + 1}")
        if (line.entry or {}).get("event") == "gap":
            entry = line.entry or {}
            message = f"lines up to {entry.get('known_n')} were there before it and had been cut off or altered"
            self.problem(line, "cut", message)
        n = self.head.n + 1 if line.n is None else line.n
        if self.known is not None and n == self.known.n and digest != self.known.sha256 and not self._is_named(line):
            self.problem(line, "altered", "altered: head.json has another hash of it")
        if digest == self.noted:
            self.noted = None
        self._before, self.head, self._previous = self.head.sha256, Head(n, digest), line

    def _explain(self, line: _Line, digest: str, following: _Line | None) -> None:
        """Say why a line does not name the hash of the line before it."""
        before = self._previous
        assert before is not None and line.n is not None
        if self._is_named(before) and line.n == self.head.n + 1:
            return  # it was seen to be no entry
        if line.previous == self._before:
            self.problem(before, "inserted", "inserted: the line behind it follows the one before it")
        elif line.n > self.head.n + 1:
            missing = f"{self.head.n + 1} to {line.n - 1}" if line.n > self.head.n + 2 else str(line.n - 1)
            self.problem(line, "removed", f"before it, line {missing} of the log was removed")
        elif line.n <= self.head.n:
            self.problem(line, "inserted", f"inserted, or moved here: number {line.n} behind {self.head.n}")
        elif following is None or following.previous == digest:
            self.problem(before, "altered", f"altered: line {line.n} of the log has another hash of it")
        else:
            self.problem(line, "altered", "altered: neither neighbour agrees with it")

    def _is_named(self, line: _Line) -> bool:
        return any((each.file, each.line) == (line.file, line.number) for each in self.problems)

    def finish(self, last: _Line) -> None:
        """Compare the end with what is known of it."""
        if self.known is not None and self.known.n > self.head.n:
            missing = f"{self.head.n + 1} to {self.known.n}" if self.known.n > self.head.n + 1 else str(self.known.n)
            self.problem(last, "cut", f"behind it, line {missing} of the log was cut off")
        if self.noted is not None:
            self.problem(last, "altered", f"no line has the hash {self.noted}: the log was altered or written anew")


def _lines(path: Path) -> Iterator[_Line]:
    with path.open("rb") as file:
        for number, content in enumerate(file, 1):
            yield _Line(path.name, number, content, entry_of(content))
