"""A token's words as one vector: sparse sums over the word store, part by part, which is read once and never copied."""

from collections.abc import Iterable

import numpy as np
import scipy.sparse as sp

from hyperofa.matching import Matches
from hyperofa.store import WordVectors
from hyperofa.vectors import centred


def pool(parts: Iterable[Matches], words: WordVectors, means: np.ndarray) -> np.ndarray:
    """Weighted mean of each token's word vectors, of unit length and less their language's mean.

    Args:
        parts: words of the tokens, those of each part elsewhere in the store; memory grows with the largest part.
        words: the vectors.
        means: `(L, d)` mean unit vector of each language.

    Returns:
        `(tokens, d)` float32, zero rows for tokens without words.
    """
    sums, totals = np.zeros((0, words.dim), np.float32), np.zeros(0, np.float32)
    for part in parts:
        if len(totals) == 0:
            sums, totals = np.zeros((len(part.counts), words.dim), np.float32), np.zeros(len(part.counts), np.float32)
        ids, columns = np.unique(part.words, return_inverse=True)
        rows = np.flatnonzero(part.covered)
        indptr = np.append(part.indptr[rows], len(columns))
        weights = sp.csr_matrix((part.weights(words.ranks), columns, indptr), shape=(len(rows), len(ids)))
        sums[rows] += weights @ centred(words.vectors[ids], words.language_ids[ids], means)
        totals[rows] += weights.sum(1).A1
    return np.divide(sums, totals[:, None], out=sums, where=totals[:, None] > 0)
