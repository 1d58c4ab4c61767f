"""Turn one space of word vectors into another."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from hyperofa.errors import InputError
from hyperofa.vectors.centring import unit_rows


def align(
    source_vectors: NDArray[np.floating[Any]],
    target_vectors: NDArray[np.floating[Any]],
    pairs: NDArray[np.integer[Any]],
) -> NDArray[np.float32]:
    """Turn one space into another: the rotation that brings known translations nearest (orthogonal Procrustes).

    Args:
        source_vectors: `(n, d)`.
        target_vectors: `(m, d)`.
        pairs: `(p, 2)` rows of `source_vectors` and `target_vectors` that mean the same.

    Returns:
        `(d, d)` orthogonal R: `source_vectors @ R` lies in the target space (Schönemann 1966, on unit vectors).
    """
    if len(pairs) == 0 or source_vectors.shape[1] != target_vectors.shape[1]:
        widths = f"{source_vectors.shape[1]} and {target_vectors.shape[1]}"
        raise InputError(f"alignment: expected pairs of vectors of one width, found {len(pairs)} pairs, {widths} wide")
    source, _ = unit_rows(source_vectors[pairs[:, 0]])
    target, _ = unit_rows(target_vectors[pairs[:, 1]])
    left, _, right = np.linalg.svd(source.T.astype(np.float64) @ target)
    return (left @ right).astype(np.float32)
