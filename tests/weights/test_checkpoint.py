"""Reading checkpoints: nothing in them runs, damage is seen, and every tensor must fit."""

from __future__ import annotations

import os
import pickle
import zlib
from collections import OrderedDict
from pathlib import Path
from random import Random
from unittest.mock import Mock

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from benchmarks.fuzz_families import damage, damaged_entry
from winspect.backbones.open_clip_models import load
from winspect.errors import (
    UnsafeWeightsError,
    WeightsCorruptError,
    WeightsError,
    WeightsMismatchError,
    WeightsMissingError,
)
from winspect.system import opening
from winspect.weights.checkpoint import check_zip, read_tensors

SMALL = "ViT-small-test"


class Touch:
    """Pickled, it makes a file when it is unpickled without care."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("suffix", [".pt", ".pth", ".bin", ".ckpt", ".safetensors"])
def test_every_format_gives_the_same_tensors(original, tmp_path, suffix):
    path = tmp_path / f"w{suffix}"
    state = original.state_dict()
    save_file(state, path) if suffix == ".safetensors" else torch.save(state, path)
    tensors = read_tensors(path)
    assert tensors.keys() == state.keys()
    assert all(torch.equal(tensors[key], state[key]) and tensors[key].dtype == state[key].dtype for key in state)


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_writing_to_a_mapped_tensor_never_reaches_the_file(original, tmp_path, suffix):
    path = tmp_path / f"w{suffix}"
    state = original.state_dict()
    save_file(state, path) if suffix == ".safetensors" else torch.save(state, path)
    before = path.read_bytes()
    read_tensors(path)["visual.proj"].zero_()
    assert path.read_bytes() == before


def test_the_format_from_before_pytorch_1_6_is_read(original, tmp_path):
    path = tmp_path / "old.pt"
    torch.save(original.state_dict(), path, _use_new_zipfile_serialization=False)
    assert torch.equal(read_tensors(path)["visual.proj"], original.visual.proj)


@pytest.mark.parametrize("wrapper", ["state_dict", "model_state_dict", "model"])
@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod.", "_orig_mod.module.", "module._orig_mod."])
def test_what_training_scripts_wrap_around_is_taken_off(original, tmp_path, wrapper, prefix):
    state = OrderedDict((prefix + key, value) for key, value in original.state_dict().items())
    path = tmp_path / "epoch_3.pt"
    torch.save({"epoch": 3, "step": torch.tensor(7), wrapper: state}, path)
    assert read_tensors(path).keys() == original.state_dict().keys()


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("where", ["top", "nested"])
def test_pickled_code_is_refused_and_not_run(original, tmp_path, zipped, where):
    proof = tmp_path / "it-ran"
    content = Touch(proof) if where == "top" else {"state_dict": original.state_dict(), "hyper": Touch(proof)}
    path = tmp_path / "evil.pt"
    torch.save(content, path, _use_new_zipfile_serialization=zipped)
    with pytest.raises(UnsafeWeightsError, match=r"evil\.pt.*mkdir.*It was not run.*save_file"):
        load(SMALL, path)
    assert not proof.exists()
    torch.load(path, weights_only=False)  # the trap works: only the careful way of loading keeps it shut
    assert proof.exists()


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("protocol", [0, 2, 4, 5])
def test_a_plain_pickle_with_code_is_refused(tmp_path, protocol):
    path = tmp_path / "evil.bin"
    path.write_bytes(pickle.dumps(Touch(tmp_path / "it-ran"), protocol=protocol))
    with pytest.raises(UnsafeWeightsError, match=r"would call \w+\.mkdir"):
        read_tensors(path)
    assert not (tmp_path / "it-ran").exists()


def test_a_whole_pickled_model_is_refused(original, tmp_path):
    torch.save(original.visual.ln_post, tmp_path / "model.pt")
    with pytest.raises(UnsafeWeightsError, match=r"would call open_clip\.transformer\.LayerNorm"):
        read_tensors(tmp_path / "model.pt")


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
@pytest.mark.parametrize("keep", [0, 10, 100, 0.5, 0.999])
def test_a_truncated_file_is_named(original, tmp_path, suffix, keep):
    path = tmp_path / f"cut{suffix}"
    state = original.state_dict()
    save_file(state, path) if suffix == ".safetensors" else torch.save(state, path)
    content = path.read_bytes()
    path.write_bytes(content[: keep if isinstance(keep, int) else int(len(content) * keep)])
    with pytest.raises(WeightsCorruptError, match=f"cut{suffix}.*fetch it again"):
        load(SMALL, path)


@pytest.mark.parametrize(
    "content", [b"<html>not found</html>" * 9, b"\x80\x02garbage" * 9, bytes(4096), b"PK\x03\x04" + bytes(99)]
)
@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_something_else_is_not_taken_for_weights(tmp_path, suffix, content):
    path = tmp_path / f"page{suffix}"
    path.write_bytes(content)
    with pytest.raises(WeightsCorruptError, match=f"page{suffix}"):
        load(SMALL, path)


def test_a_changed_byte_in_a_torch_file_is_seen(checkpoint):
    check_zip(checkpoint)
    content = bytearray(checkpoint.read_bytes())
    content[len(content) // 2] ^= 1
    checkpoint.write_bytes(content)
    with pytest.raises(WeightsCorruptError, match="checksum of"):
        load(SMALL, checkpoint)


def test_a_broken_archive_is_damaged(tmp_path):
    torch.save({"a": torch.ones(2)}, tmp_path / "w.pt")
    (tmp_path / "w.pt").write_bytes((tmp_path / "w.pt").read_bytes().replace(b"PK\1\2", b"PK\0\0"))
    for check in (check_zip, read_tensors):
        with pytest.raises(WeightsCorruptError, match="Bad magic number for central directory"):
            check(tmp_path / "w.pt")


def test_a_git_lfs_pointer_is_recognised(tmp_path):
    path = tmp_path / "w.pt"
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
    with pytest.raises(WeightsCorruptError, match="git lfs pull"):
        load(SMALL, path)


def test_an_unknown_ending_is_refused(tmp_path):
    (tmp_path / "w.onnx").write_bytes(b"x")
    with pytest.raises(WeightsError, match=r"'\.onnx', need one of \.safetensors, \.pt"):
        load(SMALL, tmp_path / "w.onnx")


@pytest.mark.parametrize(
    ("error", "fix"),
    [(PermissionError(13, "Permission denied"), "right to read"), (OSError(5, "I/O error"), "check the path")],
)
def test_a_file_that_cannot_be_opened_says_why(checkpoint, monkeypatch, error, fix):
    def refuse(*_, **__):
        raise error

    monkeypatch.setattr(opening, "_opened", refuse)
    with pytest.raises(WeightsMissingError, match=f"{error.strerror}.*{fix}"):
        read_tensors(checkpoint)


@pytest.mark.parametrize("content", [[1, 2], {"epoch": 1}, torch.zeros(3), {}])
def test_a_file_without_named_tensors_is_a_mismatch(tmp_path, content):
    torch.save(content, tmp_path / "w.pt")
    with pytest.raises(WeightsMismatchError, match=f"{type(content).__name__} without named tensors"):
        load(SMALL, tmp_path / "w.pt")


def changed(original: nn.Module, tmp_path: Path, **changes: object) -> Path:
    """The original's weights with tensors replaced, or left out where None is given."""
    state = {**original.state_dict(), **{key.replace("__", "."): value for key, value in changes.items()}}
    path = tmp_path / "changed.pt"
    torch.save({key: value for key, value in state.items() if value is not None}, path)
    return path


