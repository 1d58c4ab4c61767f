"""Initialisations that others published, written from their papers, under the rules that all methods here share.

What they have in common differs from the papers in one thing: tokens are compared by our word vectors, pooled, where
the papers train or download vectors of their own. What a method knows nothing of falls down our ladder
(`fallbacks`), where their code draws noise. Measured against their own packages in `tests/methods/test_peers.py`.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import scipy.sparse as sp

from hyperofa.errors import InputError
from hyperofa.methods.baselines import InitInputs, OFAConfig, Predictions, nothing, ofa
from hyperofa.runtime.sharding import IN_MEMORY, ShardCache

SHARD = 8_192
"""Tokens of a shard: what a kill costs."""
PURSUED = 64
"""k of orthogonal matching pursuit, tokensurgeon's default."""
_CELLS = 2**24  # similarities held at a time
_EXACT = 1e-6  # of a unit vector, what is left to pursue of one that is met
WECHSEL = OFAConfig(neighbours=10, temperature=0.1, rescale=False)


class Anchors(NamedTuple):
    """Tokens whose rows are known, as a method meets them among the wanted ones.

    Attributes:
        vectors: `(A, d)` float32 of unit length.
        sources: `(A,)` int64, the source token of each.
        own: `(N,)` int64, the anchor that a wanted token is itself, -1 for none.
    """

    vectors: np.ndarray
    sources: np.ndarray
    own: np.ndarray


def find_anchors(inputs: InitInputs) -> Anchors:
    """The wanted tokens that the source vocabulary has and that have words; without a vocabulary, the source tokens.

    Held-out source tokens are in no other vocabulary: the source tokens that have words are their anchors.
    """
    own = np.full(len(inputs.covered), -1, np.int64)
    if inputs.anchors is None:
        sources = np.flatnonzero(inputs.usable & inputs.keys.any(1))
        return Anchors(_unit(inputs.keys[sources]), sources, own)
    found = inputs.anchors.tocoo()
    usable = inputs.covered[found.row] & inputs.queries[found.row].any(1)
    wanted, sources = found.row[usable], found.col[usable].astype(np.int64)
    own[wanted] = np.arange(len(wanted))
    return Anchors(_unit(inputs.queries[wanted]), sources, own)


def wechsel(inputs: InitInputs, cache: ShardCache = IN_MEMORY) -> Predictions:
    """WECHSEL: a softmax over the 10 source tokens nearest in the word-vector space, T = 0.1.

    Pooled by word frequency (`Bundle.pooled("frequency")`), which their code does where vectors know no character
    n-grams. Not as theirs: the vectors are in one space already, so nothing is turned by a dictionary; frequencies are
    1 / (1 + rank), as a vector file holds no counts; source tokens without words, zero rows to them, are not found.

    Args:
        inputs: what is wanted.
        cache: where shards of the search are kept, and who shares it.

    Returns:
        Rows known where the token has words. Source: arXiv 2112.06598 §3 and the package wechsel 0.0.4.
    """
    return ofa(inputs, WECHSEL, cache)


