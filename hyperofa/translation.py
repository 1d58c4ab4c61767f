"""Word-by-word translation through the word vectors: source text becomes text in every language of the vector file.

No dictionary and no parallel text is needed, since the vectors of all languages lie in one space. The translations are
rough, but they show the target tokenizer's tokens in the company they will keep, which is what training needs.
"""

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from tqdm import tqdm

from hyperofa.vectors import WordVectors, nearest

_FREQUENCY_POWER = 0.5  # prior of a translation: (1 + rank)^-power
_TEMPERATURE = 0.05  # of the softmax over the source words nearest to a target word


def split_text(text: str) -> list[tuple[str, str, str]]:
    """Cut a text at spaces and dashes into (punctuation before, word, punctuation after)."""
    return [_trim(chunk) for chunk in text.replace("—", " ").replace("--", " ").split()]


def _trim(chunk: str) -> tuple[str, str, str]:
    start, end = 0, len(chunk)
    while start < end and _is_outer(chunk[start]):
        start += 1
    while end > start and _is_outer(chunk[end - 1]):
        end -= 1
    return chunk[:start], chunk[start:end], chunk[end:]


def _is_outer(character: str) -> bool:
    return unicodedata.category(character)[0] in "PSZC"


@dataclass(frozen=True)
class _Candidates:
    """Translations into one language: source word `s` has entries `indptr[s]:indptr[s + 1]`."""

    indptr: np.ndarray
    words: np.ndarray
    cumulative: np.ndarray  # running sum of the weights within each source word


class Translator:
    """Replaces each word of a source text by a likely translation, drawn at random.

    Args:
        words: the vector file.
        source_languages: languages of the text.
        texts: what will be translated; only its words are looked up.
        candidates: translations kept of each word and language.
        neighbours: source words that each target word may translate.
        max_words: only the most frequent words of each language are used.
        progress: show a progress bar.
    """

    def __init__(
        self,
        words: WordVectors,
        source_languages: Sequence[str],
        texts: Sequence[str],
        candidates: int = 8,
        neighbours: int = 3,
        max_words: int = 50_000,
        progress: bool = True,
    ) -> None:
        self._words = words
        sources = set(source_languages)
        rows = words.select(sorted(sources))
        wanted = {word.lower() for text in texts for _, word, _ in split_text(text)}
        known = ((word.lower(), row) for word, row in zip(words.words[rows], rows.tolist(), strict=True))
        index: dict[str, int] = {}
        for word, row in known:
            if word in wanted:
                index.setdefault(word, row)
        self._index = {word: number for number, word in enumerate(index)}
        source = _unit(words.vectors[np.fromiter(index.values(), np.int64, len(index))])
        self.languages = [language for language in words.languages if language and language not in sources]
        self._tables: dict[str, _Candidates] = {}
        if not index:
            self.languages = []
        for language in tqdm(self.languages, desc="pairing words", unit=" languages", disable=not progress):
            targets = words.select([language])
            targets = targets[words.ranks[targets] < max_words]
            self._tables[language] = _pair(
                source, _unit(words.vectors[targets]), targets, words.ranks[targets], candidates, neighbours
            )

    @property
    def coverage(self) -> int:
        """Number of different source words that have a vector."""
        return len(self._index)

    def translate(self, text: str, language: str, rng: np.random.Generator) -> str:
        """Translate word by word, in the source's order; punctuation, capitals and words without a vector stay.

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
                translated = self._words.words[int(table.words[min(chosen, end - 1)])]
                word = translated[:1].upper() + translated[1:] if word[:1].isupper() else translated
            out.append(before + word + after)
        return " ".join(out)


def _unit(vectors: np.ndarray) -> np.ndarray:
    vectors = vectors.astype(np.float32)
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.divide(vectors, lengths, out=np.zeros_like(vectors), where=lengths > 0)


def _pair(
    source: np.ndarray, target: np.ndarray, target_rows: np.ndarray, ranks: np.ndarray, candidates: int, neighbours: int
) -> _Candidates:
    """Candidates for every source word from P(source | target) P(target), by CSLS (Conneau et al. 2018, eq. 3)."""
    count = min(neighbours, len(source))
    hubness = nearest(source, target, min(10, len(target)))[0].mean(1)  # of a source word: how near its neighbours are
    # CSLS less the target's own hubness, which ranks nothing here: 2 cos - r(source), as one inner product.
    queries = np.hstack([2 * target, -np.ones((len(target), 1), np.float32)])
    scores, ids = nearest(queries, np.hstack([source, hubness[:, None]]), count, metric="dot")
    weights = np.exp((scores - scores[:, :1]) / _TEMPERATURE)
    weights = weights / weights.sum(1, keepdims=True) / (1.0 + ranks[:, None]) ** _FREQUENCY_POWER
    owners, rows, weights = ids.ravel(), np.repeat(target_rows, count), weights.ravel()

    missing = np.setdiff1d(np.arange(len(source)), owners)
    if len(missing):
        found = target_rows[nearest(source[missing], target, 1)[1][:, 0]]
        owners, rows = np.concatenate([owners, missing]), np.concatenate([rows, found])
        weights = np.concatenate([weights, np.ones(len(missing))])
    order = np.lexsort((rows, -weights, owners))
    owners, rows, weights = owners[order], rows[order], weights[order]
    place = np.arange(len(owners)) - np.searchsorted(owners, owners)
    kept = place < candidates
    owners, rows, weights = owners[kept], rows[kept], weights[kept]
    indptr = np.searchsorted(owners, np.arange(len(source) + 1))
    total = np.cumsum(weights)
    before = np.concatenate([[0.0], total])[indptr[:-1]]
    return _Candidates(indptr, rows, total - np.repeat(before, np.diff(indptr)))
