"""Reading YAML that a user gives: values alone, within limits.

YAML can repeat a part by its name, and so name 10^9 lists in ten lines; it can ask for objects by a tag, and takes
``2024-05-01`` for a date. None of this belongs into prompts, class names or settings: aliases and tags are refused, and
a date is text.
"""

from __future__ import annotations

from contextlib import closing
from functools import lru_cache
from typing import Any

from winspect.errors import SettingsError

LONGEST = 1_000_000
"""Characters of a text at most."""
DEEPEST = 20
"""Lists and mappings inside each other at most."""
LONGEST_VALUE = 2_000
"""Characters of a single text or number at most."""

_DATE = "tag:yaml.org,2002:timestamp"


def parse_yaml(text: str, where: str, *, need: str = "a YAML file") -> Any:
    """The value of a YAML text: mappings, lists, texts, numbers, true and false, null.

    Args:
        where: what the text is called in errors.

    Raises:
        SettingsError: it is not YAML, is over a limit, or holds an alias, a tag or a key twice; says where.
    """
    return _read(text, where, "get_single_data", need)


def compose_yaml(text: str, where: str) -> Any:
    """The node of a YAML text, its scalars as they are written (``01`` stays ``01``); None for an empty text. Errors as
    in :func:`parse_yaml`."""
    return _read(text, where, "get_single_node", "a YAML file")


def _read(text: str, where: str, method: str, need: str) -> Any:
    import yaml

    if len(text) > LONGEST:
        raise SettingsError(f"{where}: got {len(text)} characters of YAML, need at most {LONGEST}: leave out the rest")
    try:
        with closing(_loader()(text)) as loader:
            return getattr(loader, method)()
    except (yaml.YAMLError, ValueError, OverflowError) as error:  # the latter two of numbers
        raise SettingsError(f"{where}: not {need}: {' '.join(str(error).split())[:400]}") from error


@lru_cache(maxsize=1)
def _loader() -> Any:
    import yaml

    class Loader(yaml.SafeLoader):
        depth = 0
        close = yaml.SafeLoader.dispose

        def compose_node(self, parent: Any, index: Any) -> Any:
            event = self.peek_event()
            if isinstance(event, yaml.AliasEvent):
                raise _refusal(event, f"got the alias *{event.anchor}, need its content written out")
            if event.tag not in (None, "!"):
                raise _refusal(event, f"got the tag {event.tag}, need plain text, numbers, lists and mappings")
            if isinstance(event, yaml.ScalarEvent) and len(event.value) > LONGEST_VALUE:
                raise _refusal(event, f"got a value of {len(event.value)} characters, need at most {LONGEST_VALUE}")
            if self.depth == DEEPEST:
                raise _refusal(event, f"got more than {DEEPEST} lists and mappings inside each other")
            self.depth += 1
            node = super().compose_node(parent, index)
            self.depth -= 1
            return node

        def compose_mapping_node(self, anchor: Any) -> Any:
            node = super().compose_mapping_node(anchor)
            keys = set()
            for key, _ in node.value:
                if key.id == "scalar" and key.value in keys:
                    raise _refusal(key, f"got the key {key.value!r} twice, need it once")
                keys.add(key.value if key.id == "scalar" else None)
            return node

    def _refusal(part: Any, problem: str) -> yaml.YAMLError:
        return yaml.MarkedYAMLError(problem=problem, problem_mark=part.start_mark)

    Loader.yaml_implicit_resolvers = {
        start: [(tag, pattern) for tag, pattern in resolvers if tag != _DATE]
        for start, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }
    return Loader