def focus(inputs: InitInputs, cache: ShardCache = IN_MEMORY) -> Predictions:
    """FOCUS: a sparsemax over the cosines to the tokens that both vocabularies have.

    Not as theirs: a token's vector is pooled from its words, not trained by fastText on tokenised text.

    Args:
        inputs: what is wanted.
        cache: where shards of the work are kept, and who shares it.

    Returns:
        Rows known where the token has words. Source: arXiv 2305.14481 §3 and the package deepfocus 1.0.1.
    """
    anchors = find_anchors(inputs)

    def weigh(queries: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        weights = sparsemax(queries @ anchors.vectors.T)
        rows, chosen = np.nonzero(weights)
        return np.bincount(rows, minlength=len(queries)), chosen, weights[rows, chosen]

    return _mixed(inputs, anchors, weigh, cache, "focus")


def clp(inputs: InitInputs) -> Predictions:
    """CLP-Transfer: the mean of all tokens that both vocabularies have, weighted by their cosines.

    The weights are cosines over their sum, negative ones too, so a row is known where that sum is at least 1, one
    token's worth; below, it is divided by next to nothing. Every token shares in every row: there is no mixture to
    record. Not as theirs: pooled word vectors stand for the embeddings of a model of the target language.

    Returns:
        Rows. Source: arXiv 2301.09626 §3.1; the same numbers as langsfer 0.1.0.
    """
    anchors = find_anchors(inputs)
    if not len(anchors.sources):
        return nothing(inputs)
    # Σ cos(q, a) · row(a) is q · Σ a row(a)ᵀ: no similarity is ever computed.
    rows = inputs.coordinates[anchors.sources].astype(np.float64)
    queries = _unit(inputs.queries)
    totals = queries @ anchors.vectors.sum(0, dtype=np.float64)
    known = inputs.covered & (totals >= 1)
    sums = queries @ (anchors.vectors.T @ rows)
    coordinates = np.divide(sums, totals[:, None], out=np.zeros_like(sums), where=known[:, None])
    return Predictions(coordinates.astype(np.float32), known)


def omp(inputs: InitInputs, pursued: int = PURSUED, cache: ShardCache = IN_MEMORY) -> Predictions:
    """Orthogonal matching pursuit: a token's vector from those of shared tokens; their rows with the same coefficients.

    Not as theirs: the vectors are pooled word vectors of unit length, not the embeddings of a donor model; a pursuit
    ends when nothing is left of the vector.

    Args:
        inputs: what is wanted.
        pursued: k, at most this many tokens are mixed.
        cache: where shards of the work are kept, and who shares it.

    Returns:
        Rows known where the token has words; weights may be negative and need not sum to 1. Source: arXiv 2506.06607
        §3, mergekit 0.1.5 (tokensurgeon).
    """
    anchors = find_anchors(inputs)

    def weigh(queries: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        chosen, weights = pursue(queries, anchors.vectors, min(pursued, len(anchors.vectors)))
        used = weights != 0
        return used.sum(1), chosen[used], weights[used]

    return _mixed(inputs, anchors, weigh, cache, "omp")


def transtokenizer(inputs: InitInputs) -> Predictions:
    """Trans-tokenisation: the mean of the source tokens that a token is aligned with in parallel text.

    See `alignment.align` for how, and for what is not as theirs.

    Returns:
        Rows known where the token is aligned. Source: arXiv 2408.04303 §3.

    Raises:
        InputError: there is no parallel text.
    """
    if inputs.aligned is None:
        raise InputError("--parallel: expected parallel text for --method transtokenizer, found none")
    counts = inputs.aligned.sum(1).A1
    mixture = sp.csr_matrix(sp.diags(1 / np.maximum(counts, np.finfo(np.float64).tiny)) @ inputs.aligned)
    return Predictions((mixture @ inputs.coordinates).astype(np.float32), counts > 0, mixture)


def sparsemax(scores: np.ndarray, likely: int = 256) -> np.ndarray:
    """The nearest point of the simplex: Σ max(score - τ, 0) = 1 (Martins and Astudillo 2016).

    Args:
        scores: `(n, m)` float, m ≥ 1.
        likely: entries that are rarely exceeded by those that are not 0; another number costs time alone.

    Returns:
        `(n, m)` float64, rows summing to 1, most entries 0.
    """
    if likely < scores.shape[1]:
        best = np.argpartition(scores, -likely, axis=1)[:, -likely:]
        among = sparsemax(np.take_along_axis(scores, best, 1), likely)
        weights = np.zeros(scores.shape)
        np.put_along_axis(weights, best, among, 1)
        full = np.flatnonzero((among > 0).all(1))  # there may be more
        weights[full] = sparsemax(scores[full], scores.shape[1])
        return weights
    shifted = scores - scores.max(1, keepdims=True).astype(np.float64)
    support = shifted > -1
    while True:  # Michelot 1986: τ only rises, so what falls below it never returns
        threshold = (np.where(support, shifted, 0).sum(1) - 1) / support.sum(1)
        kept = support & (shifted > threshold[:, None])
        if kept.sum() == support.sum():
            return np.where(kept, shifted - threshold[:, None], 0)
        support = kept


def pursue(targets: np.ndarray, atoms: np.ndarray, pursued: int) -> tuple[np.ndarray, np.ndarray]:
    """Orthogonal matching pursuit (Pati et al. 1993), many targets at a time.

    Each step takes the atom of largest |inner product| with what is left, and fits all atoms taken so far anew.

    Args:
        targets: `(n, d)` float32.
        atoms: `(A, d)` float32.
        pursued: k ≤ A, steps.

    Returns:
        Ids `(n, k)` int64 and coefficients `(n, k)` float64 of the atoms taken; 0 where a target was met before.
    """
    count, width = targets.shape
    left = targets.astype(np.float64)
    basis = np.zeros((count, pursued, width))
    triangle = np.tile(np.eye(pursued), (count, 1, 1))  # atoms = triangleᵀ · basis
    along = np.zeros((count, pursued))  # targets in the basis
    chosen = np.zeros((count, pursued), np.int64)
    smallest = _EXACT * np.linalg.norm(left, axis=1)
    taken = np.zeros((count, len(atoms)), bool)
    for step in range(pursued):
        is_open = np.linalg.norm(left, axis=1) > smallest
        if not is_open.any():
            break
        products = np.abs(left.astype(np.float32) @ atoms.T)
        products[taken] = -1
        chosen[:, step] = products.argmax(1)
        taken[np.arange(count), chosen[:, step]] = True
        new = np.where(is_open[:, None], atoms[chosen[:, step]], 0).astype(np.float64)
        before = basis[:, :step]
        for _ in range(2):  # twice is enough (Kahan): the second rids the direction of what rounding left
            inner = np.matmul(before, new[:, :, None])[:, :, 0]
            new -= np.matmul(inner[:, None], before)[:, 0]
            triangle[:, :step, step] += inner
        length = np.linalg.norm(new, axis=1)
        sound = length > _EXACT  # an atom that is a mixture of those taken adds nothing
        basis[sound, step] = new[sound] / length[sound, None]
        triangle[sound, step, step] = length[sound]
        along[:, step] = (basis[:, step] * left).sum(1)
        left -= along[:, step, None] * basis[:, step]
    return chosen, np.linalg.solve(triangle, along[:, :, None])[:, :, 0]


_Weigh = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray, np.ndarray]]


