"""``/v1``: what is asked for comes back, and everything that can be wrong has its status and its message."""

from __future__ import annotations

import asyncio
import base64
import inspect
import io
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.service.asking import Service, encoded, picture
from tests.service.fake_backend import FakeBackend, score_of
from winspect.errors import OutputError
from winspect.methods.result import Result
from winspect.outputs.rows import COLUMNS
from winspect.service.backend import Backend
from winspect.service.contract import Overloaded
from winspect.service.http.inspecting import small_map

GOOD = encoded(picture(100))


@pytest.fixture
def service(tmp_path):
    service = Service(tmp_path)
    yield service
    service.close()


def error_of(answer, status):
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/json"
    error = answer.json()["error"]
    assert set(error) == {"type", "message"}
    assert "/root" not in error["message"] and "Traceback" not in error["message"]
    return error


def still_answers(service):
    answer = service.predict(GOOD)
    assert answer.status_code == 200
    assert answer.json()["results"][0]["anomaly_score"] == pytest.approx(100 / 255)


def test_the_fake_has_the_real_ones_interface(service):
    names = [name for name in vars(Backend) if not name.startswith("_") and name != "seed"]
    assert len(names) > 15
    for name in names:
        assert hasattr(service.backend, name), name
        real, fake = getattr(Backend, name), getattr(FakeBackend, name, None)
        if inspect.isfunction(real):
            assert list(inspect.signature(real).parameters) == list(inspect.signature(fake).parameters), name


def test_a_picture_gets_a_row_of_predictions(service):
    (row,) = service.predict(GOOD, **{"class": "metal nut"}).json()["results"]
    assert set(COLUMNS) <= set(row)
    assert row == {
        "path": "part.png",
        "class": "metal nut",
        "anomaly_score": pytest.approx(100 / 255),
        "verdict": None,
        "threshold": None,
        "boxes": None,
        "map": None,
        "error": None,
        "warning": None,
        "p_value": None,
        "size": [60, 40],
        "shots": 0,
        "id": row["id"],
    }
    assert len(row["id"]) == 32


def test_pictures_keep_their_order_and_their_names(service):
    files = [("pictures", (f"{level}.png", encoded(picture(level)))) for level in (200, 10, 90)]
    rows = service.post("/v1/predict", files=[*files, ("picture", ("last.png", GOOD))]).json()["results"]
    assert [row["path"] for row in rows] == ["200.png", "10.png", "90.png", "last.png"]
    assert [round(row["anomaly_score"] * 255) for row in rows] == [200, 10, 90, 100]


@pytest.mark.parametrize(
    ("threshold", "verdict"), [("0.3", "anomalous"), ("0.5", "normal"), (100 / 255 - 1e-6, "anomalous")]
)
def test_a_threshold_decides(service, threshold, verdict):
    (row,) = service.predict(GOOD, threshold=str(threshold)).json()["results"]
    assert (row["verdict"], row["threshold"]) == (verdict, float(threshold))


def test_a_map_says_the_scale_of_its_colours(service):
    (row,) = service.predict(GOOD, map="true").json()["results"]
    assert row["map"]["range"] == [0, 1]


def test_boxes_without_a_calibration_are_asked_for(service):
    spot = picture(20)
    spot[20:, 30:] = 200
    asked = {"threshold": "0.1", "boxes": "anomalous"}
    (row,) = service.predict(encoded(spot), **asked).json()["results"]
    ((x0, y0, x1, y1),) = row["boxes"]
    assert (x1, y1) == (60, 40) and abs(x0 - 30) <= 4 and abs(y0 - 20) <= 4
    (row,) = service.predict(encoded(spot), **{"threshold": "0.9", "pixel_threshold": "0.5"}).json()["results"]
    assert (row["verdict"], row["boxes"]) == ("normal", [])
    (row,) = service.predict(
        encoded(spot), **{"threshold": "0.9", "pixel_threshold": "0.5", "boxes": "all", "min_area": "50"}
    ).json()["results"]
    assert len(row["boxes"]) == 1


def test_a_bad_picture_among_several_has_an_error_in_its_row(service):
    files = [
        ("pictures", ("good.png", GOOD)),
        ("pictures", ("bad.png", b"no picture")),
        ("pictures", ("too.png", GOOD)),
    ]
    first, second, third = service.post("/v1/predict", files=files).json()["results"]
    assert first["anomaly_score"] == third["anomaly_score"] == pytest.approx(100 / 255)
    assert second["anomaly_score"] is second["size"] is None
    assert second["error"]["type"] == "PictureError"
    assert second["error"]["message"].startswith("bad.png: ")
    assert service.metric("winspect_pictures_total", outcome="failed") == 1
    assert service.metric("winspect_pictures_total", outcome="unjudged") == 2


