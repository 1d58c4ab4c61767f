import numpy as np
import pytest

from hyperofa.bundle.bundle import Bundle
from hyperofa.bundle.pooling import pool
from hyperofa.tokens.matching import Matches
from hyperofa.vectors.centring import language_means
from hyperofa.vectors.conversion import build_store
from tests import reference
from tests.conftest import write_vectors


def slow_pool(matches, weights, words, means):
    """The definition, one token at a time."""
    rows = np.zeros((len(matches.indptr) - 1, words.dim))
    for token in range(len(rows)):
        span = range(matches.indptr[token], matches.indptr[token + 1])
        for i in span:
            vector = words.vectors[matches.words[i]].astype(np.float64)
            if means is not None and vector.any():
                vector = vector / np.linalg.norm(vector) - means[words.language_ids[matches.words[i]]]
            rows[token] += weights[i] * vector / sum(weights[j] for j in span)
    return rows


def slow_means(words):
    units = [row / np.linalg.norm(row) for row in words.vectors.astype(np.float64) if row.any()]
    known = words.language_ids[words.vectors.any(1)]
    return np.array([np.mean([u for u, k in zip(units, known, strict=True) if k == i], 0) for i in range(2)])


@pytest.mark.parametrize("name", ["bert", "roberta"])
@pytest.mark.parametrize("side", ["source", "target"])
def test_pooled_vectors_equal_the_definition(bundles, name, side):
    bundle = Bundle.load(bundles[name])
    matches, words = bundle.matches(side), bundle.words
    np.testing.assert_allclose(bundle.language_means, slow_means(words), atol=1e-6)
    weights = matches.share.astype(np.float64) ** 2 / np.sqrt(1 + words.ranks[matches.words])
    expected = slow_pool(matches, weights, words, slow_means(words))
    np.testing.assert_allclose(bundle.pooled(side), expected, atol=1e-5)
    np.testing.assert_array_equal(bundle.pooled(side).any(1), matches.covered)


def test_duplicates_count_a_word_once_for_each_surface(bundles):
    bundle = Bundle.load(bundles["bert"])
    matches = bundle.target
    repeated = {
        token: np.repeat(matches.words[start:end], matches.variants[start:end]).tolist()
        for token, (start, end) in enumerate(zip(matches.indptr[:-1], matches.indptr[1:], strict=True))
        if end > start
    }
    expected = reference.duplicate_weighted_mean(repeated, bundle.words.vectors, len(matches.counts))
    np.testing.assert_allclose(bundle.pooled("target", "duplicates"), expected, atol=1e-5)


def test_a_zero_vector_says_nothing(tmp_path):
    rng = np.random.default_rng(0)
    rows = {f"eng:w{i}": rng.standard_normal(4) for i in range(3)}
    rows["eng:w1"] = np.zeros(4)
    words = build_store([str(write_vectors(tmp_path / "w.vec", rows))], tmp_path / "store", spelling="marked")
    means = language_means(words.vectors, words.language_ids, 1)
    matches = Matches(np.array([0, 2, 3]), np.array([0, 1, 1]), np.ones(3), np.zeros(3), np.ones(3, np.uint8))
    weights = matches.weights(words.ranks)
    expected = slow_pool(matches, weights, words, means)
    np.testing.assert_allclose(pool([matches], words, means), expected, atol=1e-6)
    assert not expected[1].any()


def only(matches, chosen):
    """The matches for which `chosen` is true."""
    kept = np.concatenate([[0], np.cumsum(chosen)])[matches.indptr]
    return Matches(kept, *(getattr(matches, name)[chosen] for name in ("words", "share", "position", "variants")))


def test_pooling_in_parts_is_pooling(bundles):
    bundle = Bundle.load(bundles["bert"])
    half = len(bundle.words) // 2
    parts = [only(bundle.target, chosen) for chosen in (bundle.target.words < half, bundle.target.words >= half)]
    pooled = pool(parts, bundle.words, bundle.language_means)
    np.testing.assert_allclose(pooled, bundle.pooled("target"), atol=1e-6)
