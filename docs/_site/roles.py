"""Docstrings as Markdown, for mkdocstrings: Sphinx's roles become plain code, ``::`` in front of a drawing a block."""

from __future__ import annotations

import re
from typing import Any

import griffe

_ROLE = re.compile(r":(?:class|func|meth|mod|data|attr):`~?([^`]+)`")
_DRAWING = re.compile(r"^::\n\n((?: {4}.*\n?|\n)+)", flags=re.MULTILINE)


def as_markdown(text: str) -> str:
    """A docstring without roles.

    >>> as_markdown("see :meth:`~winspect.Recipe`")
    'see `winspect.Recipe`'
    """
    text = _ROLE.sub(r"`\1`", text)
    return _DRAWING.sub(lambda found: f"```text\n{re.sub('(?m)^ {4}', '', found[1]).rstrip()}\n```\n\n", text)


class Roles(griffe.Extension):
    """Rewrite docstrings as they are read."""

    def on_instance(self, *, obj: Any, **_: Any) -> None:
        """Rewrite the docstring of a module, class, function or attribute."""
        if obj.docstring is not None:
            obj.docstring.value = as_markdown(obj.docstring.value)