def test_the_map_is_float32_at_the_pictures_size(service):
    ramp = np.repeat(np.arange(0, 250, 2, dtype=np.uint8)[None, :, None], 30, axis=0).repeat(3, axis=2)
    (row,) = service.predict(encoded(ramp), map="true").json()["results"]
    values = np.frombuffer(base64.b64decode(row["map"]["data"]), "<f4").reshape(row["map"]["shape"])
    assert row["map"]["dtype"] == "float32"
    assert values.shape == (30, 125)
    assert (np.diff(values[15]) >= 0).all()
    assert values[15, 0] < 0.02
    assert values[15, -1] > 0.94


def test_the_overlay_is_a_png_of_the_picture(service):
    (row,) = service.predict(GOOD, overlay="yes").json()["results"]
    with Image.open(io.BytesIO(base64.b64decode(row["overlay_png"]))) as overlay:
        assert (overlay.format, overlay.size) == ("PNG", (60, 40))


def test_a_large_map_is_sampled_at_fewer_places_of_the_same_picture():
    ramp = np.linspace(0, 1, 20, dtype=np.float32)[None, None].repeat(20, axis=1)
    boxes = ((0, 0, 600, 600), (400, 0, 1000, 600))
    result = Result("a", "b", 0.5, np.concatenate([ramp, ramp]), boxes, (1000, 600))
    whole, small = small_map(result, 10**6), small_map(result, 6000)
    assert whole.shape == (600, 1000)
    np.testing.assert_array_equal(whole, result.anomaly_map)
    assert small.shape == (60, 100)
    assert small.dtype == np.dtype("<f4")
    # Each of its values lies where the whole map's do, but for half a step of sampling.
    np.testing.assert_allclose(small, whole[5::10, 5::10], atol=0.02)


def test_maps_of_many_pictures_share_the_room(service):
    tall = encoded(np.zeros((3000, 1000, 3), np.uint8))
    rows = service.post("/v1/predict", files=[("pictures", ("a.png", tall))] * 8, data={"map": "1"}).json()["results"]
    for row in rows:
        height, width = row["map"]["shape"]
        assert height * width <= 2**19
        assert height == pytest.approx(3 * width, abs=3)


# -- pictures that are bad, or only look so


def truncated():
    return encoded(np.random.default_rng(0).integers(0, 255, (200, 200, 3), np.uint8), "JPEG")[:4000]


def header_of_huge():
    import struct
    import zlib

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 60000, 60000, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (truncated(), "part.png: "),
        (b"", "empty"),
        (encoded(picture(size_wh=(1, 1))), "1x1"),
        (header_of_huge(), "60000x60000"),
        (b"<!doctype html><p>hello", "part.png: "),
        (b"\x89PNG\r\n\x1a\n", "part.png: "),
    ],
    ids=["truncated", "empty", "1x1", "60000x60000", "html", "magic alone"],
)
def test_a_picture_that_cannot_be_used_is_422(service, content, words):
    error = error_of(service.predict(content), 422)
    assert error["type"] == "PictureError"
    assert words in error["message"]
    still_answers(service)


def turned():
    """40 wide, 60 high as stored; upright it is 60 wide."""
    image = Image.fromarray(picture(100, size_wh=(40, 60)))
    exif = image.getexif()
    exif[0x0112] = 6
    return encoded(image, "JPEG", quality=95, exif=exif.tobytes())


def animated():
    frames = [Image.fromarray(picture(level)) for level in (100, 200)]
    return encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])


@pytest.mark.parametrize(
    "content",
    [
        encoded(Image.fromarray(picture(100)).convert("CMYK"), "JPEG", quality=95),
        encoded(Image.fromarray(np.full((40, 60), 100 * 257, np.uint16))),
        animated(),
        turned(),
        encoded(picture(100), "TIFF"),
    ],
    ids=["CMYK", "16 bit", "animated", "EXIF", "TIFF"],
)
def test_unusual_pictures_are_judged_for_what_they_show(service, content):
    (row,) = service.predict(content).json()["results"]
    assert row["size"] == [60, 40]
    assert row["anomaly_score"] == pytest.approx(100 / 255, abs=0.01)