def test_missing_unexpected_and_misshapen_tensors_are_listed(original, tmp_path):
    path = changed(original, tmp_path, ln_final__weight=None, extra=torch.zeros(2), visual__proj=torch.zeros(64, 25))
    with pytest.raises(WeightsMismatchError) as caught:
        load(SMALL, path)
    message = str(caught.value)
    assert str(path) in message and SMALL in message
    assert "1 missing: ln_final.weight" in message
    assert "1 unexpected: extra" in message
    assert "1 of another shape: visual.proj (file (64, 25), model (64, 24))" in message


def test_long_lists_are_cut(original, tmp_path):
    path = changed(original, tmp_path, **{f"extra{n}": torch.zeros(1) for n in range(12)})
    with pytest.raises(WeightsMismatchError, match=r"12 unexpected: extra0, .*extra7, and 4 more\."):
        load(SMALL, path)


def test_quantised_tensors_are_refused(original, tmp_path):
    path = changed(original, tmp_path, visual__proj=torch.zeros(64, 24, dtype=torch.int8))
    with pytest.raises(WeightsMismatchError, match=r"1 not floating-point: visual\.proj \(torch\.int8\)"):
        load(SMALL, path)


def test_positional_embeddings_of_another_size_are_not_interpolated(original, tmp_path):
    path = changed(original, tmp_path, visual__positional_embedding=torch.zeros(50, 64))
    with pytest.raises(WeightsMismatchError, match=r"positional_embedding \(file \(50, 64\), model \(17, 64\)\)"):
        load(SMALL, path)


