"""Text embeddings: open_clip's own over all 77 tokens, both averages, and the cache on disk."""

from __future__ import annotations

import gc
import json
import logging
import os
import weakref
import zipfile
from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch
from checkpoints import SMALL, build

from winspect.backbones.text_tower import Prefixes, TextTower
from winspect.errors import ClassNameError
from winspect.inspector.text_encoder import ClassText, TextCache, TextEncoder
from winspect.methods.winclip.prompts import PromptEnsemble

CONTEXT = 77


@pytest.fixture(scope="module")
def clip():
    return build(SMALL)


@pytest.fixture(scope="module")
def tokenizer():
    return open_clip.SimpleTokenizer(context_length=CONTEXT)


@pytest.fixture(scope="module")
def tower(clip, tokenizer):
    return TextTower(clip, tokenizer).eval()


class Counting:
    """A stand-in for a text tower: embeds by length, and notes what it was asked."""

    def __init__(self) -> None:
        self.asked: list[list[str]] = []

    def __call__(self, texts):
        self.asked.append(list(texts))
        return torch.tensor([[len(text), text.count("a"), 1.0] for text in texts])


SMALL_PROMPTS = PromptEnsemble(normal_states=["{}", "good {}"], anomalous_states=["bad {}"], templates=["a {}.", "{}"])


# The tower


def test_embeddings_are_open_clips_own_over_all_tokens(clip, tower, tokenizer):
    normal, anomalous = PromptEnsemble().prompts("metal_nut")
    texts = normal + anomalous
    with torch.inference_mode():
        expected = clip.encode_text(tokenizer(texts))
    embeddings = tower(texts)
    assert (embeddings.shape, embeddings.dtype) == ((242, 48), torch.float32)
    torch.testing.assert_close(embeddings, expected, rtol=1e-5, atol=1e-5)
    assert expected.std(dim=0).mean() > 0.1  # prompts that were all alike would prove nothing


def test_the_text_tower_of_a_custom_text_clip(tokenizer):
    torch.manual_seed(0)
    config = open_clip.get_model_config(SMALL)
    clip = open_clip.CustomTextCLIP(**config).eval()
    texts = ["a photo of a nut.", "a close-up photo of the damaged nut for visual inspection."]
    tower = TextTower(clip, tokenizer)
    assert tower.is_plain
    with torch.inference_mode():
        torch.testing.assert_close(tower(texts), clip.encode_text(tokenizer(texts)), rtol=1e-5, atol=1e-5)


def test_prefixes_by_hand():
    """Three prompts ended by 9: 1 2 3 9, 1 2 9 and 1 4 9, then zeros. Seven prefixes of 10 tokens."""
    prefixes = Prefixes.of(torch.tensor([[1, 2, 3, 9, 0], [1, 2, 9, 0, 0], [1, 4, 9, 0, 0]]))
    assert prefixes.tokens.tolist() == [1, 2, 3, 9, 9, 4, 9]
    assert prefixes.positions.tolist() == [0, 1, 2, 3, 2, 1, 2]
    assert prefixes.chains.tolist() == [
        [0, 0, 0, 0],
        [0, 1, 0, 0],
        [0, 1, 2, 0],
        [0, 1, 2, 3],
        [0, 1, 4, 0],
        [0, 5, 0, 0],
        [0, 5, 6, 0],
    ]
    assert prefixes.ends.tolist() == [3, 4, 6]


def test_the_same_prompt_twice_is_one_row():
    prefixes = Prefixes.of(torch.tensor([[1, 9, 0], [1, 9, 0]]))
    assert prefixes.tokens.tolist() == [1, 9]
    assert prefixes.ends.tolist() == [1, 1]


@pytest.fixture
def rows_run(tower, monkeypatch):
    """The rows that went through the tower's first block."""
    rows = []
    whole = type(tower.blocks[0]).follow

    def noting(self, x, attended):
        if self is tower.blocks[0]:
            rows.append(len(x))
        return whole(self, x, attended)

    monkeypatch.setattr(type(tower.blocks[0]), "follow", noting)
    return rows


def test_tokens_after_the_end_and_shared_prefixes_are_not_run_again(tower, rows_run):
    tower(["a nut.", "a very good nut."])
    assert rows_run == [5 + 5]  # start, a, nut, ".", end; very, good, nut, ".", end


def test_the_prompts_of_a_class_have_few_prefixes(tower, tokenizer, rows_run):
    normal, anomalous = PromptEnsemble().prompts("metal_nut")
    tower(normal + anomalous)
    tokens = tokenizer(normal + anomalous)
    assert tokens.numel() == 242 * 77
    ended = int((tokens.argmax(dim=1) + 1).sum())
    assert sum(rows_run) < ended / 2 < tokens.numel() / 8
    # Every different beginning of a prompt, counted the plain way.
    beginnings = {tuple(row[: n + 1]) for row in tokens.tolist() for n in range(row.index(max(row)) + 1)}
    assert sum(rows_run) == len(beginnings)