# -- requests that are wrong


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"class": "../../x"}, "path"),
        ({"class": "a/b"}, "path"),
        ({"class": ""}, "empty"),
        ({"class": "a{b}"}, "braces"),
        ({"class": "x" * 101}, "101 characters"),
        ({"class": "a\nb"}, "control"),
        ({"threshold": "high"}, "threshold: got 'high'"),
        ({"threshold": "nan"}, "threshold: got 'nan'"),
        ({"threshold": "1.7"}, "threshold: got 1.7, need a score such as 0.5: scores of this recipe run from 0 to 1"),
        ({"threshold": "-3"}, "threshold: got -3.0"),
        ({"pixel_threshold": "2"}, "pixel_threshold: got 2.0"),
        ({"min_area": "-1"}, "min_area: got '-1'"),
        ({"boxes": "some"}, "boxes: got 'some': input should be 'none', 'anomalous' or 'all'"),
        ({"overlay": "perhaps"}, "overlay: got 'perhaps'"),
        ({"deadline_ms": "-1"}, "deadline_ms: got '-1': input should be greater than 0"),
        ({"clas": "nut"}, "unknown field 'clas'"),
    ],
)
def test_a_wrong_field_is_422(service, fields, words):
    assert words in error_of(service.predict(GOOD, **fields), 422)["message"]
    still_answers(service)


def test_requests_without_what_is_needed(service):
    assert "no pictures" in error_of(service.post("/v1/predict", files={"class": (None, "nut")}), 422)["message"]
    message = error_of(service.post("/v1/predict", content=GOOD), 415)["message"]
    assert message.endswith("need multipart/form-data with a boundary, as of curl -F class=NAME -F pictures=@FILE")
    assert "multipart/form-data" in error_of(service.post("/v1/predict", json={"class": "nut"}), 415)["message"]
    error = error_of(service.post("/v1/references", files={"pictures": ("a.png", GOOD)}), 422)
    assert "'class'" in error["message"]
    assert "class" in error_of(service.get("/v1/references"), 422)["message"]
    still_answers(service)


def multipart(body, boundary="b"):
    return {"content": body, "headers": {"content-type": f"multipart/form-data; boundary={boundary}"}}


PART = b'--b\r\nContent-Disposition: form-data; name="pictures"; filename="a.png"\r\n\r\n'


def test_a_form_as_dotnet_writes_it(service):
    """MultipartFormDataContent: the boundary in quotes, names without, the file's name twice, a type for text."""
    body = (
        b"--7f-b\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Disposition: form-data; name=class\r\n\r\n"
        b"hex nut\r\n--7f-b\r\nContent-Disposition: form-data; name=pictures; filename=0.png; "
        b"filename*=utf-8''0.png\r\n\r\n" + GOOD + b"\r\n--7f-b--\r\n"
    )
    answer = service.post("/v1/predict", **multipart(body, boundary='"7f-b"'))
    assert answer.status_code == 200, answer.text
    (row,) = answer.json()["results"]
    assert (row["path"], row["class"], row["error"]) == ("0.png", "hex nut", None)


@pytest.mark.parametrize(
    ("request_", "status", "words"),
    [
        (multipart(PART + GOOD), 400, "cut short"),
        (multipart(PART + GOOD + b"\r\n" + PART + GOOD), 400, "cut short"),
        (multipart(b"nonsense"), 400, "Invalid multipart data"),
        (multipart(b""), 400, "cut short"),
        (multipart(b"--b\r\nContent-Disposition: form-data\r\n\r\nx\r\n--b--\r\n"), 400, '"name" must be provided'),
        (
            multipart(b"--b\r\n" + b"X: " + b"x" * 6000 + b"\r\n" + b"\r\nx\r\n--b--\r\n"),
            400,
            "part 1 of the form: Invalid multipart data",
        ),
        (multipart(PART.replace(b"pictures", b"photos") + b"x\r\n--b--\r\n"), 422, "pictures"),
        (multipart(PART.replace(b'; filename="a.png"', b"") + b"x\r\n--b--\r\n"), 422, "need a file"),
        (multipart(b"x", boundary="b" * 500), 400, "Invalid multipart data"),
    ],
)
def test_damaged_multipart_bodies(service, request_, status, words):
    assert words in error_of(service.post("/v1/predict", **request_), status)["message"]
    still_answers(service)


