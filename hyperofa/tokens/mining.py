"""Words that a tokenizer lacks: from a list, from another tokenizer, or mined from text by what they would save."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from tokenizers import Regex, pre_tokenizers
from tokenizers import Tokenizer as BackendTokenizer

from hyperofa.tokens.canonical import Token

_WORD = r"(?<!\w)\p{L}[\p{L}\p{M}]*(?!\w)"
_BEFORE = "a"
_BATCH = 10_000  # lines tokenised at a time


@dataclass(frozen=True)
class Candidate:
    """A word that could become one token.

    Attributes:
        word: as it stands in the text.
        count: how often.
        pieces: tokens it takes now, in running text.
    """

    word: str
    count: int
    pieces: int

    @property
    def saving(self) -> int:
        """Tokens saved in the text it was counted in."""
        return self.count * (self.pieces - 1)


def count_words(lines: Iterable[str]) -> Counter[str]:
    """How often each word stands in the text; a word is a run of letters and their marks that no digit touches."""
    splitter = pre_tokenizers.Split(Regex(_WORD), "removed", invert=True)
    counts: Counter[str] = Counter()
    for line in lines:
        counts.update(word for word, _ in splitter.pre_tokenize_str(line))
    return counts


def pieces_in_text(tokenizer: BackendTokenizer, words: Sequence[str]) -> list[list[int]]:
    """Ids of the tokens that each word takes inside a text, after another word.

    Args:
        tokenizer: backend.
        words: each is taken as it stands within a text.
    """
    skipped = len(tokenizer.encode(_BEFORE, add_special_tokens=False).ids)
    encodings = tokenizer.encode_batch_fast([f"{_BEFORE} {word}" for word in words], add_special_tokens=False)
    return [encoding.ids[skipped:] for encoding in encodings]


def count_pieces(tokenizer: BackendTokenizer, words: Sequence[str], unknown: int | None) -> list[int]:
    """Tokens that each word takes inside a text; a word that needs the unknown token counts its characters.

    Args:
        tokenizer: backend.
        words: as for `pieces_in_text`.
        unknown: id of the unknown token, if there is one.
    """
    pieces = zip(words, pieces_in_text(tokenizer, words), strict=True)
    return [max(len(ids), len(word) if unknown in ids else 0) for word, ids in pieces]


def mine(
    tokenizer: BackendTokenizer, counts: Counter[str], unknown: int | None, count: int, min_pieces: int
) -> list[Candidate]:
    """The words whose tokens would save most in a text.

    Args:
        tokenizer: of the source.
        counts: words of the text.
        unknown: id of the unknown token.
        count: how many words, at most.
        min_pieces: only words that take at least this many tokens.

    Returns:
        Candidates, the greatest saving first, then by word.
    """
    words = sorted(counts)
    pieces = count_pieces(tokenizer, words, unknown)
    found = [Candidate(word, counts[word], size) for word, size in zip(words, pieces, strict=True)]
    found = [candidate for candidate in found if candidate.pieces >= max(2, min_pieces)]
    return sorted(found, key=lambda candidate: (-candidate.saving, candidate.word))[:count]


def words_of(tokens: Sequence[Token | None]) -> list[str]:
    """The words in another tokenizer's vocabulary: tokens of letters at which a word starts, by their ids."""
    texts = [
        token.text.decode(errors="ignore") for token in tokens if token and token.starts_word and not token.special
    ]
    return [text for text in dict.fromkeys(texts) if list(count_words([text])) == [text]]


def count_tokens(tokenizer: BackendTokenizer, lines: Sequence[str]) -> int:
    """Tokens of a text, without special ones.

    Args:
        tokenizer: backend.
        lines: of text.
    """
    return sum(
        len(encoding.ids)
        for start in range(0, len(lines), _BATCH)
        for encoding in tokenizer.encode_batch_fast(list(lines[start : start + _BATCH]), add_special_tokens=False)
    )
