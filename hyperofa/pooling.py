"""A token's words as one vector: sparse sums over the word store, which is read once and never copied."""

import numpy as np
import scipy.sparse as sp

from hyperofa.matching import Matches
from hyperofa.store import WordVectors


def pool(matches: Matches, weights: np.ndarray, words: WordVectors, means: np.ndarray) -> np.ndarray:
    """Weighted mean of each token's word vectors, of unit length and less their language's mean.

    Args:
        matches: words of the tokens.
        weights: `(matches,)`, > 0.
        words: the vectors.
        means: `(L, d)` mean unit vector of each language.

    Returns:
        `(tokens, d)` float32, zero rows for tokens without words.
    """
    num_words = len(words.vectors)
    total = np.bincount(matches.tokens, weights, minlength=len(matches.indptr) - 1)
    weights = weights / total[matches.tokens]
    norms = word_norms(words)
    scaled = np.divide(weights, norms[matches.words], out=np.zeros_like(weights), where=norms[matches.words] > 0)
    known = np.where(norms[matches.words] > 0, weights, 0)
    by_language = sp.csr_matrix(
        (known, words.language_ids[matches.words], matches.indptr), shape=(len(total), len(means))
    )
    return (matches.matrix(scaled, num_words) @ words.vectors - by_language @ means).astype(np.float32)


def word_norms(words: WordVectors, block: int = 65_536) -> np.ndarray:
    """`(V,)` float32 Euclidean norms, computed block by block."""
    starts = range(0, len(words.vectors), block)
    return np.concatenate(
        [np.linalg.norm(words.vectors[start : start + block].astype(np.float32), axis=1) for start in starts]
    )
