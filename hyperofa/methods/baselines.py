"""Initialisations to compare with: OFA, mean, random, sub-token mean. One signature: inputs in, predictions out.

A method only ever sees `InitInputs`: the source tokens it may learn from and the tokens whose rows are wanted. So the
same functions initialise a target vocabulary and are scored on held-out source tokens.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Literal

import numpy as np
import scipy.sparse as sp
from scipy.special import softmax
from tokenizers import Tokenizer as BackendTokenizer

from hyperofa.reference import mix_nearest
from hyperofa.runtime.ranges import Count, Positive, check_ranges
from hyperofa.runtime.sharding import IN_MEMORY, ShardCache
from hyperofa.tokens.canonical import Overlap, Token, text_of
from hyperofa.vectors.neighbours import NeighbourIndex, nearest

SHARD = 32_768
"""Tokens of a shard of the search: what a kill costs."""
HEWITT_NOISE = 1e-5
"""Scale of the covariance in Hewitt's experiment."""
_SPELLED = 20_000  # tokens spelled at a time


@dataclass(frozen=True)
class InitInputs:
    """Tokens whose coordinates are wanted (N of them), and the source tokens (S) to make them from.

    Attributes:
        coordinates: `(S, K)` rows of the source tokens.
        keys: `(S, d)` pooled word vectors of the source tokens.
        usable: `(S,)` bool, source tokens that have words and may be used.
        queries: `(N, d)` pooled word vectors of the wanted tokens.
        covered: `(N,)` bool, wanted tokens that have words.
        spelled: `(N, S)` sparse, the source tokens that spell each wanted token, rows summing to 1 or empty.
        anchors: `(N, S)` sparse, a 1 where a wanted token is a source token; `None` where no vocabulary is wanted but
            held-out source tokens, so that the source tokens themselves serve as anchors.
        aligned: `(N, S)` sparse, how often a wanted token is aligned with a source token in parallel text; `None`
            without such text.
        tokens: N canonical tokens by id; empty where no vocabulary is wanted.
        overlap: those of them that the source has too; `None` where no vocabulary is wanted.
        expands: whether the wanted vocabulary is the source's with new tokens, so that old rows must stay as they are.
    """

    coordinates: np.ndarray
    keys: np.ndarray
    usable: np.ndarray
    queries: np.ndarray
    covered: np.ndarray
    spelled: sp.csr_matrix
    anchors: sp.csr_matrix | None = None
    aligned: sp.csr_matrix | None = None
    tokens: Sequence[Token | None] = ()
    overlap: Overlap | None = None
    expands: bool = False


@dataclass(frozen=True)
class Predictions:
    """What a method says of the wanted tokens.

    Attributes:
        coordinates: `(N, K)` float32; meaningless where `known` is false.
        known: `(N,)` bool, tokens that the method has an answer for.
        mixture: `(N, S)` sparse weights of source tokens, if the rows are mixtures of theirs.
    """

    coordinates: np.ndarray
    known: np.ndarray
    mixture: sp.csr_matrix | None = None


@dataclass(frozen=True)
class OFAConfig:
    """How OFA's mixture is made; the defaults are those that did best on real languages (`benchmarks/README.md`).

    Attributes:
        neighbours: k, source tokens mixed.
        temperature: divides the similarities.
        rescale: give every row the mean length of the source rows; a mean of many rows is shorter than they are.
        csls: correct the similarities for hubs, source tokens that are near to everything (Conneau et al. 2018, eq. 3).
        directions: of the pooled word vectors: `keep` them, `remove` the mean and the three strongest (Mu and
            Viswanath 2018), or `whiten` them all.
    """

    neighbours: Count = 3
    temperature: Positive = 0.1
    rescale: bool = True
    csls: bool = False
    directions: Literal["keep", "remove", "whiten"] = "keep"

    def __post_init__(self) -> None:
        check_ranges(self, "mixing.")


TUNED_OFA = OFAConfig()
PUBLISHED_OFA = OFAConfig(neighbours=10, rescale=False)


def ofa(inputs: InitInputs, mixing: OFAConfig = PUBLISHED_OFA, cache: ShardCache = IN_MEMORY) -> Predictions:
    """OFA: each token is a softmax-weighted mean of the source tokens nearest in the word-vector space.

    Args:
        inputs: what is wanted.
        mixing: how many, how sharply, and how similarity is measured.
        cache: where shards of the search are kept, and who shares it.

    Returns:
        Rows known where the token has words. Source: arXiv 2311.08849 §3.2 and its code (k = 10, T = 0.1).
    """
    queried = np.flatnonzero(inputs.covered)
    keys, queries = _turned(inputs.keys, inputs.queries[queried], inputs.usable, mixing.directions)
    if mixing.csls:
        keys, queries = _with_hubness(keys, queries, inputs.usable)
    metric: Literal["dot", "cosine"] = "dot" if mixing.csls else "cosine"
    if not len(queried):
        return nothing(inputs)
    searched = NeighbourIndex(keys, valid=inputs.usable, metric=metric)
    shards = cache.shards("ofa", len(queried), SHARD, "searching source tokens")
    for span in shards:
        shards.keep(span, *searched.nearest(queries[span], mixing.neighbours))
    scores, ids = shards.joined()
    weights = softmax(scores.astype(np.float64) / mixing.temperature, axis=1)
    indptr = np.zeros(len(inputs.covered) + 1, np.int64)
    indptr[1:] = np.cumsum(np.where(inputs.covered, ids.shape[1], 0))
    mixture = sp.csr_matrix((weights.ravel(), ids.ravel(), indptr), shape=(len(inputs.covered), len(inputs.keys)))
    rows = (mixture @ inputs.coordinates).astype(np.float32)
    if mixing.rescale:
        rows = with_norm(rows, mean_norm(inputs.coordinates[inputs.usable]))
    return Predictions(rows, inputs.covered, mixture)


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


