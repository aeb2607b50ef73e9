"""Results as a user holds them: drawn, saved, shown, decided on, handed on; alone and as many."""

from __future__ import annotations

import base64
import csv
import inspect
import io
import json
import pickle
import re
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from checkpoints import SMALL
from miniature import save
from PIL import Image, ImageShow

from winspect import Prediction, Result, Results, WinCLIP
from winspect.calibration import Calibration, DecisionRule
from winspect.errors import MissingExtraError, OutputError, PictureError, SettingsError, SourceError
from winspect.inspector import prediction as held

RGB = np.full((160, 240, 3), 90, np.uint8)


def spotted(**more) -> Prediction:
    """A picture of 240 x 160 whose map of 40-pixel patches is 0.1, and 0.9 in columns 1 and 2 of row 1."""
    maps = np.full((1, 4, 6), 0.1, np.float32)
    maps[0, 1, 1:3] = 0.9
    result = Result("a.png", "nut", 0.75, maps, ((0, 0, 240, 160),), (240, 160), RGB)
    return Prediction.of(result, colours=(0.0, 1.0), **more)


FAILED = Prediction.of(Result("b<i>.png", "nut", error=PictureError("b<i>.png", "empty")))


@pytest.fixture
def parts(tmp_path):
    """Three pictures of parts in a folder."""
    for number in range(3):
        rgb = np.random.default_rng(number).integers(0, 256, (96, 130, 3), np.uint8)
        save(tmp_path / "parts" / f"{number}.png", rgb)
    return tmp_path / "parts"


@pytest.fixture
def without(monkeypatch):
    """Make a module impossible to import."""

    def forget(name: str) -> None:
        monkeypatch.setitem(sys.modules, name, None)

    return forget


# One


def test_nothing_is_decided_until_somebody_decides():
    result = spotted()
    assert (result.verdict, result.threshold, result.p_value, result.boxes, result.mask) == (None,) * 5
    assert isinstance(result, Result)
    assert result["anomaly_score"] == 0.75
    assert repr(result) == "Prediction('a.png', 'nut', anomaly_score=0.7500)"
    assert repr(result.decide(threshold=0.5)).endswith("verdict='anomalous')")
    assert repr(FAILED) == "Prediction('b<i>.png', 'nut', error='b<i>.png: empty')"


def test_boxes_and_mask_are_where_the_map_is_high():
    result = spotted().decide(threshold=0.5)
    assert (result.verdict, result.threshold) == ("anomalous", 0.5)
    ((x0, y0, x1, y1), score), *others = result.boxes
    assert not others
    # The two hot patches are 40..120 x 40..80; interpolation moves an edge by less than half a patch.
    assert np.abs(np.array([x0, y0, x1, y1]) - [40, 40, 120, 80]).max() < 20
    assert score == pytest.approx(0.9, abs=0.02)
    assert (result.boxes.xyxy.dtype, result.boxes.score.dtype) == (np.int64, np.float32)
    assert (result.mask.dtype, result.mask.shape) == (bool, (160, 240))
    rows, columns = np.nonzero(result.mask)
    assert [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1] == [x0, y0, x1, y1]
    assert list(result["boxes"]) == list(result.boxes)
    normal = result.decide(threshold=0.8)
    assert (normal.verdict, len(normal.boxes), normal.mask.any()) == ("normal", 0, False)


@pytest.mark.parametrize("wrong", [{"threshold": float("nan")}, {"pixel_threshold": -1}, {"min_area": -3}])
def test_thresholds_out_of_range(wrong):
    with pytest.raises(SettingsError, match=next(iter(wrong))):
        spotted().decide(**wrong)
    with pytest.raises(SettingsError, match=next(iter(wrong))):
        Results([]).decide(**wrong)


def test_a_row_ready_for_json():
    row = json.loads(json.dumps(spotted().decide(threshold=0.5).to_dict()))
    assert set(row) == {
        *("path", "class", "anomaly_score", "verdict", "threshold", "p_value", "boxes", "box_scores", "size_wh"),
        *("error", "warning"),
    }
    assert (row["class"], row["verdict"], row["size_wh"], len(row["boxes"])) == ("nut", "anomalous", [240, 160], 1)
    assert json.loads(json.dumps(FAILED.to_dict()))["error"] == {"type": "PictureError", "message": "b<i>.png: empty"}
    assert json.loads(json.dumps(spotted().to_dict()))["boxes"] is None


