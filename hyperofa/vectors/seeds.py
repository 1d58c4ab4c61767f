"""Words of two languages that probably mean the same, to begin an alignment with."""

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from hyperofa.errors import InputError
from hyperofa.runtime.text_files import read_pairs, read_rows
from hyperofa.vectors.texts import split_words

_LEAST = 2  # times that two words must stand in lines that say the same
_DICE = 0.3  # how much of their lines they must share


class Lexicon(NamedTuple):
    """The words of one language, the most frequent ones first, by spelling.

    Attributes:
        words: as the vector file spells them.
        places: row of each by its spelling in lower case; of several, the most frequent one's.
    """

    words: Sequence[str]
    places: dict[str, int]

    @classmethod
    def of(cls, words: Sequence[str]) -> "Lexicon":
        """Of words in the order of their frequency."""
        places: dict[str, int] = {}
        for row, word in enumerate(words):
            places.setdefault(word.lower(), row)
        return cls(words, places)


Pairs = NDArray[np.int64]
"""`(p, 2)` rows of a source and a target lexicon."""


def listed_pairs(path: Path, source: Lexicon, target: Lexicon) -> Pairs:
    """The pairs of a word list that both lexicons have.

    Args:
        path: two words a line, with a tab or a space between them, the source's first.
        source: of the language that is aligned.
        target: of the other one.

    Raises:
        InputError: the file is missing, empty or has other lines.
    """
    pairs = []
    for number, columns in enumerate(read_rows(path, "--dictionary"), 1):
        words = "\t".join(columns).split("\t" if len(columns) > 1 or "\t" in columns[0] else None)
        if not words:
            continue
        if len(words) != 2:
            raise InputError(f"--dictionary {path} line {number}: expected two words, found {len(words)}")
        pairs.append((source.places.get(words[0].strip().lower()), target.places.get(words[1].strip().lower())))
    return _pairs((a, b) for a, b in pairs if a is not None and b is not None)


def identical_pairs(source: Lexicon, target: Lexicon) -> Pairs:
    """Words that both languages spell alike: names, numerals, loans; those of one letter left out.

    Args:
        source: of the language that is aligned.
        target: of the other one.
    """
    shared = [word for word in source.places if len(word) > 1 or not word.isalpha()]
    return _pairs((source.places[word], target.places[word]) for word in shared if word in target.places)


def parallel_pairs(texts: Sequence[tuple[str, str]], source: Lexicon, target: Lexicon) -> Pairs:
    """Words that stand in the same lines of parallel text: each other's best partner by Dice's coefficient.

    Args:
        texts: a line and its translation each.
        source: of the lines.
        target: of the translations.
    """
    sides: tuple[Counter[int], Counter[int]] = (Counter(), Counter())
    both: Counter[tuple[int, int]] = Counter()
    for text in texts:
        rows = [
            {lexicon.places[word] for word in split_words(line) if word in lexicon.places}
            for line, lexicon in zip(text, (source, target), strict=True)
        ]
        for counter, found in zip(sides, rows, strict=True):
            counter.update(found)
        both.update((a, b) for a in rows[0] for b in rows[1])
    best: tuple[dict[int, tuple[float, int]], dict[int, tuple[float, int]]] = ({}, {})
    for (a, b), count in sorted(both.items()):
        dice = 2 * count / (sides[0][a] + sides[1][b])
        if count >= _LEAST and dice >= _DICE:
            for own, other, side in ((a, b, 0), (b, a, 1)):
                best[side][own] = max(best[side].get(own, (0.0, -1)), (dice, -other))
    return _pairs((a, -b) for a, (_, b) in sorted(best[0].items()) if best[1][-b][1] == -a)


def read_parallel(paths: Sequence[Path]) -> list[tuple[str, str]]:
    """Lines and their translations, tab-separated."""
    return read_pairs(paths, "--parallel")


def _pairs(found: Iterable[tuple[int, int]]) -> Pairs:
    return np.array(sorted(set(found)), np.int64).reshape(-1, 2)
