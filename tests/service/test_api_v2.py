"""``/v2`` held to NVIDIA's own client, ``tritonclient[http]``, and to the protocol's words where it is too kind."""

from __future__ import annotations

import base64
import gzip
import json
import struct
from dataclasses import replace

import numpy as np
import pytest

from tests.service.asking import Service, encoded, picture, settings
from tests.service.fake_backend import FakeBackend
from tests.service.live import Live

client_module = pytest.importorskip("tritonclient.http")
from tritonclient.utils import InferenceServerException  # noqa: E402

GOOD, SMALL = encoded(picture(100)), encoded(picture(1, (9, 9)))
HEADER = "Inference-Header-Content-Length"


@pytest.fixture(scope="module")
def live(tmp_path_factory):
    limits = settings(tmp_path_factory.mktemp("data"), classes=("object", "metal nut"))
    with Live(FakeBackend(limits), limits) as live:
        yield live


@pytest.fixture(scope="module")
def client(live):
    with client_module.InferenceServerClient(f"{live.host}:{live.port}") as client:
        yield client


@pytest.fixture
def service(tmp_path):
    service = Service(tmp_path)
    yield service
    service.close()


def files_input(*contents, binary=True):
    tensor = client_module.InferInput("pictures", [len(contents)], "BYTES")
    return [tensor.set_data_from_numpy(np.array(contents, object), binary_data=binary)]


def pixels_input(values, binary=True):
    tensor = client_module.InferInput("pixels", list(values.shape), "UINT8")
    return [tensor.set_data_from_numpy(values, binary_data=binary)]


def outputs(*names, binary):
    return [client_module.InferRequestedOutput(name, binary_data=binary) for name in names]


# -- the client


def test_the_client_sees_a_server_with_a_ready_model(client):
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("winspect")
    assert not client.is_model_ready("resnet")
    assert client.get_server_metadata()["name"] == "winspect"
    assert client.get_server_metadata()["extensions"] == ["binary_tensor_data"]
    metadata = client.get_model_metadata("winspect")
    assert {(one["name"], one["datatype"]) for one in metadata["inputs"]} == {
        ("pictures", "BYTES"),
        ("pixels", "UINT8"),
    }
    assert metadata["inputs"][0]["shape"] == [-1]


def test_the_client_sees_that_it_is_not_ready(client, live):
    live.do(setattr, live.backend, "now", "loading")
    try:
        assert client.is_server_live()
        assert not client.is_server_ready()
        assert not client.is_model_ready("winspect")
        with pytest.raises(InferenceServerException, match="loading") as error:
            client.infer("winspect", files_input(GOOD))
        assert error.value.status() == "503"
    finally:
        live.do(setattr, live.backend, "now", "ready")
    assert client.is_server_ready()


def test_files_go_in_and_scores_come_out_binary(client):
    answer = client.infer("winspect", files_input(encoded(picture(51)), encoded(picture(102))), request_id="r 1")
    assert answer.get_response()["id"] == "r 1"
    assert "data" not in answer.get_output("anomaly_score")  # binary is what this client asks for
    scores = answer.as_numpy("anomaly_score")
    assert scores.dtype == np.float32
    np.testing.assert_allclose(scores, [0.2, 0.4], rtol=1e-6)
    assert answer.as_numpy("verdict").tolist() == [b"", b""]
    assert answer.as_numpy("error").tolist() == [b"", b""]
    assert np.isnan(answer.as_numpy("p_value")).all()
    assert answer.as_numpy("anomaly_map") is None  # only on request


@pytest.mark.parametrize("binary_in", [True, False])
@pytest.mark.parametrize("binary_out", [True, False])
def test_pixels_go_in_as_a_batch_or_alone(client, binary_in, binary_out):
    batch = np.stack([picture(51, (8, 10)), picture(255, (8, 10))])
    wanted = outputs("anomaly_score", "verdict", binary=binary_out)
    answer = client.infer("winspect", pixels_input(batch, binary_in), outputs=wanted, parameters={"threshold": 0.5})
    np.testing.assert_allclose(answer.as_numpy("anomaly_score"), [0.2, 1], rtol=1e-6)
    verdicts = [one if isinstance(one, str) else one.decode() for one in answer.as_numpy("verdict")]
    assert verdicts == ["normal", "anomalous"]
    alone = client.infer("winspect", pixels_input(batch[0], binary_in), outputs=wanted)
    np.testing.assert_allclose(alone.as_numpy("anomaly_score"), [0.2], rtol=1e-6)


