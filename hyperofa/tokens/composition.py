"""The words that a token is made of: the other direction of matching.

Where a script puts no spaces between words, a tokenizer that reads raw text learns tokens of several words (亚伯拉罕的
后裔), and one that leaves punctuation where it stands learns *God;*. No word contains such a token; it contains words.
They are found by the vector file's own words: the most probable way to cut the token into words of one language, if a
word of frequency rank r has the probability that Zipf's law gives it.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from hyperofa.tokens.canonical import Token, text_of
from hyperofa.tokens.matching import Matches
from hyperofa.tokens.scripts import is_unspaced
from hyperofa.tokens.segmentation import cheapest_cut
from hyperofa.vectors.spelling import WORD_END, WORD_START
from hyperofa.vectors.store import ROWS, WordVectors
from hyperofa.vectors.texts import word_span

_LONGEST = 12  # characters of a word that a token may be made of, where no space says where it ends
_UNKNOWN = 3.0  # nats, beyond those of the rarest word, of a character that belongs to no word


@dataclass(frozen=True)
class _Chunk:
    """What a token has between spaces, without the punctuation around it.

    Attributes:
        text: as the token spells it.
        start: characters of the token before it.
        whole: a word of a spaced script may stand here: it starts at the start of a word and is not all of the token.
    """

    text: str
    start: int
    whole: bool

    @property
    def unspaced(self) -> bool:
        return is_unspaced(self.text)

    @property
    def may_be_words(self) -> bool:
        return self.whole or self.unspaced


def words_within(
    tokens: Sequence[Token | None], words: WordVectors, languages: Sequence[str] | None, num_tokens: int
) -> Matches:
    """The words that tokens are made of; `share` is 1, `cover` how much of the token's letters the word is.

    Of several languages those count that explain the most of a token. A token that is one word has that word.

    Args:
        tokens: canonical tokens by id.
        words: the vector file.
        languages: whose words to use; all if `None`.
        num_tokens: rows of the result, at least as many as there are tokens.

    Returns:
        Matches, which in a spaced script are those of tokens with a space or punctuation beside a whole word alone.
    """
    every = {token_id: list(_chunks(token)) for token_id, token in enumerate(tokens)}
    chunks = {token_id: found for token_id, found in every.items() if any(chunk.may_be_words for chunk in found)}
    lexicons = _lexicons(words, languages, _wanted(chunk for found in chunks.values() for chunk in found))
    rows: list[tuple[int, int, float, float]] = []
    for token_id, found in chunks.items():
        letters = sum(len(chunk.text) for chunk in found)
        size = max(chunk.start + len(chunk.text) for chunk in found)
        by_language = []
        for lexicon in lexicons:
            cut = [(row, chunk.start + at, length) for chunk in found for row, at, length in lexicon.cut(chunk)]
            by_language.append((sum(length for _, _, length in cut), cut))
        most = max((covered for covered, _ in by_language), default=0)
        for covered, cut in by_language:
            if covered == most:
                rows += [(token_id, row, length / letters, at / size) for row, at, length in cut]
    return _as_matches(rows, num_tokens)


def _chunks(token: Token | None) -> Iterator[_Chunk]:
    """The chunks of a token, none of one that is plainly a word or a piece of one."""
    text = text_of(token)
    if token is None or text is None or (text.isalpha() and not is_unspaced(text)):
        return
    start = 0
    for part in text.split(" "):
        left, right = word_span(part)
        if left < right:
            bounded = token.starts_word or start + left > 0
            yield _Chunk(part[left:right], start + left, bounded and right - left < len(text))
        start += len(part) + 1


def _wanted(chunks: Iterator[_Chunk]) -> set[str]:
    """Every text that could be a word within one of the chunks."""
    wanted: set[str] = set()
    for chunk in chunks:
        text = chunk.text
        if chunk.unspaced:
            size = len(text)
            wanted.update(text[i:j] for i in range(size) for j in range(i + 1, min(size, i + _LONGEST) + 1))
        else:
            wanted.update((text, text.lower()))
    return wanted


@dataclass(frozen=True)
class _Lexicon:
    """Words of one language.

    Attributes:
        rows: of the vector file, by word.
        costs: of each word, in nats.
        unknown: cost of a character that belongs to no word.
    """

    rows: Mapping[str, int]
    costs: Mapping[str, float]
    unknown: float

    def cut(self, chunk: _Chunk) -> list[tuple[int, int, int]]:
        """Row, start and length of the words that a chunk is made of, by the cheapest way to cut it."""
        text = chunk.text
        if not chunk.unspaced:
            word = text if text in self.rows else text.lower()
            return [(self.rows[word], 0, len(text))] if chunk.whole and word in self.rows else []
        spans = cheapest_cut(text, lambda start, end: self.costs.get(text[start:end]), _LONGEST, self.unknown)
        return [(self.rows[text[start:end]], start, end - start) for start, end in spans]


def _lexicons(words: WordVectors, languages: Sequence[str] | None, wanted: set[str]) -> list[_Lexicon]:
    """The words of each language that may be needed; of equal ones the first."""
    if not wanted:
        return []
    chosen = range(len(words.languages)) if languages is None else words.language_ids_of(languages)
    rows: dict[int, dict[str, int]] = {int(language): {} for language in chosen}
    sizes = np.bincount(words.language_ids, minlength=len(words.languages))
    whole = WORD_START | WORD_END
    for start in range(0, len(words), ROWS):
        for row, word in enumerate(words.words[start : start + ROWS], start):
            if word in wanted and words.boundaries[row] & whole == whole and words.language_ids[row] in rows:
                rows[int(words.language_ids[row])].setdefault(word, row)
    lexicons = []
    for language, found in rows.items():
        if found:
            total = math.log(1 + math.log(1 + sizes[language]))
            costs = {word: total + math.log(1 + int(words.ranks[row])) for word, row in found.items()}
            lexicons.append(_Lexicon(found, costs, total + math.log(1 + sizes[language]) + _UNKNOWN))
    return lexicons


def _as_matches(rows: list[tuple[int, int, float, float]], num_tokens: int) -> Matches:
    """Token, word, cover and position of each match; a word that a token has twice counts as one that covers both."""
    table = np.array(rows, np.float64).reshape(-1, 4)
    pairs = table[:, 0].astype(np.int64) << 32 | table[:, 1].astype(np.int64)
    unique, first, inverse = np.unique(pairs, return_index=True, return_inverse=True)
    cover = np.minimum(np.bincount(inverse, table[:, 2], len(unique)), 1).astype(np.float32)
    counts = np.bincount(unique >> 32, minlength=num_tokens)
    indptr = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    ones = np.ones(len(unique), np.float32)
    position = table[first, 3].astype(np.float32)
    return Matches(
        indptr, (unique & 0xFFFFFFFF).astype(np.int32), ones, position, np.zeros(len(unique), np.uint8), cover
    )