def test_the_architecture_that_fits_is_named(checkpoint):
    with pytest.raises(WeightsMismatchError, match=f"sizes are those of {SMALL}: choose that model"):
        load("ViT-B-16-plus-240", checkpoint)


def test_weights_of_the_transformers_library_are_recognised(tmp_path):
    torch.save({"vision_model.pre_layrnorm.weight": torch.zeros(3)}, tmp_path / "clip.bin")
    with pytest.raises(WeightsMismatchError, match="format of the transformers library"):
        load(SMALL, tmp_path / "clip.bin")


def test_harmless_extras_of_old_versions_are_ignored(original, tmp_path):
    extras = {
        "attn_mask": torch.zeros(77, 77),
        "visual__embeddings__position_ids": torch.arange(3),
        "input_resolution": torch.tensor(64),
        "context_length": torch.tensor(77),
        "vocab_size": torch.tensor(49408),
        "logit_bias": torch.tensor(-10.0),
    }
    loaded = load(SMALL, changed(original, tmp_path, **extras))
    assert torch.equal(loaded.model.attn_mask, original.attn_mask)
    assert loaded.model.logit_bias is None


def test_a_logit_scale_with_one_element_is_a_scalar(original, tmp_path):
    loaded = load(SMALL, changed(original, tmp_path, logit_scale=torch.tensor([4.5])))
    assert loaded.model.logit_scale.shape == () and loaded.model.logit_scale.item() == 4.5


@pytest.mark.parametrize("given", [None, torch.tensor([-3.0])])
def test_a_logit_bias_the_file_lacks_is_zero(original, tmp_path, given, monkeypatch):
    import open_clip

    config = {**open_clip.get_model_config(SMALL), "init_logit_bias": -10}
    monkeypatch.setitem(open_clip.factory._MODEL_CONFIGS, SMALL, config)
    loaded = load(SMALL, changed(original, tmp_path, logit_bias=given))
    assert loaded.model.logit_bias.shape == ()
    assert loaded.model.logit_bias.item() == (0.0 if given is None else -3.0)


@pytest.mark.parametrize("kind", ["zip", "legacy", "safetensors"])
def test_damage_of_any_kind_is_a_message(tmp_path, kind):
    """Flipped, lost, doubled and added bytes, mostly of the headers; also where the checksums of a zip are right."""
    suffix = ".safetensors" if kind == "safetensors" else ".pt"
    state = {f"visual.{number}": torch.ones(3, 4) for number in range(4)}
    whole = tmp_path / f"whole{suffix}"
    if kind == "safetensors":
        save_file(state, whole)
    else:
        torch.save(state, whole, _use_new_zipfile_serialization=kind == "zip")
    random, path, content = Random(0), tmp_path / f"w{suffix}", whole.read_bytes()
    refused = 0
    for _ in range(400):
        spoilt = damaged_entry(content, random) if kind == "zip" and random.random() < 0.5 else damage(content, random)
        path.write_bytes(spoilt)
        try:
            check_zip(path)
            read_tensors(path)
        except WeightsError as error:
            assert str(path) in str(error)
            refused += 1
    assert refused > 200


def test_whatever_torch_raises_is_a_message(tmp_path, monkeypatch):
    torch.save({"a": torch.ones(2)}, tmp_path / "w.pt")
    for error in (AssertionError("storage key not found"), MemoryError(), zlib.error("bad"), KeyError("x")):
        monkeypatch.setattr(torch, "load", Mock(side_effect=error))
        reason = str(error) or type(error).__name__
        with pytest.raises(WeightsCorruptError, match=rf"w\.pt: is damaged .*\({reason}\)"):
            read_tensors(tmp_path / "w.pt")
