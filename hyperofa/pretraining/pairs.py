"""Parallel text by language: what is held out, and all of it as tokens in memory-mapped files.

Parallel text may be larger than memory: it is read line by line, and its tokens are written to files from which a batch
reads only what it needs.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset
from tqdm.auto import tqdm
from transformers import PreTrainedTokenizerBase

from hyperofa.errors import InputError
from hyperofa.models.source import content_hash, own_tokenizer
from hyperofa.pretraining.language_files import PARTS, LanguageFiles, Part, write_once
from hyperofa.runtime.hashing import sha256_text
from hyperofa.runtime.processes import bar_hidden
from hyperofa.runtime.text_files import iterate_pairs
from hyperofa.training.batches import pad
from hyperofa.training.samplers import Draw

_PAIRS = 10_000  # made tokens of at a time
_COLUMNS = ("translations", "own", "sources")
_KINDS = {"ids": np.int32, "ends": np.int64}


@dataclass(frozen=True)
class ParallelCorpus(LanguageFiles):
    """Files of pairs, a source sentence and its translation.

    Of `train` source sentences are held out, with all of their translations into any language.
    """

    FLAG = "parallel"

    _chosen: dict[str, set[int]] = field(default_factory=dict, repr=False)

    def pairs(self, part: Part, language: str) -> Iterator[tuple[str, str]]:
        """The pairs of a language, one by one.

        Args:
            part: to train or to measure on.
            language: one of `languages(part)`.

        Raises:
            InputError: a file is missing or no parallel text, or there is too little to hold a sentence out.
        """
        if self.val:
            yield from iterate_pairs((self.train if part == "train" else self.val)[language], self.flag(part))
            return
        if not self._chosen:
            self._chosen.update({each: self._choose(each) for each in self.train})
        held = self._chosen[language] if part == "val" else set().union(*self._chosen.values())
        for pair in iterate_pairs(self.train[language], self.flag("train")):
            if (self._number(pair[0]) in held) == (part == "val"):
                yield pair

    def _number(self, sentence: str) -> int:
        """What a sentence is known by, in all languages that it is translated into."""
        return int.from_bytes(blake2b(sentence.encode(), digest_size=8, key=str(self.seed).encode()).digest())

    def _choose(self, language: str) -> set[int]:
        """Sentences that are held out: those with the lowest numbers, which languages share as far as they can."""
        pairs = iterate_pairs(self.train[language], self.flag("train"))
        numbers = np.unique(np.fromiter((self._number(sentence) for sentence, _ in pairs), np.uint64))
        if len(numbers) < 2:
            raise InputError(
                f"{self.flag('train', language)}: expected at least 2 different source sentences, to train on one and "
                f"measure on another; found {len(numbers)}"
            )
        return set(numbers[: max(1, min(self.held_out, len(numbers) // 10))].tolist())

    def check(self) -> None:
        """See that there is something to train and to measure on, before anything takes long.

        Raises:
            InputError: as of `pairs`.
        """
        if self.held_out < 1:
            raise InputError(f"--validation_pairs: expected at least 1, found {self.held_out}")
        for part in PARTS:
            for language in self.languages(part):
                if next(self.pairs(part, language), None) is None:
                    raise InputError(
                        f"{self.flag(part, language)}: expected sentences that are not held out with another "
                        "language, found none; give --validation_parallel"
                    )


@dataclass(frozen=True)
class Sentences:
    """N sequences of tokens.

    Attributes:
        ids: int32, those of all.
        ends: `(N,)` int64, where each ends.
    """

    ids: np.ndarray
    ends: np.ndarray

    def __len__(self) -> int:
        return len(self.ends)

    def __getitem__(self, number: int) -> np.ndarray:
        return self.ids[self.ends[number - 1] if number else 0 : self.ends[number]]


class PairStream(NamedTuple):
    """The pairs of one language as tokens.

    Attributes:
        language: its code, or `UNNAMED`.
        translations: under the vocabulary that learns.
        own: source sentences under the same; none where nobody reads them.
        sources: source sentences under the source vocabulary.
    """

    language: str
    translations: Sentences
    own: Sentences
    sources: Sentences


class TokenisedPairs(NamedTuple):
    """Pairs to train and to measure on, a stream a language."""

    train: Sequence[PairStream]
    val: Sequence[PairStream]


@dataclass(frozen=True)
class Reader:
    """A tokenizer, and how many tokens of a sentence its model reads."""

    tokenizer: PreTrainedTokenizerBase
    length: int

    def __call__(self, texts: list[str]) -> list[list[int]]:
        """Tokens of each text, special ones too; what is too long is cut."""
        ids: list[list[int]] = self.tokenizer(texts, truncation=True, max_length=self.length)["input_ids"]
        return ids

    @property
    def name(self) -> str:
        """A hash of all that decides what it reads."""
        return sha256_text(content_hash(self.tokenizer), str(self.length))


def tokenise_pairs(
    corpus: ParallelCorpus, learner: Reader, source: Reader, folder: Path, own: bool = False, progress: bool = False
) -> TokenisedPairs:
    """Pairs on disk as tokens on disk, made once for readers that are alike.

    Args:
        corpus: the pairs.
        learner: reads translations, and source sentences, as the model that learns.
        source: reads source sentences as the source model.
        folder: where the tokens are kept, below a name of the readers' own; it serves one run only.
        own: have source sentences read as the model that learns, too.
        progress: show a progress bar.

    Raises:
        InputError: a file is missing or no parallel text.
    """
    place = folder / sha256_text(learner.name, source.name)[:16]
    learning, teaching = (Reader(own_tokenizer(each.tokenizer), each.length) for each in (learner, source))

    def write(part: Part, language: str, empty: Path) -> None:
        pairs, title = corpus.pairs(part, language), f"tokens of {language}, {part}"
        shown = tqdm(pairs, title, unit=" pairs", leave=False, disable=bar_hidden(not progress))
        _write(empty, shown, learning, teaching, own)

    write_once(place, corpus, write)
    return TokenisedPairs(*([_open(place / part / language) for language in corpus.languages(part)] for part in PARTS))


def _write(folder: Path, pairs: Iterable[tuple[str, str]], learner: Reader, source: Reader, own: bool) -> None:
    folder.mkdir(parents=True)
    left, totals = iter(pairs), dict.fromkeys(_COLUMNS, 0)
    while some := list(islice(left, _PAIRS)):
        sentences, translations = map(list, zip(*some, strict=True))
        read = {"translations": learner(translations), "sources": source(sentences)}
        read |= {"own": learner(sentences)} if own else {}
        for name, rows in read.items():
            ends = totals[name] + np.cumsum([len(row) for row in rows], dtype=np.int64)
            totals[name] = int(ends[-1])
            with (folder / f"{name}.ids").open("ab") as file:
                file.write(np.concatenate(rows).astype(np.int32).tobytes())
            with (folder / f"{name}.ends").open("ab") as file:
                file.write(ends.tobytes())


def _open(folder: Path) -> PairStream:
    return PairStream(folder.name, *(
        Sentences(*(_mapped(folder / f"{name}.{part}", kind) for part, kind in _KINDS.items())) for name in _COLUMNS
    ))  # fmt: skip


def _mapped(path: Path, kind: type) -> np.ndarray:
    return np.memmap(path, kind, "r") if path.is_file() else np.empty(0, kind)


class PairBatch(NamedTuple):
    """B pairs as a sentence encoder is trained on them; all `(B, …)` int64, masks 1 for a token.

    Attributes:
        ids: of the translations, under the vocabulary that learns.
        mask: of these.
        source_ids: of the source sentences, under the source vocabulary.
        source_mask: of these.
    """

    ids: Tensor
    mask: Tensor
    source_ids: Tensor
    source_mask: Tensor


class PairBatches(Dataset[PairBatch]):
    """Pairs as a dataset whose items are whole batches.

    Args:
        streams: numbered through: the pairs of the first language, then those of the second.
        pads: what fills a sequence that is too short, of the vocabulary that learns and of the source vocabulary.
        source_share: chance that a source sentence stands for its translation.
    """

    def __init__(self, streams: Sequence[PairStream], pads: tuple[int, int], source_share: float = 0.0) -> None:
        self._streams, self._pads, self._source_share = streams, pads, source_share
        self.counts = [len(stream.sources) for stream in streams]
        self._starts = np.cumsum([0, *self.counts])

    def __len__(self) -> int:
        return int(self._starts[-1])

    def __getitem__(self, draw: Draw) -> PairBatch:
        own = np.random.default_rng(draw.seed).random(len(draw.items)) < self._source_share
        languages = np.searchsorted(self._starts, draw.items, side="right") - 1
        texts, sources = [], []
        for item, language, is_own in zip(draw.items, languages, own, strict=True):
            stream, number = self._streams[language], int(item - self._starts[language])
            texts.append((stream.own if is_own else stream.translations)[number])
            sources.append(stream.sources[number])
        return PairBatch(*_padded(texts, self._pads[0]), *_padded(sources, self._pads[1]))


def _padded(sequences: Sequence[np.ndarray], filling: int) -> tuple[Tensor, Tensor]:
    values, mask = map(torch.from_numpy, pad(sequences))
    return values.masked_fill(mask == 0, filling), mask
