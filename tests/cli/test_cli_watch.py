"""``winspect watch`` as a user meets it: rows, what is refused, how it ends."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from checkpoints import SMALL
from miniature import part, save

from tests.watch.cameras import PASSWORD, mjpeg_camera
from tests.watch.fakes import picture
from winspect.calibration import Calibration
from winspect.cli.main import main
from winspect.drift.settings import WATCHED
from winspect.system.installation import install_command

ROOT = Path(__file__).parents[2]


@pytest.fixture
def incoming(tmp_path):
    (tmp_path / "in").mkdir()
    return tmp_path / "in"


def rows_in(out: Path) -> list[dict]:
    files = sorted(out.glob("predictions-*.jsonl"))
    return [json.loads(line) for path in files for line in path.read_text("utf-8").splitlines()]


@pytest.fixture
def watch(capsys, process_as_before, small_checkpoint, graphs_compiled_once):
    """Run ``winspect watch`` in this process on the small model, and send SIGTERM when ``enough`` is true."""

    def run(*arguments, enough=None):
        ended = threading.Event()

        def terminate() -> None:
            end = time.monotonic() + 15
            while not ended.is_set() and not (enough() or time.monotonic() > end):
                time.sleep(0.02)
            if not ended.is_set():
                os.kill(os.getpid(), signal.SIGTERM)

        model = () if "--bundle" in arguments else ("--model", SMALL, "--weights", small_checkpoint, "--device", "cpu")
        thread = threading.Thread(target=terminate if enough else lambda: None)
        capsys.readouterr()
        thread.start()
        try:
            code = main([str(argument) for argument in ("watch", *arguments, *model)])
        finally:
            ended.set()
            thread.join()
        return SimpleNamespace(code=code, **capsys.readouterr()._asdict())

    return run


def test_what_waits_at_the_end_is_counted(watch, incoming, tmp_path):
    (incoming / "a.png").write_text("not a picture")
    picture(incoming / "b.png")
    out = tmp_path / "out"
    done = watch(*(incoming, "--out", out, "--settle", "0.05"), enough=lambda: len(rows_in(out)) == 1)
    assert done.code == 0
    assert "winspect: left for the next start: 1 cannot be read so far" in done.err


def test_rows_are_printed_and_written_until_sigterm(watch, incoming, tmp_path, small_model):
    for name in ("a.png", "b.png"):
        picture(incoming / name)
    (incoming / "bad.png").write_text("not a picture")
    out = tmp_path / "out"
    done = watch(
        *(incoming, "--out", out, "--class", "bolt", "--threshold", "0", "--maps", "anomalous"),
        *("--settle", "0.05", "--patience", "0.1", "--report", "0.2"),
        enough=lambda: len(rows_in(out)) == 3,
    )
    assert done.code == 0
    lines = done.out.splitlines()
    assert sorted(line.split()[-1] for line in lines) == [str(incoming / "a.png"), str(incoming / "b.png")]
    assert all(line.split()[1] == "anomalous" for line in lines)
    assert f"winspect: failed: {incoming / 'bad.png'}: not a picture" in done.err
    assert "3 pictures inspected, 2 anomalous, 1 failed" in done.err
    assert "winspect: stopped after" in done.err
    rows = {row["file"]["name"]: row for row in rows_in(out)}
    expected = small_model.predict(incoming / "a.png", "bolt").anomaly_score
    assert rows["a.png"]["anomaly_score"] == pytest.approx(expected, abs=1e-5)
    assert (out / rows["a.png"]["map"]).is_file()
    run = json.loads((out / "run.json").read_text())
    assert (run["source"], run["class"], run["threshold"]) == (str(incoming), "bolt", 0)
    assert rows["a.png"]["boxes"] is None  # nothing says where a defect begins, and nobody asked


def test_rows_have_boxes(watch, incoming, tmp_path):
    picture(incoming / "a.png")
    out = tmp_path / "out"
    deciding = ("--threshold", "0", "--pixel-threshold", "0.9", "--settle", "0.05")
    watch(incoming, "--out", out, *deciding, enough=lambda: rows_in(out))
    (row,) = rows_in(out)
    assert row["verdict"] == "anomalous"
    ((x0, y0, x1, y1), *_) = row["boxes"]  # no place reaches 0.9: the region of the highest
    assert x0 < x1 and y0 < y1
    assert json.loads((out / "run.json").read_text())["boxes"] == {
        "pixel_threshold": 0.9, "min_area": None, "pictures": "anomalous"
    }  # fmt: skip


def test_drift_is_watched_in_the_folder_of_results(watch, incoming, tmp_path):
    for number, brightness in enumerate((90, 100, 110)):
        picture(incoming / f"{number}.png", brightness)
    out = tmp_path / "out"
    options = ("--drift", "1%", "--threshold", "1", "--settle", "0.05")
    done = watch(incoming, "--out", out, *options, enough=lambda: len(rows_in(out)) == 3)
    assert done.code == 0
    (line,) = json.loads((out / "drift.json").read_text())["lines"]
    assert (line["line"], line["rate"], line["alarm"]) == ("object", 0.01, None)
    assert {name: statistic["values"] for name, statistic in line["statistics"].items()} == dict.fromkeys(WATCHED, 3)
    assert "winspect_drift_alarm 0.0" in (out / "drift.prom").read_text()


def test_json_lines_alone_on_stdout(watch, incoming, tmp_path):
    picture(incoming / "a.png")
    out = tmp_path / "out"
    done = watch(incoming, "--out", out, "--json", "--settle", "0.05", enough=lambda: rows_in(out))
    assert [json.loads(line) for line in done.out.splitlines()] == rows_in(out)


def test_existing_pictures_can_be_left_alone(watch, incoming, tmp_path):
    picture(incoming / "old.png")
    out = tmp_path / "out"

    def enough():
        if (out / "journal.sqlite3").exists():
            time.sleep(0.2)
            if not (incoming / "new.png").exists():
                picture(incoming / "new.png")
        return rows_in(out)

    done = watch(incoming, "--out", out, "--existing", "skip", "--settle", "0.05", enough=enough)
    assert done.code == 0
    assert "1 pictures that are there already are left alone" in done.err
    assert [row["file"]["name"] for row in rows_in(out)] == ["new.png"]


def test_a_camera(watch, tmp_path):
    with mjpeg_camera() as camera:
        out = tmp_path / "out"
        done = watch(camera.url, "--out", out, "--every", "0.1", "-v", enough=lambda: len(rows_in(out)) >= 2)
    assert done.code == 0
    assert len(done.out.splitlines()) == len(rows_in(out)) >= 2
    assert "watching http://***@127.0.0.1" in done.err
    everything = "".join(path.read_text(errors="replace") for path in out.rglob("*") if path.is_file())
    assert PASSWORD not in done.out + done.err + everything


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["nowhere"], ["'nowhere'", "no such folder, video file, device or URL"]),
        (["@nowhere"], ["@nowhere", "cannot read the URL"]),
        (["IN", "--every", "1"], ["--every is for a camera or a video"]),
        (["IN", "--keep-frames", "all"], ["--keep-frames is for a camera"]),
        (["IN", "--frozen", "1"], ["--frozen is for a camera"]),
        (["0", "--recursive"], ["--recursive is for a folder"]),
        (["0", "--existing", "skip"], ["--existing is for a folder"]),
        (["IN", "--settle", "-1"], ["--settle: got -1.0, need 0 or more"]),
        (["IN", "--scan", "0"], ["--scan: got 0.0, need 0.1 or more"]),
        (["0", "--every", "nan"], ["--every: got nan"]),
        (["IN", "--report", "inf"], ["--report: got inf"]),
        (["IN", "--keep-maps", "0"], ["--keep-maps: got 0, need 1 or more"]),
        (["0", "--most-frames", "0"], ["--most-frames: got 0"]),
        (["IN", "--maps", "anomalous"], ["needs --threshold or --calibration"]),
        (["IN", "--threshold", "nan"], ["--threshold: got nan"]),
        (["IN", "--threshold", "-3"], ["--threshold: got -3.0", "run from 0 to 1"]),
        (["IN", "--drift", "100%"], ["--drift: rate: got 1.0, need a probability above 0 and below 1"]),
        (["IN", "--shots", "2"], ["--shots needs --reference"]),
        (["IN", "--calibration", "nowhere.json"], ["nowhere.json"]),
        (["IN", "--class", "{x}"], ["braces"]),
    ],
)
def test_wrong_use(watch, incoming, tmp_path, arguments, words):
    given = [str(incoming) if argument == "IN" else argument for argument in arguments]
    done = watch(*given, "--out", tmp_path / "out")
    assert done.code == 2
    assert done.out == ""
    for word in words:
        assert word in done.err


def test_out_must_be_given(watch, incoming):
    with pytest.raises(SystemExit, match="2"):
        watch(incoming)


def test_results_of_another_folder_are_not_mixed_in(watch, incoming, tmp_path):
    out = tmp_path / "out"
    picture(incoming / "a.png")
    watch(incoming, "--out", out, "--settle", "0.05", enough=lambda: rows_in(out))
    (tmp_path / "other").mkdir()
    done = watch(tmp_path / "other", "--out", out)
    assert done.code == 2
    assert f"holds the results of {incoming}; choose another --out" in done.err


@pytest.mark.parametrize("module", ["watchfiles", "cv2"])
def test_a_missing_extra_is_named(watch, incoming, tmp_path, monkeypatch, module):
    monkeypatch.setitem(sys.modules, module, None)
    done = watch(incoming if module == "watchfiles" else "0", "--out", tmp_path / "out")
    assert done.code == 2
    assert install_command("watch") in done.err


def test_signals_are_as_before_afterwards(watch, incoming, tmp_path):
    interrupt = signal.getsignal(signal.SIGINT)
    out = tmp_path / "out"
    picture(incoming / "a.png")
    watch(incoming, "--out", out, "--settle", "0.05", enough=lambda: rows_in(out))
    assert signal.getsignal(signal.SIGINT) is interrupt


def test_wrong_use_is_said_before_torch_is_loaded(tmp_path):
    code = (
        "import sys\nfrom winspect.cli.main import main\n"
        "assert main(['watch', 'nowhere', '--out', sys.argv[1]]) == 2\n"
        "assert main(['watch', '/', '--out', sys.argv[1], '--every', '1']) == 2\n"
        "assert 'torch' not in sys.modules, 'torch was loaded'\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    command = [sys.executable, "-c", code, str(tmp_path)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_a_bundle_brings_its_class_and_its_calibration(incoming, tmp_path, tiny_bundle, watch):
    """In place of a model: what a device on the line has installed."""
    picture(incoming / "a.png")
    out = tmp_path / "out"
    done = watch(incoming, "--out", out, "--settle", "0.05", "--bundle", tiny_bundle, enough=lambda: rows_in(out))
    assert done.code == 0
    assert rows_in(out)[0]["class"] == "object"
    refused = watch(incoming, "--out", out, "--bundle", tiny_bundle, "--maps", "anomalous")
    assert refused.code == 2
    assert "needs --threshold or --calibration" in refused.err


def test_what_was_watched_is_judged_and_joins_its_calibration(watch, capsys, incoming, tmp_path, small_checkpoint):
    """From calibrating over watching and answering to the next calibration: nothing is scored twice."""
    model = ("--model", SMALL, "--weights", str(small_checkpoint), "--device", "cpu", "--engine", "torch")
    for number in range(13):
        save((incoming if number >= 9 else tmp_path / "goods") / f"{number}.png", part(number, defective=False)[0])
    before, after, out = tmp_path / "before.json", tmp_path / "after.json", tmp_path / "out"
    rate = ("--max-false-alarms", "0.1")
    assert main(["calibrate", str(tmp_path / "goods"), *rate, "--out", str(before), *model]) == 0
    options = ("--calibration", before, "--audit-rate", "1", "--settle", "0.05", "--engine", "torch")
    done = watch(incoming, "--out", out, *options, enough=lambda: len(rows_in(out)) == 4)
    assert done.code == 0
    for row in rows_in(out)[:3]:
        assert main(["feedback", str(out), row["path"], "good", "--by", "anna"]) == 0
    assert main(["feedback", str(out), rows_in(out)[3]["id"], "defective"]) == 0
    capsys.readouterr()
    assert main(["feedback", str(out), "--recalibrate", str(before), "--out", str(after), "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert (document["joined"], document["skipped"], document["defective"]["pictures"]) == (3, 0, 1)
    made, was = Calibration.load(after), Calibration.load(before)
    assert sorted([*was.scores, *(row["anomaly_score"] for row in rows_in(out)[:3])]) == list(made.scores)
    assert made.pictures == len(made.map_maxima) == 12 and made.identity == was.identity
    assert main(["feedback", str(out), "--verify"]) == 0
