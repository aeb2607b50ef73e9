"""A recipe that scores pictures beside each other: those of a class in a shard are a batch."""

from __future__ import annotations

import pandas as pd
import pytest
from miniature import part, save

from winspect import WinCLIP
from winspect.cluster.inputs import find_inputs
from winspect.cluster.run import check_shards
from winspect.cluster.scoring import Scorer
from winspect.cluster.shared import Inspection, make_shared
from winspect.errors import SettingsError
from winspect.methods.mutual.batch import MutualBatch
from winspect.methods.registry import get_method

SETTINGS = {"blocks": ["stem_8"], "size": 96, "neighbours": []}


def inputs_of(folder, classes):
    """A manifest of inputs of these classes; their pictures need not be there."""
    rows = [{"path": f"{number}.png", "class": name} for number, name in enumerate(classes)]
    pd.DataFrame(rows).to_csv(folder / "parts.csv", index=False)
    return find_inputs(str(folder / "parts.csv"))


@pytest.fixture(scope="module")
def model() -> WinCLIP:
    return WinCLIP("winspect-tiny", device="cpu", engine="torch", recipe="mutual", settings=SETTINGS)


def rows_of(model, inputs):
    scorer = Scorer(model, make_shared(model, Inspection(inputs.classes, arrays=True)))
    return scorer.rows(inputs.rows(range(len(inputs)))).to_pylist()


@pytest.mark.parametrize(
    ("inputs", "shard_rows", "smallest"), [(3, 256, 3), (9, 6, 3), (513, 256, 1), (20, 2, 2)], ids=str
)
def test_small_shards_are_refused_with_their_size(tmp_path, inputs, shard_rows, smallest):
    given = inputs_of(tmp_path, ["nut"] * inputs)
    with pytest.raises(
        SettingsError, match=f"has {smallest} of class 'nut', and is scored as one batch: .* at least 4"
    ):
        check_shards(get_method("mutual"), given, shard_rows)
    check_shards(get_method("paper"), given, shard_rows)


@pytest.mark.parametrize(("inputs", "shard_rows"), [(4, 256), (12, 6), (10, 6), (512, 256)], ids=str)
def test_shards_of_four_and_more_are_scored(tmp_path, inputs, shard_rows):
    check_shards(get_method("mutual"), inputs_of(tmp_path, ["nut"] * inputs), shard_rows)


def test_few_of_a_class_in_a_shard_are_refused_where_they_are(tmp_path):
    """Nine of each in all, but three bolts in the second shard."""
    given = inputs_of(tmp_path, ["nut", "bolt"] * 6 + ["nut"] * 3 + ["bolt"] * 3)
    with pytest.raises(SettingsError, match=r"^shard 1 of 18 inputs, 12 in each, has 3 of class '(nut|bolt)'"):
        check_shards(get_method("mutual"), given, 12)
    check_shards(get_method("mutual"), given, 18)
    with pytest.raises(SettingsError, match="groups: got 3 for 9 pictures, need at least 4 pictures a group"):
        check_shards(get_method("mutual", {"groups": 3}), given, 18)


def test_classes_of_a_shard_are_batches_however_they_are_mixed(model, tmp_path, monkeypatch):
    """Each is scored as ``predict`` scores its pictures; before, some 128 inputs were a batch."""
    from winspect.cluster import scoring

    monkeypatch.setattr(scoring, "_MIXED_AT_A_TIME", 6)
    classes = ["nut", "bolt", "bolt"] * 4
    for number in range(len(classes)):
        save(tmp_path / f"{number}.png", part(number, defective=number == 5)[0])
    rows = rows_of(model, inputs_of(tmp_path, classes))
    for name in ("nut", "bolt"):
        numbers = [number for number, each in enumerate(classes) if each == name]
        expected = model.predict_many([tmp_path / f"{number}.png" for number in numbers], name)
        for number, result in zip(numbers, expected, strict=True):
            assert rows[number]["anomaly_score"] == pytest.approx(result.anomaly_score, abs=1e-6)


def test_what_cannot_be_read_keeps_its_error_where_too_few_are_left(model, tmp_path):
    for number in range(3):
        save(tmp_path / f"{number}.png", part(number, defective=False)[0])
    (tmp_path / "3.png").write_bytes(b"no picture")
    rows = rows_of(model, inputs_of(tmp_path, ["nut"] * 5))
    assert [row["anomaly_score"] for row in rows] == [None] * 5
    messages = [row["error"]["message"] for row in rows]
    assert "no such file" in messages[4] and messages[3].startswith(f"{tmp_path / '3.png'}: ")
    assert not [message for message in messages[3:] if "at least 4" in message]
    for message in messages[:3]:
        assert "got 3, need at least 4; 2 cannot be used: " in message and "no such file" in message


def test_what_stops_a_batch_is_the_error_of_all(model, tmp_path, monkeypatch):
    for number in range(4):
        save(tmp_path / f"{number}.png", part(number, defective=False)[0])

    def failing(*_):
        raise MemoryError("no room")

    monkeypatch.setattr(MutualBatch, "add", failing)
    rows = rows_of(model, inputs_of(tmp_path, ["nut"] * 4))
    assert [row["error"] for row in rows] == [{"type": "MemoryError", "message": "no room"}] * 4
