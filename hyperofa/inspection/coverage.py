"""What vectors cover: a tokenizer by script and language, and a text by file."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np

from hyperofa.bundle.bundle import Bundle
from hyperofa.bundle.fertility import Fertility
from hyperofa.methods.fallbacks import ORIGINS, Plan
from hyperofa.runtime.text_files import iterate_lines
from hyperofa.tokens.matching import Matches
from hyperofa.vectors.spelling import split_spec
from hyperofa.vectors.store import WordVectors
from hyperofa.vectors.texts import split_words

_LINES = 5_000  # of a text that are looked at


@dataclass(frozen=True)
class ScriptCoverage:
    """What the rows of one script will be.

    Attributes:
        script: as Unicode names it; `none` for tokens without letters.
        tokens: how many there are.
        origins: how many are of each origin that occurs.
    """

    script: str
    tokens: int
    origins: dict[str, int]


@dataclass(frozen=True)
class LanguageCoverage:
    """How a language fares under both tokenizers.

    Attributes:
        language: its code.
        words: that have vectors.
        tokens: target tokens that are part of one of these.
        fertility: what both tokenizers make of its words.
    """

    language: str
    words: int
    tokens: int
    fertility: Fertility


@dataclass(frozen=True)
class TextCoverage:
    """How much of a text has vectors.

    Attributes:
        path: the file.
        language: that it is said to be in; else the one that has most of its words.
        share: of its running words, those that have a vector in that language.
        missing: its most frequent words that have none.
    """

    path: str
    language: str
    share: float
    missing: tuple[str, ...]


def cover_scripts(plan: Plan) -> list[ScriptCoverage]:
    """The target rows by script, the largest first.

    Args:
        plan: what each row will be.
    """
    found = []
    for script, count in Counter(plan.scripts.tolist()).most_common():
        numbers = np.bincount(plan.origins[plan.scripts == script], minlength=len(ORIGINS)).tolist()
        origins: dict[str, int] = {origin: n for origin, n in zip(ORIGINS, numbers, strict=True) if n}
        found.append(ScriptCoverage(script or "none", count, origins))
    return found


def count_tokens(matches: Matches, words: WordVectors) -> np.ndarray:
    """How many tokens are part of a word of each language, `(L,)`.

    Args:
        matches: the words of each token.
        words: the vectors, L languages.
    """
    size = len(words.languages)
    pairs = np.unique(matches.tokens * size + words.language_ids[matches.words])
    return np.bincount(pairs % size, minlength=size)


def cover_languages(bundle: Bundle) -> list[LanguageCoverage]:
    """All languages of the vectors, in the order of their codes."""
    words, tokens = bundle.words, count_tokens(bundle.target, bundle.words)
    return [
        LanguageCoverage(language, len(words.select([language])), int(count), bundle.fertility[language])
        for language, count in zip(words.languages, tokens, strict=True)
    ]


def cover_texts(specs: Sequence[str], words: WordVectors) -> list[TextCoverage]:
    """How much of the first lines of each text has vectors.

    Args:
        specs: 'LANG=PATH' or 'PATH' each.
        words: the vectors.
    """
    files = [split_spec(spec) for spec in specs]
    read = (islice(iterate_lines([path], "--text"), _LINES) for _, path in files)
    counts = [Counter(word for line in lines for word in split_words(line)) for lines in read]
    wanted = set().union(*counts) if counts else set()
    spoken: dict[str, set[int]] = {}
    for word, language in zip(words.words, words.language_ids.tolist(), strict=True):
        folded = word.lower()
        if folded in wanted:
            spoken.setdefault(folded, set()).add(language)
    return [_cover(path, language, each, spoken, words) for (language, path), each in zip(files, counts, strict=True)]


def _cover(
    path: Path, language: str | None, counts: Counter[str], spoken: dict[str, set[int]], words: WordVectors
) -> TextCoverage:
    mass: Counter[int] = Counter()
    for word, count in counts.items():
        for number in spoken.get(word, ()):
            mass[number] += count
    if language is None:
        number = mass.most_common(1)[0][0] if mass else -1
        language = words.languages[number] if mass else ""
    else:
        number = words.languages.index(language) if language in words.languages else -1
    missing = [word for word, _ in counts.most_common() if number not in spoken.get(word, ())]
    return TextCoverage(str(path), language, mass[number] / max(1, counts.total()), tuple(missing[:5]))
