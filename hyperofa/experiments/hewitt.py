"""Hewitt's experiment: the same new words, initialised in several ways, and what further training makes of each.

Hewitt (2021) adds words to a causal model and shows that zero and small-norm rows can ruin it where mean rows do not.
Here 100 words that the tokenizer splits become tokens, every method fills their rows, and each model is trained on the
same batches of the same text; one plot shows all curves, and their first points what each initialisation took.
"""

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from hyperofa.bundle.bundle import Bundle
from hyperofa.bundle.prepare import prepare
from hyperofa.evaluation.shift import DistributionShift, measure
from hyperofa.export.export import export
from hyperofa.methods.registry import compared_by, method_named
from hyperofa.models.expand import expand
from hyperofa.models.loading import load_model
from hyperofa.pretraining.corpus import tokenise_lines
from hyperofa.pretraining.curves import plot_curves, write_curves
from hyperofa.pretraining.language_model import check_options, train
from hyperofa.pretraining.points import LanguagePoint
from hyperofa.pretraining.settings import TrainerOptions, Training
from hyperofa.runtime.calls import one_call
from hyperofa.runtime.folders import new_folder, write_json
from hyperofa.runtime.idle import Use, check_read
from hyperofa.runtime.ranges import Count, in_range
from hyperofa.runtime.text_files import hold_out, read_lines
from hyperofa.runtime.versions import versions
from hyperofa.tokens.canonical import load_tokenizer
from hyperofa.training.checkpoints import read_checkpoint
from hyperofa.training.fit import BEST, fit
from hyperofa.training.text_views import ViewCounts
from hyperofa.vectors.conversion import open_specs
from hyperofa.vectors.spelling import split_spec

_TRAINING = Training(steps=500, evaluate_every=20)
_TRAINER = TrainerOptions()
_SAFETY_LINES = 100


@dataclass(frozen=True)
class Hewitt:
    """Curves by method, and what the new tokens took before training, in the contexts of the old tokenizer."""

    path: Path
    words: list[str]
    curves: dict[str, list[LanguagePoint]]
    safety: dict[str, DistributionShift]

    def __str__(self) -> str:
        last = next(iter(self.curves.values()))[-1].step
        rows = [("method", "mass on new", "KL", "bound", "ppl at 0", f"ppl at {last}", "bits per byte")]
        for method, curve in self.curves.items():
            found = self.safety[method].as_dict()
            rows.append((
                method,
                f"{found['new_mass_mean']:.2%}",
                f"{found['kl_mean']:.4f}",
                f"{found['bound_mean']:.4f}",
                f"{curve[0].perplexity:.2f}",
                f"{curve[-1].perplexity:.2f}",
                f"{curve[-1].bits_per_byte:.4f}",
            ))  # fmt: skip
        widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
        lines = ["  ".join(f"{cell:>{width}}" for cell, width in zip(row, widths, strict=True)) for row in rows]
        title = f"{len(self.words)} new words, {last} steps; validation perplexity by initialisation"
        return "\n".join([title, "", *lines, "", f"curves.csv, curves.png, table.json, tokenizer, bundle: {self.path}"])


