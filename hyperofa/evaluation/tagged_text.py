"""Sentences whose words carry labels: parts of speech in CoNLL-U files, named entities in BIO files."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from hyperofa.errors import InputError
from hyperofa.runtime.text_files import lines_of

Entity = tuple[str, int, int]
"""Kind, first word, word after the last."""


@dataclass(frozen=True)
class TaggedSentence:
    """A text and its N words, each with a label.

    Attributes:
        text: as a tokenizer shall read it: spaces where the language has them.
        starts: `(N,)` first character of each word in the text.
        ends: `(N,)` character after its last.
        labels: `(N,)`.
    """

    text: str
    starts: Sequence[int]
    ends: Sequence[int]
    labels: Sequence[str]


def read_conllu(path: Path) -> list[TaggedSentence]:
    """Words and their universal parts of speech (UPOS), of a file as Universal Dependencies publishes them.

    Args:
        path: ten tab-separated columns, a blank line after each sentence. Multiword tokens and empty nodes are left
            out; `SpaceAfter=No` is heeded.

    Raises:
        InputError: no UTF-8 text, or another number of columns.
    """
    sentences = []
    for lines in _sentences(path, "#"):
        words = []
        for number, line in lines:
            fields = line.split("\t")
            if len(fields) != 10:
                raise InputError(f"{path} line {number}: expected 10 tab-separated columns, found {len(fields)}")
            if fields[0].isdecimal():  # else a range of words, or a word that nobody wrote
                words.append((fields[1], fields[3], "SpaceAfter=No" in fields[9].split("|")))
        sentences.append(_joined(words))
    return sentences


def read_bio(path: Path) -> list[TaggedSentence]:
    """Words and their entities: a word and its label (`O`, `B-PER`, `I-PER`) a line, as in CoNLL 2003 and WikiANN.

    Args:
        path: columns apart by spaces or tabs, the word first, the label last; a blank line after each sentence.

    Raises:
        InputError: no UTF-8 text, or a line without a label.
    """
    sentences = []
    for lines in _sentences(path, "-DOCSTART-"):
        words = []
        for number, line in lines:
            fields = line.split()
            if len(fields) < 2 or not (fields[-1] == "O" or fields[-1][:2] in ("B-", "I-")):
                raise InputError(f"{path} line {number}: expected a word and a label (O, B-… or I-…), found {line!r}")
            words.append((fields[0], fields[-1], False))
        sentences.append(_joined(words))
    return sentences


def _sentences(path: Path, comment: str) -> Iterator[list[tuple[int, str]]]:
    """Numbered lines of each sentence, without those that begin as comments do."""
    found: list[tuple[int, str]] = []
    for number, line in enumerate(lines_of(path, "--data", empty=True), 1):
        if line.strip():
            found += [] if line.startswith(comment) else [(number, line)]
        elif found:
            yield found
            found = []
    if found:
        yield found


def _joined(words: Sequence[tuple[str, str, bool]]) -> TaggedSentence:
    """A sentence of words, labels, and whether the next word follows without a space."""
    text, starts, ends = "", [], []
    for word, _, glued in words:
        starts.append(len(text))
        text += word
        ends.append(len(text))
        text += "" if glued else " "
    return TaggedSentence(text.rstrip(), starts, ends, [label for _, label, _ in words])


def entities(labels: Sequence[str]) -> set[Entity]:
    """The entities that labels tell of; an `I-` that continues nothing of its kind begins one, as in CoNLL 2000.

    Args:
        labels: of the words of a sentence.
    """
    found, kind, first = set[Entity](), "", 0
    for place, label in enumerate([*labels, "O"]):
        prefix, _, name = label.partition("-")
        if kind and (prefix != "I" or name != kind):
            found.add((kind, first, place))
            kind = ""
        if prefix in ("B", "I") and not kind:
            kind, first = name, place
    return found
