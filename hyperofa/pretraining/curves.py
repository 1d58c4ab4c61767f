"""Curves of pretraining: what a model is worth after how many steps, and how much sooner than another."""

import csv
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal, get_type_hints

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from hyperofa.evaluation.scores import Scores
from hyperofa.evaluation.task import UNNAMED
from hyperofa.runtime.pictures import save_picture
from hyperofa.runtime.records import check_kind

Axis = Literal["step", "tokens", "seconds"]
_NONE = Scores({}, {})
_HIGHEST = 1e12  # of a plotted perplexity: ruined models reach numbers that no axis can show
_COLUMNS = ("step", "train_loss", "loss", "perplexity", "bits_per_byte", "tokens", "bytes")


@dataclass(frozen=True)
class Point:
    """What a model is worth after some steps, on the validation text.

    Attributes:
        step: optimizer steps so far.
        train_loss: mean over the steps since the last point, nats a token; nan at the first.
        loss: nats a token.
        perplexity: e to the loss.
        bits_per_byte: of the text that the asked tokens stand for.
        tokens: read in training so far, special ones too, by all processes.
        bytes: of the text that they stand for.
        seconds: of training so far, without what is measured and written on the way.
        languages: bits per byte of each language.
        scores: of the evaluation tasks; empty where none was run.
    """

    step: int
    train_loss: float
    loss: float
    perplexity: float
    bits_per_byte: float
    tokens: int = 0
    bytes: int = 0
    seconds: float = 0.0
    languages: Mapping[str, float] = field(default_factory=dict)
    scores: Scores = _NONE

    def as_dict(self) -> dict[str, Any]:
        """Plain data, from which `from_dict` makes the same point."""
        plain = asdict(replace(self, scores=_NONE))
        plain |= {"languages": dict(self.languages), "scores": self.scores.as_dict()}
        return plain | {"train_loss": None if math.isnan(self.train_loss) else self.train_loss}  # JSON has no NaN

    @classmethod
    def from_dict(cls, found: Mapping[str, Any]) -> "Point":
        """The point of `as_dict`.

        Raises:
            InputError: it is something else.
        """
        kinds = get_type_hints(cls) | {"train_loss": float | None, "scores": dict[str, Any]}
        check_kind(found, kinds, "expected a point of a curve")
        loss = math.nan if found["train_loss"] is None else found["train_loss"]
        read = {"train_loss": loss, "scores": Scores.from_dict(found["scores"])}
        return cls(**{name: found[name] for name in kinds} | read)


def without_times(point: Point) -> dict[str, Any]:
    """All that is the same for equal seeds, as plain data."""
    return {name: value for name, value in point.as_dict().items() if name != "seconds"}


@dataclass(frozen=True)
class Course:
    """What became of one number while a model was trained.

    Attributes:
        before: training.
        after: training.
        area: under the curve: the mean over the steps.
        reached: steps, tokens and seconds after which it is as low as the baseline's end, between two points on a
            straight line; `None` where it never is.
        steps_saved: of the steps that the baseline took.
    """

    before: float
    after: float
    area: float
    reached: Mapping[Axis, float | None]
    steps_saved: float | None