def part(disposition, content=GOOD):
    return b"--b\r\nContent-Disposition: form-data; " + disposition + b"\r\n\r\n" + content + b"\r\n"


@pytest.mark.parametrize(
    ("disposition", "name"),
    [
        (b"name=\"pictures\"; filename*=UTF-8''Teil%20%C3%BC.png", "Teil ü.png"),
        (b"name=\"pictures\"; FileName* = iso-8859-1'de'%FC.png", "ü.png"),
        (b'name="pictures"; filename="plain.png"; filename*=nonsense', "plain.png"),
    ],
)
def test_names_beyond_ascii_in_the_extended_form(service, disposition, name):
    (row,) = service.post("/v1/predict", **multipart(part(disposition) + b"--b--\r\n")).json()["results"]
    assert row["path"] == name


@pytest.mark.parametrize("value", [b"nonsense.png", b"UTF-8''%FF.png", b"no-such-charset''a.png", b"'", b""])
def test_a_file_whose_name_cannot_be_read_is_named_by_its_part(service, value):
    noise = np.random.default_rng(0).integers(0, 256, (60, 60, 3), np.uint8)  # larger than a text field may be
    body = part(b'name="class"', b"nut") + part(b'name="pictures"; filename*=' + value, encoded(noise)) + b"--b--\r\n"
    message = error_of(service.post("/v1/predict", **multipart(body)), 400)["message"]
    assert message.startswith("part 2 of the form: its filename* is ")


def test_errors_of_a_form_name_the_part(service):
    fields = part(b'name="class"', b"nut")
    for body, status, words in (
        (fields + part(b'name="note"', b"x" * 5000), 413, "part 2 of the form: Part exceeded maximum size of 4KB"),
        (fields + part(b'name="pictures"'), 422, "part 2 of the form ('pictures'): got text, need a file"),
        (fields + fields + part(b'name="photos"; filename="a"'), 422, "part 3 of the form ('photos'): got a file"),
        (fields + part(b'filename="a"'), 400, "part 2 of the form: The Content-Disposition"),
    ):
        answer = service.post("/v1/predict", **multipart(body + b"--b--\r\n"))
        assert error_of(answer, status)["message"].startswith(words)


def test_a_large_upload_touches_no_disk(service, monkeypatch):
    monkeypatch.setattr(tempfile.SpooledTemporaryFile, "rollover", lambda _: pytest.fail("written to a disk"))
    noise = np.random.default_rng(0).integers(0, 256, (1000, 1000, 3), np.uint8)
    content = encoded(noise)
    assert len(content) > 2 * 2**20
    assert service.predict(content).status_code == 200


def test_a_charset_that_cannot_be_used_is_the_callers_mistake(service):
    body = part(b'name="class"', b"\xff" * 70) + part(b'name="pictures"; filename="a.png"') + b"--b--\r\n"
    for charset in ("idna", "zip", "none such"):
        headers = {"content-type": f'multipart/form-data; boundary=b; charset="{charset}"'}
        assert service.post("/v1/predict", content=body, headers=headers).status_code in (200, 400, 422)


def test_too_many_of_anything(tmp_path):
    service = Service(tmp_path, max_pictures=2)
    error = error_of(service.post("/v1/predict", files=[("pictures", ("a.png", GOOD))] * 3), 413)
    assert "Maximum number of files is 2" in error["message"]
    fields = [(f"f{number}", (None, "x")) for number in range(40)]
    assert "Maximum number of fields is 32" in error_of(service.post("/v1/predict", files=fields), 413)["message"]
    assert "maximum size of 4KB" in error_of(service.predict(GOOD, **{"class": "x" * 5000}), 413)["message"]
    twice = [("class", (None, "a")), ("class", (None, "b")), ("pictures", ("a.png", GOOD))]
    assert "twice" in error_of(service.post("/v1/predict", files=twice), 422)["message"]
    still_answers(service)
    service.close()


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("../../etc/passwd", "passwd"),
        ("C:\\line 3\\a.png", "a.png"),
        ("..", "picture-1"),
        ("übung 1.png", "übung 1.png"),
        ("x" * 300 + ".png", "x" * 100),
    ],
)
def test_a_clients_file_name_loses_its_folders(service, name, shown):
    assert service.predict(GOOD, name=name).json()["results"][0]["path"] == shown
    assert error_of(service.predict(b"x", name=name), 422)["message"].startswith(f"{shown}: ")


