"""The model process with the real bundled model: it judges as the library does."""

from __future__ import annotations

import io
import os
import pickle
from multiprocessing import get_context

import numpy as np
import pytest
from miniature import product
from PIL import Image
from service.running import Running, grey

from winspect import WinCLIP
from winspect.errors import ClassNameError, PictureError
from winspect.pictures.tiles import WHOLE
from winspect.service.contract import Question, ServiceError
from winspect.service.pool.worker import Worker, decoders
from winspect.service.settings import ModelSpec, ServiceSettings

OPTIONS = {"model": "winspect-tiny", "device": "cpu", "engine": "openvino"}


@pytest.fixture(scope="module")
def service(tmp_path_factory):
    with Running(tmp_path_factory.mktemp("data"), ModelSpec(OPTIONS), hang_s=300.0, load_s=300.0) as own:
        yield own


@pytest.fixture(scope="module")
def model():
    return WinCLIP(**OPTIONS)


def test_it_judges_as_the_library_does(service, model, textile):
    contents = [path.read_bytes() for path in textile[::2]]
    for references in ([], contents[:2]):
        if references:
            service.ask(service.backend.set_references("textile", [("a.jpg", one) for one in references]))
            model.reference(references, "textile")
        expected = list(model.predict_many(contents, "textile"))
        answers = service.together((one, "textile", {}) for one in contents)
        for own, other in zip(answers, expected, strict=True):
            assert own.result.anomaly_score == pytest.approx(other.anomaly_score, abs=1e-6)
            np.testing.assert_allclose(own.result.anomaly_map, other.anomaly_map, atol=1e-6)
            assert own.shots == len(references)
    zero = service.predict(contents[5], "textile", zero_shot=True, maps=False)
    model.forget("textile")
    assert zero.result.anomaly_score == pytest.approx(model.predict(contents[5], "textile").anomaly_score, abs=1e-6)
    service.ask(service.backend.delete_references("textile"))


def test_it_says_what_the_library_says(service, model):
    scores = {"score_range": [0.0, 1.0], "zero_shot": True}
    assert service.ask(service.backend.info()) == {**model.describe(), **scores}


def test_an_overlay_of_a_large_picture_is_small(service, textile):
    large = io.BytesIO()
    Image.open(textile[0]).resize((2400, 1200)).save(large, "JPEG")
    judged = service.predict(large.getvalue(), "textile", overlay=True)
    assert Image.open(io.BytesIO(judged.overlay_png)).size == (1024, 512)
    assert judged.result.size_wh == (2400, 1200) and judged.result.anomaly_map.shape == (1200, 2400)


def test_what_it_sends_is_small(service, textile):
    judged = service.predict(textile[0].read_bytes(), "textile")
    assert len(pickle.dumps(judged.result)) < 5000


def test_a_name_too_long_for_the_model_is_the_caller_s_error(service):
    with pytest.raises(ClassNameError, match="tokens"):
        service.predict(grey(100), "検査" * 40)


# -- the worker without its process, to see what it does with what goes wrong


class Broken:
    preprocess = None

    @property
    def cut(self):
        return WHOLE


@pytest.fixture
def worker(tmp_path):
    near, far = get_context("spawn").Pipe()
    own = Worker(far, ServiceSettings(tmp_path), ModelSpec(), None)
    own.model = Broken()
    yield own, near
    near.close()
    far.close()


def test_what_nobody_raised_on_purpose_stays_in_the_log(worker, caplog):
    own, near = worker
    own.do(7, "nothing", ())
    number, done, error = near.recv()
    assert (number, done, type(error)) == (7, False, ServiceError)
    assert "nothing" not in str(error) and "nothing" in caplog.text


def test_an_error_while_preparing_is_the_picture_s_own(worker, caplog):
    own, near = worker
    for number, content in enumerate((grey(5), b"bad")):
        own.do(number, "check", ([Question(f"{number}.png", content, "", 0.0)],))
    (_, _, broken), (_, _, bad) = near.recv(), near.recv()
    assert isinstance(broken, ServiceError) and "NoneType" in caplog.text
    assert isinstance(bad, PictureError) and bad.path == "1.png"


def test_it_uses_as_many_threads_as_the_options_say():
    assert decoders(ModelSpec({"workers": 3})) == 3
    assert decoders(ModelSpec()) == min(8, len(os.sched_getaffinity(0)))


def test_a_good_sample_that_stands_apart_is_named_in_its_log(caplog, tmp_path):
    def png(kind, item):
        file = io.BytesIO()
        Image.fromarray(product(kind, item)).save(file, "png")
        return file.getvalue()

    settings = {"layer": "stem_8", "rotations": 0, "size": 96}
    spec = ModelSpec({**OPTIONS, "engine": "torch", "recipe": "memory", "settings": settings})
    ours, _ = get_context("spawn").Pipe()
    worker = Worker(ours, ServiceSettings(tmp_path), spec, None)
    worker._load()
    shown = [*((f"good{item}.png", png(0, item)) for item in range(4)), ("bad.png", png(1, 0))]
    worker._show("part", ("0" * 64,) * 5, shown)
    assert "reference picture bad.png: stands apart from the other good samples" in caplog.text
    assert "good0.png" not in caplog.text