def test_what_is_drawn():
    plain, decided = (np.asarray(result.plot()) for result in (spotted(), spotted().decide(threshold=0.5)))
    assert (plain.shape, plain.dtype) == ((160, 240, 3), np.uint8)
    assert plain[60, 80, 0] > plain[60, 80, 2] + 60, "hot is red"
    assert np.abs(plain[20, 200].astype(int) - 90).max() < 40, "what is normal stays as it is"
    x0, y0, x1, _ = spotted().decide(threshold=0.5).boxes.xyxy[0]
    assert (decided[y0, x0:x1] == 0).all()
    assert (plain[y0, x0:x1] != 0).any()
    assert spotted().plot(longest=60).size == (60, 40)


def test_drawing_on_another_picture_or_none():
    lost = Prediction.of(spotted(), picture_rgb=None)
    with pytest.raises(SettingsError, match="keep_picture=True"):
        lost.plot()
    np.testing.assert_array_equal(lost.plot(RGB), spotted().plot())
    with pytest.raises(PictureError, match="240x160 pixels when it was scored, now 100x50"):
        lost.plot(RGB[:50, :100])
    with pytest.raises(PictureError, match="empty"):
        FAILED.plot()
    with pytest.raises(SettingsError, match="without its map"):
        Prediction.of(lost, tile_maps=None, tile_boxes=()).plot(RGB)


@pytest.mark.parametrize(("name", "kind"), [("a.png", "PNG"), ("a.JPG", "JPEG"), ("a.webp", "WEBP")])
def test_saving(tmp_path, name, kind):
    path = spotted().save(tmp_path / "new" / name)
    with Image.open(path) as image:
        assert (image.format, image.size) == (kind, (240, 160))
    assert [file.name for file in path.parent.iterdir()] == [name]


def test_saving_where_it_cannot(tmp_path):
    with pytest.raises(OutputError, match=r"this is a folder; name a file in it, such as .*a\.png"):
        spotted().save(tmp_path)
    with pytest.raises(OutputError, match=r"ends in \.png, \.jpg"):
        spotted().save(tmp_path / "a.gif")
    (tmp_path / "file").write_text("x")
    with pytest.raises(OutputError, match="cannot write"):
        spotted().save(tmp_path / "file" / "a.png")
    picture = save(tmp_path / "part.png", RGB)
    before = (tmp_path / "part.png").read_bytes()
    with pytest.raises(OutputError, match="the picture itself"):
        Prediction.of(spotted(), path=str(tmp_path / "part.png")).save(tmp_path / ".." / tmp_path.name / "part.png")
    assert (tmp_path / "part.png").read_bytes() == before, picture


def test_showing(monkeypatch):
    monkeypatch.setattr(sys, "platform", "linux")
    for name in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(OutputError, match=r"no display here .* use result\.save"):
        spotted().show()
    shown = []
    monkeypatch.setattr(ImageShow, "show", lambda image: shown.append(image.size) or len(shown) == 1)
    monkeypatch.setenv("DISPLAY", ":0")
    spotted().show()
    assert shown == [(240, 160)]
    with pytest.raises(OutputError, match="no display here"):
        spotted().show()  # the viewer says that there is none


def test_showing_in_a_notebook(monkeypatch):
    shown = []
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda: SimpleNamespace(kernel=1)))
    monkeypatch.setitem(sys.modules, "IPython.display", SimpleNamespace(display=shown.append))
    monkeypatch.delenv("DISPLAY", raising=False)
    spotted().show()
    assert [image.size for image in shown] == [(240, 160)]
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda: None))
    assert not held._in_notebook()


