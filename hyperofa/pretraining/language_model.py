"""Language models: what they learn from text, and what they make of held-out text.

The curve is in perplexity and in bits per byte. Perplexity is per token, so that of models with different tokenizers
does not compare; bits per byte do. A masked model is asked for 15 % of the tokens only: its numbers are pseudo ones.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from hyperofa.errors import InputError
from hyperofa.models.objectives import longest, objective_of
from hyperofa.pretraining.blocks import (
    IGNORED,
    BlockBatches,
    BlockOrder,
    Blocks,
    Frame,
    TextBlock,
    frame_of,
    language_weights,
)
from hyperofa.pretraining.corpus import TokenisedText
from hyperofa.pretraining.phases import Data, PhasedTraining, ratio
from hyperofa.pretraining.points import LanguagePoint
from hyperofa.pretraining.settings import TrainerOptions, Training
from hyperofa.pretraining.trainer import Evaluator, Saver, check_trainer, train_phases

_TRAINER = TrainerOptions()


class LanguageModelling(PhasedTraining[TextBlock]):
    """Trains a causal or masked language model.

    Args:
        model: moved to float32.
        tokenizer: its tokenizer.
        text: to train and to measure on, as tokens of this tokenizer.
        training: the settings.
        new_rows: ids of the tokens that phase one trains.

    Raises:
        InputError: the model or an option does not serve.
    """

    POINT = LanguagePoint
    SUMS = ("nats", "tokens", "bytes")
    curve: list[LanguagePoint]  # type: ignore[assignment]

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        text: TokenisedText,
        training: Training,
        new_rows: np.ndarray | None = None,
    ) -> None:
        mask_id, frame = _read_with(model, tokenizer, training)
        blocks = Blocks(text.train, frame)
        special = set(tokenizer.all_special_ids)
        vocabulary = torch.tensor(sorted(set(tokenizer.get_vocab().values()) - special))
        order = BlockOrder(blocks.counts, language_weights(blocks.streams, training.sampling), training.seed)
        val = {stream.language: BlockBatches(Blocks([stream], frame), mask_id, None) for stream in text.val}
        super().__init__(model, training, Data(BlockBatches(blocks, mask_id, vocabulary), order, val), new_rows)
        self._causal = mask_id is None

    def _nats(self, batch: TextBlock) -> tuple[Tensor, Tensor, Tensor]:
        """Sum over the asked tokens, how many they are, and their bytes."""
        logits = self.model(input_ids=batch.ids, attention_mask=batch.mask).logits
        labels, sizes = batch.labels, batch.sizes
        if self._causal:
            logits, labels, sizes = logits[:, :-1], labels[:, 1:], sizes[:, 1:]
        is_target = labels != IGNORED
        nats = cross_entropy(logits.flatten(0, 1).float(), labels.flatten(), ignore_index=IGNORED, reduction="sum")
        return nats, is_target.sum(), sizes[is_target].sum()

    def training_step(self, batch: TextBlock, batch_number: int) -> Tensor:
        """Mean loss over the asked tokens, in nats."""
        nats, tokens, _ = self._nats(batch)
        return self.learn(nats / tokens.clamp(min=1), [batch.mask.sum(), batch.sizes.sum()], len(batch.ids))

    def validation_step(self, batch: TextBlock, batch_number: int, dataloader_idx: int = 0) -> None:
        """Sums over the validation text of a language."""
        nats, tokens, size = self._nats(batch)
        self.add(self.language(dataloader_idx), nats=nats, tokens=tokens, bytes=size)

    def point(self, sums: Mapping[str, Mapping[str, float]], **shared: Any) -> LanguagePoint:
        """Loss, perplexity and bits per byte.

        Args:
            sums: as of `PhasedTraining`.
            shared: likewise.
        """
        nats, tokens, size = (sum(each[name] for each in sums.values()) for name in self.SUMS)
        loss = ratio(nats, tokens)
        return LanguagePoint(
            loss=loss,
            perplexity=float(np.exp(min(loss, 700.0))),
            bits_per_byte=ratio(nats / np.log(2), size),
            languages={name: ratio(each["nats"] / np.log(2), each["bytes"]) for name, each in sorted(sums.items())},
            **shared,
        )


def train(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    text: TokenisedText,
    training: Training,
    options: TrainerOptions = _TRAINER,
    new_rows: np.ndarray | None = None,
    checkpoint: Path | None = None,
    evaluate: Evaluator | None = None,
    save: Saver | None = None,
) -> list[LanguagePoint]:
    """Train a language model in place, in float32.

    Args:
        model: causal or masked.
        tokenizer: its tokenizer.
        text: to train and to measure on, as tokens of this tokenizer.
        training: the settings.
        options: of the Trainer.
        new_rows: ids of the tokens that phase one trains; needed where it has steps.
        checkpoint: as of `train_phases`.
        evaluate: likewise.
        save: likewise.

    Returns:
        The curve; its first point is before training.

    Raises:
        InputError: the model, a text or an option does not serve.
    """
    module = LanguageModelling(model, tokenizer, text, training, new_rows)
    train_phases(module, tokenizer, training, options, checkpoint, evaluate, save)
    return module.curve


def check_options(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, training: Training, options: TrainerOptions
) -> None:
    """See that a model can be trained like this, before its text is tokenised or anything else takes long.

    Args:
        model: as for `train`.
        tokenizer: likewise.
        training: likewise.
        options: likewise.

    Raises:
        InputError: the model or an option does not serve.
    """
    _read_with(model, tokenizer, training)
    check_trainer(training, options)


def _read_with(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, training: Training
) -> tuple[int | None, Frame]:
    """The mask token of a masked model, and how its blocks look."""
    objective = objective_of(model)
    mask_id = tokenizer.mask_token_id if objective == "masked" else None
    if objective == "masked" and mask_id is None:
        raise InputError("--model: expected a mask token in the tokenizer of a masked language model, found none")
    return mask_id, frame_of(tokenizer, longest(model, tokenizer, training.block_size), objective)
