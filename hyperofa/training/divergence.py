"""Training that has diverged ends at once, in one line, with the checkpoints that were written before it did."""

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from lightning import Callback, LightningModule, Trainer
from torch import Tensor

from hyperofa.errors import InputError

_EVERY = 50  # batches between two looks at the loss, for which a GPU has to finish


class StopDiverged(Callback):
    """Ends training when losses, metrics or weights are not finite; a checkpoint of such weights is never written.

    All processes of a job end together, whichever of them found it.

    Args:
        advice: what the user may change, for the message.
    """

    def __init__(self, advice: str = "give a lower --model.learning_rate, or --trainer.gradient_clip_val 1.0") -> None:
        self._advice = advice

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Look at the loss now and then, for epochs may take hours."""
        if (batch_idx + 1) % _EVERY == 0 and isinstance(outputs, Mapping):
            self._check(trainer, {"train/loss": outputs["loss"]})

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Look at all metrics, before a checkpoint is chosen by them."""
        self._check(trainer, trainer.callback_metrics)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Look at those of training too."""
        self._check(trainer, trainer.callback_metrics)

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Look at the weights."""
        self._check(trainer, checkpoint["state_dict"])

    def _check(self, trainer: Trainer, values: Mapping[str, Tensor]) -> None:
        wrong = not_finite(values)
        if trainer.strategy.reduce_boolean_decision(bool(wrong), all=False):
            what = f"{wrong[0]} is not finite" if wrong else "another process found numbers that are not finite"
            kept = getattr(trainer.checkpoint_callback, "best_model_path", "")
            raise InputError(
                f"training diverged: {what} after step {trainer.global_step:,}; {self._advice}"
                + (f" (the best checkpoint before that: {kept})" if kept else "")
            )


def not_finite(values: Mapping[str, Tensor]) -> list[str]:
    """Names of the tensors with a NaN or an infinity."""
    found: Iterable[tuple[str, Tensor]] = ((name, each) for name, each in values.items() if isinstance(each, Tensor))
    return [name for name, each in found if each.is_floating_point() and not torch.isfinite(each).all()]
