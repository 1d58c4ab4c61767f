import numpy as np

from hyperofa.vectors.centring import centred, language_means


def test_language_means_and_centring():
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(40_000, 5)).astype(np.float16)
    vectors[::7] = 0
    ids = rng.integers(0, 3, len(vectors)).astype(np.int16)
    wide = vectors.astype(np.float64)
    units = wide / np.maximum(np.linalg.norm(wide, axis=1, keepdims=True), 1e-9)
    means = language_means(vectors, ids, 4)
    for language in range(3):
        members = units[(ids == language) & wide.any(1)]
        np.testing.assert_allclose(means[language], members.mean(0), atol=1e-6)
    np.testing.assert_array_equal(means[3], 0)
    block = centred(vectors[:100], ids[:100], means)
    assert block.dtype == means.dtype == np.float32
    expected = np.where(wide[:100].any(1)[:, None], units[:100] - means[ids[:100]], 0)
    np.testing.assert_allclose(block, expected, atol=1e-6)
