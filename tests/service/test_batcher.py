"""The queue, held to what it promises, with a model whose time is known."""

from __future__ import annotations

import asyncio
import gc
import random
import time
from dataclasses import dataclass
from typing import Any

import pytest
from service.virtual_time import run

from winspect.service.contract import DeadlineExceeded, NotReady, Overloaded
from winspect.service.pool.batcher import Batcher, Ran
from winspect.service.pool.policy import BatchTimes


@dataclass(frozen=True)
class Ask:
    """What the queue needs of a question."""

    payload: Any
    key: Any
    deadline: float
    kind = None


class Model:
    """Judges one batch at a time; a payload's answer is told from the payload. Notes each batch and when it came."""

    def __init__(self, clock, *, fixed_s=0.0, each_s=1.0, prepare_s=0.0, noise=None):
        self.clock, self.fixed_s, self.each_s, self.prepare_s = clock, fixed_s, each_s, prepare_s
        self.noise = noise or random.Random(0)
        self.batches, self.started, self.spread = [], [], 0.0
        self.free = asyncio.Lock()
        self.dead = asyncio.get_running_loop().create_future()

    async def __call__(self, questions):
        arrived, payloads = self.clock(), [question.payload for question in questions]
        self.batches.append((arrived, questions[0].key, payloads))
        job = asyncio.ensure_future(self.judge(arrived, payloads))
        await asyncio.wait([job, self.dead], return_when=asyncio.FIRST_COMPLETED)
        if not job.done():
            job.cancel()
            raise NotReady("the model died")
        return job.result()

    async def judge(self, arrived, payloads):
        if self.prepare_s:
            await asyncio.sleep(self.prepare_s)
        prepared = self.clock()
        async with self.free:
            started = self.clock()
            factor = 1 + self.spread * self.noise.uniform(-1, 1)
            await asyncio.sleep(factor * (self.fixed_s + self.each_s * len(payloads)))
            self.started.append(started)
            return Ran(self.answers(payloads), prepared - arrived, self.clock() - started)

    def answers(self, payloads):
        return [answer_to(payload) for payload in payloads]

    @property
    def sizes(self):
        return [len(payloads) for _, _, payloads in self.batches]


def answer_to(payload):
    return ("answer to", payload)


def batcher(**options):
    return Batcher(**{"max_queue": 64, "max_batch": 32, **options})


async def judge(own, clock, payload, key="part", within=1000.0):
    return await own.submit(Ask(payload, key, clock() + within))


async def together(own, clock, payloads, **options):
    return await asyncio.gather(*(judge(own, clock, payload, **options) for payload in payloads))


# -- many interleavings


def test_whatever_happens_each_item_gets_its_own_answer_or_a_clean_refusal():
    """Random arrivals, keys, deadlines, callers that leave, bad items, models that die and come back."""
    outcomes = [outcome for seed in range(60) for outcome in interleaving(seed).values()]
    assert len(outcomes) == 60 * 120
    kinds = ("answered", "overloaded", "late", "not ready", "bad", "gone")
    assert all(outcomes.count(kind) > 50 for kind in kinds), "the scenes are no quiet ones"