@dataclass(frozen=True)
class CurveComparison:
    """Curves of the same training of several models.

    Attributes:
        curves: by name.
        baseline: whose end the others are to reach.
    """

    curves: Mapping[str, Sequence[Point]]
    baseline: str

    @property
    def languages(self) -> list[str]:
        """Those of the validation text; none where nobody said what language it is in."""
        found = list(next(iter(self.curves.values()))[0].languages)
        return [] if found == [UNNAMED] else found

    def courses(self, language: str | None = None) -> dict[str, Course]:
        """What became of bits per byte, by model.

        Args:
            language: one of `languages`; all text if not given.
        """
        goal, last = bits(self.curves[self.baseline][-1], language), self.curves[self.baseline][-1].step
        found = {}
        for name, curve in self.curves.items():
            values = [bits(point, language) for point in curve]
            axes: tuple[Axis, ...] = ("step", "tokens", "seconds")
            reached = {axis: first_below([getattr(point, axis) for point in curve], values, goal) for axis in axes}
            steps = reached["step"]
            found[name] = Course(
                values[0],
                values[-1],
                area([point.step for point in curve], values),
                reached,
                None if steps is None else last - steps,
            )
        return found

    def as_dict(self) -> dict[str, Any]:
        """Plain data; equal for equal seeds, so without seconds."""
        models: dict[str, Any] = {
            name: {"curve": [without_times(point) for point in curve]} for name, curve in self.curves.items()
        }
        for language in [None, *self.languages]:
            for name, course in self.courses(language).items():
                plain = asdict(course)
                plain["reached"].pop("seconds")
                models[name] |= plain if language is None else {}
                if language is not None:
                    models[name].setdefault("languages", {})[language] = plain
        return {"baseline": self.baseline, "models": models}

    def seconds(self) -> dict[str, Any]:
        """What is not the same twice: seconds at each point, and until a model is as good as the baseline's end."""
        courses = self.courses()
        return {
            name: {"curve": [round(point.seconds, 2) for point in curve], "reached": courses[name].reached["seconds"]}
            for name, curve in self.curves.items()
        }

    def rows(self) -> list[list[str]]:
        """A table; the first row and the first column are heads."""
        goal = self.curves[self.baseline][-1].bits_per_byte
        last = self.curves[self.baseline][-1].step
        heads = ["bits per byte", "before", f"after {last:,}", "mean over steps", f"steps to {goal:.3f}", "steps saved"]
        rows = [heads]
        for name, course in self.courses().items():
            steps, saved = course.reached["step"], course.steps_saved
            rows.append([
                name, f"{course.before:.3f}", f"{course.after:.3f}", f"{course.area:.3f}",
                "–" if steps is None else f"{steps:,.0f}",
                "–" if saved is None or not last else f"{saved:,.0f} ({saved / last:.0%})",
            ])  # fmt: skip
        for language in self.languages:
            rows[0] += [f"{language} before", "after"]
            for row, course in zip(rows[1:], self.courses(language).values(), strict=True):
                row += [f"{course.before:.3f}", f"{course.after:.3f}"]
        return rows


def bits(point: Point, language: str | None = None) -> float:
    """Bits per byte of a language, or of all text.

    Args:
        point: of a curve.
        language: one of those it has; all text if not given.
    """
    return point.bits_per_byte if language is None else point.languages[language]


def area(steps: Sequence[float], values: Sequence[float]) -> float:
    """The mean over the steps of what is a straight line between two points; of one point its value.

    Args:
        steps: in ascending order.
        values: at each.
    """
    if len(steps) < 2:
        return values[0]
    return float(np.trapezoid(values, steps) / (steps[-1] - steps[0]))


def first_below(places: Sequence[float], values: Sequence[float], goal: float) -> float | None:
    """The first place, between two points on a straight line, at which a curve is as low as a goal; `None` if nowhere.

    Args:
        places: of the points, in ascending order.
        values: at each.
        goal: to be reached.
    """
    if values[0] <= goal:
        return float(places[0])
    for (place, value), (next_place, next_value) in pairwise(zip(places, values, strict=True)):
        if next_value <= goal:
            return float(place + (value - goal) / (value - next_value) * (next_place - place))
    return None


# Files.


def write_curves(curves: Mapping[str, Sequence[Point]], path: Path) -> None:
    """Write curves as CSV, one line a point; with a column of their names where they have any.

    Args:
        curves: points by name; one name, '', for a curve alone.
        path: file to write.
    """
    lines = [dict(_cells(name, point)) for name, curve in curves.items() for point in curve]
    columns = list(dict.fromkeys(column for line in sorted(lines, key=len, reverse=True) for column in line))
    with path.open("w", encoding="utf-8", newline="") as file:
        table = csv.DictWriter(file, columns, restval="", lineterminator="\n")
        table.writeheader()
        table.writerows(lines)


def _cells(name: str, point: Point) -> Iterator[tuple[str, str]]:
    if name:
        yield "name", name
    for column in _COLUMNS:
        value = getattr(point, column)
        yield column, str(value) if isinstance(value, int) else f"{value:.6g}"
    if list(point.languages) != [UNNAMED]:
        yield from ((f"bits_per_byte {language}", f"{value:.6g}") for language, value in point.languages.items())
    means = point.scores.means()
    for task, found in sorted(point.scores.items()):
        for metric, by_language in sorted(found.items()):
            if metric in means.get(task, {}):
                yield f"{task} {metric}", f"{means[task][metric]:.6g}"
            yield from (
                (f"{task} {metric} {language}", f"{value:.6g}") for language, value in sorted(by_language.items())
            )


