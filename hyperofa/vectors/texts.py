"""Text for word vectors: pieces of it by name, and their words."""

import unicodedata
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from hyperofa.errors import InputError
from hyperofa.runtime.text_files import read_rows
from hyperofa.vectors.spelling import like_spec, split_spec

_OUTER = frozenset("PSZC")  # Unicode categories that a word neither begins nor ends with; accents (M) stay
_DASHES = str.maketrans({"—": " ", "–": " ", "―": " "})


class Piece(NamedTuple):
    """A line of a text: pieces of one name, in whatever language, say the same."""

    name: str
    language: str
    text: str


def read_pieces(specs: Sequence[str], aligned: bool = False) -> list[Piece]:
    """Read texts, one sentence or verse a line.

    Args:
        specs: 'LANG=PATH' or 'PATH' each; of a `.tsv` file the first column names the line and the last is its text.
        aligned: line n of each other file says the same; else each line stands alone.

    Raises:
        InputError: a file is missing, empty or not UTF-8 text, or aligned files differ in length.
    """
    pieces, lengths = [], dict[str, int]()
    for number, spec in enumerate(specs):
        language, path = split_spec(spec)
        if not path.exists():
            raise InputError(f"--text {spec}: expected a text file{like_spec(spec)}, found none")
        rows = read_rows(path, "--text")
        named = ".tsv" in Path(path).suffixes
        if not named:
            lengths[spec] = len(rows)
        for line, columns in enumerate(rows):
            name = columns[0] if named else f"line {line}" if aligned else f"{number}:{line}"
            pieces.append(Piece(name, language or "", columns[-1].strip()))
    if aligned and len(set(lengths.values())) > 1:
        found = ", ".join(f"{count:,} in {spec}" for spec, count in lengths.items())
        raise InputError(f"--text: expected equally many lines in files whose lines say the same, found {found}")
    return pieces


def split_words(text: str) -> list[str]:
    """The words of a text in lower case: what stands between spaces and dashes, without punctuation at its ends."""
    words = text.lower().translate(_DASHES).replace("--", " ").split()
    spans = ((word, *word_span(word)) for word in words)
    return [word[start:end] for word, start, end in spans if start < end]


@lru_cache(2**16)
def word_span(text: str) -> tuple[int, int]:
    """Where the word starts and ends in a text that may have punctuation around it; equal if there is no word."""
    start, end = 0, len(text)
    while start < end and is_outer(text[start]):
        start += 1
    while end > start and is_outer(text[end - 1]):
        end -= 1
    return start, end


def is_outer(character: str) -> bool:
    """Whether a word neither begins nor ends with the character: punctuation, symbols, spaces, controls."""
    return unicodedata.category(character)[0] in _OUTER
