"""Word-by-word translation through the word vectors: source text becomes text in every language of the vector file.

No dictionary and no parallel text is needed, since the vectors of all languages lie in one space. The translations are
rough, but they show the target tokenizer's tokens in the company they will keep, which is what training needs.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from tqdm import tqdm

from hyperofa.runtime.processes import bar_hidden
from hyperofa.tokens.scripts import is_unspaced
from hyperofa.vectors.neighbours import nearest
from hyperofa.vectors.store import WordVectors
from hyperofa.vectors.texts import is_outer, word_span

_TEMPERATURE = 0.2  # of log distances
_RANK_WEIGHT = 0.5  # nats a word loses for each e-fold between its frequency rank and that of its translation
_NO_TRANSLATION = -1.0  # nats of leaving a word out, as languages do with each other's function words
_SHORTEST = 1e-3  # distance (1 - cosine) below which words count as equally near
_LARGEST_SCORE = 12.0  # nats; keeps a certain translation from shutting out all others
_FREQUENT = 3000  # words a language, that the two spaces are fitted on
_FORWARD, _BACKWARD = 12, 3  # translations of each source word; source words that each target word translates
_POOL = 32  # nearest words that compete for these places
_CHOOSINESS = 2.0  # exponent of the share of a text's words that a language translates, in the chance that it is drawn
_SMALLEST_SHARE = 1e-3  # lest a language be out of reach
_SURVEYED = 4096  # texts, evenly spaced, over which all languages are drawn equally often

Drawing = Literal["even", "fitting"]


def split_text(text: str) -> list[tuple[str, str, str]]:
    """Cut a text at spaces and dashes into (punctuation before, word, punctuation after)."""
    return [_trim(chunk) for chunk in text.replace("—", " ").replace("--", " ").split()]


def _trim(chunk: str) -> tuple[str, str, str]:
    start, end = word_span(chunk)
    return chunk[:start], chunk[start:end], chunk[end:]


@dataclass(frozen=True)
class _Candidates:
    """Translations into one language: source word `s` has entries `indptr[s]:indptr[s + 1]`."""

    indptr: np.ndarray
    words: np.ndarray  # rows of the vector file, the number of rows where the word is left out
    cumulative: np.ndarray  # running sum of the weights within each source word


class Translator:
    """Replaces each word of a source text by a likely translation, drawn at random.

    Args:
        words: the vector file.
        source_languages: languages of the text.
        texts: what will be translated; only its words are looked up.
        max_words: only the most frequent words of each language are used.
        progress: show a progress bar.
        drawing: of a text's language: those sooner that have words for it (`fitting`), since vectors may know some
            kinds of text in few languages alone, or all alike (`even`).
        into: languages to translate into; all but the text's own if not given.

    Raises:
        InputError: the vectors have no words of one of these languages.
    """

    def __init__(
        self,
        words: WordVectors,
        source_languages: Sequence[str],
        texts: Sequence[str],
        max_words: int = 50_000,
        progress: bool = True,
        drawing: Drawing = "fitting",
        into: Sequence[str] | None = None,
    ) -> None:
        self._words, self._drawing = words, drawing
        words.language_ids_of(source_languages, "--data.text_languages")
        words.language_ids_of(into or (), "--data.translated_languages")
        wanted = set(words.languages if into is None else into) - {"", *source_languages}
        rows_of = known_words(words, source_languages, texts)
        self._index = {word: number for number, word in enumerate(rows_of)}
        rows = np.fromiter(rows_of.values(), np.int64, len(rows_of))
        source = _Lexis(_unit(words.vectors[rows]), rows, words.ranks[rows])
        self.languages = [language for language in words.languages if language in wanted]
        self.ids = {language: words.languages.index(language) for language in self.languages}
        self._tables: dict[str, _Candidates] = {}
        if not rows_of:
            self.languages = []
        for language in tqdm(self.languages, desc="pairing words", unit=" languages", disable=bar_hidden(not progress)):
            targets = words.select([language])
            targets = targets[words.ranks[targets] < max_words]
            target = _Lexis(_unit(words.vectors[targets]), targets, words.ranks[targets])
            self._tables[language] = _pair(source, target, len(words))
        if self.languages and drawing == "fitting":
            self._kept = np.stack([_chance_kept(table) for table in self._tables.values()], 1)
            surveyed = texts[:: max(1, len(texts) // _SURVEYED)]
            self._weights = _balance(np.array([self._fitness(text) for text in surveyed]))

    def draw_language(self, text: str, rng: np.random.Generator) -> str:
        """Draw a language to translate a text into.

        With `fitting`, the chance grows with the square of the share of the text's words that the language translates;
        over all texts every language is drawn about equally often, whatever the mean of its shares.

        Args:
            text: source text.
            rng: draws.
        """
        if self._drawing == "even":
            return self.languages[rng.integers(len(self.languages))]
        chances = np.cumsum(self._fitness(text) * self._weights)
        return self.languages[int(np.searchsorted(chances, rng.random() * chances[-1], "right"))]

    def _fitness(self, text: str) -> np.ndarray:
        """`(L,)` chances, not normalised, by the share of a text's words that each language translates."""
        found = (self._index.get(word.lower()) for _, word, _ in split_text(text))
        numbers = [number for number in found if number is not None]
        shares = self._kept[numbers].mean(0) if numbers else np.ones(len(self.languages))
        return np.maximum(shares, _SMALLEST_SHARE) ** _CHOOSINESS

    def translate(self, text: str, language: str, rng: np.random.Generator) -> str:
        """Translate word by word, in the source's order; punctuation, capitals and words without a vector stay.

        Words stand side by side as the language's own text has them, with or without a space.

        Args:
            text: source text.
            language: one of `languages`.
            rng: draws among the translations.
        """
        table, out = self._tables[language], []
        chunks = split_text(text)
        draws = rng.random(len(chunks))
        for (before, word, after), draw in zip(chunks, draws, strict=True):
            number = self._index.get(word.lower())
            if number is not None:
                start, end = table.indptr[number], table.indptr[number + 1]
                chosen = start + np.searchsorted(table.cumulative[start:end], draw * table.cumulative[end - 1], "right")
                row = int(table.words[min(chosen, end - 1)])
                translated = self._words.words[row] if row < len(self._words) else ""
                word = translated[:1].upper() + translated[1:] if word[:1].isupper() else translated
            out.append(before + word + after)
        return join_words(filter(None, out))