def _mixed(inputs: InitInputs, anchors: Anchors, weigh: _Weigh, cache: ShardCache, name: str) -> Predictions:
    """Mix the anchors' rows; a token that is one itself is that row.

    Args:
        inputs: what is wanted.
        anchors: among it.
        weigh: of queries `(n, d)` of unit length, how many anchors each mixes `(n,)`, which, and their weights.
        cache: where shards are kept.
        name: of the computation.
    """
    if not len(anchors.sources):
        return nothing(inputs)
    known = inputs.covered & inputs.queries.any(1)
    queried = np.flatnonzero(known & (anchors.own < 0))
    known_ids = np.flatnonzero(anchors.own >= 0)
    indptr, chosen, weights = np.zeros(1, np.int64), np.zeros(0, np.int64), np.zeros(0)
    if len(queried):
        block = max(1, _CELLS // (len(anchors.sources) + PURSUED * inputs.queries.shape[1]))
        shards = cache.shards(name, len(queried), SHARD, "weighing shared tokens")
        for span in shards:
            ids = queried[span]
            parts = [weigh(_unit(inputs.queries[ids[at : at + block]])) for at in range(0, len(ids), block)]
            shards.keep(span, *(np.concatenate(arrays) for arrays in zip(*parts, strict=True)))
        counts, chosen, weights = shards.joined()
        indptr = np.append(0, np.cumsum(counts))
    rows = np.append(np.repeat(queried, np.diff(indptr)), known_ids)
    columns = np.append(chosen, anchors.own[known_ids]).astype(np.int64)
    values = np.append(weights, np.ones(len(known_ids)))
    shape = (len(inputs.covered), len(inputs.coordinates))
    mixture = sp.csr_matrix((values, (rows, anchors.sources[columns])), shape=shape)
    return Predictions((mixture @ inputs.coordinates).astype(np.float32), known, mixture)


def _unit(vectors: np.ndarray) -> np.ndarray:
    """`(n, d)` float32 of unit length; zero rows stay."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return (vectors / np.maximum(lengths, np.finfo(np.float32).tiny)).astype(np.float32)
