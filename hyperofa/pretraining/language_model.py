"""Train a language model in two phases, the new rows alone, then all parameters, along a curve of what it is worth.

The curve is in perplexity and in bits per byte. Perplexity is per token, so that of models with different tokenizers
does not compare; bits per byte do. A masked model is asked for 15 % of the tokens only: its numbers are pseudo ones.
"""

import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import lightning
import numpy as np
import torch
from lightning.pytorch.callbacks import TQDMProgressBar
from lightning.pytorch.utilities.seed import isolate_rng
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.optim import AdamW
from torch.optim.lr_scheduler import LambdaLR
from torch.utils.data import DataLoader
from torchmetrics import SumMetric
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from hyperofa.errors import InputError
from hyperofa.evaluation.scores import Scores
from hyperofa.models.factorised import factor_owners
from hyperofa.models.objectives import longest, objective_of
from hyperofa.pretraining.blocks import (
    IGNORED,
    BlockBatches,
    BlockOrder,
    Blocks,
    Frame,
    SteppedBatches,
    TextBlock,
    frame_of,
    language_weights,
)
from hyperofa.pretraining.corpus import TokenisedText
from hyperofa.pretraining.curves import Point
from hyperofa.pretraining.settings import TrainerOptions, Training
from hyperofa.runtime.processes import bar_hidden
from hyperofa.training.checkpoints import write_whole
from hyperofa.training.divergence import StopDiverged
from hyperofa.training.samplers import GroupedBatches
from hyperofa.training.trainers import hush_lightning, quiet, refusals_told

_TRAINER = TrainerOptions()
_ADVICE = "give a lower --training.learning_rate"

Evaluator = Callable[[PreTrainedModel, PreTrainedTokenizerBase, int], Scores]
"""Scores a model after some steps; empty scores where nothing is due."""
Saver = Callable[[PreTrainedModel, PreTrainedTokenizerBase, int], None]
"""Writes a model after some steps, if it is one to be kept."""