def known_words(words: WordVectors, languages: Sequence[str], texts: Iterable[str]) -> dict[str, int]:
    """Words of some texts, in lower case, that have a vector, in the file's order; each with its row.

    Args:
        words: the vector file.
        languages: of the texts.
        texts: sentences.
    """
    rows = words.select(sorted(set(languages)))
    wanted = {word.lower() for text in texts for _, word, _ in split_text(text)}
    found: dict[str, int] = {}
    for word, row in zip(words.words[rows], rows.tolist(), strict=True):
        if word.lower() in wanted:
            found.setdefault(word.lower(), row)
    return found


def join_words(words: Iterable[str]) -> str:
    """A text of words and the punctuation at them: a space between two, unless one of them writes none there."""
    parts: list[str] = []
    unspaced = False  # whether the last letter so far is of a script without spaces
    for word in words:
        if parts and not unspaced and not is_unspaced(word[0]):
            parts.append(" ")
        parts.append(word)
        last = next((character for character in reversed(word) if not is_outer(character)), None)
        unspaced = unspaced if last is None else is_unspaced(last)
    return "".join(parts)


def _chance_kept(table: _Candidates) -> np.ndarray:
    """`(words,)` chance that a source word is translated rather than left out, its last entry."""
    ends = table.indptr[1:] - 1
    translated = np.where(ends > table.indptr[:-1], table.cumulative[ends - 1], 0)
    return translated / table.cumulative[ends]


def _balance(chances: np.ndarray, rounds: int = 10) -> np.ndarray:
    """Weights `(L,)` that give the columns of `(texts, L)` chances, rows made to sum to 1, equal sums (Sinkhorn)."""
    weights = np.ones(chances.shape[1])
    for _ in range(rounds):
        drawn = chances * weights
        weights /= (drawn / drawn.sum(1, keepdims=True)).mean(0) * len(weights)
    return weights


@dataclass(frozen=True)
class _Lexis:
    """Words of one language: unit vectors `(n, d)`, rows of the vector file `(n,)`, frequency ranks `(n,)`."""

    vectors: np.ndarray
    rows: np.ndarray
    ranks: np.ndarray