def test_what_is_not_there(service):
    assert error_of(service.get("/v1/nothing"), 404)["type"] == "NotFound"
    assert error_of(service.get("/v1/predict/"), 404)["type"] == "NotFound"
    answer = service.get("/v1/predict")
    assert error_of(answer, 405)["type"] == "MethodNotAllowed"
    assert answer.headers["allow"] == "POST"
    assert service.metric("winspect_requests_total", endpoint="other", status="404") == 2


# -- the service in trouble


def test_unknown_classes_are_404_where_classes_are_named(tmp_path):
    service = Service(tmp_path, classes=("metal nut",))
    error = error_of(service.predict(GOOD, **{"class": "bottle"}), 404)
    assert error["type"] == "UnknownClass"
    assert "metal nut" in error["message"]
    assert service.predict(GOOD, **{"class": "metal_nut"}).status_code == 200
    service.close()


def test_overload_is_429_and_says_when_to_come_back(service):
    service.backend.error = Overloaded("64 pictures wait already", 2.2)
    answer = service.predict(GOOD)
    assert error_of(answer, 429) == {"type": "Overloaded", "message": "64 pictures wait already"}
    assert answer.headers["retry-after"] == "3"
    assert service.metric("winspect_rejects_total", reason="overload") == 1
    service.backend.error = None
    still_answers(service)


def test_not_ready_is_503_and_says_when_to_come_back(service):
    for state in ("loading", "unavailable", "draining"):
        service.backend.now = state
        answer = service.predict(GOOD)
        assert state in error_of(answer, 503)["message"]
        assert answer.headers["retry-after"] == "1"
    service.backend.now = "ready"
    still_answers(service)


def test_a_passed_deadline_is_504(service):
    service.backend.lag_s = 0.05
    assert error_of(service.predict(GOOD, deadline_ms="10"), 504)["type"] == "DeadlineExceeded"
    service.backend.lag_s = 0.0
    still_answers(service)


def test_the_deadline_asked_for_is_capped(tmp_path):
    service = Service(tmp_path, deadline_s=0.02)
    service.backend.lag_s = 0.05
    error_of(service.predict(GOOD, deadline_ms="1e9"), 504)
    service.close()


def test_a_full_disk_is_507_without_a_path(service, caplog):
    service.backend.error = OutputError("/var/lib/winspect/winspect.sqlite3: cannot write: the disk is full")
    files = {"class": (None, "nut"), "pictures": ("a.png", GOOD)}
    error = error_of(service.post("/v1/references", files=files), 507)
    assert error["type"] == "OutputError"
    assert "disk is full" in error["message"]
    assert "/var" not in error["message"]
    assert "/var/lib/winspect" in caplog.text  # whoever runs it is told where
    service.backend.error = None
    assert service.post("/v1/references", files=files).status_code == 200
    still_answers(service)


def test_a_mistake_is_500_without_a_trace(service):
    service.backend.error = RuntimeError("secret at /srv/models/a.pt")
    answer = service.predict(GOOD)
    assert error_of(answer, 500)["type"] == "InternalError"
    assert "secret" not in answer.text
    assert service.metric("winspect_requests_total", endpoint="/v1/predict", status="500") == 1
    service.backend.error = None
    still_answers(service)


def test_one_that_fails_takes_the_others_out_of_the_queue(service):
    """Of three pictures the third finds the queue full: the first two must not stay in it."""

    async def scene():
        service.backend.gate = asyncio.Event()
        object.__setattr__(service.settings, "max_queue", 2)
        answer = await service.client.post("/v1/predict", files=[("pictures", ("a.png", GOOD))] * 3)
        return answer, service.backend.status.queued

    answer, queued = service.run(scene())
    error_of(answer, 429)
    assert (queued, service.backend.cancelled, service.backend.judged) == (0, 2, 0)
    service.backend.gate = None
    still_answers(service)


def test_answers_are_each_callers_own(service):
    """Many at once, judged in an order that is not theirs: every answer is of the picture that was sent."""

    async def scene():
        rng = np.random.default_rng(0)

        async def one(level):
            service.backend.lag_s = float(rng.uniform(0, 0.005))
            files = {"pictures": (f"{level}.png", encoded(picture(level)))}
            (row,) = (await service.client.post("/v1/predict", files=files)).json()["results"]
            return row["path"], round(row["anomaly_score"] * 255)

        return await asyncio.gather(*(one(level) for level in range(50, 110)))

    assert service.run(scene()) == [(f"{level}.png", level) for level in range(50, 110)]