def plot_curves(curves: Mapping[str, Sequence[Point]], picture: Path, new_steps: int = 0) -> None:
    """Plot perplexity and bits per byte over the steps.

    Args:
        curves: by name, for the legend.
        picture: PNG file to write.
        new_steps: steps of the first phase, marked by a line.
    """
    figure = Figure(figsize=(11, 4), layout="constrained")
    left, right = figure.subplots(1, 2)
    for name, curve in curves.items():
        steps = [point.step for point in curve]
        _line(left, steps, [min(point.perplexity, _HIGHEST) for point in curve], name)
        _line(right, steps, [min(point.bits_per_byte, _HIGHEST) for point in curve], name)
    left.set(title="validation perplexity", xlabel="step", yscale="log")
    right.set(title="bits per byte", xlabel="step", yscale="log")
    for axes in (left, right):
        if new_steps:
            axes.axvline(new_steps, color="grey", linestyle=":", label="new rows only before")
        if any(curves) or new_steps:
            axes.legend()
    save_picture(figure, picture)


def plot_comparison(comparison: CurveComparison, pictures: Sequence[Path], new_steps: int = 0) -> None:
    """Plot bits per byte against steps and tokens, and each language and task against steps.

    Args:
        comparison: the curves.
        pictures: files to write, of the kinds that their names say.
        new_steps: steps of the first phase, marked by a line.
    """
    curves = comparison.curves
    tasks = {
        (task, scores.main(task))
        for curve in curves.values()
        for scores in (curve[0].scores,)
        for task in scores
        if scores.main(task) in scores.means().get(task, {})
    }
    panels = 2 + len(comparison.languages) + len(tasks)
    figure = Figure(figsize=(11, 3.4 * -(-panels // 3)), layout="constrained")
    places = iter(figure.subplots(-(-panels // 3), 3, squeeze=False).ravel())
    _plot_courses(next(places), comparison, "step", "step")
    _plot_courses(next(places), comparison, "tokens", "tokens read")
    for language in comparison.languages:
        axes = next(places)
        for name, curve in curves.items():
            _line(axes, [point.step for point in curve], [bits(point, language) for point in curve], name)
        axes.set(title=f"bits per byte, {language}", xlabel="step")
    for task, metric in sorted(tasks):
        axes = next(places)
        for name, curve in curves.items():
            found = [point for point in curve if task in point.scores]
            values = [point.scores.means()[task][metric] for point in found]
            _line(axes, [point.step for point in found], values, name)
        axes.set(title=f"{task}, {next(iter(curves.values()))[0].scores.metrics[task][metric].head}", xlabel="step")
    for axes in places:
        axes.set_axis_off()
    for axes in figure.axes:
        if new_steps and axes.get_xlabel() == "step":
            axes.axvline(new_steps, color="grey", linestyle=":")
    figure.axes[0].legend()
    for picture in pictures:
        save_picture(figure, picture)


def plot_seconds(comparison: CurveComparison, picture: Path) -> None:
    """Plot bits per byte against seconds: apart from all else, as no two runs take equally long.

    Args:
        comparison: the curves.
        picture: file to write, of the kind that its name says.
    """
    figure = Figure(figsize=(5, 3.4), layout="constrained")
    axes = figure.add_subplot()
    _plot_courses(axes, comparison, "seconds", "seconds of training")
    axes.legend()
    save_picture(figure, picture)


def _plot_courses(axes: Axes, comparison: CurveComparison, axis: Axis, label: str) -> None:
    """Draw bits per byte of all text, and where the baseline ends.

    Args:
        axes: to draw on.
        comparison: the curves.
        axis: what they are drawn against.
        label: its name.
    """
    for name, curve in comparison.curves.items():
        _line(axes, [getattr(point, axis) for point in curve], [point.bits_per_byte for point in curve], name)
    axes.axhline(comparison.curves[comparison.baseline][-1].bits_per_byte, color="grey", lw=0.8)
    axes.set(title="bits per byte", xlabel=label)


def _line(axes: Axes, places: Sequence[float], values: Sequence[float], name: str) -> None:
    axes.plot(places, values, label=name, marker="." if len(places) < 50 else None)
