"""Models that bring their configuration along: ``local-dir:`` and ``hf-hub:`` names, as open_clip 3 has them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import open_clip
import pytest
import torch
from safetensors.torch import save_file

from winspect.backbones.open_clip_models import load
from winspect.cli.main import main
from winspect.errors import (
    ArchitectureError,
    SettingsError,
    WeightsCorruptError,
    WeightsMismatchError,
    WeightsMissingError,
)
from winspect.weights import sources

SETTINGS = {"mean": [0.5, 0.4, 0.3], "std": [0.2, 0.2, 0.2], "interpolation": "bilinear"}


@pytest.fixture
def folder(tmp_path, small_config) -> Path:
    """A model as open_clip's ``push_to_hf_hub`` saves it, of an architecture that open_clip has no name for."""
    place = tmp_path / "inspector"
    place.mkdir()
    config = {**small_config, "embed_dim": 20, "quick_gelu": True}
    torch.manual_seed(1)
    save_file(open_clip.CLIP(**config).state_dict(), place / "open_clip_model.safetensors")
    write_config(place, config)
    return place


def write_config(place: Path, config: object, **others: object) -> None:
    document = {"model_cfg": config, "preprocess_cfg": SETTINGS, **others}
    (place / "open_clip_config.json").write_text(json.dumps(document))


def embeddings(model):
    picture = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    text = torch.randint(1, 400, (2, 77), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        return torch.cat([model.encode_image(picture), model.encode_text(text)])


@pytest.mark.open_clip_versions
def test_a_folder_is_the_model_that_open_clip_makes_of_it(folder):
    loaded = load(f"local-dir:{folder}")
    model = open_clip.CLIP(**json.loads((folder / "open_clip_config.json").read_text())["model_cfg"])
    model.load_state_dict(loaded.model.state_dict())
    torch.testing.assert_close(embeddings(loaded.model), embeddings(model.eval()), rtol=0, atol=1e-5)
    assert (loaded.name, loaded.tag, loaded.activation) == (
        "local-dir:inspector",
        "open_clip_model.safetensors",
        "quick_gelu",
    )
    assert (loaded.preprocess.size, loaded.preprocess.mean, loaded.preprocess.interpolation) == (
        64,
        (0.5, 0.4, 0.3),
        "bilinear",
    )
    assert loaded.tokenizer(["a bolt"]).shape == (1, 77)


def test_a_folder_that_moved_is_the_same_model(folder, tmp_path):
    first = load(f"local-dir:{folder}")
    moved = shutil.move(folder, tmp_path / "elsewhere" / "inspector")
    second = load(f"local-dir:{moved}")
    assert (first.name, first.sha256) == (second.name, second.sha256)


def test_the_file_is_chosen_as_open_clip_does(folder, caplog):
    state = (folder / "open_clip_model.safetensors").read_bytes()
    (folder / "a.safetensors").write_bytes(state)
    assert sources.find(f"local-dir:{folder}").path.name == "open_clip_model.safetensors"
    (folder / "open_clip_model.safetensors").rename(folder / "MINE.SAFETENSORS")
    assert sources.find(f"local-dir:{folder}").path.name == "MINE.SAFETENSORS"
    assert "several weights files (MINE.SAFETENSORS, a.safetensors)" in caplog.text


def test_folders_that_hold_no_model_say_what_is_missing(folder, tmp_path):
    with pytest.raises(WeightsMissingError, match="no such folder"):
        sources.find(f"local-dir:{tmp_path}/none")
    with pytest.raises(SettingsError, match="brings its own weights"):
        sources.find(f"local-dir:{folder}", "openai")
    (folder / "open_clip_model.safetensors").unlink()
    with pytest.raises(WeightsMissingError, match="no weights in it"):
        sources.find(f"local-dir:{folder}")
    (folder / "open_clip_config.json").unlink()
    with pytest.raises(WeightsMissingError, match=r"no open_clip_config\.json in it.*--model ARCHITECTURE"):
        sources.find(f"local-dir:{folder}")


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"embed_dim": None}, WeightsCorruptError, "has no embed_dim"),
        ({"text_cfg": []}, WeightsCorruptError, "has no text_cfg"),
        ({"vision_cfg": {"image_size": "big", "layers": 2}}, WeightsCorruptError, "image_size"),
        ({"vision_cfg": {"timm_model_name": "vit"}}, ArchitectureError, "timm's vit"),
        ({"colour": 1}, ArchitectureError, "cannot build this configuration.*colour"),
        ({"embed_dim": 24}, WeightsMismatchError, "not weights of local-dir:inspector"),
    ],
)
def test_a_configuration_that_cannot_be_used(folder, small_config, change, error, message):
    write_config(folder, {**small_config, "embed_dim": 20, **change})
    with pytest.raises(error, match=message):
        load(f"local-dir:{folder}")


@pytest.fixture
def hub(fake_hub, folder):
    """A hub that has the model."""
    fake_hub.files = {path.name: path.read_bytes() for path in folder.iterdir()}
    return fake_hub


def test_a_repository_is_fetched_with_its_configuration(hub, capsys, process_as_before):
    asked = ["open_clip_config.json", "open_clip_model.safetensors"]
    with pytest.raises(WeightsMissingError, match="winspect weights pull hf-hub:someone/inspector"):
        sources.find("hf-hub:someone/inspector")
    assert hub.asked == []
    assert main(["weights", "pull", "hf-hub:someone/inspector"]) == 0
    assert hub.asked == [f"/someone/inspector/resolve/main/{name}" for name in asked]
    loaded = load("hf-hub:someone/inspector", offline=True)
    assert (loaded.name, loaded.tag, loaded.activation) == (
        "hf-hub:someone/inspector",
        "someone/inspector",
        "quick_gelu",
    )
    assert main(["weights", "list", "hf-hub:someone/inspector"]) == 0
    assert "open_clip_model.safetensors" in capsys.readouterr().out
    assert len(hub.asked) == 2


def test_a_repository_that_cannot_be_fetched(hub):
    hub.down = True
    with pytest.raises(WeightsMissingError, match=r"could not be fetched \(.*500.*\).*local-dir:FOLDER"):
        load("hf-hub:someone/inspector")
    with pytest.raises(WeightsMissingError, match="is not on this machine"):
        load("hf-hub:someone/inspector", offline=True)
    with pytest.raises(SettingsError, match="need hf-hub:OWNER/NAME"):
        load("hf-hub:inspector")


def test_a_job_on_other_machines_gets_the_whole_path(folder, monkeypatch):
    shared = pytest.importorskip("winspect.cluster.shared")
    monkeypatch.chdir(folder.parent)
    options = shared.portable({"model": "local-dir:inspector", "prompts": "accurate-winclip"})
    assert options["model"] == f"local-dir:{folder}"
    assert len(options["prompts"].templates) == 21