def test_in_notebooks():
    with Image.open(io.BytesIO(spotted()._repr_png_())) as image:
        assert image.size == (240, 160)
    page = Prediction.of(spotted(), path="<b>.png", warning="dark & small").decide(threshold=0.5)._repr_html_()
    (jpeg,) = re.findall(r'src="data:image/jpeg;base64,([^"]+)"', page)
    with Image.open(io.BytesIO(base64.b64decode(jpeg))) as image:
        assert image.size == (240, 160)
    assert "&lt;b&gt;.png · nut · score 0.7500 · anomalous · warning: dark &amp; small" in page
    assert FAILED._repr_png_() is None
    assert "failed: b&lt;i&gt;.png: empty" in FAILED._repr_html_()
    lost = Prediction.of(spotted(), picture_rgb=None)
    assert lost._repr_png_() is None
    assert "keep_picture=True" in lost._repr_html_() and "score 0.7500" in lost._repr_html_()


def test_supervision_takes_the_defects():
    supervision = pytest.importorskip("supervision")
    result = spotted().decide(threshold=0.5)
    detections = result.to_supervision()
    assert isinstance(detections, supervision.Detections)
    np.testing.assert_array_equal(detections.xyxy, result.boxes.xyxy)
    np.testing.assert_array_equal(detections.mask, result.mask[None])
    np.testing.assert_array_equal(detections.confidence, result.boxes.score)
    assert detections.data["class_name"].tolist() == ["nut defect"]
    assert len(spotted().decide(threshold=0.8).to_supervision()) == 0
    drawn = supervision.BoxAnnotator().annotate(RGB[:, :, ::-1].copy(), detections)
    assert (drawn != RGB).any()
    with pytest.raises(SettingsError, match="nothing says which pixels are defects"):
        spotted().to_supervision()
    with pytest.raises(PictureError):
        FAILED.to_supervision()


def test_each_region_has_its_mask_in_the_order_of_the_boxes():
    pytest.importorskip("supervision")
    maps = np.full((1, 8, 8), 0.01, np.float32)
    maps[0, 1, 6], maps[0, 6, 1] = 0.9, 0.8
    two = Prediction.of(Result("a", "nut", 0.9, maps, ((0, 0, 320, 320),), (320, 320)))
    detections = two.decide(threshold=0.5, pixel_threshold=0.5).to_supervision()
    assert len(detections) == 2
    np.testing.assert_allclose(detections.confidence, [0.9, 0.8], atol=0.02)
    for (x0, y0, x1, y1), mask in zip(detections.xyxy.astype(int), detections.mask, strict=True):
        rows, columns = np.nonzero(mask)
        assert [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1] == [x0, y0, x1, y1]


def test_extras_that_are_missing_are_named(without, tmp_path):
    for name in ("supervision", "pandas", "jinja2"):
        without(name)
    many = Results([spotted()])
    for call, extra in (
        (spotted().to_supervision, "supervision"),
        (many.to_pandas, "tables"),
        (lambda: many.report(tmp_path / "a.html"), "full"),
    ):
        with pytest.raises(MissingExtraError, match=rf"needs: pip install .*\[{extra}\]"):
            call()


def test_a_result_goes_to_another_process(small_model, parts):
    result = small_model.predict(parts / "0.png", threshold=0.5)
    again = pickle.loads(pickle.dumps(result))
    assert (again.anomaly_score, again.verdict) == (result.anomaly_score, result.verdict)
    np.testing.assert_array_equal(again.plot(), result.plot())


def test_the_colours_are_found_when_a_heat_map_is_drawn(small_checkpoint, parts, monkeypatch):
    model = WinCLIP(SMALL, weights=small_checkpoint, device="cpu", engine="torch")
    asked = []
    level = WinCLIP._level
    monkeypatch.setattr(WinCLIP, "_level", lambda *arguments: asked.append(1) or level(*arguments))
    model.reference(parts, "bolt")
    few = model.predict([parts / "0.png", parts / "1.png"], "bolt")
    assert not asked, "scores do not wait for it"
    model.reference([parts / "0.png", parts / "2.png"], "bolt")
    few[0].plot(), few[1].plot()
    assert len(asked) == 3, "those of the good samples that it was scored with, once"
    assert few[0].colours() == DecisionRule().heat_range(lambda: few_levels(model, parts), (0.0, 1.0))
    assert pickle.loads(pickle.dumps(few[0])).colours == few[0].colours()


def few_levels(model, parts):
    model.reference(parts, "bolt")
    return model.good_levels("bolt")


# Many