def test_attention_in_parts_changes_nothing(tower, monkeypatch):
    texts = PromptEnsemble().prompts("nut")[0]
    whole = tower(texts)
    monkeypatch.setattr("winspect.backbones.text_tower._GATHERED_NUMBERS", 5000)
    torch.testing.assert_close(tower(texts), whole, rtol=1e-5, atol=1e-5)


def test_a_text_does_not_depend_on_its_neighbours(tower):
    long = "a close-up photo of the damaged metal nut for visual inspection."
    torch.testing.assert_close(tower(["a nut.", long])[:1], tower(["a nut."]), rtol=1e-5, atol=1e-5)


def test_many_texts_go_through_in_parts(tower, monkeypatch):
    texts = [f"part number {number}" for number in range(9)]
    whole = tower(texts)
    monkeypatch.setattr("winspect.backbones.text_tower._PROMPTS_PER_BATCH", 4)
    torch.testing.assert_close(tower(texts), whole, rtol=1e-5, atol=1e-5)


def test_a_prompt_that_just_fits_and_one_that_does_not(clip, tower, tokenizer):
    fits = " ".join(["nut"] * (CONTEXT - 2))
    with torch.inference_mode():
        expected = clip.encode_text(tokenizer([fits]))
    torch.testing.assert_close(tower([fits]), expected, rtol=1e-5, atol=1e-5)
    with pytest.raises(ClassNameError, match=r"got a prompt of 78 tokens .* at most 77 fit .* shorter class name"):
        tower(["a nut", fits + " nut"])


def test_a_class_name_of_many_tokens(tower):
    encoder = TextEncoder(lambda: tower, PromptEnsemble(), None)
    with pytest.raises(ClassNameError, match="shorter class name"):
        encoder("\U0001f9ea" * 40)


def test_other_towers_run_as_open_clip_runs_them(clip, tokenizer):
    """A tower that pools otherwise is not cut short."""
    tower = TextTower(clip, tokenizer)
    tower.is_plain = False
    with torch.inference_mode():
        expected = clip.encode_text(tokenizer(["a nut."]))
    torch.testing.assert_close(tower(["a nut."]), expected, rtol=0, atol=0)


@pytest.mark.parametrize("change", [{"use_pad_mask": True}, {"text_pool_type": "last"}, {"attn_mask": None}])
def test_what_is_not_plain_is_seen(tokenizer, change):
    clip = build(SMALL)
    assert TextTower(clip, tokenizer).is_plain
    for name, value in change.items():
        setattr(clip, name, value)
    assert not TextTower(clip, tokenizer).is_plain


# The averages


def test_averages_by_hand():
    text = ClassText.average(torch.tensor([[3.0, 4.0], [0.0, 2.0]]), torch.tensor([[1.0, 0.0]]))
    np.testing.assert_allclose(text.raw, [[1.5, 3.0], [1.0, 0.0]], rtol=1e-6)
    # (0.6, 0.8) and (0, 1) average to (0.3, 0.9), of length sqrt(0.9).
    np.testing.assert_allclose(text.normalised, [[0.3 / 0.9**0.5, 0.9 / 0.9**0.5], [1.0, 0.0]], rtol=1e-6)


def test_averages_of_a_class_are_open_clips(clip, tower, tokenizer):
    """The slow way, prompt by prompt, in float64 after open_clip's own encoder."""
    text = TextEncoder(lambda: tower, PromptEnsemble(), None)("wood")
    assert text.raw.shape == text.normalised.shape == (2, 48)
    for side, prompts in enumerate(PromptEnsemble().prompts("wood")):
        with torch.inference_mode():
            vectors = clip.encode_text(tokenizer(prompts)).double().numpy()
        np.testing.assert_allclose(text.raw[side], vectors.mean(axis=0), rtol=0, atol=1e-5)
        units = np.mean([vector / np.linalg.norm(vector) for vector in vectors], axis=0)
        np.testing.assert_allclose(text.normalised[side], units / np.linalg.norm(units), rtol=0, atol=1e-5)


# The cache


def test_a_class_is_encoded_once(tmp_path):
    tower = Counting()
    encoder = TextEncoder(lambda: tower, SMALL_PROMPTS, TextCache(tmp_path / "text", "weights"))
    first = encoder("nut")
    assert encoder("nut") is first
    assert tower.asked == [["a nut.", "nut", "a good nut.", "good nut", "a bad nut.", "bad nut"]]
    other = TextEncoder(lambda: tower, SMALL_PROMPTS, TextCache(tmp_path / "text", "weights"))("nut")
    assert len(tower.asked) == 1  # read back from disk
    torch.testing.assert_close(other.raw, first.raw, rtol=0, atol=0)
    torch.testing.assert_close(other.normalised, first.normalised, rtol=0, atol=0)
    assert len(list((tmp_path / "text").iterdir())) == 1


