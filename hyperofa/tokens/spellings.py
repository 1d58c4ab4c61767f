"""The spellings in which a word stands in running text, and which of them a tokenizer takes for the same."""

import json
import re
from collections.abc import Callable, Sequence
from typing import Any

from tokenizers import Tokenizer as BackendTokenizer

from hyperofa.vectors.spelling import WORD_START

Variants = Callable[[str, int], Sequence[str]]

# Normalisers that make the same of a word with one space before it as of the word alone, but for that space.
_HARMLESS = {"BertNormalizer", "Lowercase", "NFC", "NFD", "NFKC", "NFKD", "Nmt", "Precompiled", "Strip", "StripAccents"}
_SEVERAL_SPACES = {"Regex": " {2,}"}
_SPLIT_AT_SPACES = {"BertPreTokenizer", "Whitespace", "WhitespaceSplit"}


def surface_variants(word: str, boundaries: int) -> Sequence[str]:
    """The spellings of a word in running text: plain, word-initial, capitalised.

    Args:
        word: without marks.
        boundaries: bit `WORD_START` is clear for a piece that only continues a word, which has the plain form alone.
    """
    if not boundaries & WORD_START:
        return (word,)
    capitalised = word[:1].upper() + word[1:]
    return (word, " " + word) if capitalised == word else (word, " " + word, " " + capitalised)


class Twins:
    """Spellings that a tokenizer cannot tell apart: with and without a space before them, in capitals or not.

    SentencePiece's tokenizers put the mark of a word start before every text, BERT's drop spaces, and uncased ones
    capitals too: of three spellings of a word one or two need to be tokenised.

    Args:
        tokenizer: the Rust tokenizer.
    """

    def __init__(self, tokenizer: BackendTokenizer) -> None:
        normalizers = _parts(tokenizer.normalizer, "normalizers")
        splitter = next(iter(_parts(tokenizer.pre_tokenizer, "pretokenizers")), {"type": None})
        harmless = all(
            each["type"] in _HARMLESS or (each["type"] == "Replace" and each["pattern"] == _SEVERAL_SPACES)
            for each in normalizers
        )
        marks = splitter["type"] == "Metaspace" and splitter["prepend_scheme"] in ("always", "first")
        self._spaces = harmless and (splitter["type"] in _SPLIT_AT_SPACES or marks)
        self._capitals = harmless and any(
            each["type"] == "Lowercase" or (each["type"] == "BertNormalizer" and each["lowercase"])
            for each in normalizers
        )
        added = (re.escape(token.content) for token in tokenizer.get_added_tokens_decoder().values())
        self._added = re.compile("|".join(added) or r"(?!)", re.IGNORECASE)

    def distinct(self, word: str, forms: Sequence[str]) -> dict[str, int]:
        """The spellings that must be tokenised, each with the number of those that it stands for.

        Args:
            word: whose they are.
            forms: as `surface_variants` gives them.
        """
        counts: dict[str, int] = {}
        plain = (self._spaces or self._capitals) and word[:1].isalnum() and not self._added.search(word)
        for form in forms:
            if plain and self._spaces:
                form = form.removeprefix(" ")
            if plain and self._capitals and form.isascii():
                form = form.lower()
            counts[form] = counts.get(form, 0) + 1
        return counts


def without_marks(tokenizer: BackendTokenizer) -> BackendTokenizer | None:
    """The tokenizer as it reads on within a text, where no word start is marked; `None` if it always does.

    Args:
        tokenizer: one that may put a mark, or a space, before each text.
    """
    state = json.loads(tokenizer.to_str())
    found = [part for name in ("normalizer", "pre_tokenizer") for part in _nested(state[name])]
    for part in found:
        if part["type"] == "Metaspace":
            part["prepend_scheme"] = "never"
        elif part["type"] == "ByteLevel":
            part["add_prefix_space"] = False
        elif part["type"] == "Prepend":
            part["prepend"] = ""
    text = json.dumps(state, ensure_ascii=False)
    return None if state == json.loads(tokenizer.to_str()) else BackendTokenizer.from_str(text)


def _nested(state: dict[str, Any] | None) -> list[dict[str, Any]]:
    """A normaliser or pre-tokenizer and what it is a sequence of."""
    if state is None:
        return []
    inner = state.get("normalizers") or state.get("pretokenizers") or []
    return [state, *(part for each in inner for part in _nested(each))]


def _parts(component: Any, name: str) -> list[dict[str, Any]]:
    """The states of a tokenizer's normaliser or pre-tokenizer, of each one if it is a sequence."""
    return [] if component is None else _flat(json.loads(component.__getstate__()), name)


def _flat(state: dict[str, Any], name: str) -> list[dict[str, Any]]:
    return [part for each in state[name] for part in _flat(each, name)] if state["type"] == "Sequence" else [state]
