"""How tokens are used, by the vector file alone: how often, in which languages, and as what part of a word.

Rows of a language model say all three, those of a sentence encoder no languages.
"""

from collections.abc import Iterator, Sequence
from itertools import chain
from typing import NamedTuple

import numpy as np
from tokenizers import Encoding
from transformers import PreTrainedTokenizerBase

from hyperofa.nets.inputs import FORMS
from hyperofa.runtime.ahead import ahead
from hyperofa.tokens.canonical import bare_backend
from hyperofa.vectors.spelling import WORD_START
from hyperofa.vectors.store import WordVectors

_CAPITALISED = 0.1  # of a word's occurrences
_FREQUENT = 20_000  # words of each language; rarer ones are a twentieth of its text
_SMALLEST = 0.01  # of an even share, for a token of none of them
_CHUNK = 20_000  # words tokenised at a time
_LANGUAGES = 4  # of a token, those that use it most


class Usage(NamedTuple):
    """How tokens are used, row n for token n.

    Attributes:
        log_frequencies: `(size,)` float32, finite: log of how often a token occurs in text of all languages alike, in
            nats over an even share, 1 / size.
        languages: `(size, m)` int32, those that use it most, as numbers of the vector file's.
        shares: `(size, m)` float32, how much of its use, per word of text, is theirs: sums are 1, or 0 for a token that
            no language is known to use.
        forms: `(size, F)` float32, columns named by `FORMS`, how much of its use is each; the mean of all others for
            a token that is not known to be used.
    """

    log_frequencies: np.ndarray
    languages: np.ndarray
    shares: np.ndarray
    forms: np.ndarray


def token_usage(
    tokenizer: PreTrainedTokenizerBase, words: WordVectors, size: int, spoken: Sequence[str] | None = None
) -> Usage:
    """How tokens are used in text of the vector file's words.

    Unlike the matches of a token, each word is spelled here as it stands in text, and counts once for every token that
    it is cut into. The word of rank r in its language counts 1 / (1 + r) (Zipf).

    Args:
        tokenizer: of the vocabulary.
        words: the vector file.
        size: tokens of the vocabulary.
        spoken: languages of the text; all if not given.
    """
    counts = np.zeros((len(words.languages), size))
    uses = np.zeros((len(FORMS) + 1, size))  # the last, of any form
    backend, counted = bare_backend(tokenizer), words.ranks < _FREQUENT
    if spoken is not None:
        counted &= np.isin(words.language_ids, words.language_ids_of(spoken))
    frequent = np.flatnonzero(counted)

    def encode(rows: np.ndarray) -> tuple[list[int], list[str], list[float], list[Encoding]]:
        numbers, spelled, parts = map(list, zip(*_spellings(words, rows), strict=True))
        return numbers, spelled, parts, backend.encode_batch_fast(spelled, add_special_tokens=False)

    chunks = (frequent[start : start + _CHUNK] for start in range(0, len(frequent), _CHUNK))
    for numbers, spelled, parts, encodings in ahead(encode, chunks):
        lengths = np.fromiter(map(len, encodings), np.int64, len(encodings))
        kept = lengths > 0
        rows, lengths = np.array(numbers)[kept], lengths[kept]
        tokens = np.fromiter(chain.from_iterable(encoding.ids for encoding in encodings), np.int64, lengths.sum())
        times = np.array(parts)[kept] / (1.0 + words.ranks[rows])
        every = np.repeat(times, lengths)
        cells = np.repeat(words.language_ids[rows].astype(np.int64) * size, lengths) + tokens
        counts += np.bincount(cells, every, minlength=counts.size).reshape(counts.shape)
        ends = np.cumsum(lengths)
        first, last = tokens[ends - lengths], tokens[ends - 1]
        capitals = np.array([form.strip()[:1].isupper() for form in spelled])[kept]
        wholes = times * (lengths == 1)
        found = (first, times), (last, times), (first, wholes), (first, times * capitals), (tokens, every)
        for use, (ids, each) in zip(uses, found, strict=True):
            use += np.bincount(ids, each, minlength=size)
    totals = counts.sum(1, keepdims=True)
    shares = np.divide(counts, totals, out=np.zeros_like(counts), where=totals > 0)
    frequencies = np.log(shares.sum(0) / max(1, int((totals > 0).sum())) * size + _SMALLEST).astype(np.float32)
    languages = np.empty((size, min(_LANGUAGES, len(shares))), np.int32)
    theirs = np.empty(languages.shape)
    for place in range(languages.shape[1]):  # instead of sorting them, which takes twice the memory of all shares
        languages[:, place] = most = shares.argmax(0)
        theirs[:, place] = shares[most, np.arange(size)]
        shares[most, np.arange(size)] = -1
    known = theirs.sum(1, keepdims=True)
    theirs = np.divide(theirs, known, out=np.zeros_like(theirs), where=known > 0)
    return Usage(frequencies, languages, theirs.astype(np.float32), _shares(uses).T.astype(np.float32))


def _shares(uses: np.ndarray) -> np.ndarray:
    """The first rows of `(F + 1, size)` as parts of the last, which is all of them; their means where there is none."""
    *forms, total = uses
    used = total > 0
    shares = np.zeros((len(forms), len(total)))
    if used.any():
        shares[:, used] = np.array(forms)[:, used] / total[used]
        shares[:, ~used] = shares[:, used].mean(1, keepdims=True)
    return shares


def _spellings(words: WordVectors, rows: np.ndarray) -> Iterator[tuple[int, str, float]]:
    """Words, the ways in which they stand in text, and how much of their occurrences each way has."""
    for row, word, boundaries in zip(rows.tolist(), words.words[rows], words.boundaries[rows], strict=True):
        capitalised = word[:1].upper() + word[1:]
        if not boundaries & WORD_START:
            yield row, word, 1.0
        elif capitalised == word:
            yield row, " " + word, 1.0
        else:
            yield row, " " + word, 1 - _CAPITALISED
            yield row, " " + capitalised, _CAPITALISED
