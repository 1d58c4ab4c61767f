"""Screening in bytes against brute force in double: no key that belongs to the best is ever lost."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hyperofa.runtime.devices import has_fast_bytes
from hyperofa.vectors import int8_index as screening
from hyperofa.vectors.int8_index import Int8Index

pytestmark = pytest.mark.skipif(not has_fast_bytes(), reason="the CPU has no instructions for products of bytes")


@pytest.fixture(autouse=True, scope="module")
def small_chunks():
    """Many chunks, many groups, many blocks of queries."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {"CHUNK": 64, "GROUP": 4, "GROUPS": 16, "QUERIES": 20, "SCORES": 2**13, "HITS": 50}.items():
            patch.setattr(screening, f"_{name}", value)
        yield


def check(keys, queries, k):
    products, places = Int8Index(keys).search(queries, k)
    exact = queries.astype(np.float64) @ keys.astype(np.float64).T
    longest = np.linalg.norm(keys.astype(np.float64), axis=1).max()
    scale = np.linalg.norm(queries, axis=1)[:, None] * longest
    error = 1e-6 * scale + 1e-37
    assert (np.abs(products - np.take_along_axis(exact, places, 1)) <= error).all()
    assert (np.abs(products - -np.sort(-exact, axis=1)[:, :k]) <= error).all()
    assert all(len(set(row)) == k for row in places.tolist())
    assert (np.diff(products, axis=1) <= 0).all()


@given(
    seed=st.integers(0, 2**32 - 1),
    count=st.integers(1, 700),
    width=st.sampled_from([1, 3, 40]),
    k=st.integers(1, 40),
    kind=st.sampled_from(["normal", "near", "equal", "opposite", "heavy", "zeros"]),
    scale=st.sampled_from([1.0, 1e-25, 1e-12, 1e12]),
)
@settings(max_examples=200, deadline=None)
def test_screening_equals_brute_force(seed, count, width, k, kind, scale):
    rng = np.random.default_rng(seed)
    queries, keys = rng.standard_normal((30, width)), rng.standard_normal((count, width))
    if kind == "near":  # apart by less than bytes can tell
        keys = rng.standard_normal((1, width)) + 1e-3 * keys
    elif kind == "equal":
        keys = keys[rng.integers(0, 3, count) % count]
    elif kind == "opposite":
        queries, keys = np.abs(queries), -np.abs(keys)
    elif kind == "heavy":
        keys *= np.exp(3 * rng.standard_normal((count, 1)))
    elif kind == "zeros":
        keys[rng.random(count) < 0.5], queries[::3] = 0, 0
    check((scale * keys).astype(np.float32), queries.astype(np.float32), min(k, count))


def test_no_queries():
    products, places = Int8Index(np.ones((300, 4), np.float32)).search(np.empty((0, 4), np.float32), 3)
    assert products.shape == places.shape == (0, 3)


@pytest.mark.parametrize("kind", ["normal", "sparse"])
def test_few_keys_are_looked_at_again(monkeypatch, kind):
    """The screen does what it is for: a good part of what it leaves is wanted, also where a key has one large value."""
    rng = np.random.default_rng(0)
    keys, queries = (rng.standard_normal((count, 100)).astype(np.float32) for count in (20_000, 50))
    if kind == "sparse":
        keys[:, 1:] *= 0.2
        keys[::50] = np.linalg.norm(keys, axis=1).max() * np.eye(100)[rng.integers(0, 100, 400)]
    left = []
    within = screening._within
    monkeypatch.setattr(screening, "_within", lambda *args: left.append(within(*args)) or left[-1])
    Int8Index(keys).search(queries, 20)
    assert 20 * 50 <= sum(len(rows) for rows, _ in left) <= 45 * 50


def test_bytes_are_fast_where_they_are_right_alone(monkeypatch):
    monkeypatch.setattr(torch, "_int_mm", lambda a, b: (a.int() @ b.int()).clamp(-(2**15), 2**15 - 1))
    assert not has_fast_bytes.__wrapped__()
