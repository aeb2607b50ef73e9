"""The list of weights, and the command line around it."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
import timm
import torch

from winspect.cli.main import build_parser
from winspect.errors import ArchitectureError, WeightsMissingError
from winspect.weights import sources
from winspect.weights.recommended import RECOMMENDED
from winspect.weights.timm_names import licence_of

SMALL = "ViT-small-test"


def run(*arguments: str) -> int:
    args = build_parser().parse_args(["weights", *arguments])
    return args.run(args)


def test_the_list_has_the_bundled_the_default_and_the_cached(serve, small_tag, checkpoint):
    server = serve(checkpoint.read_bytes())
    small_tag("good", url=server.url(f"small-{server.sha256[:8]}.pt"))
    small_tag("other", url=server.url("other-0badc0de.pt"))
    before = [(e.model, e.tag) for e in sources.list_weights()]
    assert before[0] == ("winspect-tiny", "bundled")
    assert before[1:3] == [("ViT-B-16-plus-240", "laion400m_e31"), ("ViT-B-16-plus-240", "laion400m_e32")]
    assert [f"{model}.{tag}" for model, tag in before[3:]] == list(RECOMMENDED)
    sources.pull(SMALL, "good")
    added = sources.list_weights()[len(before) :]
    assert [(e.model, e.tag, e.size_bytes) for e in added] == [(SMALL, "good", len(server.content))]
    assert [e.tag for e in sources.list_weights([SMALL])] == ["good", "other"]


def test_an_unknown_model_is_not_an_empty_list():
    with pytest.raises(ArchitectureError, match="unknown model 'nothing'"):
        sources.list_weights(["nothing"])


def test_list_prints_a_table_and_json(small_tag, capsys):
    small_tag("good", url="https://example.org/small-0badc0de.pt")
    assert run("list", SMALL, "winspect-tiny") == 0
    header, row, tiny = capsys.readouterr().out.splitlines()
    assert header.split()[:3] == ["MODEL", "TAG", "SIZE"]
    assert row.split() == [SMALL, "good", "not", "here", "https://example.org/small-0badc0de.pt"]
    assert tiny.split()[:2] == ["winspect-tiny", "bundled"] and tiny.endswith("model.safetensors")
    assert run("list", SMALL, "--json") == 0
    (entry,) = json.loads(capsys.readouterr().out)
    assert entry["present"] is False and entry["size_bytes"] is None and entry["sha256_prefix"] == "0badc0de"


def test_recommended_models_come_with_size_licence_and_figures(capsys):
    small, free = "timm/vit_small_patch14_dinov2", "timm/vit_small_patch16_dinov3"
    assert run("list", f"{small}.lvd142m", f"{free}.lvd1689m", "timm/vit_tiny_patch16_224") == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[:2] for line in lines[1:5]] == [
        *([small, "lvd142m"], [free, "lvd1689m"]),
        *(["timm/vit_tiny_patch16_224", tag] for tag in ("augreg_in21k", "augreg_in21k_ft_in1k")),
    ]
    assert lines[1].endswith(
        "https://huggingface.co/timm/vit_small_patch14_dinov2.lvd142m/resolve/main/model.safetensors"
    )
    assert lines[5].startswith(f"{small}.lvd142m: 88 MB, apache-2.0; memory, 448 px")
    assert "VisA 87.4 / 89.7 / 92.6" in lines[5]
    assert lines[6].startswith(f"{free}.lvd1689m: 86 MB, dinov3-license; no published figures")
    assert run("list", f"{free}.lvd1689m", "winspect-tiny", "--json") == 0
    first, second = json.loads(capsys.readouterr().out)
    assert (first["licence"], first["published"], second["licence"]) == ("dinov3-license", None, None)


def test_what_is_recommended_is_what_timm_says_of_it():
    for name, known in RECOMMENDED.items():
        source = sources.find(name)
        assert licence_of(source) == known.licence
        with torch.device("meta"):
            model = timm.create_model(name.removeprefix("timm/"))
        assert known.size_mb == round(sum(weight.numel() for weight in model.parameters()) * 4 / 1e6)


def test_list_all_names_every_architecture_that_can_be_used(capsys):
    assert run("list", "--all", "--json") == 0
    models = {entry["model"] for entry in json.loads(capsys.readouterr().out)}
    assert {"winspect-tiny", "ViT-B-32", "ViT-L-14"} <= models and "RN50" not in models


def test_where_names_the_folder_or_the_file(small_tag, checkpoint, tmp_path, capsys):
    assert run("where") == 0
    assert capsys.readouterr().out.strip() == str(tmp_path / "cache" / "weights")
    assert run("where", "--json") == 0
    assert json.loads(capsys.readouterr().out) == {"folder": str(tmp_path / "cache" / "weights")}
    small_tag("good", url="https://example.org/small-0badc0de.pt")
    assert run("where", SMALL, "good") == 1
    out, err = capsys.readouterr()
    assert out.strip() == str(tmp_path / "cache" / "weights" / "small-0badc0de.pt")
    assert "winspect weights pull ViT-small-test good" in err
    assert run("where", SMALL, str(checkpoint), "--json") == 0
    assert json.loads(capsys.readouterr().out)["present"] is True


def test_pull_fetches_and_prints_the_path(serve, small_tag, checkpoint, capsys):
    server = serve(checkpoint.read_bytes())
    small_tag("good", url=server.url(f"small-{server.sha256[:8]}.pt"))
    assert run("pull", SMALL, "good", "--json") == 0
    row = json.loads(capsys.readouterr().out)
    assert row["present"] and row["address"] == server.url(f"small-{server.sha256[:8]}.pt")
    assert run("list", SMALL) == 0
    assert f"{len(server.content) / 1e6:.0f} MB" in capsys.readouterr().out
    with pytest.raises(WeightsMissingError):
        run("pull", SMALL, "nothing")


def test_naming_the_weights_package_imports_no_torch():
    code = "import sys, winspect.weights, winspect.cli.weights; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
    used = "import sys, winspect.weights; import torch; sys.exit('torch' in sys.modules)"  # it can fail
    assert subprocess.run([sys.executable, "-c", used], check=False).returncode == 1
