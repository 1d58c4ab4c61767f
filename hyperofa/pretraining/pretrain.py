"""Continual pretraining: a model folder and text in, a model folder and its curve out."""

import csv
import shutil
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict, astuple, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.pytorch.utilities import rank_zero_only
from matplotlib.figure import Figure
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from hyperofa.errors import InputError
from hyperofa.models.loading import load_model
from hyperofa.models.saving import save_model
from hyperofa.pretraining.language_model import Point, TrainerOptions, Training, train
from hyperofa.runtime.calls import written_call
from hyperofa.runtime.folders import kept_folder, versions, write_json
from hyperofa.runtime.processes import is_first_process
from hyperofa.runtime.text_files import hold_out, read_lines
from hyperofa.tokens.canonical import load_tokenizer

_CHECKPOINT = Path("checkpoint") / "last.ckpt"
_KNOWN_ORIGINS = ("copied",)
_TRAINING, _TRAINER = Training(), TrainerOptions()


@dataclass(frozen=True)
class Pretrained:
    """A trained model folder and its curve."""

    path: Path
    curve: list[Point]

    def __str__(self) -> str:
        lines = [
            f"{name:<6} step {point.step:>7,}  perplexity {point.perplexity:>10.2f}  "
            f"bits per byte {point.bits_per_byte:.4f}"
            for name, point in (("before", self.curve[0]), ("after", self.curve[-1]))
        ]
        return "\n".join([*lines, f"model, tokenizer, curve.csv and curve.png: {self.path}"])


def pretrain(
    model: str,
    text: list[Path],
    output: Path,
    validation_text: list[Path] | None = None,
    validation_lines: int = 500,
    training: Training = _TRAINING,
    trainer: TrainerOptions = _TRAINER,
    resume: bool = False,
    overwrite: bool = False,
) -> Pretrained:
    """Go on training a causal or masked language model on text: first its new rows alone, then all of it.

    New rows are those that `provenance.tsv` in the model's folder does not call copied.

    Args:
        model: folder that `hyperofa export` or `hyperofa expand` wrote; without --training.new_steps any model.
        text: files of text, one sentence or paragraph a line (.txt, .gz, .tsv: last column).
        output: folder for the model, its tokenizer, `curve.csv` and `curve.png`.
        validation_text: files of text to measure on.
        validation_lines: lines of --text to hold out for that where there is no --validation_text; at most a tenth.
        training: steps, learning rate, …
        trainer: devices, precision, …
        resume: go on from the checkpoint that an interrupted run left in --output.
        overwrite: replace a folder that is already there.

    Returns:
        Where the model is, and the curve.

    Raises:
        InputError: an input is missing or does not serve.

    Example:
        >>> from pathlib import Path
        >>> import hyperofa
        >>> from hyperofa.pretraining.language_model import Training, TrainerOptions
        >>> steps = Training(steps=2, evaluate_every=1, batch_size=2, block_size=16)
        >>> quiet = TrainerOptions(progress=False)
        >>> trained = hyperofa.pretrain("model", [Path("german.txt")], Path("trained"), training=steps, trainer=quiet)
        >>> [point.step for point in trained.curve]
        [0, 1, 2]
    """
    call = written_call(pretrain, locals())
    if resume and not (output / _CHECKPOINT).is_file():
        raise InputError(f"--resume: expected the checkpoint of an interrupted run in --output {output}, found none")
    lines = read_lines(text, "--text")
    if validation_text:
        held_out = read_lines(validation_text, "--validation_text")
    else:
        lines, held_out = hold_out(lines, validation_lines, training.seed)
    loaded, tokenizer = load_model(model, "--model"), load_tokenizer(model, "--model")
    new_rows = read_new_rows(Path(model)) if training.new_steps else None
    dtype = loaded.dtype
    inputs = [model, *text, *(validation_text or [])]
    writing = kept_folder(
        output, overwrite, kind="trained model", inputs=inputs, unfinished=_CHECKPOINT.parts[0], resume=resume
    )
    with writing if is_first_process() else nullcontext():
        curve = train(
            loaded, tokenizer, lines, held_out, training, trainer, new_rows, output / _CHECKPOINT, resume=resume
        )
        torch.nn.Module.to(loaded, dtype)
        settings = {"model": model, "text": [str(path) for path in text], "training": asdict(training)}
        settings |= {"versions": versions(), "command": call.text}
        rank_zero_only(_write)(loaded, tokenizer, curve, settings, training.new_steps, output)
    return Pretrained(output, curve)


def _write(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    curve: list[Point],
    settings: dict[str, Any],
    new_steps: int,
    output: Path,
) -> None:
    save_model(model, output)
    tokenizer.save_pretrained(output)
    write_curves({"": curve}, output / "curve.csv")
    plot_curves({"": curve}, output / "curve.png", new_steps)
    write_json(output / "pretraining.json", settings)
    shutil.rmtree((output / _CHECKPOINT).parent)


def read_new_rows(model: Path) -> np.ndarray:
    """Ids of the tokens that an exported model did not copy from its source model.

    Args:
        model: folder with `provenance.tsv`.

    Raises:
        InputError: no such table there, or another one.
    """
    path = model / "provenance.tsv"
    try:
        with path.open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_MINIMAL))
        return np.array([int(row["id"]) for row in rows if row["origin"] not in _KNOWN_ORIGINS], np.int64)
    except FileNotFoundError:
        raise InputError(
            f"--training.new_steps: expected provenance.tsv in --model {model}, which says what rows are new, found "
            "none; give a folder of `hyperofa export` or `hyperofa expand`, or 0 steps"
        ) from None
    except (KeyError, ValueError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path}: expected a table with the columns id and origin; {error}") from None


def write_curves(curves: Mapping[str, Sequence[Point]], path: Path) -> None:
    """Write curves as CSV, one line a point; with a column of their names where they have any.

    Args:
        curves: points by name; one name, '', for a curve alone.
        path: file to write.
    """
    named = any(curves)
    with path.open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow([*(["name"] if named else []), *(each.name for each in fields(Point))])
        for name, curve in curves.items():
            for point in curve:
                step, *values = astuple(point)
                table.writerow([*([name] if named else []), step, *(f"{value:.6g}" for value in values)])


_HIGHEST = 1e12  # of a plotted perplexity: ruined models reach numbers that no axis can show


def plot_curves(curves: Mapping[str, Sequence[Point]], picture: Path, new_steps: int = 0) -> None:
    """Plot perplexity and bits per byte over the steps.

    Args:
        curves: by name, for the legend.
        picture: PNG file to write.
        new_steps: steps of the first phase, marked by a line.
    """
    figure = Figure(figsize=(11, 4), layout="constrained")
    titles = {"perplexity": "validation perplexity", "bits_per_byte": "bits per byte"}
    for axes, (key, title) in zip(figure.subplots(1, 2), titles.items(), strict=True):
        for name, curve in curves.items():
            values = [min(getattr(point, key), _HIGHEST) for point in curve]
            axes.plot([point.step for point in curve], values, label=name, marker="." if len(curve) < 50 else None)
        axes.set(title=title, xlabel="step", yscale="log")
        if new_steps:
            axes.axvline(new_steps, color="grey", linestyle=":", label="new rows only before")
        if any(curves) or new_steps:
            axes.legend()
    figure.savefig(picture, dpi=120)
