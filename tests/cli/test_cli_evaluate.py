"""``winspect evaluate`` and ``winspect compare`` as a user meets them: output, refusals, exit codes, sudden death."""

from __future__ import annotations

import csv
import json
import os
import random
import re
import shlex
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import open_clip
import pytest
import timm
import torch
from checkpoints import SMALL
from miniature import make_folder, make_mvtec, part, save

from winspect.cli import main as cli_main
from winspect.cli.common import parse_settings
from winspect.datasets.official import OFFICIAL
from winspect.evaluation.published import get_table, matching_tables, published_tables
from winspect.methods.registry import get_method
from winspect.weights.tags import tag_names
from winspect.weights.timm_names import timm_tags

ROOT = Path(__file__).parents[2]
# The command line, in a process that is killed when it has scored the first picture of the second category.
SUDDEN_DEATH = """
import os, signal
from checkpoints import register_small
from winspect.cli import main
from winspect.evaluation import run

begun, score_part = [], run.score_part

def score(model, part, advance):
    def dying():
        advance()
        if len(begun) == 2:
            os.kill(os.getpid(), signal.SIGKILL)

    begun.append(part)
    return score_part(model, part, dying)

run.score_part = score
register_small()
main.main()
"""


@pytest.fixture
def cli(cli, small_checkpoint, graphs_compiled_once):
    """Run ``winspect`` in this process, evaluations on the small model."""
    model = ("--model", SMALL, "--weights", small_checkpoint, "--device", "cpu")
    return lambda verb, *arguments: cli(verb, *arguments, *(model if verb == "evaluate" else ()))


@pytest.fixture(scope="module")
def parts(tmp_path_factory):
    return make_mvtec(tmp_path_factory.mktemp("parts"))


def results_in(folder):
    return json.loads((folder / "results.json").read_text())


# evaluate


def test_the_table_names_every_category_and_the_mean(cli, parts, tmp_path):
    done = cli("evaluate", "--dataset", "mvtec", "--root", parts, "--out", tmp_path)
    assert done.code == 0
    results = results_in(tmp_path)
    lines = {line.split()[0]: line.split()[1:] for line in done.out.splitlines() if line}
    assert lines["bolt"][:2] == ["4", "4"]
    assert lines["mean"][:2] == ["8", "8"]
    for name, figures in (("metal_nut", results["categories"]["metal_nut"]), ("mean", results["mean"])):
        assert lines[name][2] == f"{100 * figures['image_auroc']:.2f}"
        assert lines[name][7] == f"{100 * figures['pixel_aupro']:.2f}"
    assert "published" not in done.out
    assert "16 pictures judged, 0 failed" in done.err


def test_json_alone_on_stdout(cli, tmp_path):
    root = make_folder(tmp_path / "parts", categories=("fabric_7",))
    arguments = ("evaluate", "--dataset", "folder", "--root", root, "--class", "textile", "--json")
    done = cli(*arguments, "--out", tmp_path / "out")
    assert done.code == 0
    results = json.loads(done.out)
    assert results == results_in(tmp_path / "out")
    # A data set of one category: --class is what its part is called.
    assert (list(results["categories"]), results["class"]) == (["fabric_7"], "textile")
    plain = cli(*arguments[:5], "--json", "--out", tmp_path / "plain")
    assert json.loads(plain.out)["categories"]["fabric_7"] != results["categories"]["fabric_7"]


def test_one_category_of_several_by_class(cli, parts, tmp_path):
    done = cli("evaluate", "--dataset", "mvtec", "--root", parts, "--class", "bolt", "--out", tmp_path, "--json")
    results = json.loads(done.out)
    assert (list(results["categories"]), results["class"]) == (["bolt"], None)


def test_categories_and_seeds(cli, parts, tmp_path):
    given = ("--dataset", "mvtec", "--root", parts, "--categories", "metal_nut", "--class", "nut")
    done = cli("evaluate", *given, "--shots", "1", "--seeds", "0,1", "--out", tmp_path)
    results = results_in(tmp_path)
    assert (done.code, results["seeds"], results["class"], list(results["categories"])) == (
        0,
        [0, 1],
        "nut",
        ["metal_nut"],
    )
    assert "1-shot, seeds 0, 1" in done.out
    assert "±" in done.out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--categories", "screw"), "got category 'screw', but it has: bolt, metal_nut"),
        (("--class", "screw"), "--class screw: no such category; .* has: bolt, metal_nut"),
        (("--shots", "9"), "asked for 9 reference pictures of 'bolt', found 5"),
        (("--shots", "1", "--seeds", "0,x"), "--seeds 0,x: need whole numbers"),
        (("--seeds", "0,1"), "zero-shot, which draws nothing"),
        (("--recipe", "nothing"), "got the recipe 'nothing'"),
        (("--dataset", "nothing"), "got the data set 'nothing', need one of visa"),
    ],
)
def test_wrong_use_ends_with_2(arguments, message, cli, parts, tmp_path):
    done = cli("evaluate", "--dataset", "mvtec", "--root", parts, "--out", tmp_path / "out", *arguments)
    assert (done.code, done.out) == (2, "")
    assert re.search(message, done.err)


