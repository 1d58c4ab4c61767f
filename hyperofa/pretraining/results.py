"""What continual pretraining leaves: a model folder with its curve, or several that were trained alike."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from html import escape
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from hyperofa.models.card import base_card, trained_card
from hyperofa.models.saving import save_model
from hyperofa.models.source import SourceModel
from hyperofa.pretraining.curves import (
    CurveComparison,
    Point,
    plot_comparison,
    plot_curves,
    plot_seconds,
    without_times,
    write_curves,
)
from hyperofa.pretraining.settings import Training
from hyperofa.runtime.calls import Call
from hyperofa.runtime.folders import write_json
from hyperofa.runtime.versions import versions

_TIMES = "seconds.json"
"""How long each stretch of training took. Of two runs with equal seeds no other table differs."""


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
        scores = self.curve[-1].scores
        return "\n".join([*lines, *([f"\n{scores}\n"] if scores else []), f"model, tokenizer, curves: {self.path}"])


@dataclass(frozen=True)
class PretrainedModels(Mapping[str, Pretrained]):
    """Models that were trained alike, by name, and how much sooner each got to where the baseline ended.

    Attributes:
        path: folder of all.
        models: by name.
        baseline: what the others are compared with.
    """

    path: Path
    models: Mapping[str, Pretrained]
    baseline: str

    def __getitem__(self, name: str) -> Pretrained:
        return self.models[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.models)

    def __len__(self) -> int:
        return len(self.models)

    @cached_property
    def comparison(self) -> CurveComparison:
        """Their curves beside each other."""
        return CurveComparison({name: model.curve for name, model in self.models.items()}, self.baseline)

    def __str__(self) -> str:
        rows = self.comparison.rows()
        widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
        lines = [
            "  ".join([f"{row[0]:<{widths[0]}}", *(f"{c:>{w}}" for c, w in zip(row[1:], widths[1:], strict=True))])
            for row in rows
        ]
        return "\n".join([*(line.rstrip() for line in lines), "", f"models, curves.csv, curves.svg: {self.path}"])

    def _repr_html_(self) -> str:
        head, *body = self.comparison.rows()
        lines = [f"<th>{escape(row[0])}</th>{''.join(f'<td>{escape(cell)}</td>' for cell in row[1:])}" for row in body]
        return (
            f"<table><thead><tr>{''.join(f'<th>{escape(cell)}</th>' for cell in head)}</tr></thead>"
            f"<tbody>{''.join(f'<tr>{line}</tr>' for line in lines)}</tbody></table>"
        )


def write_trained(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    curve: Sequence[Point],
    settings: dict[str, Any],
    folder: Path,
    training: Training,
    source: SourceModel,
    call: Call,
) -> None:
    """Write a trained model, its card and its curve.

    Args:
        model: in the precision that it is to be kept in.
        tokenizer: of the model.
        curve: of its training.
        settings: what it was made from.
        folder: where to; made if need be.
        training: how it was trained.
        source: the model that it was before.
        call: that made it.
    """
    save_model(model, folder)
    tokenizer.save_pretrained(folder)
    first, last = curve[0], curve[-1]
    bits = {language: (first.languages[language], last.languages[language]) for language in first.languages}
    card = trained_card(
        model,
        name=source.name,
        base=base_card(source.name if source.in_memory is None else None),
        steps=training.total,
        new_steps=training.new_steps,
        bits=bits if len(bits) > 1 else {"": (first.bits_per_byte, last.bits_per_byte)},
        call=call,
    )
    (folder / "README.md").write_text(card, encoding="utf-8")
    write_curves({"": curve}, folder / "curve.csv")
    plot_curves({"": curve}, folder / "curve.png", training.new_steps)
    write_json(folder / "curve.json", [without_times(point) for point in curve])
    write_json(folder / _TIMES, [round(point.seconds, 2) for point in curve])
    write_json(folder / "pretraining.json", settings | {"command": call.text, "versions": versions()})


def write_comparison(models: PretrainedModels, settings: dict[str, Any], new_steps: int) -> None:
    """Write the curves of several models beside their folders.

    Args:
        models: all are trained.
        settings: what they were made from.
        new_steps: steps of the first phase.
    """
    comparison, folder = models.comparison, models.path
    write_curves(comparison.curves, folder / "curves.csv")
    write_json(folder / "curves.json", comparison.as_dict())
    write_json(folder / _TIMES, comparison.seconds())
    write_json(folder / "pretraining.json", settings | {"versions": versions()})
    plot_comparison(comparison, [folder / "curves.svg", folder / "curves.png"], new_steps)
    plot_seconds(comparison, folder / _TIMES.replace(".json", ".png"))
