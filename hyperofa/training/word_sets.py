"""What a net sees of a bundle: padded batches of word sets, and the memory of source tokens."""

from collections.abc import Mapping
from typing import Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import embedding

from hyperofa import reference
from hyperofa.bundle.bundle import Bundle, Side
from hyperofa.errors import InputError
from hyperofa.nets.inputs import FEATURES, Memory, WordSets
from hyperofa.nets.net import Net
from hyperofa.tokens.matching import pooling_weights
from hyperofa.vectors.centring import centred
from hyperofa.vectors.neighbours import NeighbourIndex

WordOrder = Literal["heaviest", "set"]
Augmentation = Literal["dropout", "sample"]


class WordIndices(NamedTuple):
    """Word sets whose vectors lie in a table (`wordtable.load_table`), to be fetched where the net runs.

    Attributes:
        indices: `(B, W)` int32 rows of the table, 0 where padded.
        features: as in `WordSets`.
        mask: as in `WordSets`.
    """

    indices: Tensor
    features: Tensor
    mask: Tensor

    def fetch(self, vectors: Tensor) -> WordSets:
        """The word sets, vectors in single precision, from the table's `(R + 1, d)` vectors on the same device."""
        return WordSets(embedding(self.indices, vectors).float(), self.features, self.mask)


class WordSetTable:
    """The words of every token of one side.

    Args:
        bundle: the inputs.
        side: whose tokens.
        max_words: W, words a token is described by, at most.
        words: `heaviest`: the heaviest words, heaviest first, as centred vectors of unit length; `set`: the first words
            of a set, raw, as published (`reference.QUIRKS`).
        augmentation: what `sets` does with a generator: `dropout` shuffles the words and leaves some out; `sample`
            keeps 50-100 % of the words of half of the tokens, as published.

    Attributes:
        counts: `(tokens,)` int64, words of each token that can be seen.
        word_dim: d.
    """

    def __init__(
        self,
        bundle: Bundle,
        side: Side,
        max_words: int,
        words: WordOrder = "heaviest",
        augmentation: Augmentation = "dropout",
    ) -> None:
        self._matches, store = bundle.matches(side), bundle.words
        self._limit, self._raw, self._sample = max_words, words == "set", augmentation == "sample"
        if words == "set":
            self._entries, self.counts = _in_set_order(self._matches.indptr, self._matches.words), self._matches.counts
        else:
            weights = self._matches.weights(store.ranks)
            # By token, then heaviest first: positive floats are ordered as their bits are.
            order = np.argsort((self._matches.tokens << 32) - weights.view(np.int32), kind="stable")
            position = np.arange(len(order)) - self._matches.indptr[self._matches.tokens]
            self._entries = order[position < max_words]
            self.counts = np.minimum(self._matches.counts, max_words)
        self._indptr = np.concatenate([[0], np.cumsum(self.counts)])
        source = set(bundle.meta.source_languages or store.languages)
        self._source_languages = [i for i, name in enumerate(store.languages) if name in source]
        self._store, self._means, self.word_dim = store, bundle.language_means, store.dim
        self._places: np.ndarray | None = None

    def needed(self) -> np.ndarray:
        """`(V,)` bool, the words that some token shows."""
        needed, seen = np.zeros(len(self._store.vectors), bool), self._entries
        if not self._sample:
            seen = seen[np.arange(len(seen)) - np.repeat(self._indptr[:-1], self.counts) < self._limit]
        needed[self._matches.words[seen]] = True
        return needed

    def read(self, words: np.ndarray) -> np.ndarray:
        """Vectors `(n, d)` float32 of words, given by their rows `(n,)` in the store, as a net sees them."""
        vectors = self._store.vectors[words]
        return vectors if self._raw else centred(vectors, self._store.language_ids[words], self._means)

    def use_table(self, indices: np.ndarray) -> None:
        """From now on give indices instead of vectors.

        Args:
            indices: `(V,)` int32, the row of each needed word in a table of vectors.
        """
        self._places = indices

    def sets(
        self, ids: np.ndarray, rng: np.random.Generator | None = None, word_dropout: float = 0.0
    ) -> WordSets | WordIndices:
        """A padded batch of word sets.

        Args:
            ids: `(B,)` token ids, each with at least one word.
            rng: augments; `None` keeps the words and their order.
            word_dropout: chance of leaving out a word, where that is the augmentation; one always stays.

        Returns:
            Word sets of B tokens; their indices after `use_table`.

        Raises:
            ValueError: a token without words.
        """
        counts = self.counts[ids]
        if not counts.all():
            raise ValueError(f"expected tokens with words, found none for token {ids[counts == 0][0]}")
        if rng is None:
            position, mask = _whole(np.minimum(counts, self._limit))
        elif self._sample:
            position, mask = _sampled(counts, self._limit, rng)
        else:
            position, mask = _dropped(*_whole(np.minimum(counts, self._limit)), rng, word_dropout)
        entries = self._entries[(self._indptr[ids][:, None] + position)[mask]]
        words = self._matches.words[entries]
        features = np.zeros((*mask.shape, len(FEATURES)), np.float32)
        features[mask] = self._describe(entries)
        described = torch.from_numpy(features), torch.from_numpy(mask)
        if self._places is not None:
            indices = np.zeros(mask.shape, np.int32)
            indices[mask] = self._places[words]
            return WordIndices(torch.from_numpy(indices), *described)
        vectors = np.zeros((*mask.shape, self._store.dim), np.float32)
        vectors[mask] = self.read(words)
        return WordSets(torch.from_numpy(vectors), *described)

    def _describe(self, entries: np.ndarray) -> np.ndarray:
        """Features of the matches at `entries`, `(n, M)`."""
        matches, words = self._matches, self._matches.words[entries]
        share, ranks = matches.share[entries], self._store.ranks[words]
        cover = np.ones(len(entries), np.float32) if matches.cover is None else matches.cover[entries]
        columns = {
            "weight": pooling_weights(share, ranks, cover),
            "share": share,
            "exact": (share == 1) & (cover == 1),
            "log_rank": np.log1p(ranks),
            "position": matches.position[entries],
            "source_language": np.isin(self._store.language_ids[words], self._source_languages),
            "cover": cover,
        }
        return np.stack([columns[name] for name in FEATURES], 1)


