"""The package's face: its names are real and lazy, and neither importing it nor ``--help`` loads torch."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import winspect
from winspect.cli.main import VERBS, main

ROOT = Path(__file__).parents[1]
HEAVY = ("torch", "torchvision", "open_clip", "timm", "safetensors", "numpy", "PIL", "yaml", "jinja2")


def modules_after(code: str) -> set[str]:
    """The heavy packages that are loaded once ``code`` has run in a process of its own."""
    report = f"import sys, json; print(); print(json.dumps([name for name in {HEAVY} if name in sys.modules]))"
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", f"{code}\n{report}"],
        env={**os.environ, "PYTHONPATH": str(ROOT / "src")},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stderr == ""
    return set(json.loads(done.stdout.splitlines()[-1]))


def test_importing_the_package_is_light():
    assert (
        modules_after(
            "import winspect, winspect.errors, winspect.methods.winclip.prompts, winspect.weights, winspect.cli.main"
        )
        == set()
    )


@pytest.mark.parametrize("arguments", [["--help"], ["predict", "--help"], ["weights", "--help"], ["--version"]])
def test_help_is_light(arguments):
    leave = "except SystemExit as stop:\n    assert stop.code == 0"
    assert modules_after(f"from winspect.cli.main import main\ntry:\n    main({arguments})\n{leave}") == set()


def test_the_proof_of_lightness_can_fail():
    assert "numpy" in modules_after("import winspect; winspect.RECIPES; import winspect.pictures.tiles")


def test_wrong_use_is_said_before_torch_is_loaded():
    calls = [["predict", "a.png", "--raw-maps"], ["predict", "nowhere.png"], ["predict", "tests", "--shots", "2"]]
    quiet = "import os, sys; sys.stderr = open(os.devnull, 'w')"
    run = f"assert [main(call) for call in {calls}] == [2, 2, 2]; sys.stderr.close(); sys.stderr = sys.__stderr__"
    assert "torch" not in modules_after(f"{quiet}\nfrom winspect.cli.main import main\n{run}")


@pytest.mark.parametrize("name", winspect.__all__)
def test_every_name_is_real(name):
    assert getattr(winspect, name) is not None
    assert name in dir(winspect)


def test_names_are_listed_once_and_the_lazy_ones_are_among_them():
    names = winspect.__all__
    assert len(set(names)) == len(names)
    assert set(winspect._LAZY) <= set(names)
    assert set(dir(winspect)) >= set(names)


def test_star_import_gives_all_names():
    names: dict[str, object] = {}
    exec("from winspect import *", names)
    assert set(winspect.__all__) <= set(names)


def test_unknown_names():
    with pytest.raises(AttributeError, match="module 'winspect' has no attribute 'WinClip'"):
        _ = winspect.WinClip
    assert not hasattr(winspect, "nothing")


def test_the_version_is_everywhere_the_same(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["--version"])
    assert stop.value.code == 0
    assert capsys.readouterr().out == f"winspect {winspect.__version__}\n"
    assert re.fullmatch(r"\d+(\.\d+)+(\.?[a-z]+\d+)?", winspect.__version__)


def test_every_verb_has_help(capsys):
    for name in VERBS:
        with pytest.raises(SystemExit) as stop:
            main([name, "--help"])
        assert stop.value.code == 0
        assert f"winspect {name}" in capsys.readouterr().out


def test_every_error_stands_in_the_tree_at_the_top():
    from winspect import errors

    classes = [
        value for value in vars(errors).values() if isinstance(value, type) and value.__module__ == errors.__name__
    ]
    assert len(classes) > 10
    for kind in classes:
        assert issubclass(kind, errors.WinspectError)
        assert kind.__name__ in errors.__doc__
        assert kind.__doc__
