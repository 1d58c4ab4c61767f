"""How the words of a vector file spell their language and their borders."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

WORD_START, WORD_END = 1, 2
"""Bits of a word's borders: it starts, or ends, where a word of the text does, so a space may stand there."""

SEEN = 4096
"""Words by which `Spelling.detect` decides."""

_SHARE = 0.1
_LANGUAGE = r"[a-z]{3}(?:_[A-Z][a-z]{3})?|[a-z]{2}"
_PREFIX = re.compile(rf"({_LANGUAGE}):(?!//)(?=.)", re.DOTALL)
_SPEC = re.compile(rf"({_LANGUAGE})=(.+)", re.DOTALL)

SpellingChoice = Literal["auto", "marked", "plain", "reference"]


@dataclass(frozen=True)
class Spelling:
    """How the words of one file spell their language and their borders.

    A language prefix is a code of two letters, or of three with or without a script (`de:`, `deu:`, `deu_Latn:`),
    with something other than `//` behind it. A border mark is ColexNet's `$` at the start or the end of a word.
    Either may occur by chance (`re:zero`, `$5`), so `detect` reads it only in a file where a tenth of the first 4,096
    words have it.
    """

    prefixes: bool
    marks: bool

    @classmethod
    def detect(cls, words: Sequence[str], choice: SpellingChoice = "auto") -> "Spelling":
        """Decide from a file's first words, or as `choice` says: all spellings ('marked'), none, or as published.

        Args:
            words: as the file spells them.
            choice: `auto` to decide by them.
        """
        if choice == "reference":
            return ReferenceSpelling(True, True)
        if choice != "auto":
            return cls(choice == "marked", choice == "marked")
        prefixed = sum(_PREFIX.match(word) is not None for word in words)
        prefixes = prefixed >= _SHARE * len(words)
        bare = [cls(prefixes, False).split(word, "")[0] for word in words]
        marked = sum(len(word) > 1 and (word[0] == "$" or word[-1] == "$") for word in bare)
        return cls(prefixes, marked >= _SHARE * len(words))

    def split(self, word: str, language: str) -> tuple[str, str, int]:
        """Take a word apart.

        Args:
            word: as the file spells it.
            language: of a word that has no prefix.

        Returns:
            The plain word, its language and its border bits: both in a file that marks none.
        """
        if self.prefixes and (prefix := _PREFIX.match(word)) is not None:
            language, word = prefix[1], word[prefix.end() :]
        if not self.marks:
            return word, language, WORD_START | WORD_END
        borders = 0
        if len(word) > 1 and word[0] == "$":
            borders, word = borders | WORD_START, word[1:]
        if len(word) > 1 and word[-1] == "$":
            borders, word = borders | WORD_END, word[:-1]
        return word, language, borders


class ReferenceSpelling(Spelling):
    """The published rule: English without a prefix, and border marks stay in the word (`reference.QUIRKS`)."""

    def split(self, word: str, language: str) -> tuple[str, str, int]:
        """Take a word apart: the word with its marks, its language, and both border bits.

        Args:
            word: as the file spells it.
            language: of a word that has no prefix.
        """
        if len(word) > 4 and word[3] == ":":
            return word[4:], word[:3], WORD_START | WORD_END
        return word, language or "eng", WORD_START | WORD_END


def split_spec(spec: str) -> tuple[str | None, Path]:
    """Split 'LANG=PATH' (LANG a code of two or three letters, or like deu_Latn) or 'PATH', whose language is None."""
    match = None if Path(spec).exists() else _SPEC.fullmatch(spec)
    return (match[1], Path(match[2])) if match else (None, Path(spec))


def like_spec(spec: str) -> str:
    """What else to say that was expected where nothing is found: LANG=PATH, if that may have been meant."""
    return ", or LANG=FILE with a LANG such as deu or deu_Latn" if "=" in spec and not split_spec(spec)[0] else ""
