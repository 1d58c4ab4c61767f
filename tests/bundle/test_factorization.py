"""The factorisation against numpy's exact SVD."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hyperofa.bundle import factorization
from hyperofa.bundle.factorization import factorize
from hyperofa.errors import InputError
from tests import reference

MATRICES = st.tuples(st.integers(1, 30), st.integers(2, 12), st.integers(0, 2**31))


def matrix(height=50, width=12, seed=0, rank=None):
    generator = np.random.default_rng(seed)
    if rank is not None:
        return generator.normal(size=(height, rank)) @ generator.normal(size=(rank, width))
    return generator.normal(size=(height, width)) * generator.uniform(0.1, 10, size=width)


@settings(deadline=None, max_examples=60)
@given(MATRICES, st.sampled_from(("coordinates", "primitives")), st.data())
def test_error_is_the_tail_of_the_exact_svd(shape, scaling, data):
    embeddings = matrix(*shape)
    k = data.draw(st.integers(1, min(min(embeddings.shape), embeddings.shape[1] - 1)))
    factors = factorize(embeddings, k, scaling=scaling)
    _, _, singular = reference.factorize(embeddings, k)
    norm = np.linalg.norm(singular)
    error = np.linalg.norm(embeddings - factors.coordinates @ factors.primitives)
    assert error == pytest.approx(np.linalg.norm(singular[k:]), abs=1e-5 * norm)
    assert factors.explained == pytest.approx((singular[:k] ** 2).sum() / norm**2, abs=1e-6)
    assert factors.coordinates.shape == (len(embeddings), k)
    assert factors.primitives.shape == (k, embeddings.shape[1])
    assert factors.coordinates.dtype == factors.primitives.dtype == np.float32


@settings(deadline=None, max_examples=30)
@given(st.integers(2, 10), st.integers(1, 10), st.integers(0, 2**31), st.sampled_from(("coordinates", "primitives")))
def test_all_dimensions_reconstruct(height, extra, seed, scaling):
    embeddings = matrix(height, height + extra, seed)
    factors = factorize(embeddings, height, scaling=scaling)
    np.testing.assert_allclose(
        factors.coordinates @ factors.primitives, embeddings, atol=1e-5 * np.abs(embeddings).max()
    )
    assert factors.explained == pytest.approx(1)


def test_scaling_by_coordinates_keeps_distances():
    embeddings = matrix()
    factors = factorize(embeddings, 5)
    np.testing.assert_allclose(factors.primitives @ factors.primitives.T, np.eye(5), atol=1e-6)
    rows = factors.coordinates @ factors.primitives
    np.testing.assert_allclose(
        np.linalg.norm(factors.coordinates[:-1] - factors.coordinates[1:], axis=1),
        np.linalg.norm(rows[:-1] - rows[1:], axis=1),
        rtol=1e-5,
    )


def test_scaling_by_primitives_is_the_reference_up_to_signs():
    embeddings = matrix()
    factors = factorize(embeddings, 5, scaling="primitives")
    coordinates, primitives, _ = reference.factorize(embeddings, 5)
    signs = np.sign((factors.coordinates * coordinates).sum(axis=0))
    np.testing.assert_allclose(factors.coordinates * signs, coordinates, atol=1e-5)
    np.testing.assert_allclose(factors.primitives * signs[:, None], primitives, atol=1e-3, rtol=1e-5)


@pytest.fixture(params=["single", "double"])
def precision(request, monkeypatch):
    """Large matrices are multiplied in single precision, small ones in double."""
    monkeypatch.setattr(factorization, "_SMALL", 0 if request.param == "single" else 2**30)


@pytest.mark.parametrize("smallest", [1e-2, 1e-3, 1e-4, 1e-6])
def test_only_what_is_small_is_lost(smallest, precision):
    left, right = (np.linalg.qr(matrix(height, 40))[0] for height in (9000, 40))
    singular = np.geomspace(1, smallest, 40)
    embeddings = (left * singular @ right).astype(np.float32)
    for k in (10, 20, 39):
        factors = factorize(embeddings, k)
        error = np.linalg.norm(embeddings - factors.coordinates.astype(np.float64) @ factors.primitives)
        assert error <= np.linalg.norm(singular[k:]) * 1.001 + 1e-4


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_equal_input_gives_equal_bytes(dtype, precision):
    embeddings = matrix(9000).astype(dtype)
    one, other = factorize(embeddings, 5), factorize(embeddings.copy(), 5)
    assert one.coordinates.tobytes() == other.coordinates.tobytes()
    assert one.primitives.tobytes() == other.primitives.tobytes()


@pytest.mark.parametrize("scaling", ["coordinates", "primitives"])
def test_rank_deficient_matrices(scaling, precision):
    embeddings = matrix(rank=3)
    factors = factorize(embeddings, 8, scaling=scaling)
    assert np.isfinite(factors.coordinates).all()
    np.testing.assert_allclose(factors.coordinates @ factors.primitives, embeddings, atol=1e-4)
    np.testing.assert_allclose(factors.coordinates[:, 3:] @ factors.primitives[3:], 0, atol=1e-4)
    if scaling == "primitives":
        norms = np.linalg.norm(factors.coordinates, axis=0)
        np.testing.assert_allclose(norms, [1, 1, 1, 0, 0, 0, 0, 0], atol=1e-5)


@pytest.mark.parametrize("scaling", ["coordinates", "primitives"])
@pytest.mark.parametrize("scale", [0, 1e-36, 1e-30, 1e-13, 1e18, 1e30, 1e36])
def test_extreme_scales(scaling, scale, precision):
    embeddings = (matrix() * scale).astype(np.float32)
    factors = factorize(embeddings, 5, scaling=scaling)
    product = factors.coordinates @ factors.primitives
    assert np.isfinite(product).all()
    assert np.linalg.norm(product / (scale or 1)) <= np.linalg.norm(matrix()) * 1.001
    assert factors.explained == pytest.approx(factorize(matrix(), 5).explained if scale else 1)


@pytest.mark.parametrize("width", [None, 12])
def test_full_width_is_no_factorisation(width):
    embeddings = matrix(height=7).astype(np.float32)
    factors = factorize(embeddings, width, scaling="primitives")
    np.testing.assert_array_equal(factors.coordinates, embeddings)
    np.testing.assert_array_equal(factors.primitives, np.eye(12))
    assert factors.explained == 1
    assert not np.shares_memory(factors.coordinates, embeddings)


def test_signs_do_not_depend_on_the_input_s():
    embeddings = matrix()
    one, other = factorize(embeddings, 5), factorize(-embeddings, 5)
    np.testing.assert_array_equal(one.primitives, other.primitives)
    np.testing.assert_array_equal(one.coordinates, -other.coordinates)
    assert (one.primitives[np.arange(5), np.abs(one.primitives).argmax(axis=1)] > 0).all()


def test_blocks_and_memory_maps_change_nothing(tmp_path, monkeypatch):
    embeddings = matrix(height=50).astype(np.float16)
    np.save(tmp_path / "rows.npy", embeddings)
    whole = factorize(embeddings, 5)
    monkeypatch.setattr(factorization, "_BLOCK_ROWS", 7)
    blocked = factorize(np.load(tmp_path / "rows.npy", mmap_mode="r"), 5)
    np.testing.assert_allclose(blocked.coordinates, whole.coordinates, atol=1e-5)
    assert blocked.explained == pytest.approx(whole.explained)


@pytest.mark.parametrize("k", [0, -1, 13, 100])
def test_width_out_of_range(k):
    with pytest.raises(InputError, match=rf"coordinate_dim: expected a width from 1 to 12 .* found {k}"):
        factorize(matrix(), k)


def test_width_above_the_number_of_tokens():
    with pytest.raises(InputError, match=r"from 1 to 4 for 4 tokens of width 12, found 5"):
        factorize(matrix(height=4), 5)


@pytest.mark.parametrize("width", [None, 5])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_numbers_that_are_not_finite(width, value, monkeypatch):
    embeddings = matrix()
    embeddings[17, 3] = value
    monkeypatch.setattr(factorization, "_BLOCK_ROWS", 10)
    with pytest.raises(InputError, match="NaN or infinity in row 17"):
        factorize(embeddings, width)


def test_bad_scaling_and_shape():
    with pytest.raises(InputError, match="scaling: expected 'coordinates' or 'primitives', found 'both'"):
        factorize(matrix(), 3, scaling="both")
    with pytest.raises(ValueError, match=r"found shape \(3,\)"):
        factorize(np.ones(3), 1)
    with pytest.raises(ValueError, match=r"found shape \(0, 3\)"):
        factorize(np.ones((0, 3)), 1)
