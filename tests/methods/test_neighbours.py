"""Nearest neighbours and the coreset, beside the same written out."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
import torch

from winspect.engines.compiled import openvino_core
from winspect.engines.products import openvino_largest
from winspect.methods import neighbours
from winspect.methods.coreset import farthest_points
from winspect.methods.neighbours import largest_products

KINDS = pytest.mark.parametrize("kind", [np.asarray, torch.as_tensor], ids=["numpy", "torch"])


def vectors(seed, count, width=24):
    drawn = np.random.default_rng(seed).standard_normal((count, width)).astype(np.float32)
    return drawn / np.linalg.norm(drawn, axis=1, keepdims=True)


@KINDS
@pytest.mark.parametrize("size", [1, 2, 300, 5000])
def test_largest_products(kind, size):
    queries, memory = vectors(1, 1500), vectors(2, size)
    found = largest_products(kind(queries), kind(memory))
    assert type(found) is type(kind(queries))
    products = queries.astype(np.float64) @ memory.astype(np.float64).T
    np.testing.assert_allclose(found, products.max(axis=1), atol=1e-6)


@KINDS
@pytest.mark.parametrize("size", [1, 300, 5000])
def test_largest_products_where_openvino_runs(kind, size, monkeypatch):
    calls = []

    def counted(*args):
        calls.append(args)
        return openvino_largest(*args)

    openvino_core()
    monkeypatch.setattr(neighbours, "openvino_largest", counted)
    queries, memory = vectors(1, 1500), vectors(2, size)
    found = largest_products(kind(queries), kind(memory))
    assert calls
    assert type(found) is type(kind(queries))
    products = queries.astype(np.float64) @ memory.astype(np.float64).T
    np.testing.assert_allclose(found, products.max(axis=1), atol=1e-6)


@KINDS
def test_what_is_no_number_stays_so_where_openvino_runs(kind):
    openvino_core()
    queries = vectors(1, 6)
    queries[2, 3] = np.nan
    found = np.asarray(largest_products(kind(queries), kind(vectors(2, 40))))
    np.testing.assert_array_equal(np.isnan(found), np.arange(6) == 2)


@KINDS
def test_double_precision_stays_so_where_openvino_runs(kind):
    openvino_core()
    queries, memory = (vectors(seed, 50).astype(np.float64) for seed in (1, 2))
    found = largest_products(kind(queries), kind(memory))
    np.testing.assert_allclose(found, (queries @ memory.T).max(axis=1), atol=1e-14)


def test_no_queries():
    assert largest_products(vectors(1, 0), vectors(2, 5)).shape == (0,)


def test_no_more_than_a_block_of_products_exists():
    queries, memory = vectors(1, 4096, 8), vectors(2, 40_000, 8)
    tracemalloc.start()
    largest_products(queries, memory)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4 * 4 * neighbours._ROWS * neighbours._COLUMNS < 4 * len(queries) * len(memory) / 5


@KINDS
def test_a_coreset_is_the_greedy_farthest_points(kind):
    points = np.random.default_rng(3).standard_normal((200, 10)).astype(np.float32)
    places = farthest_points(kind(points), 20, seed=5)
    chosen = [int(np.random.default_rng(5).integers(200))]
    while len(chosen) < 20:
        apart = [min(np.linalg.norm(point - points[known]) for known in chosen) for point in points.astype(np.float64)]
        chosen.append(int(np.argmax(apart)))
    np.testing.assert_array_equal(places, sorted(chosen))


def test_a_coreset_of_copies_and_of_everything():
    copies = np.ones((6, 4), np.float32)
    np.testing.assert_array_equal(farthest_points(copies, 6, seed=0), np.arange(6))
    wide = vectors(4, 50, 300)
    np.testing.assert_array_equal(farthest_points(wide, 50, seed=0), np.arange(50))
    np.testing.assert_array_equal(farthest_points(wide, 9, seed=1), farthest_points(wide, 9, seed=1))
    assert (farthest_points(wide, 9, seed=1) != farthest_points(wide, 9, seed=2)).any()


def test_a_coreset_of_wide_vectors_covers_its_clusters():
    centres = vectors(6, 12, 400)
    points = np.repeat(centres, 40, axis=0) + 0.005 * vectors(7, 480, 400)
    assert {place // 40 for place in farthest_points(points, 12, seed=0)} == {*range(12)}
