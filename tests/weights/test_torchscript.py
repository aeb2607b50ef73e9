"""OpenAI's own formats: a TorchScript archive read without running it, and its state dict; both with QuickGELU."""

from __future__ import annotations

import io
import json
import pickle
import struct
import warnings
import zipfile
from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch
from safetensors.torch import save_file

from winspect import WinCLIP
from winspect.backbones.open_clip_models import load
from winspect.calibration import Calibration
from winspect.cli.main import main
from winspect.errors import SettingsError, UnsafeWeightsError, WeightsCorruptError, WeightsError
from winspect.inspector.calibrating import calibrate
from winspect.weights.checkpoint import read_tensors

SMALL = "ViT-small-test"
NUMBERS = {"input_resolution": 64, "context_length": 77, "vocab_size": 49408}


@pytest.fixture(scope="module")
def quick(small_config) -> torch.nn.Module:
    """A QuickGELU model in half precision, as OpenAI publishes them; its weights are random."""
    torch.manual_seed(3)
    return open_clip.CLIP(**small_config, quick_gelu=True).eval().half()


@pytest.fixture(scope="module")
def archive(quick, small_config, tmp_path_factory) -> Path:
    """The model as a traced program with OpenAI's three numbers beside its parameters."""
    model = open_clip.CLIP(**small_config, quick_gelu=True).eval()
    model.load_state_dict(quick.state_dict())
    for name, number in NUMBERS.items():
        vars(model).pop(name, None)
        model.register_buffer(name, torch.tensor(number))
    inputs = {"encode_image": torch.zeros(1, 3, 64, 64), "encode_text": torch.zeros(1, 77, dtype=torch.long)}
    path = tmp_path_factory.mktemp("openai") / "ViT-B-32.pt"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.save(torch.jit.trace_module(model, inputs, check_trace=False).half(), path)
    return path


def state_dict(quick):
    return {**quick.state_dict(), **{name: torch.tensor(number) for name, number in NUMBERS.items()}}


def test_an_archive_gives_the_tensors_that_torch_reads_by_running_it(archive):
    tensors = read_tensors(archive)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = torch.jit.load(archive, map_location="cpu").state_dict()
    assert tensors.keys() == expected.keys() >= NUMBERS.keys()
    assert all(torch.equal(tensors[name], expected[name]) for name in expected)
    assert tensors["visual.proj"].dtype == torch.float16


@pytest.mark.parametrize("kind", ["archive", "pickle", "safetensors"])
def test_openai_s_formats_are_used_with_quick_gelu(quick, archive, tmp_path, kind):
    if kind == "archive":
        path = archive
    elif kind == "pickle":
        path = tmp_path / "ViT-B-32.pt"
        torch.save(state_dict(quick), path)
    else:
        path = tmp_path / "ViT-B-32.safetensors"
        save_file(state_dict(quick), path)
    loaded = load(SMALL, path)
    assert loaded.activation == "quick_gelu"
    (remark,) = loaded.remarks
    assert remark == f"{path}: OpenAI's format: used with QuickGELU, as OpenAI trained it"
    picture = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(
            loaded.model.encode_image(picture), quick.float().encode_image(picture), rtol=0, atol=1e-5
        )


def test_the_program_in_an_archive_is_never_opened(archive, tmp_path):
    path = tmp_path / "gutted.pt"
    with zipfile.ZipFile(archive) as old, zipfile.ZipFile(path, "w") as new:
        for info in old.infolist():
            new.writestr(info.filename, b"import os" if "/code/" in info.filename else old.read(info))
    assert read_tensors(path).keys() == read_tensors(archive).keys()


@pytest.mark.parametrize("name", ["os system", "builtins eval", "torch load", "torch._utils _rebuild_parameter"])
def test_an_archive_that_asks_for_more_is_refused_and_not_run(tmp_path, name):
    path = tmp_path / "evil.pt"
    called = f"c{name.replace(' ', chr(10))}\n(S'touch {tmp_path}/it-ran'\ntR.".encode()
    with zipfile.ZipFile(path, "w") as made:
        made.writestr("a/constants.pkl", b"")
        made.writestr("a/data.pkl", called)
    with pytest.raises(UnsafeWeightsError, match=rf"{name.replace(' ', '.')}.*was not run.*safetensors") as caught:
        read_tensors(path)
    assert str(caught.value).count("safetensors") == 1
    assert not (tmp_path / "it-ran").exists()


def broken(archive: Path, path: Path, **changes: bytes) -> Path:
    """A copy with other content in some records."""
    with zipfile.ZipFile(archive) as old, zipfile.ZipFile(path, "w") as new:
        for info in old.infolist():
            name = info.filename.partition("/")[2]
            new.writestr(info.filename, changes.get(name, old.read(info)))
    return path