def test_failed_pictures_end_with_3(cli, tmp_path):
    root = make_mvtec(tmp_path / "parts")
    (root / "bolt/test/scratch/003.png").write_bytes(b"")
    done = cli("evaluate", "--dataset", "mvtec", "--root", root, "--out", tmp_path / "out")
    assert done.code == 3
    assert "15 pictures judged, 1 failed" in done.err
    assert "failed: bolt: " in done.err and done.err.count("003.png") == 1  # said once
    given = ("--dataset", "mvtec", "--root", root, "--shots", "1", "--seeds", "0,1")
    assert "15 pictures judged, 1 failed" in cli("evaluate", *given, "--out", tmp_path / "few").err
    assert results_in(tmp_path / "few")["categories"]["bolt"]["n_failed"] == 1


def test_nothing_judged_ends_with_2(cli, tmp_path):
    root = make_folder(tmp_path / "parts", good=1, defective=1)
    for path in root.rglob("*.png"):
        path.write_bytes(b"")
    done = cli("evaluate", "--dataset", "folder", "--root", root, "--out", tmp_path / "out", "--no-report")
    assert done.code == 2
    assert "0 pictures judged, 2 failed" in done.err and "nothing was judged" in done.err
    shutil.rmtree(root / "bolt/dent")
    (root / "bolt").rename(root / "train")
    (root / "split").mkdir()
    (root / "train").rename(root / "split/train")
    done = cli("evaluate", "--dataset", "mvtec", "--root", root, "--out", tmp_path / "none")
    assert (done.code, done.out) == (2, "")
    assert f"{root}: no test pictures in split: nothing to judge" in done.err
    assert not (tmp_path / "none").exists()


def test_class_names_from_a_file(cli, parts, tmp_path):
    (tmp_path / "names.csv").write_text("category;name\nbolt;steel screw\n")
    given = ("--dataset", "mvtec", "--root", parts, "--no-report")
    assert cli("evaluate", *given, "--out", tmp_path / "out", "--class-names", tmp_path / "names.csv").code == 0
    assert results_in(tmp_path / "out")["class_names"] == {"bolt": "steel screw"}
    done = cli("evaluate", *given, "--out", tmp_path / "plain", "--class-names", "plain")
    assert done.code == 0 and results_in(tmp_path / "plain")["class_names"] == {"metal_nut": "metal nut"}
    done = cli("evaluate", *given, "--out", tmp_path / "no", "--class-names", tmp_path / "gone.yaml")
    assert done.code == 2 and f"class names: {tmp_path / 'gone.yaml'}: cannot be read" in done.err


def test_the_pixel_grid_is_an_option(cli, parts, tmp_path):
    given = ("--dataset", "mvtec", "--root", parts, "--categories", "bolt", "--no-report")
    assert cli("evaluate", *given, "--out", tmp_path, "--pixel-grid", "published").code == 0
    assert results_in(tmp_path)["pixel_grid"] == "published"
    done = cli("evaluate", *given, "--out", tmp_path)
    assert done.code == 2 and 'pixel_grid: "published" there, "regions" asked for' in done.err


@pytest.mark.parametrize("grid", ["regions", "published"])
def test_masks_with_a_fault_are_said_once(cli, tmp_path, grid):
    """With the reason where there are no figures, at the end where there are."""
    root = make_mvtec(tmp_path / "parts", categories=("bolt",))
    mask = root / "bolt/ground_truth/scratch/000_mask.png"
    save(mask, part(0, defective=False)[1])
    given = ("--dataset", "mvtec", "--root", root, "--no-report", "--pixel-grid", grid)
    done = cli("evaluate", *given, "--out", tmp_path / "out")
    said = "bolt/ground_truth/scratch/000_mask.png: the mask is empty"
    assert (done.code, (done.out + done.err).count(said)) == (0, 1)
    assert (f"1 of 4 masks cannot be used: {said}" in done.out) is (grid == "regions")
    assert (f"winspect: masks: bolt: 1 with a fault: {said}" in done.err) is (grid == "published")