# -- references and calibrations


def send(service, path, pictures, **fields):
    return service.post(path, files=[("pictures", one) for one in pictures], data=fields)


def test_references_are_shown_told_and_forgotten(service):
    answer = send(service, "/v1/references", [("a.png", GOOD), ("b.png", GOOD)], **{"class": "metal_nut"})
    assert answer.json() == {"class": "metal nut", "shots": 2, "good_pictures": 0, "calibration": None}
    send(service, "/v1/references", [("c.png", GOOD)], **{"class": "metal nut", "add": "true"})
    told = service.get("/v1/references", params={"class": "metal nut"}).json()
    assert told["class"] == "metal nut"
    assert [one["name"] for one in told["references"]] == ["a.png", "b.png", "c.png"]
    assert {(len(one["sha256"]), one["size"]) for one in told["references"]} == {(64, len(GOOD))}
    assert service.predict(GOOD, **{"class": "metal nut"}).json()["results"][0]["shots"] == 3
    assert service.predict(GOOD, **{"class": "metal nut", "zero_shot": "1"}).json()["results"][0]["shots"] == 0
    assert service.get("/v1/classes").json()["classes"] == [
        {"class": "metal nut", "shots": 3, "good_pictures": 0, "calibration": None}
    ]
    answer = service.ask("DELETE", "/v1/references", params={"class": "metal nut"})
    assert answer.json()["shots"] == 0
    again = service.ask("DELETE", "/v1/references", params={"class": "metal nut"})
    assert error_of(again, 404)["type"] == "UnknownClass"
    send(service, "/v1/references", [("d.png", GOOD)], **{"class": "metal nut"})  # replaces
    assert service.get("/v1/classes").json()["classes"][0]["shots"] == 1


def test_a_bad_reference_is_422_and_changes_nothing(service):
    send(service, "/v1/references", [("a.png", GOOD)], **{"class": "nut"})
    error = error_of(send(service, "/v1/references", [("b.png", GOOD), ("c.png", b"x")], **{"class": "nut"}), 422)
    assert error["type"] == "ReferencesError"
    assert "c.png" in error["message"]
    assert service.get("/v1/classes").json()["classes"][0]["shots"] == 1


def test_references_deleted_under_way(service):
    """A prediction that waits while its references go is answered, and so is the next."""

    async def scene():
        service.backend.gate = asyncio.Event()
        files = {"pictures": ("a.png", GOOD)}
        waiting = asyncio.ensure_future(service.client.post("/v1/predict", files=files, data={"class": "nut"}))
        while not service.backend.status.queued:
            await asyncio.sleep(0.001)
        deleted = await service.client.delete("/v1/references", params={"class": "nut"})
        service.backend.gate.set()
        return deleted, await waiting

    send(service, "/v1/references", [("a.png", GOOD)], **{"class": "nut"})
    deleted, answer = service.run(scene())
    assert (deleted.status_code, answer.status_code) == (200, 200)
    still_answers(service)


def test_a_calibration_decides_from_then_on(service):
    normals = [(f"{level}.png", encoded(picture(level))) for level in range(60, 79)]
    for chunk in (normals[:10], normals[10:]):
        answer = send(service, "/v1/calibrations/pictures", chunk, **{"class": "nut"})
    assert answer.json() == {"class": "nut", "good_pictures": 19}
    error = error_of(service.post("/v1/calibrations", json={"class": "nut", "max_false_alarms": 0.01}), 422)
    assert "99" in error["message"]
    started = service.post("/v1/calibrations", json={"class": "nut", "max_false_alarms": 0.05})
    assert started.status_code == 202
    state = service.get("/v1/calibrations", params={"class": "nut"}).json()
    assert (state["class"], state["state"], state["max_false_alarms"], state["pictures"]) == ("nut", "ready", 0.05, 19)
    assert state["threshold"] == pytest.approx(78 / 255)
    document = service.get("/v1/calibrations/document", params={"class": "nut"}).json()
    assert document["kind"] == "winspect calibration"
    (row,) = service.predict(encoded(picture(79)), **{"class": "nut"}).json()["results"]
    assert (row["verdict"], row["p_value"], row["threshold"]) == ("anomalous", 1 / 20, state["threshold"])
    assert row["boxes"] == [[0, 0, 60, 40]] and row["map"] is None  # evenly bright: all of it
    (row,) = service.predict(encoded(picture(78)), **{"class": "nut"}).json()["results"]
    assert (row["verdict"], row["p_value"], row["boxes"]) == ("normal", 2 / 20, [])
    (row,) = service.predict(encoded(picture(79)), **{"class": "nut", "boxes": "none"}).json()["results"]
    assert (row["verdict"], row["boxes"]) == ("anomalous", None)
    (row,) = service.predict(encoded(picture(79)), **{"class": "nut", "threshold": "0.9"}).json()["results"]
    assert (row["verdict"], row["p_value"], row["threshold"]) == ("normal", 1 / 20, 0.9)
    assert service.metric("winspect_pictures_total", outcome="anomalous") == 2
    gone = service.ask("DELETE", "/v1/calibrations", params={"class": "nut"}).json()
    assert gone == {"class": "nut", "shots": 0, "good_pictures": 19, "calibration": None}
    assert error_of(service.get("/v1/calibrations/document", params={"class": "nut"}), 404)["type"] == "UnknownClass"
    assert service.ask("DELETE", "/v1/calibrations/pictures", params={"class": "nut"}).json()["good_pictures"] == 0


