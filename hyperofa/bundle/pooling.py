"""The words of each token and their sum as one vector, a shard at a time: the store is read once and never copied."""

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import scipy.sparse as sp
from tokenizers import Tokenizer as BackendTokenizer
from tqdm import tqdm

from hyperofa.runtime.folders import new_folder
from hyperofa.runtime.processes import ProcessGroup, bar_hidden
from hyperofa.tokens.canonical import Token
from hyperofa.tokens.composition import words_within
from hyperofa.tokens.matching import Matches, match_words
from hyperofa.tokens.spellings import Variants
from hyperofa.vectors.centring import centred
from hyperofa.vectors.store import WordVectors

SHARD = 131_072
"""Words of a shard; sets what memory is needed, and what a kill costs."""


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


def frequency_means(matches: Matches, words: WordVectors, columns: int = 32) -> np.ndarray:
    """Mean of each token's raw word vectors by frequency, 1 / (1 + rank) in the word's language (Zipf).

    Args:
        matches: words of the tokens.
        words: the vectors.
        columns: read at a time.

    Returns:
        `(tokens, d)` float32, zero rows for tokens without words.
    """
    weights = 1 / (1.0 + words.ranks[matches.words])
    mixture = sp.csr_matrix((weights, matches.words, matches.indptr), shape=(len(matches.counts), len(words)))
    totals = mixture.sum(1).A1
    mixture = sp.csr_matrix(sp.diags(np.divide(1, totals, out=np.zeros_like(totals), where=totals > 0)) @ mixture)
    starts = range(0, words.dim, columns)
    parts = [mixture @ np.asarray(words.vectors[:, at : at + columns], np.float64) for at in starts]
    return np.hstack(parts).astype(np.float32)


def match_shards(
    tokenizer: BackendTokenizer,
    words: WordVectors,
    languages: Sequence[str] | None,
    folder: Path,
    group: ProcessGroup,
    *,
    num_tokens: int,
    ignored: Iterable[int],
    variants: Variants,
    unspaced: bool,
    progress: str,
) -> None:
    """Write the matches of each shard of this process into `folder`, less those that are there already.

    Args:
        tokenizer: as for `match_words`.
        words: the store.
        languages: whose words to match; all if `None`.
        folder: of all shards, shared by the processes.
        group: the processes.
        num_tokens: as for `match_words`.
        ignored: as for `match_words`.
        variants: as for `match_words`.
        unspaced: as for `match_words`.
        progress: name of the progress bar.
    """
    chosen = None if languages is None else words.language_ids_of(languages)
    spans = group.mine([np.arange(start, min(start + SHARD, len(words))) for start in range(0, len(words), SHARD)])
    total = sum(map(len, spans))
    with tqdm(total=total, desc=progress, unit=" words", unit_scale=True, disable=bar_hidden(not group.first)) as bar:
        for span in spans:
            path = folder / f"{span[0] // SHARD:05}"
            ids = span if chosen is None else span[np.isin(words.language_ids[span], chosen)]
            if not path.is_dir():
                matches = match_words(
                    tokenizer,
                    words.words[ids],
                    words.boundaries[ids],
                    num_tokens=num_tokens,
                    ids=ids,
                    ignored=ignored,
                    variants=variants,
                    unspaced=unspaced,
                    tokenised=bar.update,
                )
                with new_folder(path) as shard:
                    matches.save(shard)
                bar.update(len(span) - len(ids))
            else:
                bar.update(len(span))


def merge_shards(
    folder: Path,
    words: WordVectors,
    means: np.ndarray,
    output: Path,
    tokens: Sequence[Token | None] | None,
    languages: Sequence[str] | None,
    num_tokens: int,
) -> None:
    """Write all shards' matches as one, and the pooled vectors of the tokens, into `output`.

    Args:
        folder: of the shards, all of them there.
        words: the store.
        means: `(L, d)` mean unit vector of each language.
        output: folder of one side of a bundle.
        tokens: canonical tokens by id, to find the words that they are made of; `None` for nothing but what the shards
            have.
        languages: as for `words_within`.
        num_tokens: as for `words_within`.
    """
    within = None if tokens is None else words_within(tokens, words, languages, num_tokens)
    shards = []
    for path in sorted(path for path in folder.iterdir() if path.name.isdecimal()):
        shard, start = Matches.load(path), int(path.name) * SHARD
        more = None if within is None else within.between(start, start + SHARD)
        if more is not None and len(more.words):
            shard.with_others(more).save(folder / f"both-{path.name}")  # not held in memory: there may be many
            shard = Matches.load(folder / f"both-{path.name}")
        shards.append(shard)
    Matches.merge(shards, output)
    np.save(output / "pooled.npy", pool(tqdm(shards, desc=f"pooling {output.name} tokens"), words, means))
