"""Pictures of an ablation: scores by language, by coordinate width, while training, and where rows came from."""

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.container import BarContainer
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator

from hyperofa.experiments.courses import panels
from hyperofa.experiments.results import Outcome, Table, labels
from hyperofa.experiments.tables import width_name
from hyperofa.runtime.pictures import save_picture

# Okabe and Ito (2008): told apart by colour-blind readers, and in grey.
_COLOURS = ("#8C8C8C", "#E69F00", "#009E73", "#56B4E9", "#CC79A7", "#D55E00", "#0072B2", "#000000", "#A6761D")
_STYLE: Any = {
    "font.family": "sans-serif",
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "grid.color": "#e3e3e3",
    "axes.axisbelow": True,
    "legend.frameon": False,
    "svg.fonttype": "none",
    "pdf.fonttype": 42,
}
_CURVES = ("translated_mrr", "mrr", "token_loss")


def draw_all(table: Table, outcomes: Sequence[Outcome], runs: Path, folder: Path) -> dict[str, Path]:
    """Draw everything there is data for, as SVG and PDF, with the data as CSV.

    Args:
        table: scores.
        outcomes: of all cells.
        runs: folder of the trained nets, one a `Cell.run`.
        folder: where to write.

    Returns:
        SVG files by caption.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.iterdir():
        if old.suffix in (".svg", ".pdf", ".csv"):
            old.unlink()
    pictures: dict[str, tuple[str, Figure]] = {}
    with mpl.rc_context(_STYLE):
        shades = colours(table)
        if len(table.widths) > 1 and table.entries:
            pictures["width"] = (
                "Score against coordinate width; bands: 95 % bootstrap intervals over languages.",
                (draw_widths(table, shades)),
            )
        for task in table.tasks:
            width = table.fullest(task)
            caption = (
                f"{task} by language, {width_name(width)}, mean over seeds; languages in order of the best method."
            )
            pictures[f"languages-{task}"] = caption, draw_languages(table, task, width, shades)
        curves = read_curves(outcomes, runs)
        if curves:
            pictures["training"] = "While training; bands: lowest to highest of the seeds.", draw_curves(curves, shades)
        pretraining = panels(outcomes)
        if pretraining:
            pictures["pretraining"] = (
                "Continual pretraining; bands: lowest to highest of the seeds.",
                draw_curves(pretraining, shades),
            )
        origins = _origins(outcomes, table)
        if origins:
            pictures["rows"] = "Where the target rows came from.", draw_origins(origins)
        found = {}
        for name, (caption, figure) in pictures.items():
            save_picture(figure, folder / f"{name}.pdf")
            save_picture(figure, folder / f"{name}.svg")
            _write_data(figure, folder / f"{name}.csv")
            found[caption] = folder / f"{name}.svg"
    return found


def _write_data(figure: Figure, path: Path) -> None:
    """What a figure draws, a line a point or bar, from the figure itself."""
    with path.open("w", encoding="utf-8", newline="") as file:
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow(["panel", "series", "x", "y"])
        for axes in figure.axes:
            named = isinstance(axes.xaxis.get_major_locator(), FixedLocator)
            names = [label.get_text() for label in axes.get_xticklabels()] if named else []
            ticks = dict(zip(axes.get_xticks(), names, strict=False))
            for line in axes.lines:
                for x, y in np.asarray(line.get_xydata(), float):
                    rows.writerow([axes.get_title(), line.get_label(), ticks.get(x, f"{x:g}"), f"{y:.6g}"])
            for bars in (each for each in axes.containers if isinstance(each, BarContainer)):
                upright = bars.orientation == "vertical"
                labels_of = axes.get_xticklabels() if upright else axes.get_yticklabels()
                for bar, label in zip(bars, labels_of, strict=True):
                    size = bar.get_height() if upright else bar.get_width()
                    rows.writerow([axes.get_title(), bars.get_label(), label.get_text(), f"{size:.6g}"])


def colours(table: Table) -> dict[str, str]:
    """A colour for each row, the same in all pictures."""
    return {row: _COLOURS[number % len(_COLOURS)] for number, row in enumerate(table.rows)}


def draw_widths(table: Table, shades: Mapping[str, str]) -> Figure:
    """Mean score of each method at each coordinate width, a panel a task.

    Args:
        table: of the results.
        shades: colour of each row.
    """
    figure = Figure(figsize=(3.4 * len(table.tasks) + 1.2, 3), layout="constrained")
    for number, task in enumerate(table.tasks, 1):
        axes = figure.add_subplot(1, len(table.tasks), number)
        for row in table.rows:
            found = [(x, table.entries.get((row, width, task))) for x, width in enumerate(table.widths)]
            points = [(x, entry.score) for x, entry in found if entry is not None]
            if not points:
                continue
            places, scores = zip(*points, strict=True)
            axes.plot(places, [s.mean for s in scores], "o-", color=shades[row], label=row, markersize=4)
            axes.fill_between(
                places, [s.low for s in scores], [s.high for s in scores], color=shades[row], alpha=0.1, lw=0
            )
        names = [width_name(width).removeprefix("K = ") for width in table.widths]
        axes.set(title=task, xlabel="coordinate width K", xticks=range(len(names)), xticklabels=names)
        if all(entry.score.low >= 0 for (*_, of), entry in table.entries.items() if of == task):
            axes.set_ylim(bottom=0)
        if number == 1 or table.metrics[task] != table.metrics[table.tasks[0]]:
            axes.set_ylabel(table.metrics[task].head)
    _share_legend(figure)
    return figure


def draw_languages(table: Table, task: str, width: str, shades: Mapping[str, str]) -> Figure:
    """Bars by language, a group each; languages from the easiest to the hardest.

    Args:
        table: of the results.
        task: one of its tasks.
        width: one of its widths.
        shades: colour of each row.
    """
    scores = {
        row: table.entries[row, width, task].by_language for row in table.rows if (row, width, task) in table.entries
    }
    metric = table.metrics[task]
    sign = 1 if metric.better == "lower" else -1
    best = min(scores.values(), key=lambda values: sign * sum(values.values()))
    languages = sorted(best, key=lambda language: sign * best[language])
    figure = Figure(
        figsize=(max(5.0, min(11.0, 0.11 * len(languages) * (len(scores) + 1.5) + 1)), 3), layout="constrained"
    )
    axes = figure.add_subplot()
    bar = 0.82 / len(scores)
    for number, (row, values) in enumerate(scores.items()):
        places = np.arange(len(languages)) + (number - (len(scores) - 1) / 2) * bar
        heights = [values.get(language, np.nan) for language in languages]
        axes.bar(places, heights, bar, color=shades[row], label=row)
    axes.set(xticks=range(len(languages)), xlim=(-0.6, len(languages) - 0.4), ylabel=metric.head)
    axes.set_xticklabels(languages, rotation=45 if len(languages) > 12 else 0)
    axes.tick_params(axis="x", length=0)
    _share_legend(figure)
    return figure


Curves = dict[str, dict[str, list[tuple[list[int], list[float]]]]]


def read_curves(outcomes: Sequence[Outcome], runs: Path) -> Curves:
    """Validation curves of the trained cells: steps and values of each run, by metric and row (with its width).

    Args:
        outcomes: of all cells.
        runs: folder of the trainings.
    """
    names = labels(outcomes)
    several = len({outcome.cell.width for outcome in outcomes if outcome.cell.run}) > 1
    curves: Curves = {}
    seen = set()
    for outcome in outcomes:
        path = runs / outcome.cell.run / "metrics.csv"
        if not outcome.cell.run or outcome.cell.run in seen or not path.is_file():
            continue
        seen.add(outcome.cell.run)
        width = "full" if outcome.cell.width is None else str(outcome.cell.width)
        row = names[outcome.cell.id] + (f", {width_name(width)}" if several else "")
        with path.open(encoding="utf-8") as file:
            lines = list(csv.DictReader(file))
        for metric in _CURVES:
            points = [(int(line["step"]), float(line[f"val/{metric}"])) for line in lines if line.get(f"val/{metric}")]
            if points:
                steps, values = map(list, zip(*points, strict=True))
                curves.setdefault(metric, {}).setdefault(row, []).append((steps, values))
    return curves


def draw_curves(curves: Curves, shades: Mapping[str, str]) -> Figure:
    """A panel a metric, a line a row: the mean over seeds, and their range.

    Args:
        curves: as `read_curves` finds them.
        shades: colour of each row.
    """
    columns = min(3, len(curves))
    rows_of_panels = -(-len(curves) // columns)
    figure = Figure(figsize=(3.4 * columns + 1.2, 2.6 * rows_of_panels + 0.4), layout="constrained")
    styles = ("-", "--", ":", "-.")
    for number, (metric, rows) in enumerate(curves.items(), 1):
        axes = figure.add_subplot(rows_of_panels, columns, number)
        used: dict[str, int] = {}
        for row, runs in rows.items():
            colour = next((shade for name, shade in shades.items() if row == name or row.startswith(f"{name}, ")), "k")
            style = styles[used.setdefault(colour, 0) % len(styles)]
            used[colour] += 1
            length = min(len(steps) for steps, _ in runs)
            values = np.array([values[:length] for _, values in runs])
            steps = runs[0][0][:length]
            axes.plot(
                steps, values.mean(0), style, color=colour, label=row, lw=1.4, marker="." if length < 20 else None
            )
            axes.fill_between(steps, values.min(0), values.max(0), color=colour, alpha=0.15, lw=0)
        axes.set(title=f"validation {metric.replace('_', ' ')}", xlabel="step")
    _share_legend(figure)
    return figure


def _origins(outcomes: Sequence[Outcome], table: Table) -> dict[str, dict[str, int]]:
    """Rows of each origin, by row of the table; of its first finished cell."""
    names = labels(outcomes)
    found: dict[str, dict[str, int]] = {}
    for outcome in outcomes:
        if outcome.result is not None:
            found.setdefault(names[outcome.cell.id], outcome.result["rows"])
    return {row: found[row] for row in table.rows if row in found}


def draw_origins(origins: Mapping[str, Mapping[str, Any]]) -> Figure:
    """A bar of all target rows for each method, cut by their origin."""
    kinds = [kind for kind in next(iter(origins.values())) if any(rows.get(kind) for rows in origins.values())]
    figure = Figure(figsize=(7, 0.32 * len(origins) + 1), layout="constrained")
    axes: Axes = figure.add_subplot()
    places = np.arange(len(origins))[::-1]
    left = np.zeros(len(origins))
    for kind, colour in zip(kinds, _COLOURS, strict=False):
        lengths = np.array([rows.get(kind, 0) for rows in origins.values()], float)
        axes.barh(places, lengths, 0.7, left, color=colour, label=kind, alpha=0.85)
        left += lengths
    axes.set(yticks=places, yticklabels=list(origins), xlabel="target tokens")
    axes.xaxis.set_major_formatter("{x:,.0f}")
    axes.grid(axis="x", color="#e3e3e3")
    axes.grid(visible=False, axis="y")
    axes.tick_params(axis="y", length=0)
    _share_legend(figure)
    return figure


def _share_legend(figure: Figure) -> None:
    """One legend under all panels."""
    entries: dict[str, Any] = {}
    for axes in figure.axes:
        handles, names = axes.get_legend_handles_labels()
        entries |= dict(zip(names, handles, strict=True))
    longest = max(map(len, entries), default=0)
    columns = max(1, min(len(entries), int(figure.get_figwidth() / (0.075 * longest + 0.6))))
    figure.legend(entries.values(), entries.keys(), loc="outside lower center", ncols=columns)
