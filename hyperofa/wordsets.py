"""What a net sees of a bundle: padded batches of word sets, and the memory of source tokens."""

import numpy as np
import torch

from hyperofa.bundle import Bundle, Side
from hyperofa.nets import FEATURES, Memory, WordSets
from hyperofa.vectors import centred


class WordSetTable:
    """The `max_words` heaviest words of every token of one side.

    Args:
        bundle: the inputs.
        side: whose tokens.
        max_words: W, at most.
    """

    def __init__(self, bundle: Bundle, side: Side, max_words: int) -> None:
        matches, words = bundle.matches(side), bundle.words
        weights = matches.weights(words.ranks)
        top = np.lexsort((-weights, matches.tokens))
        place = np.arange(len(top)) - matches.indptr[matches.tokens]
        top = top[place < max_words]
        self.counts = np.minimum(matches.counts, max_words)
        self._indptr = np.concatenate([[0], np.cumsum(self.counts)])
        self._words = matches.words[top]
        source = set(bundle.meta.source_languages or words.languages)
        from_source = np.isin(words.language_ids, [i for i, name in enumerate(words.languages) if name in source])
        columns = {
            "weight": weights[top],
            "share": matches.share[top],
            "exact": matches.share[top] == 1,
            "log_rank": np.log1p(words.ranks[self._words]),
            "position": matches.position[top],
            "source_language": from_source[self._words],
        }
        self._features = np.stack([columns[name] for name in FEATURES], 1).astype(np.float32)
        self._vectors, self._language_ids, self._means = words.vectors, words.language_ids, bundle.language_means

    def sets(self, ids: np.ndarray, rng: np.random.Generator | None = None, word_dropout: float = 0.0) -> WordSets:
        """A padded batch of word sets.

        Args:
            ids: `(B,)` token ids, each with at least one word.
            rng: shuffles and drops words; `None` keeps them, heaviest first.
            word_dropout: chance of leaving out a word; one always stays.

        Returns:
            Word sets of B tokens, centred vectors of unit length.
        """
        counts = self.counts[ids]
        width = int(counts.max(initial=1))
        place = np.broadcast_to(np.arange(width), (len(ids), width))
        mask = place < counts[:, None]
        if rng is not None:
            keys = np.where(mask, rng.random(mask.shape), 2.0)
            place = np.argsort(keys, axis=1)
            kept = rng.random(mask.shape) >= word_dropout
            kept[:, 0] = True  # the first after shuffling: a word at random
            mask = mask & kept
        entries = (self._indptr[ids][:, None] + place)[mask]
        words = self._words[entries]
        vectors = np.zeros((*mask.shape, self._vectors.shape[1]), np.float32)
        features = np.zeros((*mask.shape, len(FEATURES)), np.float32)
        vectors[mask] = centred(self._vectors[words], self._language_ids[words], self._means)
        features[mask] = self._features[entries]
        return WordSets(torch.from_numpy(vectors), torch.from_numpy(features), torch.from_numpy(mask))


def make_memory(bundle: Bundle, ids: np.ndarray) -> Memory:
    """The source tokens that a net may look at: `(M, d)` pooled vectors of length 1 and `(M, K)` coordinates."""
    keys = np.array(bundle.pooled("source")[ids], np.float32)
    keys /= np.maximum(np.linalg.norm(keys, axis=1, keepdims=True), np.finfo(np.float32).tiny)
    return Memory(torch.from_numpy(keys), torch.from_numpy(np.array(bundle.coordinates[ids], np.float32)))
