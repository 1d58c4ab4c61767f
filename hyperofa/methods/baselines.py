"""Initialisations to compare with: OFA, mean, random, sub-token mean. One signature for all: a task in, rows out.

A method only ever sees a `Task`: the source tokens it may learn from and the tokens whose rows are wanted. So the same
functions initialise a target vocabulary and are scored on held-out source tokens.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Literal

import numpy as np
import scipy.sparse as sp
from scipy.special import softmax
from tokenizers import Tokenizer as BackendTokenizer

from hyperofa.errors import InputError
from hyperofa.reference import mix_nearest
from hyperofa.runtime.sharding import IN_MEMORY, Work
from hyperofa.tokens.canonical import Token
from hyperofa.vectors.neighbours import Keys, nearest

SHARD = 32_768
"""Tokens of a shard of the search: what a kill costs."""
_SPELLED = 20_000  # tokens spelled at a time


@dataclass(frozen=True)
class Task:
    """Tokens whose coordinates are wanted (N of them), and the source tokens (S) to make them from.

    Attributes:
        coordinates: `(S, K)` rows of the source tokens.
        keys: `(S, d)` pooled word vectors of the source tokens.
        usable: `(S,)` bool, source tokens that have words and may be used.
        queries: `(N, d)` pooled word vectors of the wanted tokens.
        covered: `(N,)` bool, wanted tokens that have words.
        spelled: `(N, S)` sparse, the source tokens that spell each wanted token, rows summing to 1 or empty.
    """

    coordinates: np.ndarray
    keys: np.ndarray
    usable: np.ndarray
    queries: np.ndarray
    covered: np.ndarray
    spelled: sp.csr_matrix


@dataclass(frozen=True)
class Rows:
    """What a method says of a task's wanted tokens.

    Attributes:
        coordinates: `(N, K)` float32; meaningless where `known` is false.
        known: `(N,)` bool, tokens that the method has an answer for.
        mixture: `(N, S)` sparse weights of source tokens, if the rows are mixtures of theirs.
    """

    coordinates: np.ndarray
    known: np.ndarray
    mixture: sp.csr_matrix | None = None


@dataclass(frozen=True)
class Mixing:
    """How OFA's mixture is made; the defaults are those that did best on real languages (`benchmarks/README.md`).

    Attributes:
        neighbours: k, source tokens mixed.
        temperature: > 0, divides the similarities.
        rescale: give every row the mean length of the source rows; a mean of many rows is shorter than they are.
        csls: correct the similarities for hubs, source tokens that are near to everything (Conneau et al. 2018, eq. 3).
        directions: of the pooled word vectors: `keep` them, `remove` the mean and the three strongest (Mu and
            Viswanath 2018), or `whiten` them all.
    """

    neighbours: int = 3
    temperature: float = 0.1
    rescale: bool = True
    csls: bool = False
    directions: Literal["keep", "remove", "whiten"] = "keep"


PUBLISHED_MIXING = Mixing(neighbours=10, rescale=False)


def ofa(task: Task, mixing: Mixing = PUBLISHED_MIXING, work: Work = IN_MEMORY) -> Rows:
    """OFA: each token is a softmax-weighted mean of the source tokens nearest in the word-vector space.

    Args:
        task: what is wanted.
        mixing: how many, how sharply, and how similarity is measured.
        work: where shards of the search are kept, and who shares it.

    Returns:
        Rows known where the token has words. Source: arXiv 2311.08849 §3.2 and its code (k = 10, T = 0.1).

    Raises:
        InputError: no neighbours, or a temperature that is not positive.
    """
    if mixing.neighbours < 1 or mixing.temperature <= 0:
        raise InputError(
            "--mixing: expected at least 1 neighbour and a temperature above 0, found "
            f"{mixing.neighbours} and {mixing.temperature}"
        )
    queried = np.flatnonzero(task.covered)
    keys, queries = _turned(task.keys, task.queries[queried], task.usable, mixing.directions)
    if mixing.csls:
        keys, queries = _with_hubness(keys, queries, task.usable)
    metric: Literal["dot", "cosine"] = "dot" if mixing.csls else "cosine"
    if not len(queried):
        return nothing(task)
    searched = Keys(keys, valid=task.usable, metric=metric)

    def search(span: slice) -> tuple[np.ndarray, ...]:
        return searched.nearest(queries[span], mixing.neighbours)

    scores, ids = work.arrays("ofa", search, len(queried), SHARD, "searching source tokens")
    weights = softmax(scores.astype(np.float64) / mixing.temperature, axis=1)
    indptr = np.zeros(len(task.covered) + 1, np.int64)
    indptr[1:] = np.cumsum(np.where(task.covered, ids.shape[1], 0))
    mixture = sp.csr_matrix((weights.ravel(), ids.ravel(), indptr), shape=(len(task.covered), len(task.keys)))
    rows = (mixture @ task.coordinates).astype(np.float32)
    if mixing.rescale:
        rows = with_norm(rows, mean_norm(task.coordinates[task.usable]))
    return Rows(rows, task.covered, mixture)


def _turned(
    keys: np.ndarray, queries: np.ndarray, usable: np.ndarray, directions: str
) -> tuple[np.ndarray, np.ndarray]:
    """Keys `(S, d)` and queries `(Q, d)` with common directions removed or all of them evened out."""
    if directions == "keep":
        return keys, queries
    everything = np.concatenate([keys[usable], queries])
    everything = everything / np.maximum(np.linalg.norm(everything, axis=1, keepdims=True), np.finfo(np.float32).tiny)
    centre = everything.mean(0)
    values, vectors = np.linalg.eigh(np.cov(everything, rowvar=False))
    if directions == "remove":
        turn = np.eye(len(centre)) - vectors[:, -3:] @ vectors[:, -3:].T
    else:
        turn = vectors / np.sqrt(np.maximum(values, 1e-3 * values[-1]))
    lengths = [np.maximum(np.linalg.norm(x, axis=1, keepdims=True), np.finfo(np.float32).tiny) for x in (keys, queries)]
    turned = [((x / n - centre) @ turn).astype(np.float32) for x, n in zip((keys, queries), lengths, strict=True)]
    return turned[0], turned[1]


def _with_hubness(keys: np.ndarray, queries: np.ndarray, usable: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Keys and queries whose inner product is 2 cos - r(key), r the mean cosine with the ten nearest queries."""
    tiny = np.finfo(np.float32).tiny
    unit = [x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), tiny) for x in (keys, queries)]
    hubness = np.zeros((len(keys), 1), np.float32)
    hubness[usable, 0] = nearest(unit[0][usable], unit[1], 10)[0].mean(1)
    return np.hstack([unit[0], hubness]), np.hstack([2 * unit[1], -np.ones((len(queries), 1), np.float32)])