class LanguageModelling(lightning.LightningModule):
    """Trains a causal or masked language model.

    Args:
        model: moved to float32.
        training: the settings.
        texts: blocks to train on, and to measure on by language.
        mask_id: the mask token of a masked model, `None` for a causal one.
        vocabulary: tokens that may stand for a masked one.
        new_rows: ids of the tokens that phase one trains.
        evaluate: scores the model after some steps, on the first process.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        training: Training,
        texts: tuple[Blocks, Mapping[str, Blocks]],
        mask_id: int | None,
        vocabulary: Tensor,
        new_rows: np.ndarray,
        evaluate: Callable[[int], Scores] | None = None,
    ) -> None:
        super().__init__()
        self.model = model.float().train()
        self.curve: list[Point] = []
        train, self._val = texts
        self._training, self._causal, self._evaluate = training, mask_id is None, evaluate
        self._order = BlockOrder(train.counts, language_weights(train.streams, training.sampling), training.seed)
        self._train_set = BlockBatches(train, mask_id, vocabulary)
        self._val_sets = [BlockBatches(blocks, mask_id, None) for blocks in self._val.values()]
        self._new_rows = torch.from_numpy(new_rows)
        self._sums = {
            (language, name): SumMetric(nan_strategy="disable")
            for language, names in {
                **dict.fromkeys(self._val, ("nats", "tokens", "bytes")),
                "": ("train", "steps"),
            }.items()
            for name in names
        }
        self._metrics = nn.ModuleList(self._sums.values())  # so that Lightning moves them
        self._read = torch.zeros(2, dtype=torch.int64)  # tokens and bytes since the last point, of this process
        self._began: float | None = None
        self._seconds = 0.0

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
        loss = nats / tokens.clamp(min=1)
        self._add("", train=loss.detach(), steps=torch.ones(()))
        self._read = self._read.to(self.device) + torch.stack([batch.mask.sum(), batch.sizes.sum().long()])
        self.log("train/loss", loss, prog_bar=True, batch_size=len(batch.ids))
        return loss

    def validation_step(self, batch: TextBlock, batch_number: int, dataloader_idx: int = 0) -> None:
        """Sums over the validation text of a language."""
        nats, tokens, size = self._nats(batch)
        self._add(list(self._val)[dataloader_idx], nats=nats, tokens=tokens, bytes=size)

    def _add(self, language: str, **values: Tensor) -> None:
        for name, value in values.items():
            self._sums[language, name].update(value)

    def on_train_epoch_start(self) -> None:
        """Begin a stretch of the curve: what is random in it depends on where it is, not on what came before."""
        place = (self._training.seed, self.trainer.global_step, self.trainer.global_rank)
        torch.manual_seed(int(np.random.SeedSequence(place).generate_state(1)[0]))
        self._began = time.perf_counter()

    def on_validation_start(self) -> None:
        """Stop the clock."""
        if self._began is not None:
            if self.device.type == "cuda":
                torch.cuda.synchronize(self.device)
            self._seconds += time.perf_counter() - self._began
            self._began = None

    def on_validation_epoch_end(self) -> None:
        """Add a point to the curve."""
        sums = {name: float(metric.compute()) if metric.update_called else 0.0 for name, metric in self._sums.items()}
        for metric in self._sums.values():
            metric.reset()
        nats, tokens, size = (
            sum(sums[language, name] for language in self._val) for name in ("nats", "tokens", "bytes")
        )
        loss = _ratio(nats, tokens)
        self.log("val/loss", loss, prog_bar=True, sync_dist=True)
        read = self.trainer.strategy.reduce(self._read.to(self.device), reduce_op="sum")
        self._read = torch.zeros_like(self._read)
        of_language = {each: (sums[each, "nats"] / np.log(2), sums[each, "bytes"]) for each in sorted(self._val)}
        before = self.curve[-1] if self.curve else None
        tokens_read, bytes_read = read.tolist()
        step = self.trainer.global_step
        self.curve.append(
            Point(
                step=step,
                train_loss=_ratio(sums["", "train"], sums["", "steps"]),
                loss=loss,
                perplexity=float(np.exp(min(loss, 700.0))),
                bits_per_byte=_ratio(nats / np.log(2), size),
                tokens=tokens_read + (before.tokens if before else 0),
                bytes=bytes_read + (before.bytes if before else 0),
                seconds=self._seconds,
                languages={language: _ratio(*of) for language, of in of_language.items()},
                scores=self._scores(step) if np.isfinite(loss) else Scores({}, {}),
            )
        )

    def _scores(self, step: int) -> Scores:
        """What the evaluation tasks say, on the first process; they may leave the model on another device."""
        if self._evaluate is None or not self.trainer.is_global_zero:
            return Scores({}, {})
        scores = self._evaluate(step)
        torch.nn.Module.to(self.model, self.device)
        return scores

    def on_before_optimizer_step(self, optimizer: Any) -> None:
        """In phase one, leave no gradient but that of the new rows."""
        if self.trainer.global_step >= self._training.new_steps:
            return
        rows = {id(parameter) for parameter in vocabulary_parameters(self.model)}
        for parameter in self.model.parameters():
            if id(parameter) not in rows:
                parameter.grad = None
            elif parameter.grad is not None:
                kept = parameter.grad[self._new_rows]
                parameter.grad.zero_()[self._new_rows] = kept

    def configure_optimizers(self) -> Any:
        """AdamW, with the warm-up and decay of `Training.rate`."""
        rows = {id(parameter) for parameter in vocabulary_parameters(self.model)}
        groups: dict[float, list[nn.Parameter]] = {self._training.weight_decay: [], 0.0: []}
        for parameter in self.model.parameters():
            plain = parameter.ndim < 2 or id(parameter) in rows
            groups[0.0 if plain else self._training.weight_decay].append(parameter)
        parts = [{"params": params, "weight_decay": decay} for decay, params in groups.items() if params]
        optimizer = AdamW(parts, lr=self._training.learning_rate)
        return [optimizer], [{"scheduler": LambdaLR(optimizer, self._training.rate), "interval": "step"}]

    def train_dataloader(self) -> DataLoader[TextBlock]:
        """The batches up to the next point of the curve."""
        training = self._training
        done = min(self.trainer.global_step, training.total - 1)  # after the last step, a loader that nobody reads
        until = min(training.total, (done // training.evaluate_every + 1) * training.evaluate_every)
        steps = done * training.accumulate, until * training.accumulate
        batches = SteppedBatches(self._order, training.batch_size, steps, training.seed, *self._place())
        return DataLoader(self._train_set, batch_size=None, sampler=batches)

    def val_dataloader(self) -> list[DataLoader[TextBlock]]:
        """The validation text, a loader a language, with the same tokens masked at every point."""
        return [
            DataLoader(
                each,
                batch_size=None,
                sampler=GroupedBatches(np.zeros(len(each)), self._training.batch_size, False, 0, *self._place()),
            )
            for each in self._val_sets
        ]

    def _place(self) -> tuple[int, int]:
        return self.trainer.global_rank, self.trainer.world_size

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Record the curve; plain data only."""
        checkpoint["hyperofa_pretraining"] = [point.as_dict() for point in self.curve]

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take up the curve."""
        self.curve = [Point.from_dict(point) for point in checkpoint["hyperofa_pretraining"]]
        self._seconds = self.curve[-1].seconds


def _ratio(whole: float, parts: float) -> float:
    return float(whole / parts) if parts else float("nan")


class _Saving(lightning.Callback):
    """Writes at each point of the curve what training can be gone on from, whole or not at all.

    Lightning's own callback warns of a folder that is there.
    """

    def __init__(self, path: Path | None, save: Callable[[int], None] | None) -> None:
        self._path, self._save = path, save

    def setup(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, stage: str) -> None:
        """Have it written whole or not at all."""
        write_whole(trainer)

    def on_train_epoch_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Write it, in place of the one before; what it counts as done is written first."""
        if self._save is not None and trainer.is_global_zero:
            self._save(trainer.global_step)
        if self._path is not None:
            trainer.save_checkpoint(self._path, weights_only=False)


