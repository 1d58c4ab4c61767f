"""Source sentences in the views that the functional loss compares."""

import gzip
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from tokenizers import Tokenizer as BackendTokenizer
from torch import Tensor
from torch.utils.data import Dataset

from hyperofa.errors import InputError
from hyperofa.functional import Sentences
from hyperofa.nets import WordSets
from hyperofa.samplers import Draw
from hyperofa.translation import Translator
from hyperofa.wordsets import WordPlaces, WordSetTable

MAX_TOKENS = 128


@dataclass(frozen=True)
class Views:
    """How many views of each kind a training batch has.

    Attributes:
        translated: word by word into a language of the vector file, drawn at random, under the target tokenizer.
        target: the source sentence under the target tokenizer.
        source: the source sentence under its own tokenizer, each token predicted from the others.
        parallel: a true translation, from parallel text, under the target tokenizer.
    """

    translated: int = 96
    target: int = 0
    source: int = 0
    parallel: int = 0


VIEWS = tuple(field.name for field in fields(Views))


def read_lines(paths: Sequence[str | Path], flag: str = "--data.text") -> list[str]:
    """Read sentences, one a line, from plain or gzipped text; of a .tsv file the last column.

    Args:
        paths: files.
        flag: command-line flag named in errors.

    Raises:
        InputError: a file is missing, not UTF-8 text, or empty.
    """
    lines: list[str] = []
    for path in map(Path, paths):
        last_column = ".tsv" in path.suffixes
        found = _lines(path, flag)
        lines += [line.rpartition("\t")[2].strip() if last_column else line.strip() for line in found]
    return lines


def read_pairs(paths: Sequence[str | Path]) -> list[tuple[str, str]]:
    """Read parallel text: a source sentence and its translation, apart by a tab, one pair a line.

    Raises:
        InputError: a file is missing or empty, or a line has not two columns.
    """
    pairs = []
    for path in paths:
        for number, line in enumerate(_lines(Path(path), "--data.parallel"), 1):
            columns = line.split("\t")
            if len(columns) != 2:
                raise InputError(
                    f"--data.parallel {path} line {number}: expected a source sentence, a tab and its translation, "
                    f"found {len(columns)} columns"
                )
            pairs.append((columns[0].strip(), columns[1].strip()))
    return pairs


def _lines(path: Path, flag: str) -> list[str]:
    """The lines of a text file that are not empty."""
    try:
        opener = gzip.open if path.suffix == ".gz" else open
        with opener(path, "rt", encoding="utf-8") as file:
            lines = [line.rstrip("\n") for line in file if line.strip()]
    except FileNotFoundError:
        raise InputError(f"{flag} {path}: expected a text file, found none") from None
    except (OSError, UnicodeDecodeError, EOFError, zlib.error) as error:
        raise InputError(f"{flag} {path}: expected UTF-8 text, plain or gzipped; {error}") from None
    if not lines:
        raise InputError(f"{flag} {path}: expected sentences, one a line, found none")
    return lines


class TextBatch(NamedTuple):
    """Sentences as the PLM knows them, and views of them over rows that are partly predicted.

    Attributes:
        source_ids: `(B, L)` int64 token ids of the source tokenizer.
        source_mask: `(B, L)` int64, 1 for a token.
        views: n token sequences over a table of U rows.
        owners: `(n,)` int64, the sentence that each view is of.
        counts: views of each kind; they come in the order of `VIEWS`.
        coordinates: `(U, K)` float32, the table; zero where predicted.
        predicted: `(P,)` int64, rows of the table to predict.
        sets: P word sets, or their places.
        own: `(P,)` int64, each predicted token's own place in the memory, its length or more where it has none.
    """

    source_ids: Tensor
    source_mask: Tensor
    views: Sentences
    owners: Tensor
    counts: Sequence[int]
    coordinates: Tensor
    predicted: Tensor
    sets: WordSets | WordPlaces
    own: Tensor


@dataclass(frozen=True)
class ViewSide:
    """One vocabulary as the views need it.

    Attributes:
        tokenizer: Rust tokenizer, cut at `MAX_TOKENS`.
        table: word sets of its tokens.
        predictable: `(tokens,)` bool, tokens whose rows are predicted.
        coordinates: `(tokens, K)` rows of the others.
        own: `(tokens,)` int64, see `TextBatch.own`.
    """

    tokenizer: BackendTokenizer
    table: WordSetTable
    predictable: np.ndarray
    coordinates: np.ndarray
    own: np.ndarray


