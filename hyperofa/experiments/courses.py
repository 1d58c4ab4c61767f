"""Continual pretraining of the cells of an ablation: curves, the area under them, and the steps that a method saves."""

import csv
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from hyperofa.experiments.cells import PlainPoint
from hyperofa.experiments.grid import shown
from hyperofa.experiments.results import Outcome, labels
from hyperofa.pretraining.curves import CurveComparison
from hyperofa.pretraining.points import LanguagePoint

ALL = "all text"


@dataclass(frozen=True)
class Progress:
    """What became of bits per byte under a method at one width, in the mean over seeds.

    Attributes:
        row: label of the method.
        width: as shown.
        language: or `ALL`.
        before: pretraining.
        after: pretraining.
        area: mean over the steps.
        steps: until it is as good as the baseline of the same seed is at its end; `None` where a seed never is, or
            where there is no baseline.
        total: steps of the baseline.
        seeds: how many.
    """

    row: str
    width: str
    language: str
    before: float
    after: float
    area: float
    steps: float | None
    total: int
    seeds: int

    @property
    def texts(self) -> list[str]:
        """Numbers as a table shows them."""
        reached, saved = "–", "–"
        if self.steps is not None and self.total:
            reached, saved = f"{self.steps:,.0f}", f"{self.total - self.steps:,.0f} ({1 - self.steps / self.total:.0%})"
        return [f"{self.before:.3f}", f"{self.after:.3f}", f"{self.area:.3f}", reached, saved]


HEADS = ("before", "after", "mean over the steps", "steps to the end of {}", "steps saved")


def curve_of(outcome: Outcome) -> list[LanguagePoint]:
    """The curve of a finished cell; empty where nothing was pretrained."""
    found: list[dict[str, Any]] = (outcome.result or {}).get("curve", [])
    return [
        LanguagePoint(train_loss=math.nan, **{name: point[name] for name in PlainPoint.__annotations__})
        for point in found
    ]


def courses(outcomes: Sequence[Outcome], baseline: str) -> list[Progress]:
    """What became of each method, for all text and for each language of it.

    Args:
        outcomes: of all cells.
        baseline: method whose end the others are to reach, at the same width and seed.
    """
    names = labels(outcomes)
    curves: dict[tuple[str, str], dict[int, list[LanguagePoint]]] = {}
    for outcome in outcomes:
        if points := curve_of(outcome):
            curves.setdefault((names[outcome.cell.id], shown(outcome.cell.width)), {})[outcome.cell.seed] = points
    found = []
    for (row, width), of_seed in curves.items():
        base = curves.get((baseline, width), {})
        pairs = [{"base": base.get(seed, points), "own": points} for seed, points in of_seed.items()]
        comparisons = [CurveComparison(pair, "base") for pair in pairs]
        for language in [None, *comparisons[0].languages]:
            own = [comparison.courses(language)["own"] for comparison in comparisons]
            steps = [course.reached["step"] for course in own]
            known = [each for each in steps if each is not None]
            reached = len(known) == len(steps) and base.keys() >= of_seed.keys()
            found.append(
                Progress(
                    row=row,
                    width=width,
                    language=ALL if language is None else language,
                    before=float(np.mean([course.before for course in own])),
                    after=float(np.mean([course.after for course in own])),
                    area=float(np.mean([course.area for course in own])),
                    steps=float(np.mean(known)) if reached else None,
                    total=pairs[0]["base"][-1].step,
                    seeds=len(of_seed),
                )
            )
    return found


def panels(outcomes: Sequence[Outcome]) -> dict[str, dict[str, list[tuple[list[int], list[float]]]]]:
    """Steps and bits per byte of every cell, by language and row (with its width where there are several)."""
    names = labels(outcomes)
    several = len({outcome.cell.width for outcome in outcomes}) > 1
    found: dict[str, dict[str, list[tuple[list[int], list[float]]]]] = {}
    for outcome in outcomes:
        if not (points := curve_of(outcome)):
            continue
        row = names[outcome.cell.id] + (f", K = {shown(outcome.cell.width)}" if several else "")
        steps = [point.step for point in points]
        series = {"bits per byte": [point.bits_per_byte for point in points]}
        languages = CurveComparison({"": points}, "").languages
        series |= {f"bits per byte {each}": [point.languages[each] for point in points] for each in languages}
        for name, values in series.items():
            found.setdefault(name, {}).setdefault(row, []).append((steps, values))
    return found


def write_curves(path: Path, outcomes: Sequence[Outcome]) -> None:
    """Write every point of every cell's curve as a line of CSV; nothing where nothing was pretrained.

    Args:
        path: file to write; an old one is removed.
        outcomes: of all cells.
    """
    path.unlink(missing_ok=True)
    names = labels(outcomes)
    lines = []
    for outcome in outcomes:
        cell = outcome.cell
        for point in curve_of(outcome):
            line = {"label": names[cell.id], "width": shown(cell.width), "seed": cell.seed, "step": point.step}
            line |= {"tokens": point.tokens, "bytes": point.bytes, "bits_per_byte": f"{point.bits_per_byte:.6g}"}
            lines.append(line | {f"bits_per_byte {name}": f"{value:.6g}" for name, value in point.languages.items()})
    if lines:
        with path.open("w", encoding="utf-8", newline="") as file:
            table = csv.DictWriter(file, list(dict.fromkeys(key for line in lines for key in line)), restval="",
                                   lineterminator="\n")  # fmt: skip
            table.writeheader()
            table.writerows(lines)


def to_markdown(found: Sequence[Progress], baseline: str) -> str:
    """A table of all text; empty where nothing was pretrained.

    Args:
        found: of `courses`.
        baseline: method whose end the others are to reach.
    """
    shown_rows = [each for each in found if each.language == ALL]
    if not shown_rows:
        return ""
    several = len({each.width for each in shown_rows}) > 1
    heads = " | ".join(HEADS).format(baseline)
    lines = [f"| | {heads} |", f"|---|{'---|' * len(HEADS)}"]
    lines += [
        f"| {each.row}{f', K = {each.width}' if several else ''} | {' | '.join(each.texts)} |" for each in shown_rows
    ]
    return "\n".join(["", "Bits per byte under continual pretraining, mean over seeds.", "", *lines, ""])
