"""The prompt ensemble against a listing of its own; class names; YAML files; every bad value."""

from __future__ import annotations

import pytest

from winspect import PromptEnsemble
from winspect.errors import ClassNameError, SettingsError
from winspect.methods.winclip.prompts import MAX_CLASS_NAME_LENGTH, check_class_name

NORMAL = """
X
flawless X
perfect X
unblemished X
X without flaw
X without defect
X without damage
""".strip().splitlines()
ANOMALOUS = """
damaged X
X with flaw
X with defect
X with damage
""".strip().splitlines()
TEMPLATES = """
a cropped photo of the S.
a cropped photo of a S.
a close-up photo of the S.
a close-up photo of a S.
a bright photo of the S.
a bright photo of a S.
a dark photo of the S.
a dark photo of a S.
a jpeg corrupted photo of the S.
a jpeg corrupted photo of a S.
a blurry photo of the S.
a blurry photo of a S.
a photo of the S.
a photo of a S.
a photo of the small S.
a photo of a small S.
a photo of the large S.
a photo of a large S.
a photo of the S for visual inspection.
a photo of a S for visual inspection.
a photo of the S for anomaly detection.
a photo of a S for anomaly detection.
""".strip().splitlines()


def listing(states: list[str], words: str) -> set[str]:
    return {template.replace("S", state.replace("X", words)) for state in states for template in TEMPLATES}


@pytest.mark.parametrize(("name", "words"), [("candle", "candle"), ("pipe_fryum", "pipe fryum"), ("pcb1", "pcb1")])
def test_prompts_are_the_methods(name, words):
    normal, anomalous = PromptEnsemble().prompts(name)
    assert (len(normal), len(anomalous)) == (154, 88)
    assert set(normal) == listing(NORMAL, words)
    assert set(anomalous) == listing(ANOMALOUS, words)
    assert len({*normal, *anomalous}) == 242


def test_prompts_of_a_state_stand_together():
    normal, _ = PromptEnsemble().prompts("candle")
    assert all("flawless" in prompt for prompt in normal[22:44])


# Class names


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("metal_nut", "metal nut"),
        ("  metal   nut ", "metal nut"),
        ("__nut__", "nut"),
        ("PCB no. 5", "PCB no. 5"),
        ("Schraube, groß", "Schraube, groß"),
        ("x" * MAX_CLASS_NAME_LENGTH, "x" * MAX_CLASS_NAME_LENGTH),
    ],
)
def test_class_names(name, words):
    assert check_class_name(name) == words


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("", "empty class name ''; name the part"),
        (" _ ", "empty class name"),
        ("x" * 500, "500 characters .* at most 100 fit"),
        ("x" * 101, "101 characters"),
        ("{x}", "'{x}': braces"),
        ("}", "braces"),
        ("a {} b", "braces"),
        ("two\nlines", "control characters or line breaks"),
        ("tab\tbed", "control characters"),
        ("bell\x07", "control characters"),
        ("zero\u200bwidth", "control characters"),
        (None, "of type NoneType"),
        (7, "of type int"),
        (b"nut", "of type bytes"),
        (["nut"], "of type list"),
    ],
)
def test_class_names_that_cannot_be(name, message):
    with pytest.raises(ClassNameError, match=message):
        check_class_name(name)
    with pytest.raises(ClassNameError, match=message):
        PromptEnsemble().prompts(name)


# Own states and templates


def test_own_entries_replace_the_default_of_their_kind_alone():
    own = PromptEnsemble(normal_states=["clean {}"])
    normal, anomalous = own.prompts("nut")
    assert len(normal) == 22
    assert normal[0] == "a cropped photo of the clean nut."
    assert anomalous == PromptEnsemble().prompts("nut")[1]


def test_entries_become_tuples_so_that_nothing_changes_behind_the_cache():
    states = ["clean {}"]
    own = PromptEnsemble(normal_states=states)
    states.append("{}")
    assert own.normal_states == ("clean {}",)
    assert hash(own) == hash(PromptEnsemble(normal_states=("clean {}",)))


def test_yaml(tmp_path):
    file = tmp_path / "own.yaml"
    file.write_text("normal_states: ['{}', 'reines {}']\ntemplates:\n  - ein Foto: {}\n".replace(": {}", " von {} ✓"))
    own = PromptEnsemble.from_yaml(file)
    assert own.prompts("Blech")[0] == ["ein Foto von Blech ✓", "ein Foto von reines Blech ✓"]
    assert own.anomalous_states == PromptEnsemble().anomalous_states
    assert PromptEnsemble.from_yaml(str(file)) == own


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ([], "normal_states: got .*, need a list with at least one entry"),
        ("clean {}", "normal_states: got 'clean {}', need a list"),
        (None, "normal_states: got None, need a list"),
        ({"clean {}": 1}, "need a list"),
        (["clean"], "got 'clean', need text with the placeholder {} exactly once"),
        (["{} {}"], "exactly once"),
        (["{}", 3], "got 3, need text"),
        (["{} {x}"], "braces beside its placeholder"),
        (["{{}}"], "braces beside"),
    ],
)
@pytest.mark.parametrize("kind", ["normal_states", "anomalous_states", "templates"])
def test_bad_entries(kind, entries, message):
    message = message.replace("normal_states", kind).replace("{", r"\{").replace("}", r"\}")
    with pytest.raises(SettingsError, match=message):
        PromptEnsemble(**{kind: entries})
    with pytest.raises(SettingsError, match=message):
        PromptEnsemble.from_mapping({kind: entries})


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "got NoneType, need a mapping of normal_states, anomalous_states, templates"),
        (b"- a list", "got list, need a mapping"),
        (b"just words", "got str, need a mapping"),
        (b"states: ['{}']", "unknown key states; known are normal_states"),
        (b"3: ['{}']", "unknown key 3"),
        (b"normal_states: 'clean {}'", "need a list"),
        (b"normal_states: ['clean']", "exactly once"),
        (b"normal_states: [", "not a YAML file"),
        (b"normal_states: ['\xff']", "not a YAML file"),
        (b"a: !!python/object/apply:os.system ['true']", "not a YAML file"),
    ],
)
def test_bad_files_are_named(tmp_path, content, message):
    file = tmp_path / "own.yaml"
    file.write_bytes(content)
    with pytest.raises(SettingsError, match=message) as stop:
        PromptEnsemble.from_yaml(file)
    assert str(stop.value).startswith(f"{file}: ")
    assert "\n" not in str(stop.value)


def test_files_that_cannot_be_read_are_named(tmp_path):
    for file in (tmp_path / "gone.yaml", tmp_path):
        with pytest.raises(SettingsError, match="cannot read the prompts") as stop:
            PromptEnsemble.from_yaml(file)
        assert str(file) in str(stop.value)