def test_the_tower_is_loaded_for_a_new_class_alone_and_not_kept(tmp_path):
    loaded = []

    def load() -> Counting:
        tower = Counting()
        loaded.append(weakref.ref(tower))
        return tower

    encoder = TextEncoder(load, SMALL_PROMPTS, TextCache(tmp_path, "weights"))
    assert loaded == []
    encoder("nut")
    gc.collect()
    assert [tower() for tower in loaded] == [None]
    encoder("nut")
    TextEncoder(load, SMALL_PROMPTS, TextCache(tmp_path, "weights"))("nut")
    assert len(loaded) == 1
    encoder("bolt")
    assert len(loaded) == 2


def test_without_a_cache_nothing_is_written(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    tower = Counting()
    TextEncoder(lambda: tower, SMALL_PROMPTS, None)("nut")
    TextEncoder(lambda: tower, SMALL_PROMPTS, None)("nut")
    assert len(tower.asked) == 2
    assert list(tmp_path.iterdir()) == []


def test_other_weights_classes_and_prompts_have_other_keys(tmp_path, monkeypatch):
    normal, anomalous = ["a nut"], ["a bad nut"]
    paths = [
        TextCache(tmp_path, "a").path(normal, anomalous),
        TextCache(tmp_path, "b").path(normal, anomalous),
        TextCache(tmp_path, "a").path(["a bolt"], anomalous),
        TextCache(tmp_path, "a").path(normal, ["a worn nut"]),
        TextCache(tmp_path, "a").path([], normal + anomalous),  # the same prompts, sided otherwise
    ]
    monkeypatch.setattr("winspect.inspector.text_encoder._CACHE_VERSION", 99)
    paths.append(TextCache(tmp_path, "a").path(normal, anomalous))
    assert len(set(paths)) == 6


def _damage_checksum(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[content.index(b"NUMPY") + 130] ^= 1
    path.write_bytes(content)


def _mark_encrypted(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[content.index(b"PK\x01\x02") + 8] |= 1
    path.write_bytes(content)


def _leave_one_out(path: Path) -> None:
    np.savez(path, raw=np.zeros((2, 3), np.float32))


def _pickle(path: Path) -> None:
    np.savez(path, raw=np.array([{}], object), normalised=np.zeros((2, 3), np.float32))


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(b"not a zip file"),
        lambda path: path.write_bytes(path.read_bytes()[:-30]),
        lambda path: path.write_bytes(path.read_bytes()[:100]),
        lambda path: np.save(path.open("wb"), np.zeros(3)),
        lambda path: zipfile.ZipFile(path, "w").close(),
        _damage_checksum,
        _mark_encrypted,
        _leave_one_out,
        _pickle,
    ],
    ids=["empty", "text", "cut", "short", "one array", "no entry", "checksum", "encrypted", "incomplete", "pickle"],
)
@pytest.mark.filterwarnings("ignore::ResourceWarning")  # of the lambda that leaves its file open
def test_a_damaged_file_is_logged_and_made_anew(tmp_path, caplog, damage):
    tower, cache = Counting(), TextCache(tmp_path, "weights")
    expected = TextEncoder(lambda: tower, SMALL_PROMPTS, cache)("nut")
    (path,) = tmp_path.iterdir()
    damage(path)
    with caplog.at_level(logging.WARNING):
        again = TextEncoder(lambda: tower, SMALL_PROMPTS, cache)("nut")
    assert len(tower.asked) == 2
    torch.testing.assert_close(again.raw, expected.raw, rtol=0, atol=0)
    (message,) = caplog.messages
    assert str(path) in message
    assert "unreadable text cache" in message
    TextEncoder(lambda: tower, SMALL_PROMPTS, cache)("nut")
    assert len(tower.asked) == 2  # the new file is good


def test_a_folder_that_cannot_be_written_is_logged(tmp_path, caplog):
    (tmp_path / "file").touch()
    encoder = TextEncoder(Counting, SMALL_PROMPTS, TextCache(tmp_path / "file" / "text", "weights"))
    with caplog.at_level(logging.WARNING):
        assert encoder("nut").raw.shape == (2, 3)
    assert any("cannot keep text embeddings" in message for message in caplog.messages)


def test_a_full_disk_leaves_nothing_half_written(tmp_path, caplog, monkeypatch):
    def full(file, **_):
        file.write(b"half")
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr(np, "savez", full)
    TextEncoder(Counting, SMALL_PROMPTS, TextCache(tmp_path, "weights"))("nut")
    assert list(tmp_path.iterdir()) == []
    assert "No space left" in json.dumps(caplog.messages)