def interleaving(seed):
    """A random scene; what became of each of its 120 callers."""
    chance = random.Random(seed)

    async def scene(clock):
        own = batcher(max_queue=chance.randint(1, 12), max_batch=chance.randint(1, 8))
        sent, gone, outcomes, deaths = [], set(), {}, []
        deadlines = {}

        class Watched(Model):
            async def __call__(self, questions):
                now = clock()
                assert len({question.key for question in questions}) == 1, "one key a batch"
                for name, _ in (question.payload for question in questions):
                    assert name not in gone, "whoever has gone is not judged"
                    assert deadlines[name] > now, "nor what is late"
                    sent.append(name)
                assert len(questions) <= own.max_batch
                assert own.waiting <= own.max_queue
                return await super().__call__(questions)

            def answers(self, payloads):
                return [ValueError(payload) if payload[0] % 7 == 0 else answer_to(payload) for payload in payloads]

        async def models():
            """One or two models that die now and then."""
            while True:
                options = {"fixed_s": chance.random(), "each_s": chance.random(), "prepare_s": chance.random()}
                model = Watched(clock, **options, noise=chance)
                model.spread = 0.5
                lane = own.attach(model, ahead=chance.randint(1, 6))
                await asyncio.sleep(chance.expovariate(1 / 30))
                deaths.append(clock())
                own.detach(lane, "the model died")
                model.dead.set_result(None)
                await asyncio.sleep(chance.expovariate(1 / 3))

        async def caller(name):
            key = chance.choice("abc")
            deadlines[name] = clock() + chance.expovariate(1 / 10)
            full = own.waiting >= own.max_queue
            try:
                answered = await own.submit(Ask((name, key), key, deadlines[name]))
                assert answered == answer_to((name, key)), "its own answer"
                outcome = "answered"
            except Overloaded as error:
                assert error.retry_after_s > 0
                outcome = "overloaded"
            except DeadlineExceeded:
                assert clock() >= deadlines[name] - 1e-6
                outcome = "late"
            except NotReady:
                assert deaths or full
                outcome = "not ready"
            except ValueError as error:
                assert error.args == ((name, key),), "its own error"
                outcome = "bad"
            except asyncio.CancelledError:
                gone.add(name)
                outcome = "gone"
            assert name not in outcomes, "one outcome"
            outcomes[name] = outcome

        async def impatient(name):
            task = asyncio.ensure_future(caller(name))
            if chance.random() < 0.2:
                await asyncio.sleep(chance.expovariate(1 / 2))
                task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            task.exception() if not task.cancelled() else None
            if not task.cancelled() and task.exception():
                raise task.exception()

        keepers = [asyncio.ensure_future(models()) for _ in range(chance.randint(1, 2))]
        callers = []
        for name in range(1, 121):
            callers.append(asyncio.ensure_future(impatient(name)))
            if chance.random() < 0.7:
                await asyncio.sleep(chance.expovariate(2))
        await asyncio.gather(*callers)
        for keeper in keepers:
            keeper.cancel()
        assert sorted(outcomes) == list(range(1, 121)), "nobody is forgotten"
        assert len(set(sent)) == len(sent), "nothing is judged twice"
        assert own.waiting == 0 and await own.drain(1000)
        return outcomes

    return run(scene)


# -- order and fairness


def test_the_oldest_item_goes_first_whatever_its_key():
    async def scene(clock):
        own = batcher(max_batch=4)
        model = Model(clock)
        own.attach(model, ahead=1)
        await asyncio.gather(
            *(judge(own, clock, (key, n), key=key) for n, key in enumerate("aaaabaaaaaaaacaaaaaaaaaaaa"))
        )
        return model.batches

    batches = run(scene)
    firsts = [items[0][1] for _, _, items in batches]
    assert firsts == sorted(firsts), "each batch starts with the oldest that is left"
    for _, key, items in batches:
        assert [item[0] for item in items] == [key] * len(items)
        assert [item[1] for item in items] == sorted(item[1] for item in items)


def test_two_models_share_the_work():
    async def scene(clock):
        own = batcher(max_batch=1)
        models = [Model(clock), Model(clock)]
        for model in models:
            own.attach(model, ahead=1)
        began = clock()
        await together(own, clock, range(20))
        return clock() - began, [len(model.batches) for model in models]

    seconds, shares = run(scene)
    assert shares == [10, 10]
    assert seconds == pytest.approx(10)


# -- refusals


def test_a_full_queue_refuses_at_once_and_says_when_to_come_back():
    async def scene(clock):
        own = batcher(max_queue=3, max_batch=1)
        own.attach(Model(clock), ahead=1)
        await judge(own, clock, "first")  # a picture is known to take a second
        waiting = [asyncio.ensure_future(judge(own, clock, n)) for n in range(5)]
        await asyncio.sleep(0.001)
        # two are with the model, three wait
        assert own.waiting == 3 and own.in_flight == 2
        before = clock()
        with pytest.raises(Overloaded, match="3 pictures are waiting") as refused:
            await judge(own, clock, "late")
        assert clock() == before
        assert refused.value.retry_after_s == pytest.approx(5.0), "so many are before it"
        await asyncio.gather(*waiting)

    run(scene)


