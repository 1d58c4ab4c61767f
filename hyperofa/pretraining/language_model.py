"""Train a language model in two phases, the new rows alone, then all parameters, along a curve of what it is worth.

The curve is in perplexity and in bits per byte. Perplexity is per token, so that of models with different tokenizers
does not compare; bits per byte do. A masked model is asked for 15 % of the tokens only: its numbers are pseudo ones.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, astuple, dataclass
from pathlib import Path
from typing import Any

import lightning
import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.optim import AdamW
from torch.optim.lr_scheduler import LambdaLR
from torch.utils.data import DataLoader
from torchmetrics import SumMetric
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from hyperofa.errors import InputError
from hyperofa.models.factorised import factor_owners
from hyperofa.models.objectives import longest, objective_of
from hyperofa.pretraining.blocks import IGNORED, BlockBatches, Blocks, SteppedBatches, TextBlock, chunk
from hyperofa.runtime.ranges import Count, NonNegative, Positive, Seed, Size, check_ranges
from hyperofa.training.checkpoints import write_whole
from hyperofa.training.divergence import StopDiverged
from hyperofa.training.samplers import GroupedBatches

_ADVICE = "give a lower --training.learning_rate"


@dataclass(frozen=True)
class Training:
    """How a model is trained.

    Attributes:
        steps: optimizer steps on all parameters.
        new_steps: steps before these on the new rows alone: the old rows stay as they are, bit by bit.
        evaluate_every: steps between two points of the curve; a checkpoint is written at each.
        batch_size: blocks a step and process.
        accumulate: batches whose gradients make one step.
        block_size: tokens a block, at most as many as the model has positions for.
        learning_rate: highest value. Each phase warms up; the second falls linearly to 0.
        warmup_steps: of each phase.
        weight_decay: on weight matrices; none on embeddings, biases and norms.
        clip: largest norm of the gradient.
        seed: of the order, the masks and the dropout.
    """

    steps: Size = 1000
    new_steps: Size = 0
    evaluate_every: Count = 100
    batch_size: Count = 16
    accumulate: Count = 1
    block_size: Count = 256
    learning_rate: Positive = 5e-5
    warmup_steps: Size = 50
    weight_decay: NonNegative = 0.01
    clip: NonNegative = 1.0
    seed: Seed = 0

    def __post_init__(self) -> None:
        check_ranges(self, "training.")
        if self.steps + self.new_steps < 1:
            raise InputError("--training.steps, --training.new_steps: expected at least one step, found none")

    @property
    def total(self) -> int:
        """Steps of both phases."""
        return self.new_steps + self.steps

    def rate(self, step: int) -> float:
        """What the learning rate is multiplied with at a step."""
        first = step < self.new_steps
        own = step if first else step - self.new_steps
        warm = min(1.0, (own + 1) / (self.warmup_steps + 1))
        return warm if first else warm * max(0.0, 1 - own / self.steps) if self.steps else warm


@dataclass(frozen=True)
class TrainerOptions:
    """Options of Lightning's Trainer.

    Attributes:
        accelerator: auto, cpu, gpu, …
        devices: processes on each node.
        num_nodes: machines.
        strategy: auto, ddp, …
        precision: 32-true, bf16-mixed, …
        progress: show a progress bar.
    """

    accelerator: str = "auto"
    devices: int = 1
    num_nodes: Count = 1
    strategy: str = "auto"
    precision: str = "32-true"
    progress: bool = True

    def __post_init__(self) -> None:
        check_ranges(self, "trainer.")


@dataclass(frozen=True)
class Point:
    """What a model is worth after some steps, on the validation text.

    Attributes:
        step: optimizer steps so far.
        train_loss: mean over the steps since the last point, nats a token; nan at the first.
        loss: nats a token.
        perplexity: e to the loss.
        bits_per_byte: of the text that the asked tokens stand for.
    """

    step: int
    train_loss: float
    loss: float
    perplexity: float
    bits_per_byte: float


class LanguageModelling(lightning.LightningModule):
    """Trains a causal or masked language model.

    Args:
        model: moved to float32.
        training: the settings.
        texts: blocks by part, `train` and `val`.
        mask_id: the mask token of a masked model, `None` for a causal one.
        vocabulary: tokens that may stand for a masked one.
        new_rows: ids of the tokens that phase one trains.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        training: Training,
        texts: Mapping[str, Blocks],
        mask_id: int | None,
        vocabulary: Tensor,
        new_rows: np.ndarray,
    ) -> None:
        super().__init__()
        self.model = model.float().train()
        self.curve: list[Point] = []
        self._training, self._texts, self._causal = training, texts, mask_id is None
        self._batches = {
            "train": BlockBatches(texts["train"], mask_id, vocabulary),
            "val": BlockBatches(texts["val"], mask_id, None),
        }
        self._new_rows = torch.from_numpy(new_rows)
        self._sums = {name: SumMetric(nan_strategy="disable") for name in ("nats", "tokens", "bytes", "train", "steps")}
        self._metrics = nn.ModuleList(self._sums.values())  # so that Lightning moves them

    def _step(self, batch: TextBlock, stage: str) -> Tensor:
        logits = self.model(input_ids=batch.ids, attention_mask=batch.mask).logits
        labels, sizes = batch.labels, batch.sizes
        if self._causal:
            logits, labels, sizes = logits[:, :-1], labels[:, 1:], sizes[:, 1:]
        is_target = labels != IGNORED
        nats = cross_entropy(logits.flatten(0, 1).float(), labels.flatten(), ignore_index=IGNORED, reduction="sum")
        loss = nats / is_target.sum().clamp(min=1)
        if stage == "train":
            self._add(train=loss.detach(), steps=torch.ones(()))
        else:
            self._add(nats=nats, tokens=is_target.sum(), bytes=sizes[is_target].sum())
        self.log(f"{stage}/loss", loss, prog_bar=True, on_step=stage == "train", on_epoch=stage != "train",
                 batch_size=len(labels), sync_dist=stage != "train")  # fmt: skip
        return loss

    def training_step(self, batch: TextBlock, batch_number: int) -> Tensor:
        """Mean loss over the asked tokens, in nats."""
        return self._step(batch, "train")

    def validation_step(self, batch: TextBlock, batch_number: int) -> None:
        """Sums over the validation text."""
        self._step(batch, "val")

    def _add(self, **values: Tensor) -> None:
        for name, value in values.items():
            self._sums[name].update(value)

    def on_validation_epoch_end(self) -> None:
        """Add a point to the curve."""
        sums = {name: float(metric.compute()) if metric.update_called else 0.0 for name, metric in self._sums.items()}
        for metric in self._sums.values():
            metric.reset()
        loss = sums["nats"] / sums["tokens"] if sums["tokens"] else float("nan")
        bits = sums["nats"] / np.log(2) / sums["bytes"] if sums["bytes"] else float("nan")
        train = sums["train"] / sums["steps"] if sums["steps"] else float("nan")
        self.curve.append(Point(self.trainer.global_step, train, loss, float(np.exp(min(loss, 700.0))), float(bits)))

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
        done, training = self.trainer.global_step, self._training
        until = min(training.total, (done // training.evaluate_every + 1) * training.evaluate_every)
        steps = done * training.accumulate, until * training.accumulate
        return self._loader("train", SteppedBatches(
            len(self._texts["train"]), training.batch_size, steps, training.seed, *self._place()
        ))  # fmt: skip

    def val_dataloader(self) -> DataLoader[TextBlock]:
        """The validation text, with the same tokens masked at every point."""
        sizes = np.zeros(len(self._texts["val"]))
        return self._loader("val", GroupedBatches(sizes, self._training.batch_size, False, 0, *self._place()))

    def _place(self) -> tuple[int, int]:
        return self.trainer.global_rank, self.trainer.world_size

    def _loader(self, part: str, sampler: Any) -> DataLoader[TextBlock]:
        return DataLoader(self._batches[part], batch_size=None, sampler=sampler)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Record the curve and the settings; plain data only."""
        checkpoint["hyperofa_pretraining"] = {
            "curve": [astuple(point) for point in self.curve],
            "training": asdict(self._training),
            "blocks": [len(blocks) for blocks in self._texts.values()],
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take up the curve.

        Raises:
            InputError: the checkpoint is of a run with other settings or another text.
        """
        found = checkpoint.get("hyperofa_pretraining", {})
        expected = {"training": asdict(self._training), "blocks": [len(blocks) for blocks in self._texts.values()]}
        if {name: found.get(name) for name in expected} != expected:
            raise InputError(f"--resume: expected a run with {expected}, found {found}; use its settings and text")
        self.curve = [Point(*values) for values in found["curve"]]


class _Saving(lightning.Callback):
    """Writes a checkpoint at each point of the curve; Lightning's own callback warns of a folder that is there."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def setup(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, stage: str) -> None:
        """Have it written whole or not at all."""
        write_whole(trainer)

    def on_train_epoch_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Write it, in place of the one before."""
        trainer.save_checkpoint(self._path)


def vocabulary_parameters(model: PreTrainedModel) -> list[nn.Parameter]:
    """Parameters with one row or entry per token: input and output embeddings or coordinates, and the head's bias."""
    head = model.get_output_embeddings()
    found: list[Any] = [getattr(head, "bias", None), *(owner.coordinates for owner in factor_owners(model))]
    found += [getattr(module, "weight", None) for module in (model.get_input_embeddings(), head)]
    return [parameter for parameter in found if isinstance(parameter, nn.Parameter)]


def train(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    train_lines: Sequence[str],
    validation_lines: Sequence[str],
    training: Training,
    options: TrainerOptions = TrainerOptions(),
    new_rows: np.ndarray | None = None,
    checkpoint: Path | None = None,
    resume: bool = False,
) -> list[Point]:
    """Train a language model in place, in float32.

    Args:
        model: causal or masked.
        tokenizer: its tokenizer.
        train_lines: text to train on.
        validation_lines: text to measure on.
        training: the settings.
        options: of the Trainer.
        new_rows: ids of the tokens that phase one trains; needed where it has steps.
        checkpoint: file to write at each point of the curve; `None` writes none.
        resume: go on from that file.

    Returns:
        The curve; its first point is before training.

    Raises:
        InputError: the model, a text or an option does not serve.
    """
    objective = objective_of(model)
    mask_id = None
    if objective == "masked":
        mask_id = tokenizer.mask_token_id
        if mask_id is None:
            raise InputError("--model: expected a mask token in the tokenizer of a masked language model, found none")
    new_rows = np.empty(0, np.int64) if new_rows is None else new_rows
    if training.new_steps and not len(new_rows):
        raise InputError("--training.new_steps: expected 0, as the model has no rows that are known to be new")
    length = longest(model, tokenizer, training.block_size)
    texts = {
        "train": chunk(train_lines, tokenizer, length, objective),
        "val": chunk(validation_lines, tokenizer, length, objective, "--validation_text"),
    }
    special = set(tokenizer.all_special_ids)
    vocabulary = torch.tensor(sorted(set(tokenizer.get_vocab().values()) - special))
    module = LanguageModelling(model, training, texts, mask_id, vocabulary, new_rows)
    lightning.seed_everything(training.seed, verbose=False)
    try:
        trainer = lightning.Trainer(
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
            callbacks=[StopDiverged(_ADVICE), *([] if checkpoint is None else [_Saving(checkpoint)])],
            enable_checkpointing=False,
            logger=False,
            enable_model_summary=False,
            enable_progress_bar=options.progress,
        )
    except (TypeError, ValueError, RuntimeError) as error:  # what it refuses is the user's mistake
        raise InputError(f"--trainer: {error}") from None
    if not resume:
        trainer.validate(module, verbose=False)
        module.model.train()
    trainer.fit(module, ckpt_path=checkpoint if resume else None)
    module.model.eval()
    return module.curve