@pytest.mark.parametrize(
    ("options", "status"),
    [
        ({"data": {"class": "nut", "max_false_alarms": "0.5"}}, 202),
        ({"files": {"class": (None, "nut"), "max_false_alarms": (None, "0.5")}}, 202),
        ({"json": {"class": "nut", "max_false_alarms": 2}}, 422),
        ({"json": {"class": "nut", "rate": 0.5}}, 422),
        ({"json": {"class": ["nut"]}}, 422),
        ({"json": {"max_false_alarms": 0.5}}, 422),
        ({"json": ["nut"]}, 422),
        ({"content": b"{", "headers": {"content-type": "application/json"}}, 400),
        ({"content": b"\xff", "headers": {"content-type": "application/json"}}, 400),
        ({"content": b"[" * 100_000, "headers": {"content-type": "application/json"}}, 400),
        ({"content": b" " * 200_000, "headers": {"content-type": "application/json"}}, 413),
        ({"content": b"x"}, 415),
        ({"json": {"class": "\ud800"}}, 422),
    ],
)
def test_a_calibration_may_be_asked_for_in_three_ways(service, options, status):
    if "json" in options:
        options = {"content": json.dumps(options["json"]), "headers": {"content-type": "application/json"}}
    send(service, "/v1/calibrations/pictures", [("a.png", GOOD)], **{"class": "nut"})
    answer = service.post("/v1/calibrations", **options)
    if status == 202:
        assert (answer.status_code, answer.json()["state"]) == (202, "ready")
    else:
        error_of(answer, status)
        still_answers(service)


def test_the_model_tells_what_it_is(service):
    assert service.get("/v1/model").json().items() >= {"model": "fake", "engine": "none"}.items()
    service.backend.now = "loading"
    assert error_of(service.get("/v1/model"), 503)["type"] == "NotReady"


def test_scores_are_of_the_picture_alone():
    assert score_of(picture(51)) == pytest.approx(0.2)


def test_overload_is_told_at_once(tmp_path):
    """With a full queue 32 clients are told within 50 ms each, while a picture is with the model."""
    service = Service(tmp_path, max_queue=1)

    async def scene():
        service.backend.gate = asyncio.Event()
        files = {"pictures": ("a.png", GOOD)}
        waiting = asyncio.ensure_future(service.client.post("/v1/predict", files=files))
        while not service.backend.status.queued:
            await asyncio.sleep(0.001)
        seconds = []
        for _ in range(32):
            started = time.perf_counter()
            answer = await service.client.post("/v1/predict", files=files)
            seconds.append(time.perf_counter() - started)
            error_of(answer, 429)
        service.backend.gate.set()
        return seconds, await waiting

    seconds, first = service.run(scene())
    assert sorted(seconds)[len(seconds) // 2] < 0.05
    assert first.status_code == 200
    service.close()


def test_the_http_process_imports_no_framework():
    code = (
        "import sys; import winspect.service.serving, winspect.cli.serve; "
        "print([name for name in ('torch', 'open_clip', 'openvino', 'onnxruntime') if name in sys.modules])"
    )
    source = Path(__file__).parents[2] / "src"
    environment = {**os.environ, "PYTHONPATH": str(source)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