def test_null_figures_are_dashes_with_a_reason(cli, tmp_path):
    done = cli("evaluate", "--dataset", "folder", "--root", make_folder(tmp_path / "parts"), "--out", tmp_path / "out")
    line = next(line for line in done.out.splitlines() if line.startswith("bolt"))
    assert line.split()[-4:] == ["-"] * 4
    assert "- bolt: no pixel AUROC, pixel AUPR, pixel AUPRO, pixel F1-max: the data set has no masks" in done.out


def test_an_alarm_is_loud_and_ends_with_1(cli, parts, tmp_path, equal_windows):
    done = cli("evaluate", "--dataset", "mvtec", "--root", parts, "--out", tmp_path)
    assert done.code == 1
    assert "winspect: ALARM: bolt: all window embeddings" in done.err
    assert "alarm: all window embeddings" in done.out
    assert results_in(tmp_path)["categories"]["bolt"]["pixel_auroc"] is None
    # Going on with what is there says so again.
    assert cli("evaluate", "--dataset", "mvtec", "--root", parts, "--out", tmp_path).code == 1


def test_an_interruption_says_how_to_go_on(cli, parts, tmp_path, monkeypatch):
    def interrupted(*arguments, **options):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("winspect.evaluation.run.score_part", interrupted)
        done = cli("evaluate", "--dataset", "mvtec", "--root", parts, "--out", tmp_path)
    assert done.code == 130
    assert "the same command goes on" in done.err
    assert cli("evaluate", "--dataset", "mvtec", "--root", parts, "--out", tmp_path).code == 0


def test_published_figures_stand_beside_ours(cli, parts, tmp_path, capsys):
    from winspect.cli.tables import print_published

    cli("evaluate", "--dataset", "mvtec", "--root", parts, "--out", tmp_path)
    results = results_in(tmp_path)
    results["categories"] = {"carpet": results["categories"]["bolt"]}
    results["categories"]["carpet"]["image_auroc"] = 0.99
    results["model"] = "ViT-B-16-plus-240"
    assert matching_tables(results) == []  # random weights are nobody's
    results["weights_sha256"] = "8fb26589" + 56 * "0"
    print_published(results)
    out = capsys.readouterr().out
    assert "99.00 / 100.00 / -1.00" in out
    assert "Jeong et al., CVPR 2023" in out
    assert "note: AUPR: ours is average precision; theirs: not said there, and may be the trapezoid" in out
    assert "mean" not in [line.split()[0] for line in out.splitlines() if line and "/ 91.80 /" in line]
    assert [table.name for table, _ in matching_tables(results)] == ["winclip"]


