"""The Trainer of both phases: what it is made of, what it writes on the way, and what is measured there."""

from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

import lightning
import torch
from lightning.pytorch.callbacks import TQDMProgressBar
from lightning.pytorch.utilities.seed import isolate_rng
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from hyperofa.evaluation.scores import Scores
from hyperofa.pretraining.phases import PhasedTraining
from hyperofa.pretraining.points import Point
from hyperofa.pretraining.settings import TrainerOptions, Training
from hyperofa.runtime.devices import best_device, has_fast_bfloat16
from hyperofa.runtime.processes import bar_hidden
from hyperofa.training.checkpoints import write_whole
from hyperofa.training.divergence import StopDiverged
from hyperofa.training.trainers import hush_lightning, quiet, refusals_told

_ADVICE = "give a lower --training.learning_rate"

Evaluator = Callable[[PreTrainedModel, PreTrainedTokenizerBase, int], Scores]
"""Scores a model after some steps; empty scores where nothing is due."""
Saver = Callable[[PreTrainedModel, PreTrainedTokenizerBase, int], None]
"""Writes a model after some steps, if it is one to be kept."""


class Saving(lightning.Callback):
    """Writes at each point of the curve what training can be gone on from, whole or not at all.

    Lightning's own callback warns of a folder that is there.

    Args:
        path: file to write; `None` for none.
        save: asked at each point but the first; `None` for nobody.
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


def train_phases(
    module: PhasedTraining[Any],
    tokenizer: PreTrainedTokenizerBase,
    training: Training,
    options: TrainerOptions,
    checkpoint: Path | None = None,
    evaluate: Evaluator | None = None,
    save: Saver | None = None,
) -> list[Point]:
    """Train the model of a module in place, in float32.

    Args:
        module: with the model.
        tokenizer: of the model.
        training: the settings.
        options: of the Trainer.
        checkpoint: file that is written at each point of the curve, and gone on from if it is there, which only a run
            with the same inputs may have written; `None` writes none.
        evaluate: asked at each point of the curve.
        save: asked at each point of the curve but the first.

    Returns:
        The curve; its first point is before training.

    Raises:
        InputError: an option does not serve, or training diverged.
    """
    module.evaluate = None if evaluate is None else partial(evaluate, module.model, tokenizer)
    saved = None if save is None else partial(save, module.model, tokenizer)
    hush_lightning()
    with isolate_rng():
        lightning.seed_everything(training.seed, verbose=False)
        trainer = make_trainer(training, options, [Saving(checkpoint, saved)])
        resumed = checkpoint is not None and checkpoint.is_file()
        if not resumed:
            trainer.validate(module, verbose=False)
        module.model.train()  # Lightning warns of what is not; each step says how it is read
        trainer.fit(module, ckpt_path=checkpoint if resumed else None, weights_only=True)
    module.model.eval().requires_grad_(True)
    return module.curve


def check_trainer(training: Training, options: TrainerOptions) -> None:
    """See that there can be a Trainer like this, before anything takes long.

    Args:
        training: the settings.
        options: of the Trainer.

    Raises:
        InputError: an option does not serve.
    """
    with quiet():
        make_trainer(training, options)


def make_trainer(
    training: Training, options: TrainerOptions, callbacks: Iterable[lightning.Callback] = ()
) -> lightning.Trainer:
    """Lightning's Trainer of both phases.

    Args:
        training: the settings.
        options: of the Trainer.
        callbacks: beside the bar and what stops a model that diverges.

    Raises:
        InputError: an option does not serve.
    """
    shows_bar = not bar_hidden(not options.progress)
    device = torch.device("cpu") if options.accelerator == "cpu" else best_device()
    fast = "bf16-mixed" if has_fast_bfloat16(device) else "32-true"
    with refusals_told():
        return lightning.Trainer(
            accelerator=options.accelerator,
            devices=options.devices,
            num_nodes=options.num_nodes,
            strategy=options.strategy,
            precision=fast if options.precision == "auto" else options.precision,  # type: ignore[arg-type]
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
            callbacks=[StopDiverged(_ADVICE), *callbacks, *([TQDMProgressBar()] if shows_bar else [])],
            enable_checkpointing=False,
            logger=False,
            enable_model_summary=False,
            enable_progress_bar=shows_bar,
        )