def cyclic() -> bytes:
    """A pickle of a module that holds itself under two names, which never ends when it is followed."""
    return b"c__torch__ M\n)\x81q\x00}q\x01(X\x01\x00\x00\x00ah\x00X\x01\x00\x00\x00bh\x00ub.".replace(b" ", b"\n")


@pytest.mark.parametrize(
    ("record", "content"),
    [
        ("data.pkl", b""),
        ("data.pkl", b"\x80\x02}q."),
        ("data.pkl", pickle.dumps({"a": 1})),
        ("data.pkl", cyclic()),
        ("data/0", b"short"),
        ("data/0", b""),
    ],
)
def test_a_damaged_archive_is_named(archive, tmp_path, record, content):
    path = broken(archive, tmp_path / "cut.pt", **{record: content})
    with pytest.raises(WeightsCorruptError, match=r"cut\.pt: is damaged"):
        read_tensors(path)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of pickletools, on bytes that are no pickle
def test_an_archive_cut_anywhere_or_with_bytes_changed_is_a_message(archive, tmp_path):
    content, path = archive.read_bytes(), tmp_path / "cut.pt"
    for keep in range(0, len(content), len(content) // 40):
        path.write_bytes(content[:keep])
        with pytest.raises(WeightsError):
            load(SMALL, path)
    with zipfile.ZipFile(io.BytesIO(content)) as made:
        info = next(info for info in made.infolist() if info.filename.endswith("data.pkl"))
        name, extra = struct.unpack("<HH", content[info.header_offset + 26 : info.header_offset + 30])
        start = info.header_offset + 30 + name + extra
    for offset in range(0, info.compress_size, 211):
        spoilt = bytearray(content)
        spoilt[start + offset] ^= 0xFF
        path.write_bytes(spoilt)
        with pytest.raises(WeightsError):
            load(SMALL, path)


def test_a_configuration_that_contradicts_the_format_is_followed_and_said(quick, tmp_path):
    torch.save(state_dict(quick), tmp_path / "w.pt")
    (tmp_path / "open_clip_config.json").write_text(json.dumps({"model_cfg": {"quick_gelu": False}}))
    loaded = load(SMALL, tmp_path / "w.pt")
    assert loaded.activation == "gelu"
    assert "need QuickGELU, but open_clip_config.json says quick_gelu false" in loaded.remarks[0]


def test_weights_of_other_origin_keep_the_architecture_s_activation(checkpoint):
    loaded = load(SMALL, checkpoint)
    assert (loaded.activation, loaded.remarks) == ("gelu", ())


@pytest.mark.parametrize("suffix", [".PT", ".SafeTensors", ".BIN"])
def test_endings_in_any_case(original, tmp_path, suffix):
    path = tmp_path / f"w{suffix}"
    state = original.state_dict()
    save_file(state, path) if suffix == ".SafeTensors" else torch.save(state, path)
    assert torch.equal(load(SMALL, path).model.visual.proj, original.visual.proj)


def test_where_says_the_activation(archive, checkpoint, capsys, process_as_before):
    assert main(["weights", "where", SMALL, str(archive), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["activation"] == "quick_gelu"
    assert main(["weights", "where", SMALL, str(checkpoint)]) == 0
    printed = capsys.readouterr()
    assert (printed.out, printed.err) == (f"{checkpoint}\n", "winspect: activation: gelu\n")
    assert main(["weights", "where", "ViT-B-32-quickgelu", "openai", "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["activation"] == "quick_gelu"


def test_the_activation_is_in_every_account_of_a_run(quick, tmp_path, caplog):
    torch.save(state_dict(quick), tmp_path / "w.pt")
    model = WinCLIP(SMALL, weights=tmp_path / "w.pt", device="cpu", precision="fp32")
    assert model.describe()["activation"] == "quick_gelu"
    assert "used with QuickGELU" in caplog.text
    noise = np.random.default_rng(0).integers(0, 255, (12, 64, 64, 3), dtype=np.uint8)
    calibration = calibrate(model, list(noise), "object", max_false_alarms=0.2)
    calibration.save(tmp_path / "c.json")
    (tmp_path / "open_clip_config.json").write_text(json.dumps({"model_cfg": {"quick_gelu": False}}))
    plain = WinCLIP(SMALL, weights=tmp_path / "w.pt", device="cpu", precision="fp32")
    with pytest.raises(SettingsError, match="activation: calibrated with 'quick_gelu', now 'gelu'"):
        Calibration.load(tmp_path / "c.json").check_model(plain)
    # A calibration of an earlier release does not say.
    document = json.loads((tmp_path / "c.json").read_text())
    del document["activation"]
    (tmp_path / "c.json").write_text(json.dumps(document))
    Calibration.load(tmp_path / "c.json").check_model(plain)
