"""Which source tokens a target token is aligned with in parallel text: IBM model 1 over words, spread over tokens."""

import math
import unicodedata
from collections.abc import Sequence
from itertools import chain, pairwise
from typing import NamedTuple

import numpy as np
import scipy.sparse as sp
from tokenizers import Tokenizer as BackendTokenizer
from tqdm import tqdm

from hyperofa.bundle.bundle import Bundle, Side
from hyperofa.runtime.processes import bar_hidden
from hyperofa.tokens.canonical import Token, bare_backend

ITERATIONS = 5
RARE = 2
"""Words that are aligned less often are taken for noise; the published code takes 10 to 20 of millions of sentences."""
_PAIRS = 2_048  # sentence pairs looked at together
_NULL = 0  # the empty source word, for target words that translate nothing


def align(bundle: Bundle, pairs: Sequence[tuple[str, str]]) -> sp.csr_matrix:
    """How often each target token is aligned with each source token.

    As trans-tokenisation does (arXiv 2408.04303 §3): words, not tokens, are aligned, and a pair of words is spread over
    its tokens, half of it each with each, half in order. Not as theirs: IBM model 1 (Brown et al. 1993), most probable
    links, in the place of fast_align, its model 2 along the diagonal.

    Args:
        bundle: of the tokenizers.
        pairs: source sentences and their translations.

    Returns:
        `(T, S)` sparse float64, empty rows for tokens that are not aligned.
    """
    sides: tuple[tuple[Side, int], ...] = (("source", 0), ("target", 1))
    source, target = (
        _Words.of(bundle.tokens(side), bare_backend(bundle.tokenizer(side)), [pair[at] for pair in pairs])
        for side, at in sides
    )
    links = link_words(source.sentences, target.sentences)
    shape = bundle.meta.target_tokens, bundle.meta.source_tokens
    return spread(links, target.pieces, source.pieces, shape)


class _Words:
    """Sentences as words, and words as tokens.

    Attributes:
        sentences: ids of the words of each; 0 is no word.
        pieces: the tokens of each word; those of word 0 are none.
    """

    def __init__(self) -> None:
        self.sentences: list[np.ndarray] = []
        self.pieces: list[tuple[int, ...]] = [()]

    @classmethod
    def of(cls, tokens: Sequence[Token | None], tokenizer: BackendTokenizer, texts: Sequence[str]) -> "_Words":
        """Cut texts into words.

        A token goes on with a word where it starts none and letters meet, so that punctuation stays alone. Special
        tokens, the unknown one among them, are left out.

        Args:
            tokens: canonical tokens by id.
            tokenizer: their tokenizer's backend.
            texts: to cut.
        """
        found, ids = cls(), {(): 0}
        opens = np.array([token is None or token.starts_word or not _is_letter(token.text[:4], 0) for token in tokens])
        ends = np.array([token is not None and _is_letter(token.text[-4:], -1) for token in tokens])
        special = {n for n, token in enumerate(tokens) if token is None or token.special}
        for start in range(0, len(texts), _PAIRS):
            for encoding in tokenizer.encode_batch_fast(list(texts[start : start + _PAIRS]), add_special_tokens=False):
                pieces = np.array([piece for piece in encoding.ids if piece not in special], np.int64)
                first = opens[pieces]
                first[1:] |= ~ends[pieces[:-1]]
                first[:1] = True
                bounds = [*np.flatnonzero(first), len(pieces)]
                words = [tuple(pieces[a:b].tolist()) for a, b in pairwise(bounds)]
                found.sentences.append(np.array([ids.setdefault(word, len(ids)) for word in words], np.int64))
        found.pieces = list(ids)
        return found


def _is_letter(text: bytes, at: int) -> bool:
    """Whether the character at one end is a letter or a mark; half a character counts as one."""
    decoded = text.decode(errors="ignore")
    return bool(text) and (not decoded or unicodedata.category(decoded[at])[0] in "LM")


