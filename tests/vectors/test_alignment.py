import numpy as np
import pytest

from hyperofa.errors import InputError
from hyperofa.vectors.alignment import align


def test_alignment_recovers_a_rotation():
    rng = np.random.default_rng(0)
    source = rng.normal(size=(50, 8))
    rotation, _ = np.linalg.qr(rng.normal(size=(8, 8)))
    order = rng.permutation(50)
    target = (source @ rotation)[order] * rng.uniform(0.5, 2, (50, 1))
    found = align(source, target, np.stack([order[:20], np.arange(20)], 1))
    np.testing.assert_allclose(found, rotation, atol=1e-5)
    np.testing.assert_allclose(found @ found.T, np.eye(8), atol=1e-5)
    with pytest.raises(InputError, match="expected pairs of words that mean the same, found none"):
        align(source, target, np.empty((0, 2), int))