@pytest.mark.parametrize("binary", [True, False])
def test_maps_come_on_request(client, binary):
    ramp = np.repeat(np.arange(0, 240, 4, dtype=np.uint8)[None, :, None], 20, axis=0).repeat(3, axis=2)
    answer = client.infer(
        "winspect", pixels_input(np.stack([ramp, ramp[:, ::-1]])), outputs=outputs("anomaly_map", binary=binary)
    )
    maps = answer.as_numpy("anomaly_map")
    assert (maps.shape, maps.dtype) == ((2, 20, 60), np.float32)
    np.testing.assert_allclose(maps[0], maps[1][:, ::-1], atol=0.02)  # the fake samples one pixel to the left
    assert (np.diff(maps[0, 10]) >= 0).all()


def test_warnings_come_on_request(live, client, monkeypatch):
    predict = live.backend.predict

    async def suspicious(question):
        answer = await predict(question)
        warning = None if question.picture.any() else "a black picture"
        return replace(answer, judgement=replace(answer.judgement, result=replace(answer.result, warning=warning)))

    monkeypatch.setattr(live.backend, "predict", suspicious)
    batch = np.stack([np.zeros((20, 30, 3), np.uint8), np.full((20, 30, 3), 9, np.uint8)])
    answer = client.infer("winspect", pixels_input(batch), outputs=outputs("warning", binary=False))
    assert list(answer.as_numpy("warning")) == ["a black picture", ""]


@pytest.mark.parametrize("binary", [True, False])
def test_a_bad_file_among_several_has_an_error_of_its_own(client, binary):
    wanted = outputs("anomaly_score", "error", "anomaly_map", binary=binary)
    answer = client.infer("winspect", files_input(GOOD, b"no picture", GOOD), outputs=wanted)
    scores = answer.as_numpy("anomaly_score")
    assert scores[0] == scores[2] == pytest.approx(100 / 255)
    assert np.isnan(scores[1])
    errors = [one if isinstance(one, str) else one.decode() for one in answer.as_numpy("error")]
    assert errors[0] == errors[2] == ""
    assert errors[1].startswith("pictures[1]: ")
    assert np.isnan(answer.as_numpy("anomaly_map")[1]).all()