def test_ten_thousand_callers_are_refused_within_milliseconds():
    async def scene():
        own = Batcher(max_queue=64, max_batch=32)
        own.attach(Model(time.monotonic, each_s=0.001))
        slowest = 0.0

        async def caller(number):
            nonlocal slowest
            began = time.perf_counter()
            try:
                await own.submit(Ask(number, "part", time.monotonic() + 60))
            except Overloaded:
                slowest = max(slowest, time.perf_counter() - began)
                return "refused"
            return "answered"

        outcomes = await asyncio.gather(*(caller(number) for number in range(10_000)))
        return outcomes, slowest

    outcomes, slowest = asyncio.run(scene())
    assert 64 < outcomes.count("answered") <= 64 + 32 + 32, "the queue, and what the model was given"
    assert outcomes.count("refused") == 10_000 - outcomes.count("answered")
    assert slowest < 0.05


def test_a_picture_that_would_come_up_too_late_is_refused_instead_of_kept_waiting():
    async def scene(clock):
        own = batcher(max_batch=1)
        own.attach(Model(clock), ahead=1)
        await judge(own, clock, "first")
        waiting = [asyncio.ensure_future(judge(own, clock, n)) for n in range(10)]
        await asyncio.sleep(0.1)
        with pytest.raises(Overloaded, match=r"deadline is in 5\.0 s"):
            await judge(own, clock, "late", within=5.0)
        assert (await judge(own, clock, "in time", within=15.0)) == answer_to("in time")
        await asyncio.gather(*waiting)

    run(scene)


def test_without_a_model_the_answer_is_not_ready():
    async def scene(clock):
        with pytest.raises(NotReady):
            await judge(batcher(), clock, 1)

    run(scene)


# -- deadlines


def test_a_deadline_passes_in_the_queue():
    async def scene(clock):
        own = batcher(max_batch=1)
        model = Model(clock, each_s=10.0)
        own.attach(model, ahead=1)
        first, second = (asyncio.ensure_future(judge(own, clock, n)) for n in (1, 2))
        await asyncio.sleep(0)
        third = asyncio.ensure_future(judge(own, clock, 3, within=5.0))
        began = clock()
        with pytest.raises(DeadlineExceeded, match=r"5\.0 s, in the queue"):
            await third
        assert clock() - began == pytest.approx(5.0)
        await asyncio.gather(first, second)
        assert model.sizes == [1, 1], "it never reached the model"

    run(scene)


def test_a_deadline_passes_under_way_and_the_late_answer_harms_nobody():
    async def scene(clock):
        own = batcher()
        own.attach(Model(clock, each_s=10.0))
        began = clock()
        with pytest.raises(DeadlineExceeded, match="under way"):
            await judge(own, clock, 1, within=5.0)
        assert clock() - began == pytest.approx(5.0)
        assert own.in_flight == 1
        assert (await judge(own, clock, 2)) == answer_to(2)
        assert await own.drain(100)

    run(scene)


def test_a_deadline_that_has_passed_already():
    async def scene(clock):
        own = batcher()
        own.attach(Model(clock))
        with pytest.raises(DeadlineExceeded, match="had passed"):
            await judge(own, clock, 1, within=0.0)

    run(scene)


def test_a_caller_that_goes_away_makes_room_and_is_never_judged():
    async def scene(clock):
        own = batcher(max_queue=2, max_batch=1)
        model = Model(clock)
        own.attach(model, ahead=1)
        callers = [asyncio.ensure_future(judge(own, clock, n)) for n in range(4)]
        await asyncio.sleep(0.5)
        assert own.waiting == 2
        callers[2].cancel()
        await asyncio.sleep(0)
        assert own.waiting == 1
        await judge(own, clock, "in its place")
        assert [items for _, _, items in model.batches] == [[0], [1], [3], ["in its place"]]
        await asyncio.gather(*callers, return_exceptions=True)

    run(scene)