def vocabulary_parameters(model: PreTrainedModel) -> list[nn.Parameter]:
    """Parameters with one row or entry per token: input and output embeddings or coordinates, and the head's bias."""
    head = model.get_output_embeddings()
    found: list[Any] = [getattr(head, "bias", None), *(owner.coordinates for owner in factor_owners(model))]
    found += [getattr(module, "weight", None) for module in (model.get_input_embeddings(), head)]
    return [parameter for parameter in found if isinstance(parameter, nn.Parameter)]


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
) -> list[Point]:
    """Train a language model in place, in float32.

    Args:
        model: causal or masked.
        tokenizer: its tokenizer.
        text: to train and to measure on, as tokens of this tokenizer.
        training: the settings.
        options: of the Trainer.
        new_rows: ids of the tokens that phase one trains; needed where it has steps.
        checkpoint: file that is written at each point of the curve, and gone on from if it is there, which only a run
            with the same inputs may have written; `None` writes none.
        evaluate: asked at each point of the curve.
        save: asked at each point of the curve but the first.

    Returns:
        The curve; its first point is before training.

    Raises:
        InputError: the model, a text or an option does not serve.
    """
    mask_id, frame = _read_with(model, tokenizer, training)
    new_rows = np.empty(0, np.int64) if new_rows is None else new_rows
    if training.new_steps and not len(new_rows):
        raise InputError("--training.new_steps: expected 0, as the model has no rows that are known to be new")
    blocks = Blocks(text.train, frame), {stream.language: Blocks([stream], frame) for stream in text.val}
    special = set(tokenizer.all_special_ids)
    vocabulary = torch.tensor(sorted(set(tokenizer.get_vocab().values()) - special))
    scored = None if evaluate is None else partial(evaluate, model, tokenizer)
    saved = None if save is None else partial(save, model, tokenizer)
    module = LanguageModelling(model, training, blocks, mask_id, vocabulary, new_rows, scored)
    hush_lightning()
    with isolate_rng():
        lightning.seed_everything(training.seed, verbose=False)
        trainer = _make_trainer(training, options, _Saving(checkpoint, saved))
        resumed = checkpoint is not None and checkpoint.is_file()
        if not resumed:
            trainer.validate(module, verbose=False)
            module.model.train()
        trainer.fit(module, ckpt_path=checkpoint if resumed else None, weights_only=True)
    module.model.eval()
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
    with quiet():
        _make_trainer(training, options, _Saving(None, None))


def _read_with(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, training: Training
) -> tuple[int | None, Frame]:
    """The mask token of a masked model, and how its blocks look."""
    objective = objective_of(model)
    mask_id = tokenizer.mask_token_id if objective == "masked" else None
    if objective == "masked" and mask_id is None:
        raise InputError("--model: expected a mask token in the tokenizer of a masked language model, found none")
    return mask_id, frame_of(tokenizer, longest(model, tokenizer, training.block_size), objective)


def _make_trainer(training: Training, options: TrainerOptions, saving: lightning.Callback) -> lightning.Trainer:
    shows_bar = not bar_hidden(not options.progress)
    with refusals_told():
        return lightning.Trainer(
            accelerator=options.accelerator,
            devices=options.devices,
            num_nodes=options.num_nodes,
            strategy=options.strategy,
            precision=options.precision,  # type: ignore[arg-type]
            max_steps=training.total,
            max_epochs=-1,
            gradient_clip_val=training.clip,
            accumulate_grad_batches=training.accumulate,
            reload_dataloaders_every_n_epochs=1,  # an epoch ends at a point of the curve, and the last may be shorter
            num_sanity_val_steps=0,
            log_every_n_steps=1,
            use_distributed_sampler=False,
            inference_mode=False,  # the sums are reset while validating, and updated while training
            # The bar of a shell and of a notebook alike.
            callbacks=[StopDiverged(_ADVICE), saving, *([TQDMProgressBar()] if shows_bar else [])],
            enable_checkpointing=False,
            logger=False,
            enable_model_summary=False,
            enable_progress_bar=shows_bar,
        )