def blend(rows: Predictions, others: Predictions, share: float) -> Predictions:
    """Rows moved towards others: (1 - share) · rows + share · others where both know the token.

    Args:
        rows: to move.
        others: where to.
        share: how far, in [0, 1].
    """
    both = (rows.known & others.known)[:, None]
    mixed = np.where(both, (1 - share) * rows.coordinates + share * others.coordinates, rows.coordinates)
    return Predictions(mixed.astype(np.float32), rows.known)


def ofa_with_zero_rows(inputs: InitInputs) -> Predictions:
    """OFA as its code computes it: source tokens without words are zero rows that can be found (`reference.QUIRKS`)."""
    mixture = mix_nearest(inputs.queries, inputs.keys)
    return Predictions((mixture @ inputs.coordinates).astype(np.float32), np.diff(mixture.indptr) > 0, mixture)


def nothing(inputs: InitInputs) -> Predictions:
    """No row at all: what is not copied is left to the fall-back."""
    count, width = len(inputs.covered), inputs.coordinates.shape[1]
    return Predictions(np.zeros((count, width), np.float32), np.zeros(count, bool))


def subtokens(inputs: InitInputs) -> Predictions:
    """The mean of the source tokens that spell each token; known where that needs no unknown token.

    Fast vocabulary transfer (FVT, arXiv 2402.09977 §3.1), also outside of fine-tuned models.
    """
    rows = (inputs.spelled @ inputs.coordinates).astype(np.float32)
    return Predictions(rows, np.diff(inputs.spelled.indptr) > 0, inputs.spelled)


def mean(inputs: InitInputs) -> Predictions:
    """The mean of all source rows, the same for every token; known everywhere."""
    centre = inputs.coordinates.mean(0, dtype=np.float64)
    rows = np.broadcast_to(centre, (len(inputs.covered), len(centre)))
    return Predictions(rows.astype(np.float32), np.ones(len(inputs.covered), bool))


def mean_noise(inputs: InitInputs, rng: np.random.Generator, scale: float = HEWITT_NOISE) -> Predictions:
    """The mean of all source rows, with noise of the rows' own covariance.

    Args:
        inputs: what is wanted.
        rng: draws the noise.
        scale: > 0, of the covariance.

    Returns:
        Rows known everywhere. Source: Hewitt 2021, "Initializing new word embeddings for pretrained language models".
    """
    centre = inputs.coordinates.mean(0, dtype=np.float64)
    covariance = np.atleast_2d(np.cov(inputs.coordinates, rowvar=False))
    rows = rng.multivariate_normal(centre, scale * covariance, len(inputs.covered), method="eigh")
    return Predictions(rows.astype(np.float32), np.ones(len(inputs.covered), bool))


def random(inputs: InitInputs, rng: np.random.Generator) -> Predictions:
    """Normal noise with the mean and standard deviation of each coordinate over the source rows; known everywhere.

    Args:
        inputs: what is wanted.
        rng: draws the noise.
    """
    centre, spread = inputs.coordinates.mean(0, dtype=np.float64), inputs.coordinates.std(0, dtype=np.float64)
    rows = rng.normal(centre, spread, (len(inputs.covered), len(centre)))
    return Predictions(rows.astype(np.float32), np.ones(len(inputs.covered), bool))


def small_noise(inputs: InitInputs, rng: np.random.Generator, spread: float = 0.02) -> Predictions:
    """Normal noise around zero, as transformers initialises embeddings; known everywhere.

    Args:
        inputs: what is wanted.
        rng: draws the noise.
        spread: standard deviation, the model's `initializer_range` (0.02 for most).
    """
    rows = rng.normal(0, spread, (len(inputs.covered), inputs.coordinates.shape[1]))
    return Predictions(rows.astype(np.float32), np.ones(len(inputs.covered), bool))


def zeros(inputs: InitInputs) -> Predictions:
    """Zero rows; known everywhere."""
    count, width = len(inputs.covered), inputs.coordinates.shape[1]
    return Predictions(np.zeros((count, width), np.float32), np.ones(count, bool))


def mean_norm(rows: np.ndarray) -> float:
    """Mean Euclidean length of rows `(N, K)`."""
    return float(np.linalg.norm(rows, axis=1).mean())


def with_norm(rows: np.ndarray, norm: float) -> np.ndarray:
    """Rows `(N, K)` scaled to one length; zero rows stay.

    Args:
        rows: `(N, K)`.
        norm: the length.
    """
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
    text = text_of(token)
    if token is None or text is None or not token.text.strip():
        return None
    return (" " if token.starts_word else "") + text
