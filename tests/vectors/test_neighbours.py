import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from hyperofa.errors import InputError
from hyperofa.runtime.devices import has_fast_bytes
from hyperofa.vectors.neighbours import nearest


def brute_force(queries, keys, k, metric, valid):
    """All scores in double precision, ordered by score, then id."""
    queries, keys = np.asarray(queries, np.float64), np.asarray(keys, np.float64)
    ids = np.flatnonzero(keys.any(1) & valid)
    if metric == "cosine":
        queries = queries / np.maximum(np.linalg.norm(queries, axis=1, keepdims=True), 1e-30)
        keys = keys / np.maximum(np.linalg.norm(keys, axis=1, keepdims=True), 1e-30)
    scores = (queries[:, None] * keys[ids]).sum(-1)
    order = np.argsort(-scores.round(6), axis=1, kind="stable")[:, :k]
    return np.take_along_axis(scores, order, 1), ids[order]


@pytest.fixture(params=["faiss", "screen"], scope="module")
def searched(request):
    """Each way of searching on a CPU, whatever the number of keys."""
    if request.param == "screen" and not has_fast_bytes():
        pytest.skip("the CPU has no instructions for products of bytes")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("hyperofa.vectors.neighbours._SCREENED", 1 if request.param == "screen" else 2**62)
        yield


@pytest.mark.usefixtures("searched")
@pytest.mark.parametrize("metric", ["cosine", "dot"])
@pytest.mark.parametrize("dtype", [np.float32, np.float16, np.float64])
def test_nearest_equals_brute_force_on_random_data(metric, dtype):
    rng = np.random.default_rng(0)
    queries, keys = rng.normal(size=(300, 16)).astype(dtype), rng.normal(size=(2000, 16)).astype(dtype)
    keys[::5] = 0
    valid = rng.random(2000) < 0.7
    scores, ids = nearest(queries, keys, 10, metric=metric, valid=valid)
    expected, expected_ids = brute_force(queries, keys, 10, metric, valid)
    assert (scores.dtype, ids.dtype) == (np.float32, np.int64)
    np.testing.assert_allclose(scores, expected, rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(ids, expected_ids)


@pytest.mark.usefixtures("searched")
@given(data=st.data(), metric=st.sampled_from(["cosine", "dot"]))
@settings(max_examples=150, deadline=None)
def test_nearest_equals_brute_force_on_ties(data, metric):
    count, width = data.draw(st.integers(1, 60)), data.draw(st.integers(1, 3))
    few = st.sampled_from([0.0, 1.0, -1.0])
    keys = data.draw(hnp.arrays(np.float32, (count, width), elements=few))
    queries = data.draw(hnp.arrays(np.float32, (data.draw(st.integers(0, 4)), width), elements=few))
    valid = data.draw(hnp.arrays(bool, count))
    k = data.draw(st.integers(1, 70))
    scores, ids = nearest(queries, keys, k, metric=metric, valid=valid)
    expected, expected_ids = brute_force(queries, keys, k, metric, valid)
    assert scores.shape == ids.shape == (len(queries), min(k, (keys.any(1) & valid).sum()))
    np.testing.assert_allclose(scores, expected, atol=1e-5)
    np.testing.assert_array_equal(ids, expected_ids)


@pytest.mark.usefixtures("searched")
def test_nearest_orders_equal_keys_by_id_wherever_they_lie():
    # A matrix product rounds equal rows differently by their place; more copies than candidates are fetched.
    rng = np.random.default_rng(0)
    prototypes = rng.normal(size=(3, 77)).astype(np.float32)
    kinds = rng.integers(0, 3, 500)
    _, ids = nearest(rng.normal(size=(50, 77)).astype(np.float32), prototypes[kinds], 20)
    for row in ids:
        assert row.tolist() == np.flatnonzero(kinds == kinds[row[0]])[:20].tolist()


@pytest.mark.usefixtures("searched")
def test_negative_neighbours_outrank_zero_rows():
    keys = np.array([[0, 0], [-1, -1], [0, 0], [-1, 0]], np.float32)
    scores, ids = nearest(np.array([[1, 0]], np.float32), keys, 4)
    assert ids.tolist() == [[1, 3]]
    np.testing.assert_allclose(scores, [[-(0.5**0.5), -1]], rtol=1e-6)


@pytest.mark.usefixtures("searched")
def test_nearest_without_keys_or_queries():
    some, none = np.ones((2, 3), np.float32), np.zeros((4, 3), np.float32)
    assert nearest(some, none, 5)[1].shape == (2, 0)
    assert nearest(some, some, 5, valid=np.zeros(2, bool))[0].shape == (2, 0)
    assert nearest(some[:0], some, 5)[1].shape == (0, 2)
    scores, ids = nearest(none[:1], some, 5)
    assert (scores.tolist(), ids.tolist()) == ([[0, 0]], [[0, 1]])


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_nearest_refuses_what_is_not_finite(bad):
    good, wrong = np.ones((5, 3), np.float32), np.ones((5, 3), np.float32)
    wrong[3, 1] = bad
    with pytest.raises(InputError, match="found NaN or inf in row 3 of the queries"):
        nearest(wrong, good, 2)
    with pytest.raises(InputError, match="found NaN or inf in row 3 of the keys"):
        nearest(good, wrong, 2)


def test_nearest_refuses_wrong_shapes_and_devices(monkeypatch):
    some = np.ones((2, 3), np.float32)
    with pytest.raises(InputError, match=r"expected k ≥ 1 .* found k = 0"):
        nearest(some, some, 0)
    with pytest.raises(InputError, match=r"one width, found k = 1, \(2, 3\) and \(2, 2\)"):
        nearest(some, some[:, :2], 1)
    with pytest.raises(InputError, match=r"valid: expected \(2,\) bools, found \(3,\) bool"):
        nearest(some, some, 1, valid=np.ones(3, bool))
    faiss = pytest.importorskip("faiss")
    monkeypatch.setattr(faiss, "get_num_gpus", lambda: 0)
    with pytest.raises(InputError, match="device cuda: faiss finds no GPU"):
        nearest(some, some, 1, device="cuda")


def test_gpu_takes_over_where_there_is_one_up_to_its_limit(monkeypatch):
    faiss = pytest.importorskip("faiss")
    asked = []

    class Gpu:
        def __init__(self, index):
            self._index = index

        def search(self, queries, fetch):
            assert fetch <= 2048
            asked.append(fetch)
            return self._index.search(queries, fetch)

    monkeypatch.setattr(faiss, "get_num_gpus", lambda: 1)
    monkeypatch.setattr(faiss, "StandardGpuResources", object, raising=False)
    monkeypatch.setattr(faiss, "index_cpu_to_gpu", lambda resources, device, index: Gpu(index), raising=False)
    rng = np.random.default_rng(0)
    queries, keys = rng.normal(size=(3, 4)).astype(np.float32), rng.normal(size=(3000, 4)).astype(np.float32)
    for k, on_gpu in ((5, True), (2500, False)):
        asked.clear()
        expected = nearest(queries, keys, k, device="cpu")
        assert not asked
        for device in ("auto", "cuda"):
            np.testing.assert_array_equal(nearest(queries, keys, k, device=device), expected)
        assert bool(asked) == on_gpu


def test_missing_faiss_is_told(monkeypatch):
    monkeypatch.setitem(sys.modules, "faiss", None)
    some = np.ones((2, 3), np.float32)
    with pytest.raises(InputError, match=r"faiss is not installed; run: pip install 'hyperofa\[cpu\]'"):
        nearest(some, some, 1)