# -- identity and errors


@pytest.mark.parametrize("change", [lambda answers: answers[1:], lambda answers: [*answers, "one more"]])
def test_where_answers_are_not_as_many_as_questions_nobody_gets_another_ones(change):
    class Confused(Model):
        def answers(self, payloads):
            return change(super().answers(payloads))

    async def scene(clock):
        own = batcher()
        own.attach(Confused(clock))
        return await asyncio.gather(*(judge(own, clock, n) for n in range(3)), return_exceptions=True)

    assert [type(outcome) for outcome in run(scene)] == [ValueError] * 3


def test_one_bad_picture_fails_alone():
    class Picky(Model):
        def answers(self, payloads):
            return [ValueError(payload) if payload == 3 else answer_to(payload) for payload in payloads]

    async def scene(clock):
        own = batcher()
        model = Picky(clock)
        own.attach(model)
        answers = await asyncio.gather(*(judge(own, clock, n) for n in range(6)), return_exceptions=True)
        assert model.sizes == [6]
        assert isinstance(answers[3], ValueError) and answers[3].args == (3,)
        assert answers[:3] + answers[4:] == [answer_to(n) for n in (0, 1, 2, 4, 5)]

    run(scene)


def test_a_batch_that_fails_fails_its_pictures_and_no_others():
    class Fails(Model):
        async def __call__(self, questions):
            if questions[0].key == "bad":
                raise ValueError("this class cannot be judged")
            return await super().__call__(questions)

    async def scene(clock):
        noted = []
        own = batcher()
        own.on_batch = lambda *record: noted.append(record)
        own.attach(Fails(clock, each_s=0.5))
        good, bad = await asyncio.gather(
            together(own, clock, range(3)), together(own, clock, range(3), key="bad"), return_exceptions=True
        )
        assert good == [answer_to(n) for n in range(3)]
        assert isinstance(bad, ValueError)
        assert sorted(noted) == [(3, 0.0, "ValueError"), (3, 1.5, None)]

    run(scene)


def test_a_model_that_dies_is_not_ready_for_all_it_had_and_for_all_that_waits():
    async def scene(clock):
        own = batcher(max_batch=1)
        model = Model(clock)
        lane = own.attach(model, ahead=1)
        callers = [asyncio.ensure_future(judge(own, clock, n)) for n in range(6)]
        await asyncio.sleep(2.5)
        own.detach(lane, "the model process has ended")
        model.dead.set_result(None)
        outcomes = await asyncio.gather(*callers, return_exceptions=True)
        assert [type(one).__name__ for one in outcomes] == ["tuple", "tuple", *["NotReady"] * 4]
        assert own.waiting == own.in_flight == 0
        own.attach(Model(clock))
        assert (await judge(own, clock, "next")) == answer_to("next")

    run(scene)


def test_what_waits_goes_to_the_model_that_is_left():
    async def scene(clock):
        own = batcher(max_batch=1)
        dying, other = Model(clock), Model(clock)
        lane = own.attach(dying, ahead=1)
        own.attach(other, ahead=1)
        callers = [asyncio.ensure_future(judge(own, clock, n)) for n in range(10)]
        await asyncio.sleep(0.5)
        own.detach(lane, "ended")
        dying.dead.set_result(None)
        outcomes = await asyncio.gather(*callers, return_exceptions=True)
        assert sum(isinstance(one, NotReady) for one in outcomes) == 2, "those it had been given"

    run(scene)


# -- sizes


def measured(*points):
    times = BatchTimes()
    for size, seconds in points:
        times.add(size, seconds)
    return times


def test_the_line_through_two_sizes_by_hand():
    times = measured((1, 3.0), (4, 9.0))  # 1 + 2 * size
    assert [times.seconds(size) for size in (0, 1)] == pytest.approx([1.0, 3.0])
    assert times.seconds(10) == pytest.approx(21.0)
    # rate of 32: 32 / 65 = 0.492; 95 % of it is 0.4677; 7 / 15 = 0.4667 is below, 8 / 17 = 0.4706 above
    assert times.best(32) == 8
    assert times.best(3) == 3, "more pays, but there is no more"


