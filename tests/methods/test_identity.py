"""One identity: what it writes, what it reads of this and earlier releases, and in what two of them differ."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, fields, replace

import pytest

from winspect._version import __version__
from winspect.errors import ClassNameError, SettingsError
from winspect.methods.identity import Identity, brief, differences, listed, written_by
from winspect.methods.registry import get_method
from winspect.methods.winclip.prompts import PromptEnsemble
from winspect.methods.winclip.recipes import Recipe
from winspect.pictures.fingerprints import Fingerprint

MODEL = Identity(
    model="ViT-B-32",
    weights_sha256="0a" * 32,
    recipe=get_method("paper"),
    engine="openvino",
    precision="fp32",
    device="cpu",
    weights="openai",
    activation="quick_gelu",
    prompts=PromptEnsemble(),
)
SAMPLES = (Fingerprint("/parts/a.png", "11" * 32), Fingerprint("/parts/b.png", "22" * 32))
NUT = MODEL.of_class("metal_nut", SAMPLES)
OTHER = {
    "model": "ViT-L-14",
    "weights_sha256": "0b" * 32,
    "recipe": get_method("paper", {"temperature": 0.05}),
    "engine": "onnx",
    "precision": "bf16",
    "device": "cuda",
    "weights": "laion400m_e31",
    "activation": "gelu",
    "prompts": PromptEnsemble(normal_states=("{}",)),
    "bit_depth": 12,
    "roi": "22.7% of 64x48 pixels, sha256 cb317aedd8ea9ec7",
    "alignment": "euclidean, quality from 0.5",
    "class_name": "bolt",
    "references": SAMPLES[:1],
    "release": "0.0.9",
}


def names(first: Identity, second: Identity, **options) -> list[str]:
    return [difference.name for difference in first.differences(second, **options)]


def test_the_document_is_what_results_have_always_said():
    document = replace(MODEL, release="0.1.0").document()
    assert document == {
        "winspect": "0.1.0",
        "model": "ViT-B-32",
        "weights": "openai",
        "weights_sha256": "0a" * 32,
        "activation": "quick_gelu",
        "recipe": json.loads(json.dumps(asdict(Recipe("paper")))),
        "prompts": json.loads(json.dumps(asdict(PromptEnsemble()))),
        "engine": "openvino",
        "precision": "fp32",
        "device": "cpu",
    }
    assert [*document] == [
        *("winspect", "model", "weights", "weights_sha256", "activation", "recipe", "prompts", "engine", "precision"),
        "device",
    ]
    assert replace(MODEL, bit_depth=12).document()["bit_depth"] == 12
    assert NUT.document() == MODEL.document()


def test_prompts_have_the_hash_that_calibrations_hold():
    text = json.dumps(asdict(PromptEnsemble()), sort_keys=True)
    assert MODEL.entries()["prompts_sha256"] == hashlib.sha256(text.encode()).hexdigest()


def test_what_is_written_is_read():
    for identity in (MODEL, replace(MODEL, bit_depth=12), NUT, MODEL.of_class("bolt", ())):
        again = Identity.read(json.loads(json.dumps(identity.entries())))
        assert asdict(again) == asdict(identity)
    assert asdict(Identity.read(MODEL.document())) == asdict(MODEL)


def test_a_class_has_names_and_hashes_of_its_samples():
    assert NUT.class_name == "metal nut"
    assert NUT.entries()["references"] == [
        {"name": "a.png", "sha256": "11" * 32},
        {"name": "b.png", "sha256": "22" * 32},
    ]
    with pytest.raises(ClassNameError):
        MODEL.of_class("", ())


@pytest.mark.parametrize("field", [field.name for field in fields(Identity) if field.name != "prompts_sha256"])
def test_every_field_makes_a_difference(field):
    changed = replace(NUT, **{field: OTHER[field]})
    name = {"release": "winspect", "class_name": "class", "prompts": "prompts_sha256"}.get(field, field)
    assert names(NUT, changed) == names(changed, NUT) == [name]
    assert names(NUT, changed, ignore=[name]) == []


def test_names_that_decide_nothing_make_no_difference():
    moved = MODEL.of_class("Metal  NUT", [Fingerprint("/elsewhere/c.png", "22" * 32), Fingerprint("a", "11" * 32)])
    assert names(NUT, moved) == []
    assert names(NUT, replace(moved, references=(*moved.references, SAMPLES[0]))) == ["references"]


def test_what_one_does_not_say_is_not_compared():
    assert names(MODEL, NUT) == []
    assert names(MODEL, replace(MODEL, activation=None, weights=None)) == []
    assert names(MODEL, replace(MODEL, prompts=None)) == []
    assert names(MODEL, replace(MODEL, prompts=None, prompts_sha256="00")) == ["prompts_sha256"]


@pytest.mark.parametrize("field", ["engine", "device"])
def test_another_engine_is_rounding_in_fp32_alone(field):
    (difference,) = NUT.differences(replace(NUT, **{field: OTHER[field]}))
    assert difference.is_rounding
    low = replace(NUT, precision="bf16")
    (difference,) = low.differences(replace(low, **{field: OTHER[field]}))
    assert not difference.is_rounding
    assert not any(found.is_rounding for found in NUT.differences(replace(low, **{field: OTHER[field]})))


def test_equal_is_what_scores_the_same():
    assert replace(NUT, weights="laion400m_e31", release="9.9", prompts=None, prompts_sha256=NUT.prompts_sha256) == NUT
    assert replace(NUT, weights_sha256="00") != NUT
    assert len({NUT, replace(NUT, release="9.9")}) == 1


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"model": "ViT-L-14"}, "model: was 'ViT-B-32', is 'ViT-L-14'"),
        ({"bit_depth": 12}, "bit_depth: was None, is 12"),
        ({"roi": "22.7% of 64x48"}, "roi: was None, is '22.7% of 64x48'"),
        (
            {"recipe": get_method("paper", {"temperature": 0.05})},
            "recipe: was {'temperature': 0.07}, is {'temperature': 0.05}",
        ),
        ({"references": ()}, "references: was a.png (11111111), b.png (22222222), is none (zero-shot)"),
        (
            {"references": SAMPLES * 3},
            "references: was a.png (11111111), b.png (22222222), is a.png (11111111), b.png (22222222), "
            "a.png (11111111), b.png (22222222) and 2 more",
        ),
    ],
)
def test_a_difference_in_words(changes, words):
    (difference,) = NUT.differences(replace(NUT, **changes))
    assert difference.in_words("{name}: was {first}, is {second}") == words


# Documents of earlier releases, and edited ones


def test_a_document_without_later_entries_is_as_that_release_scored():
    document = NUT.entries()
    for name in ("repeat_last", "tile_references", "patch_norm", "underscores"):
        del document["recipe"][name]
    del document["activation"]
    earlier = Identity.read(document)
    assert (earlier.activation, earlier.recipe) == (None, get_method("paper"))
    assert names(earlier, NUT) == []
    assert names(earlier, replace(NUT, recipe=get_method("paper", {"underscores": "keep"}))) == ["recipe"]


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("model", 3, "model: got 3, need a str"),
        ("weights", ["openai"], r"weights: got \['openai'\], need a str"),
        ("recipe", "paper", "recipe: got 'paper', need a dict"),
        ("recipe", {}, "no entry 'name'"),
        ("recipe", {"name": "paper", "window": 3}, "unknown setting window; known are"),
        ("recipe", {"name": "paper", "temperature": "hot"}, "temperature: got 'hot', need a number"),
        ("prompts", [], r"prompts: got \[\], need a dict"),
        ("prompts", {"verbs": ["{}"]}, "prompts: .*'verbs'"),
        ("prompts", {"templates": ["{} {}"]}, "templates: got '{} {}', need text with the placeholder"),
        ("bit_depth", True, "bit_depth: got True, need a int"),
        ("bit_depth", "12", "bit_depth: got '12', need a int"),
        ("roi", 12, "roi: got 12, need a str"),
        ("class", 3, "class: got 3, need a str"),
        ("class", "", "class: got the empty class name"),
        ("class", "a {}", "class: .*braces"),
        ("references", {"a.png": "00"}, "references: got .*, need a list"),
        ("references", [3], "references: got 3, need entries with name and sha256"),
        ("references", [{"name": "a.png"}], "need entries with name and sha256"),
        ("references", [{"name": "a.png", "sha256": 3}], "sha256: got 3, need a str"),
        ("references", [{"name": None, "sha256": "00"}], "name: got None, need a str"),
    ],
)
def test_an_edited_entry_is_named(name, value, words):
    with pytest.raises(SettingsError, match=words):
        Identity.read(NUT.entries() | {name: value})


@pytest.mark.parametrize("name", ["model", "weights_sha256", "recipe", "engine", "precision", "device", "references"])
def test_a_missing_entry_is_named(name):
    document = NUT.entries()
    del document[name]
    with pytest.raises(SettingsError, match=f"no entry '{name}'"):
        Identity.read(document)


def test_both_releases_are_named_where_they_are_two():
    assert written_by(NUT.entries()) == ""
    assert written_by({"winspect": "7.0"}) == f" (written by winspect 7.0, this is {__version__})"
    assert written_by({}) == f" (written by winspect of an unknown release, this is {__version__})"


# Documents of runs


def test_documents_of_runs_differ_by_name():
    first = {"model": "a", "seed": 1, "recipe": "paper", "references": ["a.png"], "activation": "gelu"}
    second = {"model": "b", "recipe": "tiles", "references": ["a.png"], "shots": 0}
    found = differences(first, second, ignore=["shots"])
    assert [(each.name, each.first, each.second) for each in found] == [
        ("model", "a", "b"),
        ("recipe", "paper", "tiles"),
        ("seed", 1, None),
    ]


@pytest.mark.parametrize("name", ["recipe", "recipe_settings"])
def test_settings_of_a_run_of_an_earlier_release_are_filled_in(name):
    earlier, later = {"name": "paper"}, json.loads(json.dumps(asdict(Recipe("paper", underscores="keep"))))
    (difference,) = differences({name: earlier}, {name: later})
    assert (difference.first, difference.second) == ({"underscores": "space"}, {"underscores": "keep"})
    assert differences({name: earlier}, {name: later | {"underscores": "space"}}) == []


@pytest.mark.parametrize("value", [None, 3, [], "paper", {"scales": {}}, [["a"]]])
def test_edited_documents_of_runs_are_different_not_fatal(value):
    document = {"recipe": asdict(Recipe("paper")), "references": [{"name": "a", "sha256": "0"}], "class": "nut"}
    for name in document:
        (difference,) = differences(document, document | {name: value})
        assert difference.name == name


def test_a_list_has_names_and_both_releases():
    first = {"model": "a", "winspect": "0.1.0", "seed": 1}
    assert listed(differences(first, {"winspect": "0.2.0"})) == "model, seed, winspect 0.1.0 there, 0.2.0 here"


def test_paths_of_references_are_not_compared_beside_their_hashes():
    first = {"references": ["a.png"], "references_sha256": ["00"]}
    second = {"references": ["b.png"], "references_sha256": ["00"]}
    assert differences(first, second) == []
    assert listed(differences(first, {"references": ["b.png"]})) == "references, references_sha256"


def test_long_values_are_cut():
    assert brief({"a": [1, None]}) == '{"a": [1, null]}'
    assert brief("a" * 100) == "..."


def test_an_alignment_of_a_model_as_such_is_that_of_its_classes():
    of_class = replace(NUT, alignment="euclidean, to sha256 0123, quality from 0.7")
    assert not of_class.differences(replace(NUT, alignment="euclidean"))
    for other in ("affine", "euclidean, to sha256 4567, quality from 0.7", None):
        assert [each.name for each in of_class.differences(replace(NUT, alignment=other))] == ["alignment"]