def test_sudden_death_half_way_changes_no_figure(cli, tmp_path, small_checkpoint):
    """SIGKILL within the second category, then the same command again."""
    parts = make_mvtec(tmp_path / "parts", train=1, good=3, defective=3)
    killed, whole = tmp_path / "killed", tmp_path / "whole"
    options = ("evaluate", "--dataset", "mvtec", "--root", parts, "--recipe", "paper", "--batch-size", "1")
    model = ("--model", SMALL, "--weights", small_checkpoint, "--device", "cpu")
    paths = os.pathsep.join([str(ROOT / "src"), str(ROOT / "tests")])
    process = subprocess.run(
        [sys.executable, "-c", SUDDEN_DEATH, *map(str, (*options, "--out", killed, *model))],
        env={**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": str(torch.get_num_threads())},
        capture_output=True,
        check=False,
    )
    assert process.returncode == -signal.SIGKILL, process.stderr.decode()
    done = killed / "categories" / "bolt-seed0.json"
    assert [file.name for file in done.parent.iterdir()] == [done.name] and not (killed / "results.json").exists()
    written = done.stat().st_mtime_ns
    for out in (killed, whole):
        assert cli(*options, "--out", out).code == 0
    assert done.stat().st_mtime_ns == written  # the finished category was not judged again
    for name in ("results.json", "scores.csv"):
        assert (killed / name).read_bytes() == (whole / name).read_bytes()


# The reproduction page


PAGE = (ROOT / "docs/reproduce.md").read_text(encoding="utf-8")


def test_commands_of_the_page_on_data_are_understood():
    lines = [line[2:] for line in (ROOT / "docs/data.md").read_text(encoding="utf-8").splitlines() if line[:2] == "$ "]
    verbs = [cli_main.build_parser().parse_args(shlex.split(line)[1:]).verb for line in lines]
    assert verbs == ["evaluate", "references", "predict", "evaluate", "evaluate"]


def test_the_pages_commands_are_understood():
    lines = [line[2:] for line in PAGE.splitlines() if line.startswith("$ ")]
    assert len(lines) == 2 + 5 + 2 * 12 + 17 + 5
    for line in lines:
        program, *arguments = shlex.split(line)
        assert program == "winspect"
        args = cli_main.build_parser().parse_args(arguments)
        if args.verb == "evaluate" and args.precision is None:
            shots = args.shots or 0
            made = "accurate" if args.prompts == "accurate-winclip" else args.recipe
            assert re.fullmatch(rf"runs/{args.dataset}-{made}(-512|-518|-mask)?-{shots}", str(args.out))
            assert (args.seeds is None) == (shots == 0 or made == "accurate")


RUNS = re.findall(r"^\$ winspect (evaluate .*--recipe (?:memory|subspace|mutual).*)$", PAGE, flags=re.MULTILINE)


def depth_and_patch(model):
    """Of an architecture, as timm or open_clip has it; nothing of it is in memory."""
    if not model.startswith("timm/"):
        config = open_clip.get_model_config(model)["vision_cfg"]
        return config["layers"], config["patch_size"]
    with torch.device("meta"):
        tower = timm.create_model(model.removeprefix("timm/"))
    return len(tower.blocks), tower.patch_embed.patch_size[0]


@pytest.mark.parametrize("line", RUNS)
def test_runs_of_the_page_are_made_as_published(line):
    """Beside a table each, but where the published means are of several settings."""
    args = cli_main.build_parser().parse_args(shlex.split(line))
    model, _, tag = (args.model or "ViT-B-16-plus-240").partition(".")
    tag = tag or args.weights or "laion400m_e31"
    known = timm_tags(model.removeprefix("timm/")) if model.startswith("timm/") else tag_names(model)
    assert tag in known
    depth, patch = depth_and_patch(model)
    method = get_method(args.recipe, parse_settings(args.settings or [])).for_model({}, model, depth=depth, patch=patch)
    results = {
        "dataset": args.dataset,
        "shots": args.shots or 0,
        "model": model,
        "weights": tag,
        "weights_sha256": "8fb26589" + 56 * "0",
        "recipe": args.recipe,
        "recipe_settings": json.loads(json.dumps(method.document())),
        "categories": dict.fromkeys(args.categories.split(",") if args.categories else OFFICIAL[args.dataset]),
    }
    table = {"memory": "anomalydino", "subspace": "subspacead", "mutual": f"musc-{getattr(method, 'size', 0)}"}
    expected = [] if args.categories else [table[args.recipe]]
    assert [found.name for found, _ in matching_tables(results)] == expected


def test_the_page_gives_the_published_figures_and_claims_none():
    metrics = ("image_auroc", "image_aupr", "image_f1_max", "pixel_auroc", "pixel_aupro", "pixel_f1_max")
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in PAGE.splitlines() if line.startswith("|")]
    for table in published_tables().values():
        for entry in table.entries:
            cells = [f"{100 * entry.mean[metric]:.4g}" if metric in entry.mean else "" for metric in metrics]
            found = [
                [cell and f"{float(cell):.4g}" for cell in row[2:-1]]
                for row in rows
                if row[:2] == [f"{table.recipe}, {entry.shots}-shot", table.name]
            ]
            assert cells in found
    claims = {
        row[-1]
        for row in rows
        if row[0].endswith("-shot") or row[0] in get_table("winclip").entry("visa", 0).categories
    }
    assert claims == {"not measured"}


# compare


@pytest.fixture(scope="module")
def run_folder(parts, small_model, tmp_path_factory):
    from winspect.datasets import open_dataset
    from winspect.evaluation.run import evaluate as judge

    out = tmp_path_factory.mktemp("run")
    judge(small_model, open_dataset("mvtec", parts), out)
    return out


def test_a_run_against_itself_ends_with_0(cli, run_folder):
    done = cli("compare", run_folder, run_folder / "results.json")
    assert done.code == 0
    assert "0.0000" in done.out
    assert "worst: bolt, image AUROC" in done.out
    assert "every category is within 0.01" in done.out
    answer = json.loads(cli("compare", run_folder, run_folder, "--json").out)
    assert (answer["within"], answer["worst"]["difference"], answer["pictures"]["flips"]) == (True, 0.0, 0)