def _in_set_order(indptr: np.ndarray, words: np.ndarray) -> np.ndarray:
    """Matches of every token in the order of `reference.word_order`."""
    spans = zip(indptr[:-1].tolist(), indptr[1:].tolist(), strict=True)
    parts = [start + reference.word_order(words[start:end]) for start, end in spans]
    return np.concatenate([np.empty(0, np.int64), *parts])


def _whole(counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Places `(B, W)` of all words in their order, and the mask."""
    position = np.broadcast_to(np.arange(int(counts.max(initial=1))), (len(counts), int(counts.max(initial=1))))
    return position, position < counts[:, None]


def _dropped(
    position: np.ndarray, mask: np.ndarray, rng: np.random.Generator, word_dropout: float
) -> tuple[np.ndarray, np.ndarray]:
    """Shuffled indices, some of them masked."""
    keys = np.where(mask, rng.random(mask.shape), 2.0)
    kept = rng.random(mask.shape) >= word_dropout
    kept[:, 0] = True  # the first after shuffling: a word at random
    return np.argsort(keys, axis=1), mask & kept


def _sampled(counts: np.ndarray, limit: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Places of the words of `reference.sample`, cut to `limit` only then."""
    rows = [reference.sample(count, rng)[:limit] for count in counts.tolist()]
    position, mask = _whole(np.array([len(row) for row in rows]))
    position = position.copy()
    position[mask] = np.concatenate(rows)
    return position, mask


def make_memory(bundle: Bundle, ids: np.ndarray) -> Memory:
    """The source tokens that a net may look at: `(M, d)` pooled vectors of length 1 and `(M, K)` coordinates.

    Args:
        bundle: the inputs.
        ids: `(M,)` source tokens.
    """
    keys = np.array(bundle.pooled("source")[ids], np.float32)
    keys /= np.maximum(np.linalg.norm(keys, axis=1, keepdims=True), np.finfo(np.float32).tiny)
    return Memory(torch.from_numpy(keys), torch.from_numpy(np.array(bundle.coordinates[ids], np.float32)))


def self_indices(bundle: Bundle, ids: np.ndarray) -> dict[Side, np.ndarray]:
    """Each token's own index in a memory of source tokens.

    Args:
        bundle: the inputs.
        ids: `(M,)` source tokens in the memory.

    Returns:
        `(S,)` and `(T,)` int64: the index in `ids`; for the other source tokens and the target tokens, which have none,
        numbers from M on, each its own.
    """
    count = bundle.meta.source_tokens
    source = np.full(count, -1)
    source[ids] = np.arange(len(ids))
    source[source < 0] = np.arange(len(ids), count)
    return {"source": source, "target": np.arange(count, count + bundle.meta.target_tokens)}


def tell_usage(net: Net, memory: Memory, bundle: Bundle, self_index: Mapping[Side, np.ndarray]) -> Memory:
    """The memory with how every token is used, if a net asks for it.

    Args:
        net: what looks at the memory.
        memory: of `make_memory`.
        bundle: the inputs.
        self_index: of `self_indices`.

    Raises:
        InputError: the net knows another number of languages than the vector file has.
    """
    if not net.frequency:
        return memory
    if net.languages not in (0, len(bundle.words.languages)):
        raise InputError(
            f"net.languages: expected {len(bundle.words.languages)}, as many as the word vectors have, found "
            f"{net.languages}; leave it out"
        )
    usages = [bundle.usage(side) for side in self_index]
    order = np.argsort(np.concatenate(list(self_index.values())))
    frequencies, languages, shares, forms = (
        torch.from_numpy(np.concatenate(part)[order]) for part in zip(*usages, strict=True)
    )
    key_forms = forms[: len(memory.keys)]
    return memory._replace(
        log_frequencies=frequencies, languages=languages, shares=shares, forms=forms, key_forms=key_forms
    )


def list_neighbours(
    memory: Memory,
    bundle: Bundle,
    self_index: Mapping[Side, np.ndarray],
    ids: Mapping[Side, np.ndarray],
    neighbours: int,
) -> Memory:
    """Let tokens look at the nearest source tokens alone, as found among the pooled word vectors.

    Args:
        memory: of `make_memory`.
        bundle: the inputs.
        self_index: of `self_indices`.
        ids: tokens of each side that will be predicted, each with at least one word.
        neighbours: k.

    Returns:
        The memory with a list for each of these tokens; those of the others are empty.
    """
    keys = NeighbourIndex(memory.keys.numpy())
    neighbour_ids = np.full((sum(map(len, self_index.values())), min(neighbours, keys.count)), keys.count, np.int32)
    for side, wanted in ids.items():
        indices = self_index[side][wanted]
        neighbour_ids[indices] = nearest_indices(bundle.pooled(side)[wanted], indices, keys, neighbour_ids.shape[1])
    return memory._replace(neighbour_ids=torch.from_numpy(neighbour_ids))


def nearest_indices(queries: np.ndarray, self_index: np.ndarray, keys: NeighbourIndex, count: int) -> np.ndarray:
    """Find the keys nearest to each query by cosine, without the query itself.

    Args:
        queries: `(n, d)` float.
        self_index: `(n,)` int, each query's own index among the keys; M or more for a query that is none of them.
        keys: M keys; zero rows are never found.
        count: k, at most M.

    Returns:
        `(n, k)` int32 indices, in no order, M where there are fewer keys.
    """
    found = keys.candidates(queries, min(count + 1, len(keys)))
    # One more than asked for: it stands in for the query itself.
    spare = found[:, count:] if found.shape[1] > count else keys.count
    others = np.where(found[:, :count] == self_index[:, None], spare, found[:, :count])
    indices = np.full((len(queries), count), keys.count, np.int32)
    indices[:, : others.shape[1]] = others
    return indices
