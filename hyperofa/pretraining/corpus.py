"""Text to pretrain on, by language: what is held out, and all of it as tokens in memory-mapped files.

A text may be larger than memory: it is read line by line, and its tokens are written to files from which a batch reads
only what it needs.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice, pairwise
from pathlib import Path

import numpy as np
from tokenizers import Encoding
from tqdm.auto import tqdm
from transformers import PreTrainedTokenizerBase

from hyperofa.errors import InputError
from hyperofa.evaluation.task import UNNAMED
from hyperofa.models.source import content_hash
from hyperofa.pretraining.language_files import PARTS, LanguageFiles, Part, write_once
from hyperofa.runtime.hashing import sha256_text
from hyperofa.runtime.processes import bar_hidden
from hyperofa.runtime.text_files import choose_held_out, iterate_lines
from hyperofa.tokens.canonical import bare_backend

_LINES = 10_000  # made tokens of at a time
_COLUMNS = {"ids": np.int32, "sizes": np.int32, "separators": np.bool_}


@dataclass(frozen=True)
class TokenStream:
    """The text of one language as N tokens; its lines follow each other, apart by a token that stands for the newline.

    Attributes:
        language: its code, or `UNNAMED`.
        ids: `(N,)` int32.
        sizes: `(N,)` int32, UTF-8 bytes of the text that each token stands for.
        separators: `(N,)` bool, the tokens that stand for newlines.
    """

    language: str
    ids: np.ndarray
    sizes: np.ndarray
    separators: np.ndarray

    def __len__(self) -> int:
        return len(self.ids)


@dataclass(frozen=True)
class TokenisedText:
    """Text to train and to measure on, a stream a language."""

    train: Sequence[TokenStream]
    val: Sequence[TokenStream]


@dataclass(frozen=True)
class Corpus(LanguageFiles):
    """Files of text; lines of `train` are held out."""

    FLAG = "text"

    _chosen: dict[str, np.ndarray] = field(default_factory=dict, repr=False)

    def lines(self, part: Part, language: str) -> Iterator[str]:
        """The text of a language, line by line.

        Args:
            part: to train or to measure on.
            language: one of `languages(part)`.

        Raises:
            InputError: a file is missing or not text, or there is too little to hold a line out.
        """
        if self.val:
            yield from iterate_lines((self.train if part == "train" else self.val)[language], self.flag(part))
            return
        if language not in self._chosen:
            total = sum(1 for _ in iterate_lines(self.train[language], self.flag("train")))
            flag = self.flag("train", language)
            self._chosen[language] = choose_held_out(total, self.held_out, self.seed, flag)
        lines = iterate_lines(self.train[language], self.flag("train"))
        for line, held in zip(lines, self._chosen[language], strict=True):
            if held == (part == "val"):
                yield line

    def check(self) -> None:
        """See that there is text to train and to measure on, before anything takes long.

        Raises:
            InputError: a file is missing or not text, or there is too little to hold a line out.
        """
        for part in PARTS:
            for language in self.languages(part):
                next(self.lines(part, language))


def tokenise_lines(
    tokenizer: PreTrainedTokenizerBase, train: Sequence[str], val: Sequence[str], language: str = UNNAMED
) -> TokenisedText:
    """Text in memory as tokens in memory.

    Args:
        tokenizer: of the model.
        train: lines to train on.
        val: lines to measure on.
        language: of both.

    Raises:
        InputError: no tokens in one of them.
    """
    return TokenisedText(*(
        [_check(_stream(language, list(_tokenise(lines, tokenizer))), flag)]
        for lines, flag in ((train, "--text"), (val, "--validation_text"))
    ))  # fmt: skip


def tokenise(corpus: Corpus, tokenizer: PreTrainedTokenizerBase, folder: Path, progress: bool = False) -> TokenisedText:
    """Text on disk as tokens on disk, made once for tokenizers that are alike.

    Args:
        corpus: the text.
        tokenizer: of the model.
        folder: where the tokens are kept, below a name of the tokenizer's own; it serves one corpus only.
        progress: show a progress bar.

    Raises:
        InputError: a text is missing or has no tokens.
    """
    ends = tokenizer.eos_token_id, tokenizer.sep_token_id, tokenizer.bos_token_id
    place = folder / sha256_text(content_hash(tokenizer), repr(ends))[:16]

    def write(part: Part, language: str, empty: Path) -> None:
        lines, title = corpus.lines(part, language), f"tokens of {language}, {part}"
        shown = tqdm(lines, title, unit=" lines", leave=False, disable=bar_hidden(not progress))
        _write(empty, _tokenise(shown, tokenizer))

    write_once(place, corpus, write)
    return TokenisedText(*(
        [_check(_open(place / part / language), corpus.flag(part)) for language in corpus.languages(part)]
        for part in PARTS
    ))  # fmt: skip


_Columns = tuple[np.ndarray, np.ndarray, np.ndarray]


def _tokenise(lines: Iterable[str], tokenizer: PreTrainedTokenizerBase) -> Iterator[_Columns]:
    """Token ids, their bytes, and which of them are separators, of some lines at a time."""
    backend = bare_backend(tokenizer)
    roles = (tokenizer.eos_token_id, tokenizer.sep_token_id, tokenizer.bos_token_id)
    separator = next((token for token in roles if token is not None), None)
    end = [] if separator is None else [separator]
    left = iter(lines)
    while some := list(islice(left, _LINES)):
        ids, sizes, separators = [], [], []
        for line, encoding in zip(some, backend.encode_batch(some, add_special_tokens=False), strict=True):
            own = _sizes(line, encoding)
            ids.append(np.array([*encoding.ids, *end], np.int32))
            sizes.append(np.array([*own, *([1 + len(line.encode()) - sum(own)] * len(end))], np.int32))
            separators.append(np.arange(len(ids[-1])) >= len(own))
        yield np.concatenate(ids), np.concatenate(sizes), np.concatenate(separators)


def _sizes(line: str, encoding: Encoding) -> list[int]:
    """Bytes from the end of the token before to the end of each: they add up, also where tokens share a character."""
    ends = np.maximum.accumulate([0, *(end for _, end in encoding.offsets)])
    if not line.isascii():
        ends = np.cumsum([0, *(len(character.encode()) for character in line)])[ends]
    return [int(end - start) for start, end in pairwise(ends)]


def _stream(language: str, parts: Sequence[_Columns]) -> TokenStream:
    columns = enumerate(_COLUMNS.values())
    return TokenStream(language, *(
        np.concatenate([np.empty(0, kind), *(part[number] for part in parts)]).astype(kind) for number, kind in columns
    ))  # fmt: skip


def _write(folder: Path, parts: Iterable[_Columns]) -> None:
    folder.mkdir(parents=True)
    files = [(folder / name).open("wb") for name in _COLUMNS]
    try:
        for part in parts:
            for file, values, kind in zip(files, part, _COLUMNS.values(), strict=True):
                file.write(values.astype(kind).tobytes())
    finally:
        for file in files:
            file.close()


def _open(folder: Path) -> TokenStream:
    empty = (folder / "ids").stat().st_size == 0  # which cannot be mapped
    return TokenStream(folder.name, *(
        np.empty(0, kind) if empty else np.memmap(folder / name, kind, "r") for name, kind in _COLUMNS.items()
    ))  # fmt: skip


def _check(stream: TokenStream, flag: str) -> TokenStream:
    if not len(stream):
        raise InputError(f"{flag}: expected text that the tokenizer of --model makes tokens of, found none")
    return stream