def test_many_are_a_sequence():
    many = Results([spotted(), FAILED, spotted()]).decide(threshold=0.5)
    assert len(many) == 3 and many[-1].verdict == "anomalous"
    assert isinstance(many[1:], Results) and len(many[1:]) == 2
    assert [result.path for result in many.failed] == ["b<i>.png"]
    assert repr(many) == "Results(3 pictures, 2 anomalous, 1 failed)"
    undecided = Results([Result("a.png", "nut", 0.75)])
    assert repr(undecided) == "Results(1 pictures, no verdicts, 0 failed)"
    assert "b&lt;i&gt;.png" in many._repr_html_()
    assert "<p>and 5 more</p>" in Results([spotted()] * 25)._repr_html_()
    assert isinstance(Results([Result("a", "nut", 0.5)])[0], Prediction)


def test_tables(tmp_path):
    pandas = pytest.importorskip("pandas")
    many = Results([Prediction.of(spotted(), path="=1+1.png"), FAILED]).decide(threshold=0.5)
    frame = many.to_pandas()
    columns = ["path", "class", "anomaly_score", "verdict", "threshold", "error", "warning"]
    assert list(frame.columns) == columns
    assert frame["anomaly_score"].dtype == "float64"
    assert frame["anomaly_score"].tolist()[0] == 0.75 and np.isnan(frame["anomaly_score"][1])
    assert frame["error"][1] == "b<i>.png: empty"
    path = many.to_csv(tmp_path / "new" / "scores.csv")
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == columns
    assert [row["path"] for row in rows] == ["'=1+1.png", "b<i>.png"], "no formula for a spreadsheet"
    assert pandas.read_csv(path)["anomaly_score"][0] == 0.75
    assert list(Results([]).to_pandas().columns) == columns
    for call in (many.to_csv, many.report):
        with pytest.raises(OutputError, match="this is a folder; name a file in it"):
            call(tmp_path)


def test_the_page_has_the_most_anomalous_first(tmp_path, monkeypatch):
    from winspect.outputs import predictions

    monkeypatch.setattr(predictions, "MOST_PICTURES", 2)
    monkeypatch.setattr(predictions, "MOST_ROWS", 3)
    scores = [0.2, 0.9, 0.4, 0.9, 0.1]
    many = [Prediction.of(spotted(), path=f"p{n}.png", anomaly_score=score) for n, score in enumerate(scores)]
    path = Results([*many, FAILED]).decide(threshold=0.5).report(tmp_path / "new" / "page.html", title="Nuts & more")
    page = path.read_text()
    assert "<h1>Nuts &amp; more</h1>" in page
    assert re.findall(r"<figcaption><span>(p\d)", page) == ["p1", "p3"]
    assert page.count("data:image/jpeg") == 4
    assert re.findall(r"<tr><td>(p\d)", page) == ["p1", "p3", "p2"]
    assert "and 2 more with lower scores" in page
    assert "<li>b&lt;i&gt;.png: empty</li>" in page
    assert "6 pictures, 2 anomalous" in page and "1 failed" in page
    assert not re.findall(r'(?:src|href)="(?!data:)', page), "nothing is loaded from elsewhere"
    assert "Predictions" in Results([]).report(tmp_path / "none.html").read_text()


# What a model gives


def test_a_picture_gives_one_and_a_source_of_many_gives_many(small_model, parts, tmp_path):
    one = small_model.predict(parts / "0.png")
    assert isinstance(one, Prediction)
    (tmp_path / "list.txt").write_text(f"# parts\n\nparts/0.png\n{parts / '1.png'}\r\nparts/gone.png\n")
    sources = {
        str(parts): ["0.png", "1.png", "2.png"],
        f"{parts}/[12].png": ["1.png", "2.png"],
        f"{parts}/0.p*": ["0.png"],
        str(tmp_path / "list.txt"): ["0.png", "1.png", "gone.png"],
    }
    for source, names in sources.items():
        many = small_model.predict(source)
        assert isinstance(many, Results)
        assert [result.path.rpartition("/")[2] for result in many] == names
        assert many[0].error is not None or 0 <= many[0].anomaly_score <= 1
    assert "no such file" in str(many[2].error), "of many the others go on"
    rgb = np.asarray(Image.open(parts / "0.png"))
    stack = small_model.predict(np.stack([rgb, rgb]))
    assert [result.anomaly_score for result in stack] == pytest.approx([one.anomaly_score] * 2, abs=1e-6)
    np.testing.assert_array_equal(stack[0].plot(), one.plot())
    frames = small_model.predict(iter([rgb]))
    with pytest.raises(SettingsError, match="keep_picture=True"):
        frames[0].plot()
    assert small_model.predict(iter([rgb]), keep_picture=True)[0].plot().size == (130, 96)
    streamed = Results(small_model.predict_many(parts))
    assert [result.anomaly_score for result in streamed] == [r.anomaly_score for r in small_model.predict(parts)]