@in_range()
def hewitt(
    source_model: str,
    text: list[Path],
    vectors: list[str],
    output: Path,
    words: Path | None = None,
    count: Count = 100,
    methods: list[str] | None = None,
    checkpoint: Path | None = None,
    epochs: Count = 6,
    validation_lines: Count = 500,
    training: Training = _TRAINING,
    trainer: TrainerOptions = _TRAINER,
    max_words: Count | None = None,
    keep_models: bool = False,
    overwrite: bool = False,
) -> Hewitt:
    """Add words to a causal model, initialise them in several ways, train each model on the same text, and compare.

    Args:
        source_model: folder or hub id of a causal language model (a masked one works too).
        text: files of text that uses the words, one sentence or paragraph a line.
        vectors: word-vector files, as for `hyperofa prepare`.
        output: folder for the curves, the plot, the table, the expanded tokenizer and the bundle.
        words: file of words to add, one a line; else they are mined from the text by what they save.
        count: how many words to add, at most.
        methods: initialisations; those of the registry that are marked for it (`methods.registry.compared_by`) if not
            given.
        checkpoint: hypernetwork of `hyperofa fit` for this source model and these vectors. One is trained on the text
            and the source tokens if not given.
        epochs: of that training, 20 batches of text each.
        validation_lines: lines of the text to measure on; at most a tenth.
        training: of every model; the same batches for all.
        trainer: devices, precision, …
        max_words: read at most this many words of each vector file.
        keep_models: keep each method's model as it was before training.
        overwrite: replace a folder that is already there.

    Returns:
        The curves.

    Raises:
        InputError: an input is missing or does not serve.
    """
    making = one_call(hewitt, locals())
    chosen = [method_named(name, "--methods") for name in methods or compared_by("hewitt")]
    trains = checkpoint is None and any(method.trained for method in chosen)
    check_read(
        hewitt, locals(),
        Use(("checkpoint",), any(method.trained for method in chosen), "with hyperofa among --methods"),
        Use(("epochs",), trains, "with hyperofa among --methods, and no --checkpoint"),
        Use(("training.new_steps", "training.save_every"), False, "in `hyperofa pretrain`"),
    )  # fmt: skip
    lines, held_out = hold_out(read_lines(text, "--text"), validation_lines, training.seed)
    inputs = [source_model, *text, *(split_spec(spec)[1] for spec in vectors), words, checkpoint]
    open_specs(vectors)
    if checkpoint is not None:
        read_checkpoint(checkpoint, "--checkpoint")
    source = load_model(source_model), load_tokenizer(source_model, "--source_model")
    check_options(*source, training, trainer)
    with making, new_folder(output, overwrite, kind="comparison", inputs=inputs) as folder:
        mined: dict[str, Any] = {"min_pieces": 2} if words is None else {}
        added = expand(source_model, folder / "tokenizer", words, text=text, count=count, **mined).words
        bundle = prepare(
            source_model, str(folder / "tokenizer"), vectors, folder / "bundle", seed=training.seed, max_words=max_words
        )
        if trains:
            checkpoint = folder / "hypernetwork" / BEST
            _fit(bundle, text, epochs, training.seed, checkpoint.parent)
        curves: dict[str, list[LanguagePoint]] = {}
        safety: dict[str, DistributionShift] = {}
        for method in chosen:
            path = folder / "models" / method.name
            checkpoints = [checkpoint] if method.trained and checkpoint is not None else None
            export(bundle.path, method.name, path, checkpoints, seed=training.seed)
            model, tokenizer = load_model(path), load_tokenizer(path)
            safety[method.name] = measure(source, (model, tokenizer), held_out[:_SAFETY_LINES])
            tokens = tokenise_lines(tokenizer, lines, held_out)
            curves[method.name] = train(model, tokenizer, tokens, training, trainer)
            if not keep_models:
                shutil.rmtree(path)
        if not keep_models:
            shutil.rmtree(folder / "models")  # the locks of the exports are still in it
        write_curves(curves, folder / "curves.csv")
        plot_curves(curves, folder / "curves.png")
        table = {
            method: {"safety": safety[method].as_dict(), "perplexity": [point.perplexity for point in curve]}
            for method, curve in curves.items()
        }
        write_json(folder / "table.json", {"words": added, "methods": table, "versions": versions()})
    return Hewitt(output, added, curves, safety)


def _fit(bundle: Bundle, text: list[Path], epochs: int, seed: int, output: Path) -> None:
    """Train a hypernetwork on source tokens and, through the source model, on the text; the best by held-out tokens."""
    fit(
        bundle,
        text,
        output=output,
        seed=seed,
        monitor="val/mrr",
        patience=0,
        trainer={"max_epochs": epochs, "log_every_n_steps": 5},
        streams="both",
        sentences=24,
        views=ViewCounts(translated=0, target=24, source=24),
        judges="sentence",
        text_languages=sorted(np.unique(bundle.words.languages).tolist()),
        steps=20,
        validation_sentences=100,
    )
