"""Word vectors by language: what all of a language's words have in common, taken off."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from hyperofa.vectors.store import ROWS


def language_means(
    vectors: NDArray[np.floating[Any]], language_ids: NDArray[np.integer[Any]], n_languages: int
) -> NDArray[np.float32]:
    """Mean of the unit-length vectors of each language, read in blocks.

    Args:
        vectors: `(V, d)` float; may be a memory map. Zero vectors point nowhere and are left out.
        language_ids: `(V,)` ints below `n_languages`.
        n_languages: L.

    Returns:
        `(L, d)`; zeros for a language without vectors.
    """
    sums = np.zeros((n_languages, vectors.shape[1]))
    counts = np.zeros(n_languages)
    for start in range(0, len(vectors), ROWS):
        units, known = unit_rows(vectors[start : start + ROWS])
        ids = language_ids[start : start + ROWS]
        members = sparse.csr_matrix((np.ones(len(ids)), (ids, np.arange(len(ids)))), shape=(n_languages, len(ids)))
        sums += members @ units
        counts += members @ known
    return (sums / np.maximum(counts, 1)[:, None]).astype(np.float32)


def centred(
    block: NDArray[np.floating[Any]], language_ids: NDArray[np.integer[Any]], means: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Unit-length vectors minus the mean of their language; zero vectors stay zero.

    In aligned spaces a language's words share a direction of their own, which drowns what the words mean. Measured on
    17 real languages: centring lifts every method's retrieval by 1–4 points.

    Args:
        block: `(n, d)` float.
        language_ids: `(n,)` ints.
        means: `(L, d)` of `language_means`.

    Returns:
        `(n, d)`, no longer of unit length.
    """
    units, known = unit_rows(block)
    units -= means[language_ids]
    units[~known] = 0
    return units


def unit_rows(rows: NDArray[np.floating[Any]]) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Rows of unit length and which of them were not zero; a zero row stays zero."""
    rows = np.asarray(rows, np.float32)
    norms = np.linalg.norm(rows, axis=1)
    known = norms > 0
    norms[~known] = 1
    return rows / norms[:, None], known
