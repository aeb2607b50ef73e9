"""The two decode attacks beside good clients: small files that ask for seconds of a core, or for gigabytes."""

from __future__ import annotations

import asyncio
import contextlib
import time

import numpy as np
import pytest
from service.fake_models import spec
from service.running import Running, grey, score_of

from tests.pictures.attacks import progressive_bomb, webp_bomb
from winspect.errors import PictureError, ReferencesError
from winspect.pictures.tiles import Prepared
from winspect.service.contract import DeadlineExceeded, Overloaded, Question
from winspect.service.settings import ServiceSettings

WITHIN_S = 60.0


@pytest.fixture(scope="module")
def service(tmp_path_factory):
    with Running(tmp_path_factory.mktemp("data"), spec(), max_queue=256) as own:
        yield own


async def ask(backend, name, picture, done, **options):
    """The answer, or the error; ``done`` gets the name when it is there."""
    deadline = time.monotonic() + WITHIN_S
    try:
        return await backend.predict(Question(name, picture, "part", deadline, **options))
    except Exception as error:
        return error
    finally:
        done.append(name)


def all_at_once(service, attacks, **options):
    """The attackers' answers, those of 16 good clients with two pictures each, and the order in which all were done."""

    async def run():
        done = []
        bad = [asyncio.ensure_future(ask(service.backend, "bad", one, done, **options)) for one in attacks]
        await asyncio.sleep(0.3)  # the attack comes first
        good = [ask(service.backend, "good", grey(5 * level), done) for level in range(32)]
        answers = await asyncio.gather(*good)
        return await asyncio.gather(*bad), answers, done

    return service.ask(run(), timeout=2 * WITHIN_S)


def check_good(answers):
    scores = [answer.result.anomaly_score for answer in answers]
    assert scores == pytest.approx([score_of(5 * level) for level in range(32)])


def test_the_two_attacks_are_refused_by_their_headers(service):
    """5,000 scans of 13,000 x 13,000 pixels twice, and 16 times 179 million pixels of one colour in 30 bytes."""
    attacks = [progressive_bomb(13_000, 5_000)] * 2 + [webp_bomb()] * 16
    assert ServiceSettings.max_pixels == 50_000_000
    bad, good, _ = all_at_once(service, attacks)
    assert all(isinstance(answer, PictureError) and "the limit is 50.0" in answer.reason for answer in bad)
    check_good(good)


def test_many_scans_of_few_pixels_are_refused_too(service):
    with pytest.raises(PictureError, match="more than 500 scans"):
        service.predict(progressive_bomb(2_000, 5_000))


def test_what_the_limits_let_in_keeps_no_good_picture_waiting(service):
    """36 million pixels each: they are decoded one by one, in a process of their own, beside all others."""
    attacks = [progressive_bomb(6_000, 100), webp_bomb(6_000, 6_000)]
    bad, good, done = all_at_once(service, attacks, overlay=True)
    check_good(good)
    assert done[:32] == ["good"] * 32
    assert [answer.result.size_wh for answer in bad] == [(6_000, 6_000)] * 2
    assert all(answer.overlay_png is not None for answer in bad)


def test_demanding_references_are_refused_as_each_start_would_decode_them(service):
    with pytest.raises(
        ReferencesError, match=r"bad.webp: decoding it takes about 1\.4 s, too long here: save it as JPEG"
    ):
        service.ask(service.backend.set_references("part", [("bad.webp", webp_bomb(6_000, 6_000))]))


def test_turns_end_with_their_deadline_and_are_not_endless(service):
    async def run():
        decode, picture = service.backend.fleet.decode, webp_bomb(6_000, 6_000)

        def turn(within):
            return decode(Question("a.webp", picture, "part", time.monotonic() + within))

        outcomes = await asyncio.gather(*(turn(20 if n < 2 else 0.2) for n in range(34)), return_exceptions=True)
        for _ in range(1_000):
            with contextlib.suppress(Overloaded):
                return outcomes, await turn(20)
            await asyncio.sleep(0.02)  # those that were too late leave when it is their turn

    outcomes, again = service.ask(run())
    assert all(isinstance(outcome, Prepared) for outcome in (*outcomes[:2], again))
    assert [type(outcome) for outcome in outcomes[2:]] == [DeadlineExceeded] * 30 + [Overloaded] * 2
    assert "not decoded within its deadline" in str(outcomes[2])


def test_arrays_are_never_demanding(service):
    assert service.predict(np.full((2_000, 3_000, 3), 102, np.uint8)).result.anomaly_score == pytest.approx(0.2)