def test_the_smallest_size_within_five_per_cent_is_taken():
    """Against trying them all."""
    chance = random.Random(1)
    for _ in range(300):
        fixed, each, most = chance.random(), chance.random() + 0.01, chance.randint(1, 40)
        times = measured((1, fixed + each), (most + 1, fixed + each * (most + 1)))
        rates = [size / (fixed + each * size) for size in range(1, most + 1)]
        expected = next(size for size, rate in enumerate(rates, 1) if rate >= 0.95 * max(rates) - 1e-12)
        assert abs(times.best(most) - expected) <= (1 if rates[expected - 1] < 0.9501 * max(rates) else 0)


def test_sizes_without_gain_stay_small_and_those_with_gain_grow():
    assert measured((1, 1.0), (8, 8.0)).best(32) == 1
    assert measured((1, 1.0), (8, 8.4), (1, 1.2), (8, 7.9)).best(32) <= 2
    assert measured((1, 1.0), (8, 1.0)).best(32) == 31, "95 % of 32"
    assert measured((1, 1.0), (8, 20.0)).best(32) == 1, "larger is worse: memory, perhaps"


def test_before_a_second_size_was_seen_another_one_is_tried():
    times = BatchTimes()
    assert (times.seconds(5), times.best(32, there=20)) == (0.0, 8)
    times = measured(*[(1, 2.0)] * 10)
    assert times.seconds(3) == pytest.approx(6.0)
    assert times.best(32, there=2) == 8
    assert times.best(32, there=1) == 1
    assert times.best(32, within_s=8.0, there=2) == 4, "but none that may take too long"
    assert measured(*[(16, 16.0)] * 10).best(32, there=16) == 8, "or smaller ones, when there are no more"


def test_what_was_measured_long_ago_is_forgotten():
    times = measured((1, 1.0), (8, 1.0))  # it paid
    assert times.best(32) == 31
    for _ in range(200):
        times.add(1, 1.0)
        times.add(8, 8.0)
    assert times.best(32) == 1


async def closed_loop(own, clock, clients, seconds):
    """So many clients, each asking again when answered. Returns answers per second after a time to learn."""
    answers = []

    async def client(number):
        while clock() < end:
            await judge(own, clock, number)
            answers.append(clock())

    end = clock() + seconds
    await asyncio.gather(*(client(number) for number in range(clients)))
    late = [at for at in answers if at > end - seconds / 2]
    return len(late) / (seconds / 2)


@pytest.mark.parametrize("spread", [0.1, 0.4])
@pytest.mark.parametrize("clients", [4, 16, 32])
def test_an_engine_that_gains_from_batches_gets_large_ones(clients, spread):
    """One second a batch and a fiftieth of a second a picture, noisy."""

    async def scene(clock):
        own = batcher()
        model = Model(clock, fixed_s=1.0, each_s=0.02, prepare_s=0.05)
        model.spread = spread
        own.attach(model)
        return await closed_loop(own, clock, clients, 400.0), model.sizes[-20:]

    rate, sizes = run(scene)
    best = clients / (1.0 + 0.02 * clients)
    assert rate > 0.8 * best, sizes
    assert rate > 1.5 * 1 / 1.02


@pytest.mark.parametrize("clients", [1, 2, 16])
def test_an_engine_that_does_not_gain_is_never_slower_than_one_by_one(clients):
    async def scene(clock):
        own = batcher()
        model = Model(clock, fixed_s=0.01, each_s=1.0, prepare_s=0.2)
        model.spread = 0.1
        own.attach(model)
        return await closed_loop(own, clock, clients, 400.0), model.sizes[-50:]

    rate, sizes = run(scene)
    if clients > 1:
        assert rate > 0.95 / 1.01
        assert sum(sizes) / len(sizes) < 4, "small batches answer sooner"
    else:
        assert rate > 0.95 / 1.21, "decoding cannot overlap with anything"


