"""Sentence encoders: what they learn from parallel text, knowledge distillation (Reimers & Gurevych 2020).

A translation, read by the model that learns, is to lie where its sentence lies, read by the untouched source model. The
paper asks for the mean squared distance; here each must also find its own sentence in the batch (InfoNCE).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, normalize
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from hyperofa.models.loading import choose_attention, hidden_state, mean_pool
from hyperofa.models.objectives import longest
from hyperofa.models.sentence_modules import Pooling
from hyperofa.pretraining.blocks import BlockOrder, padding_id, shares_of
from hyperofa.pretraining.pairs import PairBatch, PairBatches, Reader, TokenisedPairs
from hyperofa.pretraining.phases import Data, PhasedTraining, ratio
from hyperofa.pretraining.points import SentencePoint
from hyperofa.pretraining.settings import DistillationLoss, Training
from hyperofa.runtime.devices import best_device, has_fast_bfloat16

_FEWEST = 32  # texts of like length that are read together: less padding to read
_GROUPS = 4  # at most, of any batch


@dataclass(frozen=True)
class Teacher:
    """The source model, which stays as it is.

    Attributes:
        model: in evaluation mode.
        tokenizer: its own.
        pooling: how its sentence vectors are made.
    """

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    pooling: Pooling = "mean"

    def half(self) -> "Teacher":
        """The same in bfloat16, in place, where the machine is fast at it."""
        choose_attention(self.model)
        if has_fast_bfloat16(best_device()):
            torch.nn.Module.to(self.model, torch.bfloat16)
        return self


class SentenceDistillation(PhasedTraining[PairBatch]):
    """Trains a sentence encoder.

    Args:
        model: moved to float32.
        tokenizer: its tokenizer.
        teacher: the source model; belongs to no checkpoint.
        pairs: to train and to measure on, as tokens of both.
        training: the settings.
        loss: what is asked of the model.
        new_rows: ids of the tokens that phase one trains.

    Raises:
        InputError: the model or an option does not serve.
    """

    POINT = SentencePoint
    SUMS = ("loss", "found", "pairs")
    curve: list[SentencePoint]  # type: ignore[assignment]

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        teacher: Teacher,
        pairs: TokenisedPairs,
        training: Training,
        loss: DistillationLoss,
        new_rows: np.ndarray | None = None,
    ) -> None:
        pads = padding_id(tokenizer), padding_id(teacher.tokenizer)
        train = PairBatches(pairs.train, pads, loss.source_share)
        order = BlockOrder(train.counts, shares_of(train.counts, training.sampling), training.seed)
        val = {stream.language: PairBatches([stream], pads) for stream in pairs.val}
        super().__init__(model, training, Data(train, order, val), new_rows)
        choose_attention(model)
        self._teacher, self._loss = [teacher], loss  # in a list, so that it is no part of this module
        _leave_unread(model, teacher.pooling, loss.layer)

    def _read_pairs(self, batch: PairBatch) -> tuple[Tensor, Tensor]:
        """Loss of each text `(B,)`, and whether its own sentence is the nearest of the batch `(B,)`."""
        teacher, layer = self._teacher[0], self._loss.layer
        with torch.no_grad():
            torch.nn.Module.to(teacher.model, self.device)
            expected = sentence_vectors(teacher.model, batch.source_ids, batch.source_mask, layer, teacher.pooling)
        found = sentence_vectors(self.model, batch.ids, batch.mask, layer, teacher.pooling)
        return distillation_losses(found, expected, batch.source_ids, self._loss)

    def training_step(self, batch: PairBatch, batch_number: int) -> Tensor:
        """Mean loss over the texts of a batch."""
        losses, _ = self._read_pairs(batch)
        return self.learn(losses.mean(), [batch.mask.sum(), torch.tensor(len(losses)).to(losses.device)], len(losses))

    def validation_step(self, batch: PairBatch, batch_number: int, dataloader_idx: int = 0) -> None:
        """Sums over the held-out pairs of a language."""
        losses, found = self._read_pairs(batch)
        count = torch.tensor(float(len(losses)))
        self.add(self.language(dataloader_idx), loss=losses.sum(), found=found.float().sum(), pairs=count)

    def point(self, sums: Mapping[str, Mapping[str, float]], **shared: Any) -> SentencePoint:
        """Loss, and percent found.

        Args:
            sums: as of `PhasedTraining`.
            shared: likewise.
        """
        losses, found, pairs = (sum(each[name] for each in sums.values()) for name in self.SUMS)
        return SentencePoint(
            loss=ratio(losses, pairs),
            found=100 * ratio(found, pairs),
            languages={name: ratio(each["loss"], each["pairs"]) for name, each in sorted(sums.items())},
            **shared,
        )


def distillation_losses(
    found: Tensor, expected: Tensor, source_ids: Tensor, settings: DistillationLoss
) -> tuple[Tensor, Tensor]:
    """How far texts are from where they should be.

    Args:
        found: `(B, E)` unit vectors of the texts, by the model that learns.
        expected: `(B, E)` unit vectors of their sentences, by the source model.
        source_ids: `(B, L)` tokens of the sentences; one that is there twice is no rival of itself.
        settings: temperature and weights.

    Returns:
        `(B,)` losses, and `(B,)` bool, whether no rival is as near.
    """
    scores = found @ expected.T
    own = torch.eye(len(scores), dtype=torch.bool, device=scores.device)
    same = (source_ids[:, None] == source_ids[None]).all(-1) & ~own
    scores = scores.masked_fill(same, -torch.inf)
    labels = torch.arange(len(scores), device=scores.device)
    contrast = cross_entropy(scores / settings.temperature, labels, reduction="none")
    cosine = 1 - scores.diagonal()
    nearest = scores.masked_fill(own, -torch.inf).amax(1) < scores.diagonal()
    return settings.contrastive_weight * contrast + settings.cosine_weight * cosine, nearest


def sentence_vectors(model: PreTrainedModel, ids: Tensor, mask: Tensor, layer: int, pooling: Pooling) -> Tensor:
    """Sentence vectors of one layer.

    Args:
        model: an encoder or decoder; of an encoder-decoder the encoder is used.
        ids: `(B, L)` int64.
        mask: `(B, L)` int64, 1 for a token; what is padded comes last.
        layer: index into the hidden states, 0 the embeddings, -1 the last layer.
        pooling: how they are made.

    Returns:
        `(B, E)` float32, each vector of length 1.
    """
    lengths = mask.sum(1)
    order, parts = lengths.argsort(stable=True), []
    for rows in order.split(max(_FEWEST, -(-len(order) // _GROUPS))):
        part, read = ids[rows, : int(lengths[rows].max())], mask[rows, : int(lengths[rows].max())]
        hidden = hidden_state(model, part, read, layer, "--loss.layer")
        parts.append(mean_pool(hidden, read) if pooling == "mean" else normalize(hidden[:, 0].float(), dim=1))
    return torch.cat(parts)[order.argsort()]


def reader_of(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, training: Training) -> Reader:
    """How a model reads sentences.

    Args:
        model: with a table of positions, perhaps.
        tokenizer: its tokenizer.
        training: how long they may be.

    Raises:
        InputError: there is no room for a sentence.
    """
    return Reader(tokenizer, longest(model, tokenizer, training.block_size))


def _leave_unread(model: PreTrainedModel, pooling: Pooling, layer: int) -> None:
    """Ask no gradient of what sentence vectors do not read, such as a head: processes would wait for it."""
    ids = torch.arange(2)[None]
    sentence_vectors(model, ids, torch.ones_like(ids), layer, pooling).sum().backward()
    for parameter in model.parameters():
        parameter.requires_grad_(parameter.grad is not None)
        parameter.grad = None
