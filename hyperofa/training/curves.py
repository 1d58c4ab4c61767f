"""Training curves: what `metrics.csv` of a run says, as a picture."""

import csv
import sys
from pathlib import Path

from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.trainer.states import TrainerFn
from matplotlib.figure import Figure

from hyperofa.runtime.pictures import save_picture

_SHOWN = ("val/score", "val/translated_mrr", "val/translated_nats", "val/mrr", "train/loss")


class CurvePlot(Callback):
    """Draws `curves.png` beside the run's `metrics.csv` when training ends."""

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draw, on the first process of a run that logs to files."""
        metrics = Path(trainer.log_dir or "") / "metrics.csv"
        if trainer.is_global_zero and metrics.is_file():
            plot_curves(metrics, metrics.with_name("curves.png"))


class EpochLines(Callback):
    """Says after each validation in one line how it went, where there is no progress bar: what a log file keeps."""

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Say it, on the first process of a run that draws no bar."""
        quiet = trainer.progress_bar_callback is not None or not trainer.is_global_zero
        if quiet or trainer.sanity_checking or trainer.state.fn != TrainerFn.FITTING:
            return
        found = trainer.callback_metrics
        values = ", ".join(f"{name} {float(found[name]):.4g}" for name in _SHOWN if name in found)
        epochs = "" if trainer.max_epochs in (None, -1) else f" of {trainer.max_epochs}"
        sys.stderr.write(f"epoch {trainer.current_epoch + 1}{epochs}, step {trainer.global_step}: {values}\n")


def plot_curves(metrics: Path, picture: Path) -> None:
    """Plot every metric over the steps, training and validation together, languages in one panel of their own.

    Args:
        metrics: CSV file of Lightning's `CSVLogger`.
        picture: PNG file to write.
    """
    curves: dict[str, dict[str, tuple[list[int], list[float]]]] = {}
    with metrics.open(encoding="utf-8") as file:
        for row in csv.DictReader(file):
            for name, value in row.items():
                stage, _, metric = name.partition("/")
                if metric and value:
                    metric, _, language = metric.partition("/")
                    panel = f"{metric} by language" if language else metric
                    steps, values = curves.setdefault(panel, {}).setdefault(language or stage, ([], []))
                    steps.append(int(row["step"]))
                    values.append(float(value))
    if not curves:
        return
    columns, rows = min(3, len(curves)), -(-len(curves) // 3)
    # Places that are fixed: a layout that is computed draws everything twice more.
    figure = Figure(figsize=(4.4 * columns, 3.2 * rows))
    figure.subplots_adjust(0.2 / columns, 0.16 / rows, 1 - 0.05 / columns, 1 - 0.1 / rows, wspace=0.3, hspace=0.4)
    for place, (metric, stages) in enumerate(sorted(curves.items()), 1):
        axes = figure.add_subplot(rows, columns, place)
        for stage, (steps, values) in stages.items():
            axes.plot(steps, values, label=stage, marker="." if len(steps) < 50 else None)
        axes.set(title=metric.replace("_", " "), xlabel="step")
        axes.legend(fontsize="x-small" if len(stages) > 4 else None, ncols=1 + len(stages) // 12)
    save_picture(figure, picture)
