"""Choosing normal pictures that differ: cases worked by hand."""

from __future__ import annotations

import numpy as np
import pytest

from winspect.errors import SourceError
from winspect.methods.choosing import choose, upper_limit

NAN = np.nan


def on_a_line(*places):
    """Pictures whose distance is that of places on a line."""
    return np.abs(np.subtract.outer(places, places)).astype(np.float32)


def test_by_hand():
    """Of eight pictures the four most normal, 1, 2, 4 and 6, are chosen among: from place 5, 9 is farthest, then 0."""
    scores = np.array([0.8, 0.2, 0.1, 0.7, 0.3, 0.6, 0.4, 0.5])
    chosen = choose(scores, on_a_line(100, 6, 5, 90, 0, -80, 9, -70), 3)
    assert chosen.kept == (2, 4, 6)
    assert chosen.outliers == ()
    assert chosen.limit == pytest.approx(0.45 + 3 * 1.4826 * 0.2, abs=1e-5)


def test_outliers_are_named_worst_first_and_never_chosen():
    scores = np.array([0.30, 0.9, 0.31, 0.29, 0.32, 0.28, 0.95, 0.30])
    chosen = choose(scores, on_a_line(*range(8)), 6)
    assert chosen.outliers == (6, 1)
    assert sorted(chosen.kept) == [0, 2, 3, 4, 5, 7]
    with pytest.raises(SourceError, match="7 of 8 pictures, and 6 can be kept: 2 outliers, 0 failed; keep 6"):
        choose(scores, on_a_line(*range(8)), 7)


def test_a_choice_of_fewer_is_the_beginning_of_one_of_more():
    random = np.random.default_rng(0)
    scores, apart = random.random(20), random.random((20, 20)).astype(np.float32)
    assert choose(scores, apart, 4).kept == choose(scores, apart, 10).kept[:4]


def test_a_distance_is_from_a_picture_to_those_chosen():
    """Picture 1 has a patch that 0 lacks, and 0 has none that 1 lacks: 1 is far from 0, and 0 near 1."""
    scores = np.array([0.1, 0.2, 0.3, 0.9, 0.9, 0.9])
    apart = np.full((6, 6), 99, np.float32)
    apart[:3, :3] = [[NAN, 0, 5], [9, NAN, 0], [1, 1, NAN]]
    assert choose(scores, apart, 2).kept == (0, 1)
    assert choose(scores, apart.T, 2).kept == (0, 2)


def test_pictures_that_were_not_compared_count_as_far():
    """Two groups: of the other one the most normal comes first."""
    apart = np.full((4, 4), NAN, np.float32)
    apart[:2, :2], apart[2:, 2:] = on_a_line(0, 1), on_a_line(0, 1)
    assert choose(np.array([0.1, 0.2, 0.4, 0.3]), apart, 4).kept[:2] == (0, 3)


def test_pictures_that_failed_are_left_out():
    scores = np.array([0.2, NAN, 0.1, 0.3])
    apart = np.full((4, 4), NAN, np.float32)
    apart[np.ix_([0, 2, 3], [0, 2, 3])] = on_a_line(0, 5, 1)
    assert choose(scores, apart, 3).kept == (2, 0, 3)
    with pytest.raises(SourceError, match="3 can be kept: 0 outliers, 1 failed"):
        choose(scores, apart, 4)


def test_copies_are_chosen_last_and_each_once():
    scores = np.array([0.1, 0.1, 0.1, 0.1])
    assert choose(scores, on_a_line(0, 0, 3, 0), 4).kept == (0, 2, 1, 3)


def test_rounding_makes_no_outliers_of_pictures_that_are_alike():
    assert choose(np.array([0.5, 0.5, 0.5 + 1e-8, 0.5, 0.5]), np.zeros((5, 5)), 5).outliers == ()


def test_the_limit_of_two_pictures():
    assert upper_limit(np.array([1.0, 2.0])) == pytest.approx(1.5 + 3 * 1.4826 * 0.5, abs=1e-4)