@pytest.mark.parametrize(
    ("inputs", "options", "status", "words"),
    [
        (files_input(b"no picture"), {}, 422, r"pictures\[0\]: "),
        (files_input(GOOD), {"parameters": {"class": "bottle"}}, 404, "bottle"),
        (files_input(GOOD), {"parameters": {"class": "../../x"}}, 422, "path"),
        (files_input(GOOD), {"parameters": {"class": 7}}, 400, "class: got 7: input should be a valid string"),
        (files_input(GOOD), {"parameters": {"treshold": 0.5}}, 400, "unknown field 'treshold'"),
        (files_input(GOOD), {"parameters": {"threshold": True}}, 400, "threshold: got True"),
        (files_input(GOOD), {"parameters": {"zero_shot": 1}}, 400, "zero_shot: got 1"),
        (files_input(GOOD), {"priority": 1}, 400, "priority"),
        (files_input(GOOD), {"timeout": -5}, 422, "deadline"),
        (files_input(GOOD), {"outputs": outputs("score", binary=True)}, 400, "got 'score': input should be"),
        (files_input(GOOD), {"request_compression_algorithm": "gzip"}, 415, "Content-Encoding 'gzip'"),
        (files_input(GOOD), {"request_compression_algorithm": "deflate"}, 415, "Content-Encoding 'deflate'"),
        (files_input(*[GOOD] * 17), {}, 413, "at most 16"),
        (files_input(GOOD, SMALL), {"outputs": outputs("anomaly_map", binary=True)}, 400, "2 sizes"),
        (pixels_input(np.zeros((4, 4, 3), np.uint8)), {}, 422, "4x4"),
        (pixels_input(np.zeros((1, 9, 9, 4), np.uint8)), {}, 400, r"shape \[1, 9, 9, 4\], need"),
        (pixels_input(np.zeros((9, 9), np.uint8)), {}, 400, r"shape: got \[9, 9\]: list should have at least 3"),
        (files_input(GOOD) + files_input(GOOD), {}, 400, "inputs: got .*: list should have at most 1 item"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_told_to_the_client(client, inputs, options, status, words):
    with pytest.raises(InferenceServerException, match=words) as error:
        client.infer("winspect", inputs, **options)
    assert error.value.status() == str(status)
    np.testing.assert_allclose(
        client.infer("winspect", files_input(GOOD)).as_numpy("anomaly_score"), 100 / 255, rtol=1e-6
    )


def test_another_model_or_a_wrong_datatype(client):
    with pytest.raises(InferenceServerException, match="'resnet'") as error:
        client.infer("resnet", files_input(GOOD))
    assert error.value.status() == "404"
    floats = client_module.InferInput("pixels", [9, 9, 3], "FP32").set_data_from_numpy(np.zeros((9, 9, 3), np.float32))
    with pytest.raises(InferenceServerException, match="datatype: got 'FP32': input should be 'UINT8'"):
        client.infer("winspect", [floats])


# -- the wire


def infer(service, body, header_length=None):
    body = body if isinstance(body, bytes) else json.dumps(body).encode()
    headers = {} if header_length is None else {HEADER: str(header_length)}
    return service.post("/v2/models/winspect/infer", content=body, headers=headers)


def tensor(**changes):
    base = {"name": "pictures", "datatype": "BYTES", "shape": [1], "data": [base64.b64encode(GOOD).decode()]}
    return {name: value for name, value in {**base, **changes}.items() if value is not ...}


def test_json_alone_is_answered_in_json(service):
    answer = infer(service, {"id": "7", "inputs": [tensor()]})
    assert answer.headers["content-type"] == "application/json"
    assert HEADER not in answer.headers
    assert answer.json() == {
        "model_name": "winspect",
        "id": "7",
        "outputs": [
            {"name": "anomaly_score", "datatype": "FP32", "shape": [1], "data": [pytest.approx(100 / 255)]},
            {"name": "verdict", "datatype": "BYTES", "shape": [1], "data": [""]},
            {"name": "p_value", "datatype": "FP32", "shape": [1], "data": [None]},
            {"name": "error", "datatype": "BYTES", "shape": [1], "data": [""]},
        ],
    }


@pytest.mark.parametrize("nested", [True, False])
def test_files_come_as_a_column_too(service, nested):
    files = [base64.b64encode(one).decode() for one in (GOOD, SMALL)]
    column = tensor(shape=[2, 1], data=[[text] for text in files] if nested else files)
    scores = infer(service, {"inputs": [column]}).json()["outputs"][0]
    assert (scores["shape"], scores["data"]) == ([2], [pytest.approx(100 / 255), pytest.approx(1 / 255)])
    assert infer(service, {"inputs": [tensor(shape=[1, 2], data=[files])]}).status_code == 400
    data = struct.pack("<I", len(GOOD)) + GOOD
    header = json.dumps({"inputs": [tensor(shape=[1, 1], data=..., parameters={"binary_data_size": len(data)})]})
    assert infer(service, header.encode() + data, len(header)).json()["outputs"][0]["shape"] == [1]


@pytest.mark.parametrize("unit", [b"[],", b"1,", b'{"a":[]},'])
def test_json_of_many_values_is_refused_before_it_is_read(service, unit):
    """It is no JSON: whoever read it would answer 400."""
    answer = infer(service, b'{"inputs":[' + unit * (2**18) + b"no JSON")
    assert answer.status_code == 413
    assert "send files, or binary data" in answer.json()["error"]


def test_large_files_in_json_are_read_as_before(service):
    noise = np.random.default_rng(0).integers(0, 256, (600, 600, 3), np.uint8)
    answer = infer(service, {"inputs": [tensor(data=[base64.b64encode(encoded(noise)).decode()])]})
    assert answer.json()["outputs"][0]["data"] == [pytest.approx(noise.mean() / 255)]


def test_binary_data_byte_by_byte(service):
    """The extension's own layout, put together and taken apart by hand."""
    data = struct.pack("<I", len(GOOD)) + GOOD
    header = json.dumps(
        {
            "inputs": [tensor(data=..., parameters={"binary_data_size": len(data)})],
            "outputs": [
                {"name": "error", "parameters": {"binary_data": True}},
                {"name": "verdict"},
                {"name": "anomaly_score", "parameters": {"binary_data": True}},
            ],
            "parameters": {"threshold": 0.1},
        }
    ).encode()
    answer = infer(service, header + data, len(header))
    assert answer.headers["content-type"] == "application/octet-stream"
    end = int(answer.headers[HEADER])
    told = json.loads(answer.content[:end])["outputs"]
    assert [one["name"] for one in told] == ["error", "verdict", "anomaly_score"]
    assert told[1]["data"] == ["anomalous"]
    assert [one.get("parameters") for one in told] == [{"binary_data_size": 4}, None, {"binary_data_size": 4}]
    assert answer.content[end : end + 4] == struct.pack("<I", 0)
    assert struct.unpack("<f", answer.content[end + 4 :])[0] == pytest.approx(100 / 255)


def test_nested_and_flat_json_pixels_are_the_same(service):
    values = picture(51, (9, 8))
    for data in (values.tolist(), values.ravel().tolist()):
        entry = {"name": "pixels", "datatype": "UINT8", "shape": [8, 9, 3], "data": data}
        assert infer(service, {"inputs": [entry]}).json()["outputs"][0]["data"] == [pytest.approx(0.2)]


def pixels(data, shape=(8, 8, 3)):
    return {"inputs": [{"name": "pixels", "datatype": "UINT8", "shape": list(shape), "data": data}]}


ONE = struct.pack("<I", len(GOOD)) + GOOD


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"", "not JSON"),
        (b"{", "not JSON"),
        (b"[" * 100_000, "not JSON"),
        (b"\xff\xfe", "not JSON"),
        ([], "got []: input should be a valid dictionary"),
        ({}, "got no field 'inputs'"),
        ({"inputs": []}, "inputs: got []"),
        ({"inputs": [7]}, "inputs.0: got 7"),
        ({"inputs": [tensor()], "model": "x"}, "unknown field 'model'"),
        ({"inputs": [tensor()], "id": 7}, "id: got 7"),
        ({"inputs": [tensor()], "outputs": 7}, "outputs: got 7"),
        ({"inputs": [tensor()], "outputs": [{"name": "error", "parameters": {"binary_data": 1}}]}, "data: got 1"),
        ({"inputs": [tensor()], "outputs": [{"name": ["error"]}]}, "outputs.0.name: got ['error']"),
        ({"inputs": [tensor()], "parameters": []}, "parameters: got []"),
        ({"inputs": [tensor()], "parameters": {"timeout": 10**400}}, "timeout"),
        ({"inputs": [tensor()], "parameters": {"threshold": 10**400}}, "threshold"),
        ({"inputs": [tensor()], "parameters": {"threshold": float("nan")}}, "threshold"),
        ({"inputs": [tensor(name="image")]}, "got 'image' among the inputs; known are 'pictures', 'pixels'"),
        ({"inputs": [tensor(name=["pictures"])]}, "among the inputs; known are 'pictures'"),
        ({"inputs": [tensor(name=...)]}, "discriminator 'name'"),
        ({"inputs": [tensor(datatype="UINT8")]}, "datatype: got 'UINT8': input should be 'BYTES'"),
        ({"inputs": [tensor(shape=[0])]}, "greater than or equal to 1"),
        ({"inputs": [tensor(shape=[-1])]}, "greater than or equal to 1"),
        ({"inputs": [tensor(shape=[True])]}, "shape.0: got True"),
        ({"inputs": [tensor(shape=[1, 2])]}, "need [n]"),
        ({"inputs": [tensor(shape=1)]}, "valid list"),
        ({"inputs": [tensor(shape=[2])]}, "got 1 elements for the shape [2]"),
        ({"inputs": [tensor(data=...)]}, "neither of data"),
        ({"inputs": [tensor(data="x")]}, "valid list"),
        ({"inputs": [tensor(data=["not base64!"])]}, "base64"),
        ({"inputs": [tensor(data=[7])]}, "base64"),
        ({"inputs": [tensor(parameters={"content_type": "str"})]}, "content_type"),
        ({"inputs": [tensor(parameters={"shared_memory_region": "x"})]}, "unknown field 'shared_memory_region'"),
        ({"inputs": [tensor(parameters={"binary_data_size": 0})]}, "both of data and binary_data_size"),
        ({"inputs": [tensor(data=..., parameters={"binary_data_size": 5})]}, "0 bytes stand behind"),
        (pixels([0] * 191), "got 191 values for the shape [8, 8, 3], need 192"),
        (pixels([256] * 192), "0 to 255"),
        (pixels([-1] * 192), "0 to 255"),
        (pixels([0.5] * 192), "0 to 255"),
        (pixels([True] * 192), "0 to 255"),
        (pixels(["a"] * 192), "0 to 255"),
        (pixels([10**30] * 192), "0 to 255"),
        (pixels([None] * 192), "0 to 255"),
        (pixels([[1], [1, 2]]), "no array"),
        (pixels([{}]), "0 to 255"),
        (pixels([0] * 192, (8, 8, 2)), "shape [8, 8, 2]"),
        (pixels([], (10**9, 10**9, 3)), "got 0 values"),
    ],
)  # fmt: skip
def test_what_the_protocol_does_not_allow_is_400(service, body, words):
    answer = infer(service, body)
    assert (answer.status_code, list(answer.json())) == (400, ["error"])
    assert words in answer.json()["error"]
    assert infer(service, {"inputs": [tensor()]}).status_code == 200


