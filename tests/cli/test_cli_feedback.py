"""``winspect feedback`` as a user meets it."""

from __future__ import annotations

import json
from types import SimpleNamespace

import numpy as np
import pytest
from feedback.logs import feedback_of, picture
from feedback.test_pool import RUN, calibration, drawn

from winspect.calibration import Calibration
from winspect.cli.main import main


@pytest.fixture
def ask(capsys, process_as_before, tmp_path):
    def run(*arguments):
        code = main(["feedback", str(tmp_path), *map(str, arguments)])
        taken = capsys.readouterr()
        document = json.loads(taken.out) if "--json" in arguments and taken.out else None
        return SimpleNamespace(code=code, out=taken.out, err=taken.err, document=document)

    return run


def test_an_answer_and_what_stands_in_its_way(ask, tmp_path):
    first = picture(0.9)
    feedback_of(tmp_path, first)
    done = ask(first["path"], "good", "--by", "anna", "--note", "dust", "--json")
    assert (done.code, done.document["answer"], done.document["by"]) == (0, "good", "anna")
    assert ask(first["id"], "good", "--by", "anna").code == 0
    refused = ask(first["id"], "defective", "--by", "ben")
    assert refused.code == 1 and "anna said good" in refused.err and "disputed" in refused.err
    refused = ask(first["id"], "defective", "--by", "anna", "--json")
    assert (refused.code, refused.document["error"]["type"]) == (1, "AlreadyJudgedError")
    assert ask("--queue", "--json").document[0]["because"] == "disputed"
    assert ask(first["id"], "undo").code == 0
    undone = ask(first["id"], "undo")
    assert undone.code == 1 and "nothing to undo" in undone.err
    unknown = ask("x.png", "good")
    assert unknown.code == 2 and "'x.png': unknown here" in unknown.err


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (("x",), "say what it was"),
        (("x", "good", "--queue"), "one of them at a time"),
        (("x", "defective", "--to-references", "good"), "--to-references is for a picture that was good"),
        (("--recalibrate", "x.json"), "--recalibrate FILE and --out FILE"),
        (("--raise",), "--raise and --fresh are for --recalibrate"),
        (("--queue", "--head", "00"), "--head is for --verify"),
        (("--queue", "--most", "0"), "--most: got 0"),
        (("--queue",), "holds no audit log"),
        (("--verify",), "holds no audit log"),
    ],
)
def test_wrong_use_is_named(ask, arguments, named):
    done = ask(*arguments)
    assert done.code == 2 and named in done.err


def test_the_log_is_verified(ask, tmp_path):
    feedback_of(tmp_path, picture(0.1), picture(0.2), picture(0.3))
    done = ask("--verify", "--json")
    assert (done.code, done.document["lines"], done.document["problems"]) == (0, 3, [])
    assert ask("--verify", "--head", done.document["head"]["sha256"]).code == 0
    assert ask("--verify", "--head", "00").code == 1
    (file,) = (tmp_path / "audit").glob("*.jsonl")
    file.write_text(file.read_text().replace('"score":0.2', '"score":0.1'))
    done = ask("--verify")
    assert done.code == 1 and "audit-000001.jsonl, line 2: altered" in done.out and "does NOT hold" in done.out


def test_a_good_picture_becomes_a_good_sample_and_is_taken_back(ask, tmp_path):
    file = tmp_path / "part.png"
    file.write_bytes(b"pixels")
    import hashlib

    entry = picture(0.9, path=str(file), file=str(file))
    entry["sha256"] = hashlib.sha256(b"pixels").hexdigest()
    sample, gone = drawn(0.3, path="d.png"), picture(0.8, path="gone.png", file=str(tmp_path / "gone.png"))
    feedback_of(tmp_path, entry, sample, gone)
    refused = ask(sample["id"], "good", "--to-references", tmp_path / "good")
    assert refused.code == 2 and "drawn for the audit sample" in refused.err
    refused = ask(gone["id"], "good", "--to-references", tmp_path / "good")
    assert refused.code == 2 and "not there any more" in refused.err
    done = ask(entry["id"], "good", "--to-references", tmp_path / "good", "--json")
    assert done.code == 0
    (copied,) = (tmp_path / "good").iterdir()
    assert copied.read_bytes() == b"pixels" and done.document["reference"] == str(copied)
    refused = ask(entry["id"], "good", "--to-references", tmp_path / "good")
    assert refused.code == 1 and "a good sample already" in refused.err
    undone = ask(entry["id"], "undo")
    assert undone.code == 0 and "no good sample any more" in undone.out
    assert list((tmp_path / "good").iterdir()) == []
    file.write_bytes(b"others")
    refused = ask(entry["id"], "good", "--to-references", tmp_path / "good")
    assert refused.code == 2 and "written over since it was judged" in refused.err
    assert ask("--verify").code == 0


def test_good_pictures_of_the_audit_sample_join_a_calibration(ask, tmp_path):
    entries = [drawn(0.1, path="a.png"), drawn(0.2, path="b.png"), picture(0.99, run="r1"), picture(0.95, run="r1")]
    feedback = feedback_of(tmp_path, RUN, *entries)
    before, after = tmp_path / "before.json", tmp_path / "after.json"
    calibration(np.linspace(0, 0.9, 19), rate=0.05).save(before)
    nothing = ask("--recalibrate", before, "--out", after)
    assert nothing.code == 2 and "nothing to recalibrate with" in nothing.err and not after.exists()
    for entry, answer in zip(entries, ("good", "good", "good", "defective"), strict=True):
        feedback.judge(entry["id"], answer)
    assert ask("--pool").out.split() == ["a.png", "b.png"]
    done = ask("--recalibrate", before, "--out", after, "--json")
    assert (done.code, done.document["joined"], done.document["left_out"]) == (0, 2, 1)
    made = Calibration.load(after)
    assert made.pictures == 21 and (made.defective.pictures, made.defective.found) == (1, 1)
    assert ask("--recalibrate", after, "--out", tmp_path / "x.json").code == 2  # they have joined already
    done = ask("--recalibrate", before, "--out", after, "--raise")
    assert done.code == 0 and "it finds fewer defects now" in done.out
    assert Calibration.load(after).threshold > calibration(np.linspace(0, 0.9, 19), rate=0.05).threshold
    summary = ask().out
    assert "audit sample: 0 of 2 good flagged" in summary and "1 more were not drawn" in summary


def test_pictures_that_contradict_a_calibration_leave_it_as_it_is(ask, tmp_path):
    entries = [drawn(0.95), drawn(0.96), drawn(0.97)]
    feedback = feedback_of(tmp_path, RUN, *entries)
    for entry in entries:
        feedback.judge(entry["id"], "good")
    calibration(np.linspace(0, 0.9, 19), rate=0.05).save(tmp_path / "before.json")
    done = ask("--recalibrate", tmp_path / "before.json", "--out", tmp_path / "after.json")
    assert done.code == 1 and "the line has changed" in done.out and not (tmp_path / "after.json").exists()
