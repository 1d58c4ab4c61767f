"""What training leaves: a model folder with its curve, or several that were trained alike."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from html import escape
from pathlib import Path
from typing import Any, Literal

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from hyperofa.models.card import base_card, trained_card
from hyperofa.models.saving import save_model
from hyperofa.models.sentence_modules import copy_modules
from hyperofa.models.source import SourceModel
from hyperofa.pretraining.curves import CurveComparison, plot_comparison, plot_curves, plot_seconds, write_curves
from hyperofa.pretraining.points import LanguagePoint, Point, SentencePoint
from hyperofa.pretraining.settings import Training
from hyperofa.runtime.calls import Call
from hyperofa.runtime.folders import write_json
from hyperofa.runtime.versions import versions

_TIMES = "seconds.json"
"""How long each stretch of training took. Of two runs with equal seeds no other table differs."""


@dataclass(frozen=True)
class Lesson:
    """What models learn.

    Attributes:
        name: of it; its settings are kept in a file of that name.
        point: of its curves.
    """

    name: Literal["pretraining", "distillation"]
    point: type[Point]


PRETRAINING = Lesson("pretraining", LanguagePoint)
DISTILLATION = Lesson("distillation", SentencePoint)


@dataclass(frozen=True)
class Pretrained:
    """A trained model folder and its curve."""

    path: Path
    curve: Sequence[Point]

    def __str__(self) -> str:
        lines = [
            f"{name:<6} step {point.step:>7,}  {point.numbers}"
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
    lesson: Lesson,
) -> None:
    """Write a trained model, its card and its curve; what makes it a sentence encoder stays with one.

    Args:
        model: in the precision that it is to be kept in.
        tokenizer: of the model.
        curve: of its training.
        settings: what it was made from.
        folder: where to; made if need be.
        training: how it was trained.
        source: the model that it was before.
        call: that made it.
        lesson: what it learned.
    """
    save_model(model, folder)
    tokenizer.save_pretrained(folder)
    kept = lesson is DISTILLATION and source.has_home and copy_modules(source.name, folder)
    first, last = curve[0], curve[-1]
    values = {language: (first.of(language), last.of(language)) for language in first.languages}
    card = trained_card(
        model,
        name=source.name,
        base=base_card(source.name if source.in_memory is None else None),
        lesson=lesson.name,
        steps=training.total,
        new_steps=training.new_steps,
        measure=first.MEASURE,
        values=values if len(values) > 1 else {"": (first.value, last.value)},
        call=call,
        embeds_sentences=kept,
    )
    (folder / "README.md").write_text(card, encoding="utf-8")
    write_curves({"": curve}, folder / "curve.csv")
    plot_curves({"": curve}, folder / "curve.png", training.new_steps, lesson.point)
    write_json(folder / "curve.json", [point.without_times() for point in curve])
    write_json(folder / _TIMES, [round(point.seconds, 2) for point in curve])
    write_json(folder / f"{lesson.name}.json", settings | {"command": call.text, "versions": versions()})


def write_comparison(models: PretrainedModels, settings: dict[str, Any], new_steps: int, lesson: Lesson) -> None:
    """Write the curves of several models beside their folders.

    Args:
        models: all are trained.
        settings: what they were made from.
        new_steps: steps of the first phase.
        lesson: what they learned.
    """
    comparison, folder = models.comparison, models.path
    write_curves(comparison.curves, folder / "curves.csv")
    write_json(folder / "curves.json", comparison.as_dict())
    write_json(folder / _TIMES, comparison.seconds())
    write_json(folder / f"{lesson.name}.json", settings | {"versions": versions()})
    plot_comparison(comparison, [folder / "curves.svg", folder / "curves.png"], new_steps)
    plot_seconds(comparison, folder / _TIMES.replace(".json", ".png"))