def _unit(vectors: np.ndarray) -> np.ndarray:
    vectors = vectors.astype(np.float32)
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.divide(vectors, lengths, out=np.zeros_like(vectors), where=lengths > 0)


def _pair(source: _Lexis, target: _Lexis, nothing: int) -> _Candidates:
    """Weighted translations of every source word.

    A pair scores how much nearer it is than the ten nearest of either word, as a log ratio of distances (NICDM:
    Schnitzer et al. 2012, "Local and global scaling reduce hubs in space"), over a temperature, less a penalty for
    unlike frequency, after a ridge map has brought the source space closer to the target's. A ratio, since the words of
    a genre that few languages have lie in a dense cluster, where differences (as in CSLS) are too small to tell them
    apart. Pairs come from both directions.
    """
    mapped = _unit(source.vectors @ _ridge_map(source, target))
    forward_cosine, forward = nearest(mapped, target.vectors, min(_POOL, len(target.rows)))
    backward_cosine, backward = nearest(target.vectors, mapped, min(_POOL, len(source.rows)))
    source_reach, target_reach = (
        _log_distance(neighbour_ids[:, :10].mean(1)) for neighbour_ids in (forward_cosine, backward_cosine)
    )

    def score(cosine: np.ndarray, s: np.ndarray, t: np.ndarray) -> np.ndarray:
        unlike = np.abs(np.log1p(source.ranks[s]) - np.log1p(target.ranks[t]))
        apart = source_reach[s] + target_reach[t] - 2 * _log_distance(cosine)
        return apart / _TEMPERATURE - _RANK_WEIGHT * unlike

    source_ids, target_ids = (np.arange(len(side.rows)) for side in (source, target))
    found = []
    for cosine, s, t, count in (
        (forward_cosine, source_ids[:, None], forward, _FORWARD),
        (backward_cosine, backward, target_ids[:, None], _BACKWARD),
    ):
        scores = score(cosine, s, t)
        best = np.argsort(-scores, axis=1, kind="stable")[:, :count]
        pairs = s * len(target_ids) + t
        found.append([np.take_along_axis(each, best, 1).ravel() for each in (pairs, scores)])
    pairs, scores = (np.concatenate(each) for each in zip(*found, strict=True))
    pairs, places = np.unique(pairs, return_index=True)
    translated, translations = np.divmod(pairs, len(target_ids))
    owners = np.concatenate([translated, source_ids])
    rows = np.concatenate([target.rows[translations], np.full(len(source_ids), nothing)])
    nats = np.concatenate([scores[places], np.full(len(source_ids), _NO_TRANSLATION)])
    order = np.argsort(owners, kind="stable")
    owners, rows, weights = owners[order], rows[order], np.exp(np.minimum(nats[order], _LARGEST_SCORE))
    indptr = np.searchsorted(owners, np.arange(len(source.rows) + 1))
    total = np.concatenate([[0.0], np.cumsum(weights)])
    return _Candidates(indptr, rows, total[1:] - total[indptr[:-1]][owners])


def _log_distance(cosine: np.ndarray) -> np.ndarray:
    return np.log(np.maximum(1 - cosine, _SHORTEST))


def _ridge_map(source: _Lexis, target: _Lexis, ridge: float = 0.1) -> np.ndarray:
    """`(d, d)` map from source to target vectors, fitted on the mutual nearest neighbours of the frequent words."""
    dim = source.vectors.shape[1]
    a, b = (side.vectors[side.ranks < _FREQUENT] for side in (source, target))
    if not len(a) or not len(b):
        return np.eye(dim, dtype=np.float32)
    there, back = nearest(a, b, 1)[1][:, 0], nearest(b, a, 1)[1][:, 0]
    mutual = np.flatnonzero(back[there] == np.arange(len(a)))
    if len(mutual) < dim:  # too few to fit a map on
        return np.eye(dim, dtype=np.float32)
    a, b = a[mutual].astype(np.float64), b[there[mutual]].astype(np.float64)
    return np.linalg.solve(a.T @ a + ridge * len(mutual) / dim * np.eye(dim), a.T @ b).astype(np.float32)
