"""What both tokenizers of a bundle make of each language's words, and so which languages the new vocabulary is for."""

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from tokenizers import Tokenizer as BackendTokenizer
from transformers import PreTrainedTokenizerBase

from hyperofa.tokens.canonical import bare_backend
from hyperofa.vectors.store import WordVectors

NONE_LOST = 0.01
"""Share of a language's words without tokens up to which a tokenizer can write it."""

_WORDS = 1_000  # most frequent words of a language that are looked at
_MOST_LOST = 0.1  # above it a vocabulary is not for the language


class Fertility(NamedTuple):
    """What both tokenizers make of the words of a language.

    Attributes:
        tokens: a word under the source and the target tokenizer; frequent words count more.
        unknown: share of words that each of them has no token for.
    """

    tokens: tuple[float, float]
    unknown: tuple[float, float]

    @property
    def longer(self) -> bool:
        """Whether text of a language that the source tokenizer can write gets no shorter."""
        # An unknown word is one token, and says nothing.
        return self.tokens[1] >= self.tokens[0] and self.unknown[0] <= NONE_LOST

    @property
    def served(self) -> bool:
        """Whether the target vocabulary can be meant for the language."""
        return self.unknown[1] <= _MOST_LOST and not self.longer


def measure_words(backend: BackendTokenizer, words: Sequence[str], unknown: int | None) -> tuple[float, float]:
    """Tokens a word, and the share of words that need the unknown token; a word counts one over its rank.

    Args:
        backend: the tokenizer.
        words: the most frequent ones first.
        unknown: id of the unknown token, if there is one.
    """
    if not words:
        return 0.0, 0.0
    ids = [encoding.ids for encoding in backend.encode_batch_fast(list(words), add_special_tokens=False)]
    weights = 1 / np.arange(1, len(ids) + 1)
    lengths = np.array([len(each) for each in ids])
    lost = np.array([unknown in each or not each for each in ids])
    return float(weights @ lengths / weights.sum()), float(weights @ lost / weights.sum())


def measure_languages(
    words: WordVectors, tokenizers: tuple[PreTrainedTokenizerBase, PreTrainedTokenizerBase]
) -> dict[str, Fertility]:
    """What two tokenizers make of the most frequent words of each language.

    Args:
        words: the vector file.
        tokenizers: of the source and the target.
    """
    backends = [bare_backend(each) for each in tokenizers]
    unknown = [each.unk_token_id for each in tokenizers]
    found = {}
    for language in words.languages:
        frequent = words.words[words.select([language])[:_WORDS]]
        measured = [measure_words(backend, frequent, unk) for backend, unk in zip(backends, unknown, strict=True)]
        (source, target), (source_lost, target_lost) = zip(*measured, strict=True)
        found[language] = Fertility((source, target), (source_lost, target_lost))
    return found


def languages_served(fertility: Mapping[str, Fertility], known: Iterable[str]) -> list[str]:
    """Languages that a new vocabulary is for; all, if that would leave none.

    Args:
        fertility: by language.
        known: languages that the source model knows, which are not asked.
    """
    others = sorted(set(fertility) - {"", *known})
    return [language for language in others if fertility[language].served] or others
