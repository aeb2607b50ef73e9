"""The house as CONTRIBUTING.md draws it: every room is on the map, and imports point down it only, without circles."""

from __future__ import annotations

import ast
import re
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "src" / "winspect"
IN_THE_ROOT = {"__init__.py", "__main__.py", "_version.py", "errors.py", "py.typed"}


def rooms_on_the_map() -> list[str]:
    """Names of the map's table, top floor first."""
    table = (ROOT / "CONTRIBUTING.md").read_text().split("## Where things are")[1].split("\n## ")[0]
    return [name.strip("/") for name in re.findall(r"^\| `([^`]+)` \|", table, re.MULTILINE)]


def modules_below(package: Path) -> dict[str, Path]:
    """Module names below ``winspect``, such as ``pictures.tiles``; a room's ``__init__`` has the room's name."""
    names = {path: ".".join(path.relative_to(package).with_suffix("").parts) for path in package.rglob("*.py")}
    return {name.removesuffix(".__init__"): path for path, name in names.items()}


def imports_of(path: Path, *, for_types: bool) -> set[str]:
    """What a file imports of the package, anywhere in it: names below ``winspect``.

    Args:
        for_types: with what is imported for annotations alone.
    """
    tree = ast.parse(path.read_text())
    if not for_types:
        tree.body = [node for node in tree.body if not (isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node))]
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return {name.removeprefix("winspect.") for name in found if name.startswith("winspect.")}


def upward(package: Path, rooms: list[str]) -> list[str]:
    """Imports from a room further up the map."""
    floor = {room: height for height, room in enumerate(reversed(rooms))}
    return [
        f"{name} imports {imported}"
        for name, path in modules_below(package).items()
        if "." in name or (path.name == "__init__.py" and path.parent != package)
        for imported in sorted(imports_of(path, for_types=True))
        if floor.get(imported.split(".")[0], -1) > floor[name.split(".")[0]]
    ]


def circle(package: Path) -> list[str]:
    """Modules that import each other in a circle; empty where there is none."""
    modules = modules_below(package)

    def module(name: str) -> str | None:
        return name if name in modules else module(name.rpartition(".")[0]) if "." in name else None

    graph = {
        name: {found for imported in imports_of(path, for_types=False) if (found := module(imported))} - {name}
        for name, path in modules.items()
    }
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return list(error.args[1])
    return []


def test_the_map_names_every_room_and_nothing_else():
    folders = {path.name for path in PACKAGE.iterdir() if path.is_dir() and path.name != "__pycache__"}
    assert set(rooms_on_the_map()) == folders | {"errors.py"}
    assert len(rooms_on_the_map()) == len(folders) + 1
    assert {path.name for path in PACKAGE.iterdir() if path.is_file()} == IN_THE_ROOT


def test_imports_point_down_only():
    rooms = [room.removesuffix(".py") for room in rooms_on_the_map()]
    assert upward(PACKAGE, rooms) == []


def test_modules_do_not_import_each_other_in_a_circle():
    assert circle(PACKAGE) == []


@pytest.mark.parametrize(
    "line",
    [
        "from winspect.upper import high",
        "def f():\n    import winspect.upper.high",
        "if TYPE_CHECKING:\n    from winspect.upper import high",
    ],
    ids=["top", "in_a_function", "for_types"],
)
def test_a_planted_upward_import_is_found(tmp_path, line):
    for room in ("upper", "lower"):
        (tmp_path / room).mkdir()
        (tmp_path / room / "__init__.py").touch()
    (tmp_path / "upper" / "high.py").write_text("from winspect.lower import low\n")
    (tmp_path / "lower" / "low.py").write_text(line + "\n")
    assert upward(tmp_path, ["upper", "lower"]) == ["lower.low imports upper.high"]
    assert upward(tmp_path, ["lower", "upper"]) == ["upper.high imports lower.low"]


def test_a_planted_circle_is_found(tmp_path):
    (tmp_path / "a.py").write_text("from winspect.b import x\n")
    (tmp_path / "b.py").write_text("def f():\n    from winspect.a import y\n")
    assert set(circle(tmp_path)) == {"a", "b"}
