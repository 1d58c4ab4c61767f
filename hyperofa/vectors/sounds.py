"""Words by how they sound: names, loans and relatives are alike in all scripts, once written in Latin letters."""

import re
import unicodedata
from collections.abc import Sequence
from functools import cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from hyperofa.vectors.store import ROWS

_SHORTEST = 4  # letters of what is compared
_ALIKE = 0.4  # cosine of n-grams, from which words may be the same
_LETTERS = 28  # a to z, and the two ends of a word


class Sounds(NamedTuple):
    """Words in Latin letters, as counts of the two and three letters that follow each other in them.

    Attributes:
        rows: `(n,)` places of the words that have four letters and more.
        counts: `(n, g)` how often each n-gram is in each of them.
    """

    rows: NDArray[np.int64]
    counts: sparse.csr_matrix

    @classmethod
    def of(cls, words: Sequence[str], language: str) -> "Sounds":
        """Of words in any script.

        Args:
            words: of one language.
            language: its ISO 639-3 code, as some letters sound different from language to language.
        """
        spelled = [romanised(word, language) for word in words]
        rows = np.array([row for row, letters in enumerate(spelled) if len(letters) >= _SHORTEST], np.int64)
        grams = [_ngrams(spelled[row]) for row in rows]
        ends = np.cumsum([0, *map(len, grams)])
        columns = np.concatenate(grams) if grams else np.empty(0, np.int64)
        shape = (len(rows), _LETTERS**2 + _LETTERS**3)
        counts = sparse.csr_matrix((np.ones(len(columns), np.float32), columns, ends), shape=shape)
        counts.sum_duplicates()
        return cls(rows, counts)


def _ngrams(letters: str) -> NDArray[np.int64]:
    """Numbers of the two and three letters that follow each other; the characters beside a and z mark the ends."""
    codes = np.frombuffer(f"`{letters}{{".encode(), np.uint8).astype(np.int64) - ord("`")
    pairs = codes[:-1] * _LETTERS + codes[1:]
    return np.concatenate([pairs, _LETTERS**2 + pairs[:-1] * _LETTERS + codes[2:]])


def romanised(word: str, language: str) -> str:
    """The letters a to z of a word as `uroman` writes it (Hermjakob et al. 2018).

    Args:
        word: in any script.
        language: its ISO 639-3 code.
    """
    plain = unicodedata.normalize("NFD", _romaniser().romanize_string(word, lcode=language).lower())
    return re.sub("[^a-z]", "", plain)


@cache
def _romaniser() -> Any:
    import uroman  # reads its tables for two seconds

    return uroman.Uroman()


def alike_pairs(source: Sounds, target: Sounds) -> NDArray[np.int64]:
    """Words of two languages that are each other's most similar one by their n-grams, rare ones weighing more (tf-idf).

    Some are names, loans or relatives, and some only chance: what begins with them has to do without the wrong ones.

    Args:
        source: words of one language.
        target: words of the other.

    Returns:
        `(p, 2)` places in both, of words with a cosine of 0.4 and more.
    """
    if not len(source.rows) or not len(target.rows):
        return np.empty((0, 2), np.int64)
    words = len(source.rows) + len(target.rows)
    having = source.counts.getnnz(0) + target.counts.getnnz(0)
    weights = sparse.diags(np.log(words / np.maximum(having, 1)).astype(np.float32))
    left, right = (_unit(side.counts @ weights) for side in (source, target))
    there, cosines = np.empty(len(source.rows), np.int64), np.empty(len(source.rows), np.float32)
    back, best = np.zeros(len(target.rows), np.int64), np.zeros(len(target.rows), np.float32)
    step = max(1, ROWS // 8)
    for start in range(0, len(there), step):
        block = (left[start : start + step] @ right.T).toarray()
        there[start : start + step], cosines[start : start + step] = block.argmax(1), block.max(1)
        rows, highest = block.argmax(0), block.max(0)
        better = highest > best
        back[better], best[better] = start + rows[better], highest[better]
    mutual = np.flatnonzero((back[there] == np.arange(len(there))) & (cosines >= _ALIKE))
    return np.stack([source.rows[mutual], target.rows[there[mutual]]], 1)


def _unit(rows: sparse.csr_matrix) -> sparse.csr_matrix:
    lengths = np.sqrt(np.asarray(rows.multiply(rows).sum(1)).ravel())
    return (sparse.diags(1 / np.maximum(lengths, np.finfo(np.float32).tiny)) @ rows).astype(np.float32).tocsr()