def test_a_model_is_called_as_others_are(small_model, parts):
    called, predicted = small_model(parts, "bolt", threshold=0.0), small_model.predict(parts, "bolt", threshold=0.0)
    assert [result.anomaly_score for result in called] == [result.anomaly_score for result in predicted]
    assert {result.verdict for result in called} == {"anomalous"}


@pytest.mark.parametrize(
    ("source", "kind", "words"),
    [
        ("https://user:secret@example.org/a.jpg", SourceError, "a URL, and nothing is fetched"),
        ("file:///tmp/a.jpg", SourceError, "a URL, and nothing is fetched"),
        ("gone.jpg", PictureError, "no such file"),
        ("gone.txt", SourceError, "cannot be read as a list"),
        ("gone.mp4", SourceError, "gone.mp4: cannot be read"),
        (7, SourceError, "got int, need a path"),
        (None, SourceError, "got NoneType"),
        (np.zeros((40, 40, 3), np.int32), PictureError, "got dtype int32"),
        (np.full((40, 40, 3), 255.0), PictureError, "need 0 to 1: divide"),
        (np.full((40, 40, 3), -1.5), PictureError, "before mean and deviation were taken out"),
        (np.zeros((3, 40, 40), np.uint8), PictureError, r"use transpose\(1, 2, 0\)"),
        (np.zeros((40, 40, 2), np.uint8), PictureError, r"\(H, W, 3\)"),
        (torch.zeros((40, 40, 3)), PictureError, r"torch has channels first; use permute\(2, 0, 1\)"),
        (torch.full((3, 40, 40), 255.0), PictureError, "need 0 to 1: divide"),
        (torch.zeros((3, 40, 40), dtype=torch.int64), PictureError, "got dtype int64"),
    ],
)
def test_what_no_picture_is(small_model, source, kind, words):
    with pytest.raises(kind, match=words) as caught:
        small_model.predict(source)
    assert "secret" not in str(caught.value)


def test_lists_that_cannot_be_read(small_model, tmp_path):
    path = tmp_path / "list.txt"
    for content, words in (
        (b"a.png\nhttp://u:secret@example.org/b.png\n", "line 2: a URL"),
        (b"\n# nothing\n", "lists no pictures"),
        (b"\xff\xfe\x00", "not UTF-8"),
    ):
        path.write_bytes(content)
        with pytest.raises(SourceError, match=words) as caught:
            small_model.predict(path)
        assert "secret" not in str(caught.value)


def test_a_calibration_decides(small_model, parts):
    calibration = small_model.calibrate(parts, "bolt", max_false_alarms=0.3)
    assert isinstance(calibration, Calibration)
    many = small_model.predict(parts, "bolt", calibration=calibration)
    assert [result.threshold for result in many] == [calibration.threshold] * 3
    assert all(0 < result.p_value <= 1 for result in many)
    assert "p_value" in many.to_pandas()
    with pytest.raises(SettingsError, match="class"):
        small_model.predict(parts, "nut", calibration=calibration)
    with pytest.raises(SettingsError, match="calibration is for 'bolt'"):
        small_model.predict(parts / "0.png", "nut").decide(calibration=calibration)
    with pytest.raises(SettingsError, match="threshold: got 7"):
        small_model.predict(parts, threshold=7)


def test_help_shows_every_option(small_model):
    public = [value for name, value in inspect.getmembers(type(small_model)) if not name.startswith("_")]
    for method in (*filter(inspect.isfunction, public), type(small_model).__init__):
        kinds = {parameter.kind for parameter in inspect.signature(method).parameters.values()}
        assert inspect.Parameter.VAR_KEYWORD not in kinds, method