def blend(rows: Rows, others: Rows, share: float) -> Rows:
    """Rows moved towards others: (1 - share) · rows + share · others where both know the token."""
    both = (rows.known & others.known)[:, None]
    mixed = np.where(both, (1 - share) * rows.coordinates + share * others.coordinates, rows.coordinates)
    return Rows(mixed.astype(np.float32), rows.known)


def ofa_with_zero_rows(task: Task) -> Rows:
    """OFA as its code computes it: source tokens without words are zero rows that can be found (`reference.QUIRKS`)."""
    mixture = mix_nearest(task.queries, task.keys)
    return Rows((mixture @ task.coordinates).astype(np.float32), np.diff(mixture.indptr) > 0, mixture)


def nothing(task: Task) -> Rows:
    """No row at all: what is not copied is left to the fall-back."""
    return Rows(np.zeros((len(task.covered), task.coordinates.shape[1]), np.float32), np.zeros(len(task.covered), bool))


def subtokens(task: Task) -> Rows:
    """The mean of the source tokens that spell each token; known where that needs no unknown token."""
    return Rows((task.spelled @ task.coordinates).astype(np.float32), np.diff(task.spelled.indptr) > 0, task.spelled)


def mean(task: Task, rng: np.random.Generator, noise: float = 0.0) -> Rows:
    """The mean of all source rows, with optional noise of the rows' own covariance.

    Args:
        task: what is wanted.
        rng: draws the noise.
        noise: scale of the covariance; Hewitt uses 1e-5. 0 gives every token the same row.

    Returns:
        Rows known everywhere. Source: Hewitt 2021, "Initializing new word embeddings for pretrained language models".
    """
    centre = task.coordinates.mean(0, dtype=np.float64)
    rows = np.broadcast_to(centre, (len(task.covered), len(centre)))
    if noise > 0:
        covariance = np.cov(task.coordinates, rowvar=False)
        rows = rng.multivariate_normal(centre, noise * np.atleast_2d(covariance), len(task.covered), method="eigh")
    return Rows(rows.astype(np.float32), np.ones(len(task.covered), bool))