def test_shuffled_scores_end_with_1(cli, run_folder, tmp_path):
    results = results_in(run_folder)
    with (run_folder / "scores.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    scores = [row["score"] for row in rows]
    random.Random(3).shuffle(scores)
    with (tmp_path / "scores.csv").open("w", newline="") as file:
        table = csv.DictWriter(file, list(rows[0]))
        table.writeheader()
        table.writerows({**row, "score": score} for row, score in zip(rows, scores, strict=True))
    from winspect.metrics import image_metrics

    for name, category in results["categories"].items():
        own = [
            (float(s), r["label"] == "anomalous") for r, s in zip(rows, scores, strict=True) if r["category"] == name
        ]
        category.update(image_metrics(*zip(*own, strict=True)))
    (tmp_path / "results.json").write_text(json.dumps(results))
    done = cli("compare", run_folder, tmp_path)
    assert done.code == 1
    assert "NOT every category is within 0.01" in done.out
    assert cli("compare", run_folder, tmp_path, "--tolerance", "1").code == 0


def test_compare_against_a_published_table(cli, run_folder, tmp_path):
    entry = get_table("winclip").entry("visa", 1)
    results = {**results_in(run_folder), "model": "ViT-B-16-plus-240", "dataset": "visa", "shots": 1}
    results["weights_sha256"] = "8fb26589" + 56 * "0"
    results["mean"] = {**results["mean"], **entry.mean}
    results["categories"] = dict.fromkeys(OFFICIAL["visa"], results["categories"]["bolt"])
    (tmp_path / "results.json").write_text(json.dumps(results))
    done = cli("compare", tmp_path, "--against", "winclip")
    assert (done.code, done.err) == (0, "")
    assert "baseline: winclip" in done.out
    results["mean"]["image_auroc"] = 0.5
    (tmp_path / "results.json").write_text(json.dumps(results))
    assert cli("compare", tmp_path, "--against", "winclip").code == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "either OTHER or --against"),
        (("--against", "nothing"), "need one of winclip (WinCLIP, as published), accurate-winclip"),
        (("--against", "winclip"), "different model (winspect-test-vit, published ViT-B-16-plus-240)"),
        (("nowhere",), "no such results"),
    ],
)
def test_wrong_comparisons_end_with_2(arguments, message, cli, run_folder):
    done = cli("compare", run_folder, *arguments)
    assert (done.code, done.out) == (2, "")
    assert message in done.err


def test_other_schema_and_other_shots_end_with_2(cli, run_folder, tmp_path):
    gate = ("--tolerance", "1")
    for change, message, options in (
        ({"schema": 7}, "schema 7, need 1", ()),
        ({"shots": 4}, "different shots (0 and 4)", gate),
    ):
        (tmp_path / "results.json").write_text(json.dumps({**results_in(run_folder), **change}))
        done = cli("compare", run_folder, tmp_path, *options)
        assert (done.code, message in done.err) == (2, True)


def test_other_shots_are_put_side_by_side_where_no_gate_is_asked_for(cli, run_folder, tmp_path):
    (tmp_path / "results.json").write_text(json.dumps({**results_in(run_folder), "shots": 4}))
    (tmp_path / "scores.csv").write_bytes((run_folder / "scores.csv").read_bytes())
    done = cli("compare", run_folder, tmp_path)
    assert done.code == 0
    assert "note: different shots (0 and 4)" in done.out and "side by side, not judged" in done.out
    assert "is within" not in done.out and "worst" not in done.out
    assert "recipe paper, zero-shot)" in done.out and "recipe paper, 4-shot)" in done.out
    answer = json.loads(cli("compare", run_folder, tmp_path, "--json").out)
    assert (answer["within"], answer["tolerance"]) == (None, None)


def test_a_calibration_of_another_class_is_refused_before_anything_is_scored(cli, parts, tmp_path, small_checkpoint):
    good = sorted(parts.glob("bolt/train/good/*.png"))[:2] + sorted(parts.glob("bolt/test/good/*.png"))[:2]
    options = ("--max-false-alarms", "30%", "--scores-only", "--recipe", "paper")
    options += ("--model", SMALL, "--weights", small_checkpoint, "--device", "cpu")
    for name, code in (("screw", 2), ("bolt", 0)):
        file = tmp_path / f"{name}.json"
        assert cli("calibrate", *good, "--class", name, "--out", file, *options).code == 0
        asked = ("--dataset", "mvtec", "--root", parts, "--categories", "bolt", "--out", tmp_path / name)
        done = cli("evaluate", *asked, "--calibration", file)
        assert done.code == code, done.err
        assert ("got one of the class 'screw', need one of 'bolt'" in done.err) == (code == 2)
    assert "calibrated for at most 0.3" in (tmp_path / "bolt/report.html").read_text()


def test_comparing_needs_no_torch(run_folder):
    code = (
        "import sys; from winspect.cli import main; main.VERBS = ('compare',); "
        f"code = main.main(['compare', {str(run_folder)!r}, {str(run_folder)!r}]); "
        "sys.exit('torch' in sys.modules or code)"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