def link_words(
    source: Sequence[np.ndarray], target: Sequence[np.ndarray], iterations: int = ITERATIONS
) -> sp.coo_matrix:
    """IBM model 1 by expectation maximisation, then the most probable source word of each target word.

    Memory is 4 bytes for each source and target word that stand in one pair, and 8 for each two words that do so in
    some thousand pairs.

    Args:
        source: word ids from 1 of each sentence.
        target: likewise of its translation.
        iterations: of expectation maximisation.

    Returns:
        `(target words, source words)`: how often they are linked.
    """
    pairs = [(np.append(_NULL, s), t) for s, t in zip(source, target, strict=True) if len(t)]
    sizes = [1 + max(chain((0,), (int(words.max(initial=0)) for words in side))) for side in (source, target)]
    if not pairs:
        return sp.coo_matrix((sizes[1], sizes[0]))
    parts = range(0, len(pairs), _PAIRS)
    short = len(parts) == 1
    blocks = [
        _Block.of(pairs[at : at + _PAIRS], sizes[0])
        for at in tqdm(parts, desc="pairing words", disable=bar_hidden(short))
    ]
    cells = np.unique(np.concatenate([block.cells for block in blocks]))
    blocks = [block._replace(cells=np.searchsorted(cells, block.cells)) for block in blocks]
    own = cells % sizes[0]
    chance = np.ones(len(cells))
    for _ in tqdm(range(iterations), desc="aligning words", disable=bar_hidden(short)):
        counts = np.zeros(len(cells))
        for block in blocks:
            given = chance[block.cells][block.links]
            given /= np.repeat(np.add.reduceat(given, block.starts), block.lengths)
            counts[block.cells] += np.bincount(block.links, given)
        chance = counts / np.bincount(own, counts, minlength=sizes[0])[own]
    links = np.zeros(len(cells))
    for block in blocks:
        given = chance[block.cells][block.links]
        best = np.repeat(np.maximum.reduceat(given, block.starts), block.lengths)
        hits = np.flatnonzero(given == best)
        _, first = np.unique(np.searchsorted(block.starts, hits, side="right"), return_index=True)  # of equal ones, one
        links[block.cells] += np.bincount(block.links[hits[first]], minlength=len(block.cells))
    linked = np.flatnonzero((links > 0) & (own != _NULL))
    return sp.coo_matrix((links[linked], (cells[linked] // sizes[0], own[linked])), shape=(sizes[1], sizes[0]))


class _Block(NamedTuple):
    """Each target word of some sentence pairs with each source word of its own.

    Attributes:
        cells: `(c,)` int64, ascending: pairs of words, as target id times the number of source words plus source id.
        links: `(n,)` int32, which of the cells each link is of, sentence by sentence and target word by target word.
        starts: `(t,)` where the links of each target word start.
        lengths: `(t,)` how many it has.
    """

    cells: np.ndarray
    links: np.ndarray
    starts: np.ndarray
    lengths: np.ndarray

    @classmethod
    def of(cls, pairs: Sequence[tuple[np.ndarray, np.ndarray]], source_words: int) -> "_Block":
        sources = np.concatenate([np.tile(s, len(t)) for s, t in pairs])
        lengths = np.concatenate([np.full(len(t), len(s)) for s, t in pairs])
        targets = np.repeat(np.concatenate([t for _, t in pairs]), lengths)
        cells, links = np.unique(targets * source_words + sources, return_inverse=True)
        return cls(cells, links.astype(np.int32), np.append(0, np.cumsum(lengths)[:-1]), lengths)


def spread(
    links: sp.coo_matrix,
    target_pieces: Sequence[tuple[int, ...]],
    source_pieces: Sequence[tuple[int, ...]],
    shape: tuple[int, int],
) -> sp.csr_matrix:
    """Spread links between words over their tokens: half each with each, half in order.

    Every token of a target word gets as much as the word: once from all source tokens alike, once from those that stand
    where it stands.

    Args:
        links: `(target words, source words)` counts; those below `RARE` are left out.
        target_pieces: tokens of each target word.
        source_pieces: tokens of each source word.
        shape: (T, S).
    """
    rows: list[int] = []
    columns: list[int] = []
    values: list[float] = []
    for word, origin, count in zip(links.row, links.col, links.data, strict=True):
        if count < RARE:
            continue
        to, of = target_pieces[word], source_pieces[origin]
        common = math.lcm(len(to), len(of))
        for n, token in enumerate(to):
            for piece in of:
                rows.append(token)
                columns.append(piece)
                values.append(count / 2 / len(of))
            width = common // len(to)
            for place in range(n * width, (n + 1) * width):
                rows.append(token)
                columns.append(of[place * len(of) // common])
                values.append(count / 2 / width)
    matrix = sp.csr_matrix((values, (rows, columns)), shape=shape)
    matrix.sum_duplicates()
    return matrix