def random(task: Task, rng: np.random.Generator) -> Rows:
    """Normal noise with the mean and standard deviation of each coordinate over the source rows; known everywhere."""
    centre, spread = task.coordinates.mean(0, dtype=np.float64), task.coordinates.std(0, dtype=np.float64)
    rows = rng.normal(centre, spread, (len(task.covered), len(centre)))
    return Rows(rows.astype(np.float32), np.ones(len(task.covered), bool))


def small_noise(task: Task, rng: np.random.Generator, spread: float = 0.02) -> Rows:
    """Normal noise around zero, as transformers initialises embeddings; known everywhere.

    Args:
        task: what is wanted.
        rng: draws the noise.
        spread: standard deviation, the model's `initializer_range` (0.02 for most). 0 gives zero rows.
    """
    rows = rng.normal(0, spread, (len(task.covered), task.coordinates.shape[1]))
    return Rows(rows.astype(np.float32), np.ones(len(task.covered), bool))


def mean_norm(rows: np.ndarray) -> float:
    """Mean Euclidean length of rows `(N, K)`."""
    return float(np.linalg.norm(rows, axis=1).mean())


def with_norm(rows: np.ndarray, norm: float) -> np.ndarray:
    """Rows `(N, K)` scaled to one length; zero rows stay."""
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.divide(rows * norm, lengths, out=np.zeros_like(rows), where=lengths > 0)


def spell(
    tokens: Sequence[Token | None], tokenizer: BackendTokenizer, unknown: int | None, num_source: int
) -> sp.csr_matrix:
    """Spell tokens with the source tokenizer.

    Args:
        tokens: N canonical tokens.
        tokenizer: the source tokenizer's backend (`tokens.bare_backend`).
        unknown: its unknown token; what needs it is not spelled.
        num_source: S.

    Returns:
        `(N, S)` sparse, each row the mean over the pieces; empty for special tokens, half characters and unknowns.
    """
    texts = [_as_text(token) for token in tokens]
    spelled = [n for n, text in enumerate(texts) if text is not None]
    rows, columns, values = [], [], []
    for start in range(0, len(spelled), _SPELLED):
        some = spelled[start : start + _SPELLED]
        encodings = tokenizer.encode_batch_fast([texts[n] or "" for n in some], add_special_tokens=False)
        pieces = [encoding.ids for encoding in encodings]
        known = [n for n, ids in enumerate(pieces) if ids and unknown not in ids]
        counts = np.array([len(pieces[n]) for n in known], np.int64)
        rows.append(np.repeat(np.array(some, np.int64)[known], counts))
        columns.append(np.fromiter(chain.from_iterable(pieces[n] for n in known), np.int64, counts.sum()))
        values.append(np.repeat(1 / counts, counts))
    places = [np.concatenate([np.empty(0, np.int64), *parts]) for parts in (rows, columns)]
    matrix = sp.csr_matrix((np.concatenate([np.empty(0), *values]), tuple(places)), shape=(len(tokens), num_source))
    matrix.sum_duplicates()
    return matrix


def _as_text(token: Token | None) -> str | None:
    if token is None or token.special or not token.text.strip():
        return None
    try:
        return (" " if token.starts_word else "") + token.text.decode()
    except UnicodeDecodeError:
        return None