def test_a_busy_machine_does_not_make_batches_large():
    """An engine without gain whose times vary by half, as on a machine that has other work too."""

    async def scene(clock):
        own = batcher()
        model = Model(clock, fixed_s=0.0, each_s=1.0, prepare_s=0.2)
        model.spread = 0.5
        own.attach(model)
        return await closed_loop(own, clock, 32, 1000.0), model.sizes[-200:]

    rate, sizes = run(scene)
    assert rate > 0.95
    assert sum(sizes) / len(sizes) < 3


def test_an_idle_model_is_not_kept_waiting():
    async def scene(clock):
        own = batcher()
        model = Model(clock, fixed_s=1.0, each_s=0.0)
        own.attach(model)
        await together(own, clock, range(32))  # large batches are known to pay
        await together(own, clock, range(2))
        await asyncio.sleep(10)
        began = clock()
        await judge(own, clock, 1)
        assert clock() - began == pytest.approx(1.0)
        assert (model.started[-1], model.sizes[-1]) == (began, 1)

    run(scene)


def test_what_arrives_together_goes_together():
    async def scene(clock):
        own = batcher()
        model = Model(clock)
        own.attach(model)
        await together(own, clock, range(7))
        return model.sizes

    assert run(scene) == [7]


def test_a_batch_that_is_not_full_is_handed_over_just_in_time():
    """Prepared in 2 s, judged in 10 s whatever its size: the next batch leaves 2 s before the model is free."""

    async def scene(clock):
        own = batcher(max_batch=8)
        model = Model(clock, fixed_s=10.0, each_s=0.0, prepare_s=2.0)
        own.attach(model)
        await together(own, clock, range(8))
        await judge(own, clock, 1)
        await asyncio.sleep(10)
        began = clock()
        callers = [asyncio.ensure_future(judge(own, clock, "first"))]
        for number in range(6):  # one a second
            await asyncio.sleep(1)
            callers.append(asyncio.ensure_future(judge(own, clock, number)))
        await asyncio.gather(*callers)
        return [(at - began, items) for at, _, items in model.batches[-2:]], clock() - began

    batches, seconds = run(scene)
    assert batches[0] == (0.0, ["first"])
    assert batches[1] == (pytest.approx(10.0), [*range(6)])
    assert seconds == pytest.approx(22.0), "and the model was never idle between them"


# -- end, and memory


def test_draining_waits_for_what_is_queued():
    async def scene(clock):
        own = batcher(max_batch=1)
        own.attach(Model(clock), ahead=1)
        assert await own.drain(1), "nothing to wait for"
        callers = [asyncio.ensure_future(judge(own, clock, n)) for n in range(5)]
        await asyncio.sleep(0.5)
        assert not await own.drain(2.0)
        began = clock()
        assert await own.drain(100)
        assert clock() - began == pytest.approx(2.5, abs=0.02)
        assert all(one.done() for one in callers)

    run(scene)


def test_hours_of_good_and_bad_traffic_leave_nothing_behind():
    """Objects that are alive after 500 and after 5,000 requests are as many."""

    class Picky(Model):
        def answers(self, payloads):
            return [ValueError() if payload[0] % 5 == 0 else answer_to(payload) for payload in payloads]

    async def scene(clock):
        own = batcher(max_queue=8)
        chance = random.Random(0)
        alive = []
        lane = own.attach(Picky(clock, each_s=0.1))
        for number in range(5000):
            payload = (number, bytes(1000))
            within = 0.01 if number % 11 == 0 else 100.0
            task = asyncio.ensure_future(judge(own, clock, payload, key=f"class {number}", within=within))
            task.add_done_callback(lambda done: done.cancelled() or done.exception())
            await asyncio.sleep(chance.expovariate(8))
            if number % 13 == 0:
                task.cancel()
            if number % 997 == 0:
                own.detach(lane, "died")
                lane = own.attach(Picky(clock, each_s=0.1))
            del task
            if number in (499, 4999):
                await own.drain(1000)
                await asyncio.sleep(200)  # timers of answered requests
                gc.collect()
                alive.append(len(gc.get_objects()))
        return alive

    early, late = run(scene)
    assert late - early < 200, (early, late)
