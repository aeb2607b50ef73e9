"""YAML of users: values within limits; what repeats itself, asks for objects or does not end is refused at once."""

from __future__ import annotations

import pytest

from winspect.cli.main import main
from winspect.errors import SettingsError
from winspect.evaluation.class_names import read_class_names
from winspect.methods.winclip.prompts import PromptEnsemble
from winspect.system.yaml_texts import parse_yaml

BILLION = "a0: &a0 ['x {}']\n" + "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 30))
REFUSED = {
    "aliases": (BILLION, r"alias \*a0"),
    "itself": ("&a [*a]", r"alias \*a"),
    "depth": ("[" * 100_000, "more than 20"),
    "mappings": ("{a: " * 2_000 + "1" + "}" * 2_000, "more than 20"),
    "object": ("!!python/object/apply:os.system ['true']", "tag tag:yaml.org,2002:python"),
    "binary": ("!!binary aGVsbG8=", "tag tag:yaml.org,2002:binary"),
    "length": ("# " + "x" * 1_000_000, "at most 1000000"),
    "digits": ("9" * 5_000, "at most 2000"),
    "twice": ("a: 1\na: 2\n", "'a' twice"),
    "control": ("a: \x07", "not a YAML file"),
}


@pytest.mark.parametrize(("text", "problem"), [pytest.param(*case, id=name) for name, case in REFUSED.items()])
def test_refused_wherever_yaml_is_read(tmp_path, text, problem):
    (tmp_path / "file.yaml").write_text(text)
    for read in (PromptEnsemble.from_yaml, read_class_names):
        with pytest.raises(SettingsError, match=problem) as caught:
            read(tmp_path / "file.yaml")
        assert "file.yaml" in str(caught.value) and len(str(caught.value)) < 1_000


@pytest.mark.parametrize("value", [REFUSED[name][0] for name in ("itself", "depth", "object", "digits", "control")])
def test_refused_as_a_setting(tmp_path, capsys, value):
    (tmp_path / "a.png").write_bytes(b"")
    arguments = [
        "predict",
        str(tmp_path / "a.png"),
        "--class",
        "cell",
        "--model",
        "winspect-tiny",
        "--set",
        f"temperature={value}",
    ]
    assert main(arguments) == 2
    assert ": not a number, word or list" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("2024-05-01", "2024-05-01"),
        ("2024-05-01T10:00:00Z", "2024-05-01T10:00:00Z"),
        ("[2, 3]", [2, 3]),
        ("0.05", 0.05),
        ("true", True),
        ("a: [null, '1']", {"a": [None, "1"]}),
        ("", None),
    ],
)
def test_values(text, value):
    assert parse_yaml(text, "text") == value


def test_numbers_without_digits():
    with pytest.raises(SettingsError, match="text: not a YAML file"):
        parse_yaml("0b_", "text")


def test_a_class_may_have_the_name_of_a_date(tmp_path):
    (tmp_path / "names.yaml").write_text("2024-05-01: part\n01: bolt\n")
    assert read_class_names(tmp_path / "names.yaml") == {"2024-05-01": "part", "01": "bolt"}


def test_prompts_that_would_take_all_memory():
    with pytest.raises(SettingsError, match="make 2400000 prompts"):
        PromptEnsemble(normal_states=["{}"] * 1_000, anomalous_states=["{}"] * 200, templates=["a {}"] * 2_000)
