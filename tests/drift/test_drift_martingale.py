"""P-values and capital against slow twins; and that the capital is what its guarantee says."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.drift.oracle_drift import capital, fixed_reference_p_values, p_values, since
from winspect.drift.martingale import FALLING, KINDS, RISING, Martingale
from winspect.drift.ranks import OnlineRanks, tie_breaker


def ranked(values: list[float], ties: list[float]) -> list[float]:
    """P-values of the code."""
    ranks, found = OnlineRanks(), []
    for value, tie in zip(values, ties, strict=True):
        found.append(ranks.p_value(value, tie))
        ranks.add(value)
    return found


def played(p: list[float]) -> list[Martingale]:
    """Martingales after each p-value."""
    return list(
        itertools.accumulate(enumerate(p, 1), lambda at, step: at.after(step[1], step[0]), initial=Martingale())
    )


def random_ties(count: int, seed: int = 0) -> list[float]:
    return [tie_breaker(seed, number) for number in range(count)]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.sampled_from([0.0, 0.25, 0.5, 1.0, -3.0]) | st.floats(-5, 5), max_size=60))
def test_p_values_are_counted_as_defined(values):
    ties = random_ties(len(values))
    assert ranked(values, ties) == pytest.approx(p_values(values, ties), rel=1e-12)


def test_p_values_of_more_values_than_are_merged_at_once():
    values = np.random.default_rng(1).integers(0, 900, 3500).astype(float).tolist()  # many ties
    ties = random_ties(len(values))
    for start in (0, 990, 1995, 3480):
        ranks = OnlineRanks(values[:start])
        for number in range(start, start + 15):
            expected = p_values(values[: number + 1], ties[: number + 1])[-1] if number < 1100 else None
            found = ranks.p_value(values[number], ties[number])
            before = np.array(values[: number + 1])
            larger, equal = (before > values[number]).sum(), (before == values[number]).sum()
            assert found == pytest.approx((larger + ties[number] * equal) / (number + 1), rel=1e-12)
            assert expected is None or found == pytest.approx(expected, rel=1e-12)
            ranks.add(values[number])
    assert ranked(values, ties)[-1] == pytest.approx(p_values(values, ties)[-1], rel=1e-12)


@pytest.mark.parametrize("shift", [0.0, 1.5, -3.0])
def test_capital_is_that_of_every_start_of_every_bet(shift):
    rng = np.random.default_rng(5)
    values = rng.normal(size=40).tolist() + (rng.normal(size=20) + shift).tolist()
    p = ranked(values, random_ties(60))
    for steps, martingale in enumerate(played(p)):
        assert martingale.log_capital == pytest.approx(math.log(capital(p[:steps])), abs=1e-9)
    assert Martingale().log_capital == 0.0


def test_since_when_is_the_last_minimum_of_the_winning_bet():
    rng = np.random.default_rng(2)
    values = rng.normal(size=150).tolist() + (rng.normal(size=25) - 4).tolist()
    p = ranked(values, random_ties(175))
    direction, bet = played(p)[-1].winner
    power = next(power for (_, power), other in zip(KINDS, played(p)[-1].bets, strict=True) if other == bet)
    assert direction == FALLING
    assert bet.since == since(p, power, turned=True)
    assert 149 <= bet.since <= 153  # the change was at 151


def test_worked_by_hand():
    # One step, p = 1/4: half of... c(1) - c(2) = 1 - 1 / (1 + log 2) is put on six bets, the rest is kept.
    put, left = 1 - 1 / (1 + math.log(2)), 1 / (1 + math.log(2))
    factors = [k * p ** (k - 1) for k in (0.2, 0.5, 0.8) for p in (0.25, 0.75)]
    expected = left + put * sum(factors) / 6
    martingale = Martingale().after(0.25, 1)
    assert math.exp(martingale.log_capital) == pytest.approx(expected, rel=1e-12)
    assert martingale.winner[0] == RISING


def test_a_day_of_strong_drift_overflows_nothing():
    martingale = Martingale()
    for number in range(1, 3000):
        martingale = martingale.after(1e-5, number)
    assert 1e3 < martingale.log_capital < math.inf
    assert Martingale.read(martingale.document()) == martingale


def test_the_mean_capital_over_all_orders_is_one():
    # A fair game, exactly: all orders of two values, and the ties by a quadrature that is fine at both ends.
    nodes, weights = np.polynomial.legendre.leggauss(40)
    t, weights = (nodes + 1) / 2, weights / 2
    top, bottom = t**5, (1 - t) ** 5
    ties, weights = top / (top + bottom), weights * 5 * (t * (1 - t)) ** 4 / (top + bottom) ** 2
    assert weights.sum() == pytest.approx(1, abs=1e-6)
    total = 0.0
    for places in itertools.product(range(len(ties)), repeat=2):
        weight = math.prod(weights[list(places)])
        for order in itertools.permutations((0.1, 0.2)):
            p = ranked(list(order), [float(ties[place]) for place in places])
            total += weight * math.exp(played(p)[-1].log_capital) / 2
    assert total == pytest.approx(1, abs=1e-4)


def alarms(p_of, *, lines: int, pictures: int, bound: float) -> int:
    """Lines without drift of which the capital ever reaches the bound."""
    found = 0
    for seed in range(lines):
        values = np.random.default_rng(seed).normal(size=pictures).tolist()
        martingale = Martingale()
        for number, p in enumerate(p_of(values, random_ties(pictures, seed)), 1):
            martingale = martingale.after(p, number)
            if martingale.log_capital >= math.log(bound):
                found += 1
                break
    return found


def test_false_alarms_are_as_rare_as_promised():
    # At most a fifth of 150 lines; 45 or more would be 3 standard deviations above 30.
    assert alarms(ranked, lines=150, pictures=400, bound=5) < 45


def test_a_fixed_reference_would_be_found_out():
    # The same count, with p-values against the first ten values for ever: the bound above is broken.
    def fixed(values: list[float], ties: list[float]) -> list[float]:
        return fixed_reference_p_values(values, ties, 10)

    assert alarms(fixed, lines=60, pictures=400, bound=5) > 30


def test_random_numbers_are_uniform_and_repeatable():
    numbers = [tie_breaker("line", "score", number) for number in range(20_000)]
    assert min(numbers) > 0 and max(numbers) < 1
    assert np.mean(numbers) == pytest.approx(0.5, abs=0.01)
    assert np.corrcoef(numbers[1:], numbers[:-1])[0, 1] == pytest.approx(0, abs=0.03)
    assert tie_breaker("line", "score", 7) == numbers[7] != tie_breaker("line", "blue", 7)
