"""Curves of training: what a model is worth after how many steps, and how much sooner than another."""

import csv
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from hyperofa.evaluation.task import UNNAMED
from hyperofa.pretraining.points import LanguagePoint, Point
from hyperofa.runtime.pictures import save_picture

Axis = Literal["step", "tokens", "seconds"]
_HIGHEST = 1e12  # of a plotted perplexity: ruined models reach numbers that no axis can show


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
    def measure(self) -> str:
        """What the number is called that they are compared by."""
        return self.curves[self.baseline][-1].MEASURE

    @property
    def languages(self) -> list[str]:
        """Those of what is held out; none where nobody said what language it is in."""
        found = list(next(iter(self.curves.values()))[0].languages)
        return [] if found == [UNNAMED] else found

    def courses(self, language: str | None = None) -> dict[str, Course]:
        """What became of the number that they are compared by, by model.

        Args:
            language: one of `languages`; all text if not given.
        """
        end = self.curves[self.baseline][-1]
        goal, last = end.of(language), end.step
        found = {}
        for name, curve in self.curves.items():
            values = [point.of(language) for point in curve]
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
            name: {"curve": [point.without_times() for point in curve]} for name, curve in self.curves.items()
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
        end = self.curves[self.baseline][-1]
        goal, last = end.value, end.step
        heads = [end.MEASURE, "before", f"after {last:,}", "mean over steps", f"steps to {goal:.3f}", "steps saved"]
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
    for column in point.COLUMNS:
        value = getattr(point, column)
        yield column, str(value) if isinstance(value, int) else f"{value:.6g}"
    if list(point.languages) != [UNNAMED]:
        head = point.MEASURE.replace(" ", "_")
        yield from ((f"{head} {language}", f"{value:.6g}") for language, value in point.languages.items())
    means = point.scores.means()
    for task, found in sorted(point.scores.items()):
        for metric, by_language in sorted(found.items()):
            if metric in means.get(task, {}):
                yield f"{task} {metric}", f"{means[task][metric]:.6g}"
            yield from (
                (f"{task} {metric} {language}", f"{value:.6g}") for language, value in sorted(by_language.items())
            )


def plot_curves(
    curves: Mapping[str, Sequence[Point]], picture: Path, new_steps: int = 0, kind: type[Point] = LanguagePoint
) -> None:
    """Plot what a kind of points has to show over the steps.

    Args:
        curves: by name, for the legend.
        picture: PNG file to write.
        new_steps: steps of the first phase, marked by a line.
        kind: of the points.
    """
    figure = Figure(figsize=(11, 4), layout="constrained")
    for axes, (name, title) in zip(figure.subplots(1, len(kind.PANELS)), kind.PANELS.items(), strict=True):
        for label, curve in curves.items():
            values = [min(getattr(point, name), _HIGHEST) for point in curve]
            _line(axes, [point.step for point in curve], values, label)
        axes.set(title=title, xlabel="step", yscale="log" if kind is LanguagePoint else "linear")
        if new_steps:
            axes.axvline(new_steps, color="grey", linestyle=":", label="new rows only before")
        if any(curves) or new_steps:
            axes.legend()
    save_picture(figure, picture)


def plot_comparison(comparison: CurveComparison, pictures: Sequence[Path], new_steps: int = 0) -> None:
    """Plot what is compared against steps and tokens, and each language and task against steps.

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
            _line(axes, [point.step for point in curve], [point.of(language) for point in curve], name)
        axes.set(title=f"{comparison.measure}, {language}", xlabel="step")
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
    """Plot what is compared against seconds: apart from all else, as no two runs take equally long.

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
    """Draw what is compared, of all languages, and where the baseline ends.

    Args:
        axes: to draw on.
        comparison: the curves.
        axis: what they are drawn against.
        label: its name.
    """
    for name, curve in comparison.curves.items():
        _line(axes, [getattr(point, axis) for point in curve], [point.value for point in curve], name)
    axes.axhline(comparison.curves[comparison.baseline][-1].value, color="grey", lw=0.8)
    axes.set(title=comparison.measure, xlabel=label)


def _line(axes: Axes, places: Sequence[float], values: Sequence[float], name: str) -> None:
    axes.plot(places, values, label=name, marker="." if len(places) < 50 else None)
