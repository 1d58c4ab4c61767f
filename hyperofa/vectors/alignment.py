"""Turn one space of word vectors into another, from words that are known to mean the same."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hyperofa.errors import InputError
from hyperofa.vectors.centring import unit_rows
from hyperofa.vectors.neighbours import NeighbourIndex

_NEIGHBOURS = 10  # of CSLS (Conneau et al. 2018)
_EPOCHS = 10  # of RCSLS
_RATE = 0.1  # first step of RCSLS, in units of the map's norm over the gradient's


def align(
    source_vectors: NDArray[np.floating[Any]],
    target_vectors: NDArray[np.floating[Any]],
    pairs: NDArray[np.integer[Any]],
) -> NDArray[np.float32]:
    """Turn one space into another: the rotation that brings known translations nearest (orthogonal Procrustes).

    Args:
        source_vectors: `(n, d)`.
        target_vectors: `(m, e)`.
        pairs: `(p, 2)` rows of `source_vectors` and `target_vectors` that mean the same.

    Returns:
        `(d, e)` R: `source_vectors @ R` lies in the target space (Schönemann 1966, on unit vectors). Orthogonal, or
        where the widths differ with orthonormal rows or columns.

    Raises:
        InputError: there are no pairs.
    """
    if len(pairs) == 0:
        raise InputError("alignment: expected pairs of words that mean the same, found none")
    source, _ = unit_rows(source_vectors[pairs[:, 0]])
    target, _ = unit_rows(target_vectors[pairs[:, 1]])
    left, _, right = np.linalg.svd(source.T.astype(np.float64) @ target, full_matrices=False)
    return (left @ right).astype(np.float32)


@dataclass(frozen=True, eq=False)
class Candidates:
    """Words among which translations are looked for, and how crowded the space is about them.

    Attributes:
        vectors: `(n, d)` float32, unit rows.
        index: finds the nearest of them.
    """

    vectors: NDArray[np.float32]
    index: NeighbourIndex

    @classmethod
    def of(cls, vectors: NDArray[np.floating[Any]]) -> "Candidates":
        """Of vectors `(n, d)` of any length."""
        units, _ = unit_rows(vectors)
        return cls(units, NeighbourIndex(units))

    def density(self, queries: NDArray[np.float32]) -> NDArray[np.float32]:
        """Mean cosine `(q,)` of unit queries `(q, d)` with the ten nearest of these words."""
        return self.index.nearest(queries, _NEIGHBOURS)[0].mean(1)


def translate(queries: NDArray[np.float32], candidates: Candidates, crowding: NDArray[np.float32]) -> NDArray[np.int64]:
    """The best candidate for each query by CSLS, which no word can be to too many of them.

    Args:
        queries: `(q, d)` unit rows.
        candidates: where to look.
        crowding: `(n,)` mean cosine of each candidate with the queries' own language, see `Candidates.density`.

    Returns:
        `(q,)` rows of the candidates.
    """
    cosines, found = candidates.index.nearest(queries, 4 * _NEIGHBOURS)
    best = np.argmax(2 * cosines - crowding[found], axis=1)
    return found[np.arange(len(found)), best]


def mutual_translations(
    source: NDArray[np.float32], target: NDArray[np.float32], kept: float = 1.0, seed: int = 0
) -> tuple[NDArray[np.int64], float]:
    """Words of two languages that are each other's best translation by CSLS, and how near best translations are.

    Args:
        source: `(n, d)` unit rows, turned into the target's space.
        target: `(m, d)` unit rows of the other language.
        kept: share of the pairs that are looked at, drawn at random: few at first and more in each round keep a search
            from holding on to where it began (stochastic dictionary induction, Artetxe et al. 2018).
        seed: of what is drawn.

    Returns:
        `(p, 2)` rows of both, and the mean cosine of each source word, whether in a pair or not, with the best of all
        translations: higher where the spaces fit better, which takes no known pair to tell (Conneau et al. 2018).
    """
    cosines = source @ target.T
    scores = 2 * cosines - _mean_of_nearest(cosines)[:, None] - _mean_of_nearest(cosines.T)
    nearness = float(cosines[np.arange(len(cosines)), scores.argmax(1)].mean())
    if kept < 1:
        scores[np.random.default_rng(seed).random(scores.shape, np.float32) >= kept] = -np.inf
    there, back = scores.argmax(1), scores.argmax(0)
    mutual = np.flatnonzero((back[there] == np.arange(len(there))) & source.any(1))
    return np.stack([mutual, there[mutual]], 1), nearness


def _mean_of_nearest(cosines: NDArray[np.float32]) -> NDArray[np.float32]:
    """Of each row `(n, m)` the mean of its ten highest."""
    count = min(_NEIGHBOURS, cosines.shape[1])
    return np.partition(cosines, -count, axis=1)[:, -count:].mean(1)


def refine(
    matrix: NDArray[np.float32],
    source: Candidates,
    target: Candidates,
    pairs: NDArray[np.int64],
    epochs: int = _EPOCHS,
) -> NDArray[np.float32]:
    """Let a map bring known translations nearer than their neighbours: RCSLS (Joulin et al. 2018).

    The loss of a pair is -2 x·y plus the mean cosine of x with its ten nearest target words, and of y with its ten
    nearest source words, all after the map. Steps go down its gradient, half as far after one that did not lower it;
    the map need not stay a rotation.

    Args:
        matrix: `(d, e)` to begin with, that of `align`.
        source: words of the space that is turned.
        target: words of the other one.
        pairs: `(p, 2)` rows of both that mean the same.
        epochs: steps.

    Returns:
        `(d, e)`, the best map found; `matrix` itself if no step was better.
    """
    best, rate = matrix.astype(np.float64), _RATE
    lowest, gradient = _rcsls(best, source, target, pairs)
    for _ in range(epochs):
        length = float(np.linalg.norm(gradient))
        if length == 0:
            break
        tried = best - rate * float(np.linalg.norm(best)) / length * gradient
        loss, slope = _rcsls(tried, source, target, pairs)
        if loss < lowest:
            best, lowest, gradient = tried, loss, slope
        else:
            rate /= 2
    return best.astype(np.float32)


def _rcsls(
    matrix: NDArray[np.float64], source: Candidates, target: Candidates, pairs: NDArray[np.int64]
) -> tuple[float, NDArray[np.float64]]:
    """The loss of a map, and its gradient `(d, e)`; neighbours count as fixed."""
    mapped, _ = unit_rows(source.vectors @ matrix.astype(np.float32))
    left, right = source.vectors[pairs[:, 0]], target.vectors[pairs[:, 1]]
    moved = left @ matrix.astype(np.float32)
    there = target.index.nearest(moved, _NEIGHBOURS)[1]
    back = NeighbourIndex(mapped).nearest(right, _NEIGHBOURS)[1]
    near_target = target.vectors[there].mean(1)  # (p, e)
    near_source = source.vectors[back].mean(1)  # (p, d)
    losses = -2 * (moved * right).sum(1) + (moved * near_target).sum(1)
    losses += ((near_source @ matrix.astype(np.float32)) * right).sum(1)
    gradient = left.T @ (near_target - 2 * right) + near_source.T @ right
    return float(losses.mean()), gradient.astype(np.float64) / len(pairs)
