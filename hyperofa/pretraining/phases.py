"""Train a model in two phases, the new rows alone, then all parameters, along a curve of what it is worth."""

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Generic, NamedTuple, TypeVar

import lightning
import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import AdamW
from torch.optim.lr_scheduler import LambdaLR
from torch.utils.data import DataLoader, Dataset
from torchmetrics import SumMetric
from transformers import PreTrainedModel

from hyperofa.errors import InputError
from hyperofa.evaluation.scores import Scores
from hyperofa.models.factorised import factor_owners
from hyperofa.pretraining.blocks import BlockOrder, SteppedBatches
from hyperofa.pretraining.points import Point
from hyperofa.pretraining.settings import Training
from hyperofa.training.samplers import GroupedBatches

Batch = TypeVar("Batch", bound=tuple[Any, ...])


class Data(NamedTuple, Generic[Batch]):
    """What a model is trained on and measured on; items of the datasets are whole batches.

    Attributes:
        train: to train on.
        order: in which its items are read.
        val: to measure on, by language, each as long as it has items.
    """

    train: Dataset[Batch]
    order: BlockOrder
    val: Mapping[str, Dataset[Batch]]


class PhasedTraining(lightning.LightningModule, ABC, Generic[Batch]):
    """Trains a model; what the loss is, and what a point of the curve says, is for subclasses to tell.

    Args:
        model: moved to float32.
        training: the settings.
        data: to train and to measure on.
        new_rows: ids of the tokens that phase one trains; needed where it has steps.

    Attributes:
        POINT: kind of the curve's points.
        SUMS: what is summed over the validation data of a language.
        evaluate: scores the model after some steps, on the first process.
        curve: points so far.

    Raises:
        InputError: a first phase without rows to train, or with rows that the model has not.
    """

    POINT: type[Point]
    SUMS: tuple[str, ...]

    def __init__(
        self, model: PreTrainedModel, training: Training, data: Data[Batch], new_rows: np.ndarray | None
    ) -> None:
        super().__init__()
        if training.new_steps and (new_rows is None or not len(new_rows)):
            raise InputError("--training.new_steps: expected 0, as the model has no rows that are known to be new")
        count = len(vocabulary_parameters(model)[0])
        if training.new_steps and new_rows is not None and not 0 <= int(new_rows.min()) <= int(new_rows.max()) < count:
            raise InputError(
                f"--new_rows: expected ids from 0 to {count - 1}, as the model has rows for, found "
                f"{new_rows.min()} to {new_rows.max()}; give ids of its tokens, or its own provenance.tsv"
            )
        self.model = model.float()
        self.curve: list[Point] = []
        self.evaluate: Callable[[int], Scores] | None = None
        self._training, self._data = training, data
        self._new_rows = torch.from_numpy(np.empty(0, np.int64) if new_rows is None else new_rows)
        self._sums = {
            (language, name): SumMetric(nan_strategy="disable")
            for language, names in {**dict.fromkeys(data.val, self.SUMS), "": ("train", "steps")}.items()
            for name in names
        }
        self._metrics = nn.ModuleList(self._sums.values())  # so that Lightning moves them
        self._read = torch.zeros(2, dtype=torch.int64)  # since the last point, of this process
        self._began: float | None = None
        self._seconds = 0.0
        if not training.steps:  # no other parameter ever needs a gradient
            rows = self._row_parameters()
            for parameter in model.parameters():
                parameter.requires_grad_(id(parameter) in rows)

    @abstractmethod
    def point(self, sums: Mapping[str, Mapping[str, float]], **shared: Any) -> Point:
        """What the curve says of the model as it is.

        Args:
            sums: of each language's validation data, by `SUMS`.
            shared: what every point has, and what was read so far.
        """

    def learn(self, loss: Tensor, read: Sequence[Tensor], size: int) -> Tensor:
        """Note what a training step came to.

        Args:
            loss: of the batch.
            read: what it was read from, counted as `POINT.READ` says.
            size: items in the batch.
        """
        self.add("", train=loss.detach(), steps=torch.ones(()))
        self._read = self._read.to(self.device) + torch.stack([each.long() for each in read])
        self.log("train/loss", loss, prog_bar=True, batch_size=size)
        return loss

    def language(self, dataloader_idx: int) -> str:
        """Whose validation data it is.

        Args:
            dataloader_idx: number of its loader.
        """
        return list(self._data.val)[dataloader_idx]

    def add(self, language: str, **values: Tensor) -> None:
        """Add to the sums of a language.

        Args:
            language: whose validation data was read; '' for what was trained on.
            values: to add, by name.
        """
        for name, value in values.items():
            self._sums[language, name].update(value)

    def on_train_epoch_start(self) -> None:
        """Begin a stretch of the curve: what is random in it depends on where it is, not on what came before."""
        place = (self._training.seed, self.trainer.global_step, self.trainer.global_rank)
        torch.manual_seed(int(np.random.SeedSequence(place).generate_state(1)[0]))
        self._began = time.perf_counter()

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        """Leave dropout out of phase one: what is frozen is read as it is."""
        self.model.train(self.trainer.global_step >= self._training.new_steps)

    def on_validation_start(self) -> None:
        """Stop the clock."""
        if self._began is not None:
            if self.device.type == "cuda":
                torch.cuda.synchronize(self.device)
            self._seconds += time.perf_counter() - self._began
            self._began = None

    def on_validation_epoch_end(self) -> None:
        """Add a point to the curve."""
        sums: dict[str, dict[str, float]] = {}
        for (language, name), metric in self._sums.items():
            sums.setdefault(language, {})[name] = float(metric.compute()) if metric.update_called else 0.0
            metric.reset()
        trained = sums.pop("")
        new = self.trainer.strategy.reduce(self._read.to(self.device), reduce_op="sum")
        self._read = torch.zeros_like(new)
        before = [getattr(self.curve[-1], name) if self.curve else 0 for name in self.POINT.READ]
        read = {name: old + more for name, old, more in zip(self.POINT.READ, before, new.tolist(), strict=True)}
        step = self.trainer.global_step
        point = self.point(
            sums,
            **read,
            step=step,
            train_loss=ratio(trained["train"], trained["steps"]),
            seconds=self._seconds,
        )
        self.log("val/loss", point.loss, prog_bar=True, sync_dist=True)
        self.curve.append(replace(point, scores=self._scores(step)) if np.isfinite(point.loss) else point)

    def _scores(self, step: int) -> Scores:
        """What the evaluation tasks say, on the first process; they may leave the model on another device."""
        if self.evaluate is None or not self.trainer.is_global_zero:
            return Scores({}, {})
        scores = self.evaluate(step)
        torch.nn.Module.to(self.model, self.device)
        return scores

    def on_before_optimizer_step(self, optimizer: Any) -> None:
        """In phase one, leave no gradient but that of the new rows."""
        if self.trainer.global_step >= self._training.new_steps:
            return
        rows = self._row_parameters()
        for parameter in self.model.parameters():
            if id(parameter) not in rows:
                parameter.grad = None
            elif parameter.grad is not None:
                kept = parameter.grad[self._new_rows]
                parameter.grad.zero_()[self._new_rows] = kept

    def configure_optimizers(self) -> Any:
        """AdamW, with the warm-up and decay of `Training.rate`."""
        rows = self._row_parameters()
        groups: dict[float, list[nn.Parameter]] = {self._training.weight_decay: [], 0.0: []}
        for parameter in self.model.parameters():
            plain = parameter.ndim < 2 or id(parameter) in rows
            groups[0.0 if plain else self._training.weight_decay].append(parameter)
        parts = [{"params": params, "weight_decay": decay} for decay, params in groups.items() if params]
        optimizer = AdamW(parts, lr=self._training.learning_rate)
        return [optimizer], [{"scheduler": LambdaLR(optimizer, self._training.rate), "interval": "step"}]

    def train_dataloader(self) -> DataLoader[Batch]:
        """The batches up to the next point of the curve."""
        training = self._training
        done = min(self.trainer.global_step, training.total - 1)  # after the last step, a loader that nobody reads
        until = min(training.total, (done // training.evaluate_every + 1) * training.evaluate_every)
        steps = done * training.accumulate, until * training.accumulate
        batches = SteppedBatches(self._data.order, training.batch_size, steps, training.seed, *self._place())
        return DataLoader(self._data.train, batch_size=None, sampler=batches)

    def val_dataloader(self) -> list[DataLoader[Batch]]:
        """The validation data, a loader a language, the same at every point."""
        return [
            DataLoader(
                each,
                batch_size=None,
                sampler=GroupedBatches(
                    np.zeros(len(each)),  # type: ignore[arg-type]
                    self._training.batch_size,
                    False,
                    0,
                    *self._place(),
                ),
            )
            for each in self._data.val.values()
        ]

    def _row_parameters(self) -> set[int]:
        """The `id`s of the parameters with one row or entry per token."""
        return {id(parameter) for parameter in vocabulary_parameters(self.model)}

    def _place(self) -> tuple[int, int]:
        return self.trainer.global_rank, self.trainer.world_size

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Record the curve; plain data only."""
        checkpoint["hyperofa_pretraining"] = [point.as_dict() for point in self.curve]

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take up the curve."""
        self.curve = [self.POINT.from_dict(point) for point in checkpoint["hyperofa_pretraining"]]
        self._seconds = self.curve[-1].seconds


def ratio(whole: float, parts: float) -> float:
    """One number over another; nan over nothing.

    Args:
        whole: to be divided.
        parts: to divide by.
    """
    return float(whole / parts) if parts else float("nan")


def vocabulary_parameters(model: PreTrainedModel) -> list[nn.Parameter]:
    """Parameters with one row or entry per token: input and output embeddings or coordinates, and the head's bias."""
    head = model.get_output_embeddings()
    found: list[Any] = [getattr(head, "bias", None), *(owner.coordinates for owner in factor_owners(model))]
    found += [getattr(module, "weight", None) for module in (model.get_input_embeddings(), head)]
    return [parameter for parameter in found if isinstance(parameter, nn.Parameter)]
