"""Word vectors from which words stand in which segments of a text: good where there is little of it.

Translations of one verse are one segment, so words that mean the same in two languages stand in the same segments.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from hyperofa.vectors.centring import unit_rows

_OVERSAMPLING = 20  # directions beyond those that are wanted
_PASSES = 3  # power iterations


class Counts(NamedTuple):
    """How often each word stands in each segment.

    Attributes:
        words: V words.
        languages: of each word.
        table: `(V, segments)` float32.
    """

    words: list[str]
    languages: list[str]
    table: sp.csr_matrix

    def frequent(self, min_count: int, max_words: int | None = None) -> "Counts":
        """The words that occur so often, the most frequent ones first; equally frequent ones in the order of the text.

        Args:
            min_count: least number of occurrences.
            max_words: at most so many of each language.
        """
        totals = np.asarray(self.table.sum(1)).ravel()
        order = np.argsort(-totals, kind="stable")
        order = order[totals[order] >= min_count]
        if max_words is not None:
            seen: dict[str, int] = {}
            kept = []
            for row in order.tolist():
                language = self.languages[row]
                seen[language] = seen.get(language, 0) + 1
                if seen[language] <= max_words:
                    kept.append(row)
            order = np.array(kept, np.int64)
        rows = order.tolist()
        return Counts([self.words[row] for row in rows], [self.languages[row] for row in rows], self.table[order])


def count_words(segments: Sequence[tuple[str, str, Sequence[str]]]) -> Counts:
    """Count the words of segments.

    Args:
        segments: name, language and words of each piece of text; pieces of one name are one segment.
    """
    rows: dict[tuple[str, str], int] = {}
    columns: dict[str, int] = {}
    places: list[tuple[int, int]] = []
    for name, language, words in segments:
        column = columns.setdefault(name, len(columns))
        places.extend((rows.setdefault((language, word), len(rows)), column) for word in words)
    cells = np.array(places, np.int64).reshape(-1, 2)
    table = sp.csr_matrix((np.ones(len(cells), np.float32), (cells[:, 0], cells[:, 1])), (len(rows), len(columns)))
    table.sum_duplicates()
    return Counts([word for _, word in rows], [language for language, _ in rows], table)


def spectral_vectors(table: sp.csr_matrix, dim: int, seed: int = 0) -> NDArray[np.float32]:
    """Word vectors by correspondence analysis of logarithmic counts (Benzécri 1973).

    Counts become log(1 + n), divided by the roots of their row's and column's sum; the first singular direction then
    says no more than how frequent words are and is dropped. Each direction counts as the root of its singular value.
    They are found by random projection (Halko, Martinsson and Tropp 2011).

    Args:
        table: `(V, segments)` counts.
        dim: d; there are no more directions than words or segments less one.
        seed: of the projection.

    Returns:
        `(V, d)` unit rows; zero where a word stands in no segment, and in columns beyond what there are.
    """
    logs = table.astype(np.float32).tocsr(copy=True)
    logs.data = np.log1p(logs.data)
    scaled = (_inverse_root(logs.sum(1)) @ logs @ _inverse_root(logs.sum(0))).astype(np.float32).tocsr()
    turned = scaled.T.tocsr()
    width = min(dim + 1 + _OVERSAMPLING, *scaled.shape)
    basis = np.random.default_rng(seed).standard_normal((scaled.shape[1], width), np.float32)
    for _ in range(_PASSES):
        basis = np.linalg.qr(turned @ (scaled @ basis))[0]
    image = scaled @ basis
    squares, directions = np.linalg.eigh((image.T @ image).astype(np.float64))
    kept = np.argsort(-squares, kind="stable")[1 : dim + 1]
    kept = kept[squares[kept] > 0]
    vectors = np.zeros((scaled.shape[0], dim), np.float32)
    vectors[:, : len(kept)] = image @ (directions[:, kept] / squares[kept] ** 0.25).astype(np.float32)
    return unit_rows(vectors)[0]


def _inverse_root(sums: NDArray[np.floating]) -> sp.dia_matrix:
    totals = np.asarray(sums, np.float64).ravel()
    return sp.diags(np.divide(1, np.sqrt(totals), out=np.zeros_like(totals), where=totals > 0))


def projected_vectors(table: sp.csr_matrix, known: sp.csr_matrix, vectors: NDArray[np.floating]) -> NDArray[np.float32]:
    """Vectors of new words in a space that has vectors of others in the same segments.

    A segment is the mean of its known words, each weighing one over its frequency; a new word is the mean of its
    segments, less what all of them have in common.

    Args:
        table: `(V, segments)` counts of the new words.
        known: `(W, segments)` counts of the known words.
        vectors: `(W, d)` of these, less their mean.

    Returns:
        `(V, d)` unit rows; zero for a word that no known word stands beside.
    """
    logs = [each.astype(np.float32).tocsr(copy=True) for each in (table, known)]
    for each in logs:
        each.data = np.log1p(each.data)
    totals = np.asarray(logs[1].sum(1)).ravel()
    segments, _ = unit_rows(logs[1].T @ (vectors / np.maximum(totals, 1)[:, None]))
    found, reached = unit_rows(logs[0] @ segments)
    found[reached] -= found[reached].mean(0) if reached.any() else 0
    return unit_rows(found)[0]
