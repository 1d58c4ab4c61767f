"""A lexicon in four real languages: each meaning with its word in each of them."""

import re
from collections import Counter
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

LANGUAGES: tuple[str, ...] = ("eng", "epo", "ind", "tur")


@dataclass(frozen=True)
class Concept:
    """One meaning and its word in each of `LANGUAGES`.

    A second form may follow a slash: the plural of an English noun, the past of an English verb, the stem of a Turkish
    word before a vowel (`kitap/kitab`).
    """

    part: str
    kind: str
    words: tuple[str, ...]

    def word(self, language: str) -> str:
        """The dictionary form."""
        return self.words[LANGUAGES.index(language)].partition("/")[0]

    def second(self, language: str) -> str:
        """The form after the slash, or the empty string."""
        return self.words[LANGUAGES.index(language)].partition("/")[2]


@cache
def lexicon() -> tuple[Concept, ...]:
    """All concepts, in the order of `lexicon.tsv`; a ValueError names the line that is wrong."""
    header, *rows = files("hyperofa.demo").joinpath("lexicon.tsv").read_text(encoding="utf-8").splitlines()
    if header.split("\t") != ["part", "kind", *LANGUAGES]:
        raise ValueError(f"lexicon.tsv: expected the columns part, kind, {', '.join(LANGUAGES)}; found {header!r}")
    for number, row in enumerate(rows, start=2):
        if not re.fullmatch(r"\w+\t\w+" + r"\t\w+(/\w+)?" * len(LANGUAGES), row):
            raise ValueError(f"lexicon.tsv, line {number}: expected part, kind, one word per language; found {row!r}")
    concepts = tuple(Concept(part, kind, tuple(words)) for part, kind, *words in (row.split("\t") for row in rows))
    for language in LANGUAGES:
        word, uses = Counter(concept.word(language) for concept in concepts).most_common(1)[0]
        if uses > 1:
            raise ValueError(f"lexicon.tsv: the {language} word {word!r} has {uses} lines; expected one meaning a word")
    return concepts
