"""Source sentences in the views that the functional loss compares."""

import gzip
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

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
from hyperofa.wordsets import WordSetTable

VIEWS = ("translated", "target", "source")
MAX_TOKENS = 128


def read_lines(paths: Sequence[str | Path]) -> list[str]:
    """Read sentences, one a line, from plain or gzipped text; of a .tsv file the last column.

    Raises:
        InputError: a file is missing, not UTF-8 text, or empty.
    """
    lines: list[str] = []
    for path in map(Path, paths):
        before = len(lines)
        try:
            with (
                gzip.open(path, "rt", encoding="utf-8")
                if path.suffix == ".gz"
                else open(path, encoding="utf-8") as file
            ):
                last_column = ".tsv" in path.suffixes
                lines += [line.rpartition("\t")[2].strip() if last_column else line.strip() for line in file]
        except FileNotFoundError:
            raise InputError(f"--data.text {path}: expected a text file, found none") from None
        except (OSError, UnicodeDecodeError, EOFError) as error:
            raise InputError(f"--data.text {path}: expected UTF-8 text, plain or gzipped; {error}") from None
        lines = [line for line in lines if line]
        if len(lines) == before:
            raise InputError(f"--data.text {path}: expected sentences, one a line, found none")
    return lines


class TextBatch(NamedTuple):
    """Sentences as the PLM knows them, and views of them over rows that are partly predicted.

    Attributes:
        source_ids: `(B, L)` int64 token ids of the source tokenizer.
        source_mask: `(B, L)` int64, 1 for a token.
        views: n token sequences over a table of U rows.
        owners: `(n,)` int64, the sentence that each view is of.
        kinds: `(n,)` int64, index into `VIEWS`.
        coordinates: `(U, K)` float32, the table; zero where predicted.
        predicted: `(P,)` int64, rows of the table to predict.
        sets: P word sets.
        own: `(P,)` int64, each predicted token's own place in the memory, the memory's length where it has none.
    """

    source_ids: Tensor
    source_mask: Tensor
    views: Sentences
    owners: Tensor
    kinds: Tensor
    coordinates: Tensor
    predicted: Tensor
    sets: WordSets
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
        views: how many views of each kind of `VIEWS` a batch has; view i of a kind is of crop i modulo B.
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
        views: tuple[int, int, int],
        crop: tuple[int, int],
        augment: bool,
        word_dropout: float = 0.0,
    ) -> None:
        self._lines, self._source, self._target, self._translator = lines, source, target, translator
        self._sentences, self._views, self._crop = sentences, views, crop
        self._augment, self._word_dropout = augment, word_dropout

    def __len__(self) -> int:
        return len(self._lines)

    def __getitem__(self, draw: Draw) -> TextBatch:
        rng = np.random.default_rng(draw.seed)
        items = draw.items if len(draw.items) else rng.integers(len(self._lines), size=self._sentences)
        crops = [self._cropped(self._lines[item], rng) for item in items]
        languages = self._translator.languages
        texts: list[str] = []
        owners: list[int] = []
        kinds: list[int] = []
        for kind, count in enumerate(self._views):
            for number in range(count if self._augment else len(crops) * (count > 0)):
                crop = crops[number % len(crops)]
                if VIEWS[kind] == "translated":
                    if not languages:
                        continue
                    crop = self._translator.translate(crop, languages[rng.integers(len(languages))], rng)
                texts.append(crop)
                owners.append(number % len(crops))
                kinds.append(kind)
        return self._batch(crops, texts, owners, kinds, rng if self._augment else None)

    def _cropped(self, line: str, rng: np.random.Generator) -> str:
        words = line.split()
        length = int(rng.integers(self._crop[0], self._crop[1] + 1)) if self._augment else self._crop[1]
        start = int(rng.integers(max(1, len(words) - length + 1))) if self._augment else 0
        return " ".join(words[start : start + length])

    def _batch(
        self, crops: list[str], texts: list[str], owners: list[int], kinds: list[int], rng: np.random.Generator | None
    ) -> TextBatch:
        source, target = self._source, self._target
        offset = len(source.predictable)  # target token t is number offset + t in the joint vocabulary
        originals = [encoding.ids for encoding in source.tokenizer.encode_batch_fast(crops)]
        in_target = [text for text, kind in zip(texts, kinds, strict=True) if VIEWS[kind] != "source"]
        encoded = iter(target.tokenizer.encode_batch_fast(in_target))
        sequences = [
            np.array(originals[owner]) if VIEWS[kind] == "source" else np.array(next(encoded).ids) + offset
            for owner, kind in zip(owners, kinds, strict=True)
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
            owners=torch.tensor(owners),
            kinds=torch.tensor(kinds),
            coordinates=torch.from_numpy(coordinates),
            predicted=torch.from_numpy(predicted),
            sets=join(parts),
            own=torch.from_numpy(own[predicted]),
        )


def pad(sequences: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Sequences side by side: `(n, L)` int64 values, zero where padded, and `(n, L)` int64 mask."""
    lengths = np.array([len(sequence) for sequence in sequences])
    mask = (np.arange(lengths.max()) < lengths[:, None]).astype(np.int64)
    values = np.zeros(mask.shape, np.int64)
    values[mask == 1] = np.concatenate(sequences)
    return values, mask


def join(parts: Sequence[WordSets]) -> WordSets:
    """Word sets one below the other, padded to the widest."""
    width = max(part.mask.shape[1] for part in parts)
    missing = [width - part.mask.shape[1] for part in parts]
    return WordSets(
        vectors=torch.cat([F.pad(part.vectors, (0, 0, 0, more)) for part, more in zip(parts, missing, strict=True)]),
        features=torch.cat([F.pad(part.features, (0, 0, 0, more)) for part, more in zip(parts, missing, strict=True)]),
        mask=torch.cat([F.pad(part.mask, (0, more)) for part, more in zip(parts, missing, strict=True)]),
    )
