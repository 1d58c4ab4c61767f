"""Batches as the module sees them, and how sequences and word sets are put side by side."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from hyperofa.nets.inputs import WordSets
from hyperofa.training.language_views import LanguageViews
from hyperofa.training.plm_loss import Sentences
from hyperofa.training.word_sets import WordIndices


class TokenBatch(NamedTuple):
    """Tokens with their word sets and coordinates.

    Attributes:
        ids: `(B,)` int64 token ids.
        sets: B word sets, or their indices.
        self_index: `(B,)` int64, each token's own index in the memory, its length or more where it has none.
        expected: `(B, K)` float32 coordinates; zero where they are what is wanted.
    """

    ids: Tensor
    sets: WordSets | WordIndices
    self_index: Tensor
    expected: Tensor


class TextBatch(NamedTuple):
    """Sentences as the PLM knows them, and views of them over rows that are partly predicted.

    Attributes:
        source_ids: `(B, L)` int64 token ids of the source tokenizer.
        source_mask: `(B, L)` int64, 1 for a token.
        views: n token sequences over a table of U rows.
        owners: `(n,)` int64, the sentence that each view is of.
        counts: views of each kind; they come in the order of `VIEWS`.
        languages: `(n,)` int64, index into the vector file's languages of each view that is translated, else -1.
        coordinates: `(U, K)` float32, the table; zero where predicted.
        predicted: `(P,)` int64, rows of the table to predict.
        sets: P word sets, or their indices.
        self_index: `(P,)` int64, each predicted token's own index in the memory, its length or more where it has none.
        language: what the language model is asked for, over the same table; `None` for nothing.
    """

    source_ids: Tensor
    source_mask: Tensor
    views: Sentences
    owners: Tensor
    counts: Sequence[int]
    languages: Tensor
    coordinates: Tensor
    predicted: Tensor
    sets: WordSets | WordIndices
    self_index: Tensor
    language: LanguageViews | None = None


def pad(sequences: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Sequences side by side: `(n, L)` int64 values, zero where padded, and `(n, L)` int64 mask."""
    lengths = np.array([len(sequence) for sequence in sequences], np.int64)
    mask = (np.arange(lengths.max(initial=0)) < lengths[:, None]).astype(np.int64)
    values = np.zeros(mask.shape, np.int64)
    values[mask == 1] = np.concatenate([np.empty(0, np.int64), *sequences])
    return values, mask


def join(parts: Sequence[WordSets | WordIndices]) -> WordSets | WordIndices:
    """Word sets of one type one below the other, padded with zeros to the widest."""
    width = max(part.mask.shape[1] for part in parts)
    columns: Any = zip(*parts, strict=True)
    return type(parts[0])(*(torch.cat([_widened(part, width) for part in column]) for column in columns))


def _widened(part: Tensor, width: int) -> Tensor:
    """`(B, W, ...)` with so many columns, the new ones zero."""
    return F.pad(part, (*(0, 0) * (part.ndim - 2), 0, width - part.shape[1]))