@pytest.mark.parametrize(
    ("data", "size", "words"),
    [
        (ONE[:-1], None, "ends within an element"),
        (b"\x01", None, "ends within an element"),
        (b"\xff\xff\xff\xff", None, "ends within an element"),
        (ONE + ONE, None, "got 2 elements for the shape [1]"),
        (ONE, len(ONE) + 1, "bytes stand behind"),
        (ONE, -1, "binary_data_size: got -1"),
        (ONE, "5", "binary_data_size: got '5'"),
        (ONE, ..., "neither of data and binary_data_size"),
    ],
)
def test_binary_data_that_does_not_match_is_400(service, data, size, words):
    parameters = {} if size is ... else {"binary_data_size": len(data) if size is None else size}
    header = json.dumps({"inputs": [tensor(data=..., parameters=parameters)]}).encode()
    answer = infer(service, header + data, len(header))
    assert answer.status_code == 400
    assert words in answer.json()["error"]


@pytest.mark.parametrize("length", ["-1", "x", "10000", "1e3", "9" * 30, ""])
def test_a_wrong_header_length_is_400(service, length):
    answer = infer(service, {"inputs": [tensor()]}, length)
    assert answer.status_code == 400
    assert HEADER in answer.json()["error"]


def test_compressed_bodies_are_refused_before_they_are_read(service):
    headers = {"Content-Encoding": "gzip"}
    answer = service.post("/v2/models/winspect/infer", content=gzip.compress(b"{}"), headers=headers)
    assert answer.status_code == 415
    assert "gzip" in answer.json()["error"]


def test_readiness_and_unknown_paths_have_the_protocols_errors(service):
    service.backend.now = "loading"
    answer = service.get("/v2/health/ready")
    assert (answer.status_code, answer.json()["ready"]) == (503, False)
    assert answer.headers["retry-after"] == "1"
    assert service.get("/v2/health/live").status_code == 200
    service.backend.now = "ready"
    assert service.get("/v2/health/ready").json() == {"ready": True}
    for answer in (service.get("/v2/nothing"), service.get("/v2/models/winspect/infer"), service.get("/v2/models/x")):
        assert isinstance(answer.json()["error"], str)
        assert answer.status_code in (404, 405)
