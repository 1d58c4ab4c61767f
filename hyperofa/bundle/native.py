"""Whom a target token serves: the languages that the PLM knows, or others that spell another word alike.

German *die* is not English *die*, so spelling alone cannot say whether an old row still means what it meant.
"""

from collections.abc import Sequence

import numpy as np

from hyperofa.tokens.canonical import OVERLAP_KINDS, Overlap
from hyperofa.tokens.matching import Matches
from hyperofa.vectors.store import WordVectors

NATIVE_SHARE = 0.15
"""Of a token's occurrences in the source languages and in the other language that uses it most, how many must be in the
former. Low, as an old row costs another language little where it is wrong, and a new one the source language much."""


def token_mass(matches: Matches, words: WordVectors) -> np.ndarray:
    """How often tokens occur in each language, judged by the frequency ranks of the words that they are part of.

    A word of rank r counts 1 / (1 + r) (Zipf), and for a token as much of that as the token has of the word; one that
    the token is made of counts nothing, for it mostly stands elsewhere.

    Args:
        matches: words of each token.
        words: the vector file, L languages.

    Returns:
        `(tokens, L)` float64.
    """
    mass = matches.share.astype(np.float64) / (1.0 + words.ranks[matches.words])
    if matches.cover is not None:
        mass[matches.cover < 1] = 0
    size = len(matches.counts), len(words.languages)
    cells = matches.tokens * size[1] + words.language_ids[matches.words]
    return np.bincount(cells, mass, minlength=size[0] * size[1]).reshape(size)


def with_native(
    overlap: Overlap, matches: Matches, words: WordVectors, languages: Sequence[str], uncased: bool
) -> Overlap:
    """An overlap whose `exact` pairs are `native` too where the token serves the source languages.

    Args:
        overlap: of the vocabularies.
        matches: words of each target token.
        words: the vector file.
        languages: that the PLM knows.
        uncased: whether the source tokenizer ignores case, so that `case` pairs are what it reads, too.
    """
    mass = token_mass(matches, words)
    known = np.isin(words.languages, languages)
    own, other = mass[:, known].sum(1), mass[:, ~known].max(1, initial=0)
    serves = (own > 0) & (own >= NATIVE_SHARE * (own + other))
    spelled = overlap.choose(("exact", "case") if uncased else ("exact",))
    native = np.flatnonzero(serves[spelled.target_ids])
    target = np.concatenate([overlap.target_ids, spelled.target_ids[native]])
    source = np.concatenate([overlap.source_ids, spelled.source_ids[native]])
    kinds = np.concatenate([overlap.kinds, np.full(len(native), OVERLAP_KINDS.index("native"), np.uint8)])
    order = np.lexsort((kinds, target))
    return Overlap(target[order], source[order], kinds[order])