class TextViews(Dataset[TextBatch]):
    """Crops of source sentences and their views.

    Args:
        lines: source sentences.
        source: the source vocabulary.
        target: the target vocabulary.
        translator: makes the `translated` view.
        sentences: B, crops a batch, when the items are drawn here.
        views: how many views of each kind a batch has when augmenting, view i of a kind being of crop i modulo B; else
            every sentence has one view of each kind that is asked for.
        parallel: source sentences and their translations, for views of that kind; never cropped.
        crop: fewest and most words of a crop.
        augment: draw crops, word order and words at random, and drop words; else whole lines and full word sets.
        word_dropout: chance of leaving out a word of a word set, when augmenting.
    """

    def __init__(
        self,
        lines: Sequence[str],
        source: ViewSide,
        target: ViewSide,
        translator: Translator,
        sentences: int,
        views: Views,
        crop: tuple[int, int],
        augment: bool,
        word_dropout: float = 0.0,
        parallel: Sequence[tuple[str, str]] = (),
    ) -> None:
        self._lines, self._source, self._target, self._translator = lines, source, target, translator
        self._sentences, self._views, self._crop = sentences, views, crop
        self._augment, self._word_dropout, self._parallel = augment, word_dropout, parallel

    def __len__(self) -> int:
        return len(self._lines)

    def __getitem__(self, draw: Draw) -> TextBatch:
        rng = np.random.default_rng(draw.seed)
        items = draw.items if len(draw.items) else rng.integers(len(self._lines), size=self._sentences)
        # One length a batch: no padding to speak of.
        length = int(rng.integers(self._crop[0], self._crop[1] + 1)) if self._augment else self._crop[1]
        crops = [self._cropped(self._lines[item], length, rng) for item in items]
        views: list[_View] = []
        for kind in VIEWS:
            count = getattr(self._views, kind)
            if kind == "parallel":
                for number in rng.integers(max(1, len(self._parallel)), size=count):
                    sentence, translation = self._parallel[number]
                    views.append(_View(translation, len(crops), kind))
                    crops.append(sentence)
                continue
            for number in range(count if self._augment else len(items) * (count > 0)):
                owner = number % len(items)
                views.append(_View(self._seen(crops[owner], kind, rng), owner, kind))
        return self._batch(crops, views, rng if self._augment else None)

    def _seen(self, crop: str, kind: str, rng: np.random.Generator) -> str:
        if kind != "translated" or not self._translator.languages:
            return crop
        # A text whose words are all left out says nothing: the original stands in.
        return self._translator.translate(crop, self._translator.draw_language(crop, rng), rng) or crop

    def _cropped(self, line: str, length: int, rng: np.random.Generator) -> str:
        words = line.split()
        start = int(rng.integers(max(1, len(words) - length + 1))) if self._augment else 0
        return " ".join(words[start : start + length])

    def _batch(self, crops: list[str], views: list["_View"], rng: np.random.Generator | None) -> TextBatch:
        source, target = self._source, self._target
        offset = len(source.predictable)  # target token t is number offset + t in the joint vocabulary
        originals = [encoding.ids for encoding in source.tokenizer.encode_batch_fast(crops)]
        encoded = iter(target.tokenizer.encode_batch_fast([view.text for view in views if view.kind != "source"]))
        sequences = [
            np.array(originals[view.owner]) if view.kind == "source" else np.array(next(encoded).ids) + offset
            for view in views
        ]
        padded, mask = pad(sequences)
        tokens, slots = np.unique(padded, return_inverse=True)
        is_target = tokens >= offset
        ids = np.where(is_target, tokens - offset, tokens)

        coordinates = np.zeros((len(tokens), source.coordinates.shape[1]), np.float32)
        predictable, own = np.zeros(len(tokens), bool), np.empty(len(tokens), np.int64)
        for side, mine in ((source, ~is_target), (target, is_target)):
            coordinates[mine] = side.coordinates[ids[mine]]
            predictable[mine], own[mine] = side.predictable[ids[mine]], side.own[ids[mine]]
        predicted = np.flatnonzero(predictable)
        coordinates[predicted] = 0
        parts = [
            side.table.sets(ids[predicted[mine[predicted]]], rng, self._word_dropout)
            for side, mine in ((source, ~is_target), (target, is_target))
        ]
        source_ids, source_mask = pad([np.array(ids) for ids in originals])
        return TextBatch(
            source_ids=torch.from_numpy(source_ids),
            source_mask=torch.from_numpy(source_mask),
            views=Sentences(torch.from_numpy(slots.reshape(padded.shape)), torch.from_numpy(mask)),
            owners=torch.tensor([view.owner for view in views]),
            counts=[sum(view.kind == kind for view in views) for kind in VIEWS],
            coordinates=torch.from_numpy(coordinates),
            predicted=torch.from_numpy(predicted),
            sets=join(parts),
            own=torch.from_numpy(own[predicted]),
        )


class _View(NamedTuple):
    text: str
    owner: int
    kind: str


def pad(sequences: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Sequences side by side: `(n, L)` int64 values, zero where padded, and `(n, L)` int64 mask."""
    lengths = np.array([len(sequence) for sequence in sequences])
    mask = (np.arange(lengths.max()) < lengths[:, None]).astype(np.int64)
    values = np.zeros(mask.shape, np.int64)
    values[mask == 1] = np.concatenate(sequences)
    return values, mask


def join(parts: Sequence[WordSets | WordPlaces]) -> WordSets | WordPlaces:
    """Word sets of one type one below the other, padded with zeros to the widest."""
    width = max(part.mask.shape[1] for part in parts)
    columns: Any = zip(*parts, strict=True)
    return type(parts[0])(*(torch.cat([_widened(part, width) for part in column]) for column in columns))


def _widened(part: Tensor, width: int) -> Tensor:
    """`(B, W, ...)` with so many columns, the new ones zero."""
    return F.pad(part, (*(0, 0) * (part.ndim - 2), 0, width - part.shape[1]))
