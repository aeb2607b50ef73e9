"""``winspect product`` and ``--product`` as a user meets them."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from checkpoints import SMALL
from miniature import SIZE_WH, part, save

from winspect.bundle.manifest import BundledClass
from winspect.cli.decisions import drift_settings, feedback_settings, load_calibration, rule_of
from winspect.cli.deliveries import deliveries_of
from winspect.cli.main import build_parser
from winspect.cli.product_options import use_product
from winspect.errors import BundleError, SettingsError
from winspect.inspector.export import _give_product
from winspect.methods.registry import default_recipe
from winspect.pictures.alignment import Alignment
from winspect.pictures.roi import Roi
from winspect.product.document import Product
from winspect.product.file import read_product

WITHOUT_TORCH = """
import sys
for name in "torch torchvision open_clip timm scipy jinja2 yaml safetensors huggingface_hub simplejpeg tomlkit".split():
    sys.modules[name] = None
from winspect.cli.main import main
sys.exit(main(sys.argv[1:]))
"""


@pytest.fixture
def line(tmp_path, monkeypatch) -> Path:
    """A folder of a line, where the commands run: good samples, good pictures, new ones."""
    monkeypatch.chdir(tmp_path)
    for name, seeds in (("references", range(2)), ("good", range(10, 19)), ("more", range(5, 7))):
        for seed in seeds:
            save(tmp_path / f"{name}/{seed}.png", part(seed, defective=False)[0])
    for number, bad in enumerate((False, True)):
        save(tmp_path / f"new/{number}.png", part(300 + number, defective=bad)[0])
    return tmp_path


@pytest.fixture
def nut(cli, line, small_checkpoint) -> Path:
    """A product of the small model, few-shot, without a calibration."""
    shutil.copy(small_checkpoint, line / "weights.safetensors")
    model = ("--model", SMALL, "--weights", "weights.safetensors", "--set", "temperature=0.05", "--recipe", "tiles")
    made = cli("product", "new", "nut.toml", "--class", "metal_nut", "--reference", "references", *model)
    assert (made.code, made.out) == (0, "nut.toml: product 'nut' revision 1\n"), made.err
    return line / "nut.toml"


def used(*words: object):
    """The options of a command line as the product fills them in."""
    args = build_parser().parse_args([str(word) for word in words])
    use_product(args)
    return args


# -- new, check, show


def test_new_writes_down_all_that_decides_a_score(nut, cli):
    shown = json.loads(cli("product", "show", "nut.toml", "--json").out)["product"]
    assert shown["class"] == "metal nut"
    assert shown["references"] == {"files": ["references"]}
    assert shown["model"] == {
        **{"name": SMALL, "weights": "weights.safetensors", "recipe": "tiles"},
        **{"settings": {"temperature": 0.05}, "precision": "fp32"},
    }
    text = cli("product", "show", "nut.toml").out
    assert re.search(r"^model.recipe +tiles$", text, re.M) and re.search(
        r"^model.settings.temperature +0.05$", text, re.M
    )


def test_new_takes_the_model_of_the_machine_and_names_it(cli, line, monkeypatch):
    monkeypatch.setenv("WINSPECT_MODEL", "winspect-tiny")
    monkeypatch.setenv("WINSPECT_PRECISION", "bf16")
    assert cli("product", "new", "here.toml", "--class", "nut", "--name", "PN 4711").code == 0
    monkeypatch.delenv("WINSPECT_MODEL")
    model = json.loads(cli("product", "show", "here.toml", "--json").out)["product"]["model"]
    assert model == {"name": "winspect-tiny", "recipe": default_recipe("winspect-tiny"), "precision": "bf16"}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("nut.json", "--class", "nut"), "ends in .toml; name it nut.toml"),
        (("b.toml",), "--class: name what the part is called"),
        (("b.toml", "--class", "nut", "--reference", "nowhere"), "[references] files: 'nowhere': no such file"),
        (("b.toml", "--class", "nut", "--recipe", "magic"), "got the recipe 'magic'"),
        (("b.toml", "--class", "nut", "--set", "colour=3"), "colour"),
        (("b.toml", "--class", "nut", "--shots", "2"), "--shots needs --reference"),
        (("b.toml", "--class", "nut", "--calibration", "none.json"), "none.json: cannot read the calibration"),
        (("b.toml", "--class", "nut", "--precision", "auto"), "got 'auto', need one of fp32"),
        (("nut.toml", "--class", "nut"), "is there already"),
        (("b.toml", "--class", "nut", "--name", "nut"), "same name"),
    ],
)
def test_new_refuses_and_writes_nothing(cli, nut, arguments, words):
    refused = cli("product", "new", *arguments)
    assert refused.code == 2 and words in refused.err
    assert not Path("b.toml").exists() and not Path("b.history").exists()


def test_check_says_what_has_changed_update_records_it_and_the_history_keeps_it(cli, nut):
    assert cli("product", "check", nut).code == 0
    save(nut.parent / "references/1.png", part(77, defective=False)[0])
    nut.write_text(nut.read_text().replace("metal nut", "hex nut"))
    checked = cli("product", "check", "nut.toml", "--json")
    first, second = json.loads(checked.out)["problems"]
    assert checked.code == 1 and "class: metal nut -> hex nut" in first and "references/1.png has changed" in second
    refused = cli("predict", "new", "--product", "nut.toml")
    assert refused.code == 2 and "winspect product check --update nut.toml" in refused.err
    updated = cli("product", "check", "nut.toml", "--update")
    assert updated.code == 0 and updated.out.startswith("nut.toml: product 'nut' revision 2\nclass: metal nut -> hex")
    assert (
        cli("product", "check", "nut.toml", "--update").out
        == "nut.toml: product 'nut' revision 2, as it was recorded\n"
    )
    history = cli("product", "show", "nut.toml", "--history").out.splitlines()
    assert [line.split()[:2] for line in history if line.startswith("revision")] == [
        ["revision", "1"],
        ["revision", "2"],
    ]
    assert "  class: metal nut -> hex nut" in history
    entries = json.loads(cli("product", "show", "nut.toml", "--history", "--json").out)["history"]
    assert [entry["revision"] for entry in entries] == [1, 2]


def test_show_history_without_one(cli, nut):
    shutil.rmtree("nut.history")
    refused = cli("product", "show", "nut.toml", "--history")
    assert refused.code == 2 and "has no history beside it" in refused.err
    assert "ends at revision 0" in cli("product", "check", "nut.toml").out


# -- what a product decides


def test_a_product_fills_in_the_options(nut):
    args = used("predict", "new", "--product", "nut.toml")
    assert (args.model, args.weights, args.recipe, args.precision) == (SMALL, "weights.safetensors", "tiles", "fp32")
    assert args.settings == {"temperature": 0.05}
    assert args.reference == ["references/0.png", "references/1.png"]
    assert (args.category_name, args.engine, args.calibration) == ("metal nut", None, None)
    assert args.product_used.mark.revision == 1


def test_paths_are_those_of_the_products_folder(nut, tmp_path_factory, monkeypatch):
    monkeypatch.chdir(tmp_path_factory.mktemp("elsewhere"))
    args = used("predict", "new", "--product", nut)
    assert args.weights == str(nut.parent / "weights.safetensors")
    assert args.reference == [str(nut.parent / f"references/{number}.png") for number in range(2)]


@pytest.mark.parametrize(
    ("options", "given", "says"),
    [
        (("--model", "winspect-tiny"), "--model winspect-tiny", f"says {SMALL}"),
        (("--weights", "other.pt"), "--weights other.pt", "says weights.safetensors"),
        (("--recipe", "log"), "--recipe log", "says tiles"),
        (("--set", "temperature=0.07"), "--set temperature=0.07", "says temperature=0.05"),
        (("--set", "size=96"), "--set size=96", "says temperature=0.05"),
        (("--precision", "bf16"), "--precision bf16", "says fp32"),
        (("--prompts", "accurate-winclip"), "--prompts accurate-winclip", "has none"),
        (("--bit-depth", "12"), "--bit-depth 12", "has none"),
        (("--class", "bolt"), "--class bolt", "says metal nut"),
        (("--reference", "more"), "--reference more", "says references/0.png references/1.png"),
        (("--reference", "references/0.png"), "--reference references/0.png", "says references/0.png"),
        (("--shots", "1"), "--shots 1", "has none"),
        (("--calibration", "cal.json"), "--calibration cal.json", "has none"),
    ],
)
def test_what_contradicts_a_product_is_refused_with_both_values(cli, nut, options, given, says):
    refused = cli("predict", "new", "--product", "nut.toml", *options)
    assert refused.code == 2
    assert f"{given}: product 'nut' revision 1 (nut.toml) {says}" in refused.err
    assert "winspect product check --update" in refused.err


@pytest.mark.parametrize(
    "options",
    [
        ("--class", "Metal_Nut", "--recipe", "tiles", "--set", "temperature=0.05"),
        ("--reference", "references", "--weights", "./weights.safetensors"),
        ("--device", "cpu", "--engine", "onnx", "--batch-size", "4", "--threshold", "0.5", "--boxes", "none"),
    ],
)
def test_what_agrees_with_a_product_or_is_open_is_taken(nut, options):
    used("predict", "new", "--product", "nut.toml", *options)


def test_one_product_or_bundle(cli, nut):
    refused = cli("predict", "new", "--product", "nut.toml", "--bundle", "bundle")
    assert refused.code == 2 and "--product nut.toml and --bundle bundle: leave one of them out" in refused.err
    refused = cli("predict", "new", "--product", "nowhere.toml")
    assert refused.code == 2 and "nowhere.toml: cannot read it" in refused.err


def test_other_verbs_take_what_is_theirs(nut):
    watched = used("watch", "in", "--out", "out", "--product", "nut.toml")
    assert (watched.model, watched.category_name) == (SMALL, "metal nut")
    exported = used("export", "--out", "bundle", "--product", "nut.toml")
    assert (exported.categories, exported.recipe) == (["metal nut"], "tiles")
    batched = used("batch", "in", "--out", "out", "--product", "nut.toml")
    assert batched.reference == ["references/0.png", "references/1.png"]
    with pytest.raises(SettingsError, match="--class nut bolt: product 'nut' revision 1"):
        used("export", "--out", "bundle", "--product", "nut.toml", "--class", "nut", "bolt")


# -- sections of other rooms


@pytest.fixture
def rim(line) -> Path:
    """A mask of the parts' left half, white inside."""
    mask = np.zeros((SIZE_WH[1], SIZE_WH[0]), np.uint8)
    mask[:, : SIZE_WH[0] // 2] = 255
    return save(line / "rim.png", mask)


@pytest.fixture
def sectioned(cli, line, rim) -> Path:
    """A product with a region of interest, a drift alarm and an audit sample."""
    sections = ("--roi", "rim.png", "--drift", "0.05", "--audit-rate", "0.1")
    made = cli("product", "new", "nut.toml", "--class", "nut", "--model", "winspect-tiny", *sections)
    assert made.code == 0, made.err
    return line / "nut.toml"


def test_a_region_of_interest_is_among_the_files_and_decides_like_the_model(cli, sectioned, rim):
    roi = Roi.load(rim)
    assert used("predict", "new", "--product", "nut.toml").roi == roi
    assert "rim.png" in read_product(sectioned).record.files
    used("predict", "new", "--product", "nut.toml", "--roi", "rim.png")
    save(Path("other.png"), np.full((SIZE_WH[1], SIZE_WH[0]), 255, np.uint8))
    refused = cli("predict", "new", "--product", "nut.toml", "--roi", "other.png")
    assert (
        refused.code == 2 and "--roi other.png: product 'nut' revision 1 (nut.toml) says 50.0% of 90x70" in refused.err
    )
    save(rim, np.full((SIZE_WH[1], SIZE_WH[0]), 255, np.uint8))
    assert "rim.png has changed" in cli("predict", "new", "--product", "nut.toml").err
    rim.unlink()
    assert "rim.png: cannot be read" in cli("predict", "new", "--product", "nut.toml").err


def test_alignment_is_the_products(cli, line):
    made = cli("product", "new", "nut.toml", "--class", "nut", "--model", "winspect-tiny", "--align", "euclidean")
    assert made.code == 0, made.err
    assert used("predict", "new", "--product", "nut.toml").align == Alignment("euclidean")
    used("predict", "new", "--product", "nut.toml", "--align", "euclidean")
    for kind in ("affine", "none"):
        refused = cli("predict", "new", "--product", "nut.toml", "--align", kind)
        assert refused.code == 2 and f"--align {kind}: product 'nut' revision 1 (nut.toml) says " in refused.err


def test_a_product_without_a_region_of_interest_takes_none(cli, nut, rim):
    refused = cli("predict", "new", "--product", "nut.toml", "--roi", "rim.png")
    assert refused.code == 2 and "--roi rim.png: product 'nut' revision 1 (nut.toml) has none" in refused.err
    refused = cli("predict", "new", "--product", "nut.toml", "--align", "affine")
    assert refused.code == 2 and "--align affine: product 'nut' revision 1 (nut.toml) has none" in refused.err
    used("predict", "new", "--product", "nut.toml", "--align", "none")


def test_a_packed_region_of_interest_needs_no_file(sectioned, rim):
    document = read_product(sectioned).document(packed=True)
    assert Product.read(document, Path("elsewhere/nut.winspect")).sections["roi"].roi == Roi.load(rim)
    assert read_product(sectioned).document()["roi"] == {"file": "rim.png"}


def test_drift_feedback_and_deliveries_of_a_watch(cli, sectioned, nut_deliveries):
    args = used("watch", "in", "--out", "out", "--product", "nut.toml")
    assert (drift_settings(args).rate, drift_settings(args).seed) == (0.05, 7)
    assert feedback_settings(args).audit_rate == 0.1
    (delivery,) = deliveries_of(args)
    assert (delivery.kind, Path(delivery.secret_file)) == ("webhook", Path("secret.txt"))
    for option, value, says in (("--drift", "0.2", "0.05"), ("--audit-rate", "0.3", "0.1")):
        refused = cli("watch", "new", "--out", "out", "--product", "nut.toml", option, value)
        assert refused.code == 2 and f"{option} {value}: product 'nut' revision 2 (nut.toml) says {says}" in refused.err
    Path("other.toml").write_text('[[deliveries]]\nkind = "command"\ncommand = "true"\n')
    refused = cli("watch", "new", "--out", "out", "--product", "nut.toml", "--deliver", "other.toml")
    assert refused.code == 2 and "--deliver other.toml: product 'nut' revision 2 (nut.toml) says webhook" in refused.err


@pytest.fixture
def nut_deliveries(cli, sectioned) -> None:
    """The product with a delivery and a seed of the drift alarm, written by hand."""
    text = sectioned.read_text().replace("rate = 0.05", "rate = 0.05\nseed = 7")
    delivery = '[[deliveries]]\nkind = "webhook"\nurl = "https://127.0.0.1/x"\nsecret_file = "secret.txt"\n\n[record]'
    sectioned.write_text(text.replace("[record]", delivery))
    done = cli("product", "check", "--update", "nut.toml")
    assert done.code == 0, done.out


RULES = """
[verdict]
mm_per_pixel = 0.1
threshold = 0.6
review_threshold = 0.4

[[rules]]
then = "ignore"
area = "< 0.5 mm2"
"""


def test_verdicts_and_rules_are_written_into_the_product_and_decide(cli, line):
    Path("rules.txt").write_text(RULES)
    model = ("--class", "nut", "--model", "winspect-tiny")
    assert cli("product", "new", "nut.toml", *model, "--rules", "rules.txt").code == 0
    os.remove("rules.txt")
    args = used("predict", "new", "--product", "nut.toml", "--pixel-threshold", "0.5", "--threshold", "0.6")
    rule = rule_of(args, None)
    assert (rule.threshold, rule.verdicts.review_threshold, rule.verdicts.mm_per_pixel) == (0.6, 0.4, 0.1)
    assert len(rule.rules) == 1 and rule.product.name == "nut"
    levels = (("--threshold", "0.5", "says 0.6"), ("--review-threshold", "0.3", "says 0.4"), ("--review", "0.1", "has"))
    for option, value, says in levels:
        refused = cli("predict", "new", "--product", "nut.toml", option, value)
        assert refused.code == 2 and f"{option} {value}: product 'nut' revision 1 (nut.toml) {says}" in refused.err
    Path("same.toml").write_text(RULES)
    refused = cli("predict", "new", "--product", "nut.toml", "--rules", "same.toml", "--pixel-threshold", "2")
    assert "--pixel-threshold" in refused.err  # the same rules are taken
    Path("same.toml").write_text(RULES.replace("0.5 mm2", "0.7 mm2"))
    refused = cli("predict", "new", "--product", "nut.toml", "--rules", "same.toml")
    assert refused.code == 2 and "(nut.toml) says [verdict]" in refused.err and "1 of [[rules]]" in refused.err


def test_a_product_with_a_calibration_can_ask_for_review(cli, calibrated):
    text = calibrated.read_text()
    calibrated.write_text(text.replace("[calibration]", "[verdict]\nreview = 0.3\n\n[calibration]"))
    assert cli("product", "check", "--update", "nut.toml").code == 0
    args = used("predict", "new", "--product", "nut.toml")
    rule = rule_of(args, load_calibration(args))
    assert rule.verdicts.review == 0.3 and rule.levels.review < rule.levels.anomalous
    refused = cli("predict", "new", "--product", "nut.toml", "--review", "0.2")
    assert refused.code == 2 and "--review 0.2: product 'nut' revision 3 (nut.toml) says 0.3" in refused.err


def test_a_section_that_is_not_known_yet(cli, nut):
    with nut.open("a") as file:
        file.write('\n[alignmnt]\nkind = "affine"\n')
    assert "got the unknown key 'alignmnt'" in cli("product", "check", "nut.toml").err


def test_what_a_product_leaves_open_a_watch_may_choose(nut):
    args = used("watch", "in", "--out", "out", "--product", "nut.toml", "--drift", "0.1", "--audit-rate", "0.2")
    assert (drift_settings(args).rate, feedback_settings(args).audit_rate) == (0.1, 0.2)


# -- calibrated, packed, carried


@pytest.fixture
def calibrated(cli, nut) -> Path:
    """The same product, calibrated."""
    run = ("--device", "cpu", "--engine", "openvino")
    done = cli("calibrate", "good", "--product", "nut.toml", "--max-false-alarms", "0.1", *run)
    assert done.code == 0 and done.out.endswith("product 'nut' revision 2 decides by it\n"), done.err
    return nut


@pytest.mark.usefixtures("graphs_compiled_once")
def test_made_calibrated_packed_and_carried_to_where_no_torch_is(cli, calibrated, tmp_path_factory, monkeypatch):
    assert used("predict", "new", "--product", "nut.toml").calibration == Path("nut.calibration.json")
    refused = cli("predict", "new", "--product", "nut.toml", "--threshold", "0.5")
    assert refused.code == 2 and "--threshold 0.5: product 'nut' revision 2" in refused.err
    scored = cli("predict", "new", "--product", "nut.toml", "--json", "--device", "cpu", "--out", "out")
    rows = json.loads(scored.out)["results"]
    assert [row["product"] for row in rows] == [{"name": "nut", "revision": 2}] * 2
    assert all(row["verdict"] in ("normal", "anomalous") and row["p_value"] for row in rows)
    assert json.loads(Path("out/run.json").read_text())["product"] == {"name": "nut", "revision": 2}
    rows = [{**row, "map": None} for row in rows]
    assert all(row.pop("mask") for row in rows)
    kept = Path("out/predictions.jsonl").read_text().splitlines()
    assert [json.loads(line)["product"] for line in kept] == [rows[0]["product"]] * 2

    packed = cli("product", "pack", "nut.toml", "--device", "cpu", "--json")
    document = json.loads(packed.out)
    assert (document["out"], document["engine"]) == ("nut-r2.winspect", "openvino") and packed.code == 0
    station = tmp_path_factory.mktemp("station")
    shutil.move("nut-r2.winspect", station)
    shutil.copytree("new", station / "new")
    shutil.copytree("references", station / "references")
    monkeypatch.chdir(station)
    here = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "WINSPECT_CACHE": str(station / "cache")}

    def edge(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", WITHOUT_TORCH, *arguments]
        return subprocess.run(command, env=here, capture_output=True, text=True, check=False, timeout=240)

    for option in ("--product", "--bundle"):
        found = edge("predict", "new", option, "nut-r2.winspect", "--json")
        assert found.returncode == 0, found.stderr
        for ours, theirs in zip(json.loads(found.stdout)["results"], rows, strict=True):
            assert ours.pop("anomaly_score") == pytest.approx(theirs["anomaly_score"], abs=1e-4)
            assert {**ours, "anomaly_score": theirs["anomaly_score"]} == theirs
    shown = edge("product", "show", "nut-r2.winspect")
    assert re.search(r"^revision +2$", shown.stdout, re.M)
    refused = edge("predict", "new", "--product", "nut-r2.winspect", "--recipe", "paper")
    assert refused.returncode == 2 and "--recipe paper: product 'nut' revision 2 (nut-r2.winspect)" in refused.stderr
    refused = edge("predict", "new", "--product", "nut-r2.winspect", "--reference", "references")
    assert refused.returncode == 2 and "--reference references: product 'nut' revision 2" in refused.stderr
    refused = edge("calibrate", "new", "--product", "nut-r2.winspect")
    assert refused.returncode == 2 and "this verb needs the product's TOML file" in refused.stderr
    content = Path("nut-r2.winspect").read_bytes()
    Path("nut-r2.winspect").write_bytes(content[: len(content) // 2])
    refused = edge("predict", "new", "--product", "nut-r2.winspect")
    assert refused.returncode == 2 and "cut or damaged" in refused.stderr and "Traceback" not in refused.stderr


@pytest.mark.usefixtures("graphs_compiled_once")
def test_two_products_in_one_bundle_each_with_its_rows(cli, nut):
    text = nut.read_text().split("[record]")[0]
    Path("bolt.toml").write_text(text.replace('"nut"', '"bolt"').replace("metal nut", "bolt"))
    assert cli("product", "check", "--update", "bolt.toml").code == 0
    run = ("--out", "bundle", "--device", "cpu")
    assert cli("export", "--product", "nut.toml", *run).code == 0
    assert cli("export", "--product", "bolt.toml", "--add", *run).code == 0
    refused = cli("predict", "new", "--product", "bundle")
    assert refused.code == 2 and "holds the products 'nut'" in refused.err
    scored = cli("predict", "new", "--bundle", "bundle", "--class", "bolt", "--json")
    assert [row["product"]["name"] for row in json.loads(scored.out)["results"]] == ["bolt"] * 2


def test_a_bundle_takes_no_second_product_of_one_name():
    classes = {"nut": BundledClass("a.npy", product={"name": "PN 1"}), "bolt": BundledClass("b.npy")}
    _give_product(classes, "NUT", {"name": "PN 1", "revision": 2})
    assert classes["nut"].product == {"name": "PN 1", "revision": 2}
    with pytest.raises(BundleError, match="holds a product 'pn 1' already, of class 'nut'"):
        _give_product(classes, "bolt", {"name": "pn 1"})


def test_a_calibration_made_with_something_else_is_a_problem(cli, calibrated):
    assert cli("product", "check", "nut.toml").code == 0
    save(Path("references/0.png"), part(900, defective=False)[0])
    assert cli("product", "check", "--update", "nut.toml").code == 1
    found = json.loads(cli("product", "check", "nut.toml", "--json").out)["problems"]
    assert len(found) == 1 and "was made with another good samples (2 there, 2 here); calibrate again" in found[0]


def test_calibrate_needs_a_place_or_a_product(cli, line):
    refused = cli("calibrate", "good", "--model", "winspect-tiny")
    assert refused.code == 2 and "--out: name the calibration to write" in refused.err
