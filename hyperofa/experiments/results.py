"""What the cells of an ablation found: one tidy CSV, and tables in the layout of the papers."""

import csv
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np

from hyperofa.evaluation.scores import Metric, Scores, foreign
from hyperofa.experiments.grid import WIDTH, Cell, shown
from hyperofa.experiments.statistics import Interval, mean_interval, mean_over_seeds, paired_difference

_SEED = 0


@dataclass(frozen=True)
class Outcome:
    """A cell and what became of it.

    Attributes:
        cell: what was to be done.
        status: `finished`, `failed`, or `open` where it did not run.
        result: what a finished cell left (`cells.run_cell`).
        error: why it failed.
    """

    cell: Cell
    status: Literal["finished", "failed", "open"]
    result: dict[str, Any] | None = None
    error: str = ""

    @cached_property
    def scores(self) -> Scores:
        """What a finished cell scored; nothing otherwise."""
        return Scores({}, {}) if self.result is None else Scores.from_dict(self.result)

    def by_language(self, task: str, metric: str) -> dict[str, float]:
        """Scores of the foreign languages; none where the metric was not measured.

        Args:
            task: of the score.
            metric: of the score.
        """
        return foreign(self.scores.get(task, {}).get(metric, {}))


@dataclass(frozen=True)
class Entry:
    """A method at one width and task, over seeds and languages.

    Attributes:
        score: mean over languages of the mean over seeds.
        difference: to the baseline, languages paired; `None` for the baseline itself and without one.
        by_language: means over seeds.
        seeds: how many.
        spread: standard deviation between seeds of the mean over languages; 0 for one seed.
        metric: what the numbers are.
    """

    score: Interval
    difference: Interval | None
    by_language: dict[str, float]
    seeds: int
    spread: float
    metric: Metric

    @property
    def verdict(self) -> Literal["better", "worse", "even"]:
        """Whether it is better than the baseline, where that is more than the choice of languages."""
        if self.difference is None or not self.difference.excludes_zero or self.metric.better is None:
            return "even"
        return "better" if (self.difference.mean > 0) == (self.metric.better == "higher") else "worse"


@dataclass(frozen=True)
class Table:
    """All entries of an ablation, each task under one metric.

    Attributes:
        rows: labels of the methods, in order.
        widths: coordinate widths, as shown.
        metrics: by task, in order.
        entries: by (row, width, task).
        baseline: row that others are compared with; empty for none.
    """

    rows: list[str]
    widths: list[str]
    metrics: dict[str, Metric]
    entries: dict[tuple[str, str, str], Entry]
    baseline: str

    @property
    def tasks(self) -> list[str]:
        """In order."""
        return list(self.metrics)

    @property
    def measured(self) -> str:
        """What the numbers are, for captions: one thing, or one for each task."""
        if len(set(self.metrics.values())) == 1:
            metric = next(iter(self.metrics.values()))
            return f"{metric.title} over languages{_unit(metric)}"
        return f"over languages ({'; '.join(f'{t}: {m.title}{_unit(m)}' for t, m in self.metrics.items())})"

    def best(self, width: str, task: str) -> set[str]:
        """Rows with the best score of a column, as it is printed.

        Args:
            width: of the column.
            task: of the column.
        """
        metric = self.metrics[task]
        printed = {
            row: float(metric.text(entry.score.mean))
            for (row, *key), entry in self.entries.items()
            if key == [width, task]
        }
        top = metric.best(printed.values())
        return {row for row, number in printed.items() if number == top}

    def fullest(self, task: str) -> str:
        """The width at which most methods have a score; of several the last."""
        return max(
            reversed(self.widths), key=lambda width: sum((row, width, task) in self.entries for row in self.rows)
        )


def labels(outcomes: Sequence[Outcome]) -> dict[str, str]:
    """Row of each cell, by id: the method, and the grid's values where they differ (but for width and seed)."""
    values: dict[str, dict[str, set[str]]] = {}
    for outcome in outcomes:
        for key, value in outcome.cell.axes.items():
            values.setdefault(outcome.cell.method, {}).setdefault(key, set()).add(shown(value))
    rows = {}
    for outcome in outcomes:
        cell = outcome.cell
        parts = [
            f"{key.rsplit('.', 1)[-1].replace('_', ' ')} {shown(value)}"
            for key, value in cell.axes.items()
            if key != WIDTH and len(values[cell.method][key]) > 1
        ]
        rows[cell.id] = ", ".join([cell.method, *parts])
    return rows


def tabulate(outcomes: Sequence[Outcome], baseline: str, metric: str = "", strict: bool = False) -> Table:
    """Bring the finished cells together.

    Args:
        outcomes: of all cells.
        baseline: method that others are compared with.
        metric: what is shown of the tasks that have it.
        strict: leave out tasks that lack the metric; else these are shown under their main one.
    """
    names = labels(outcomes)
    finished = [outcome for outcome in outcomes if outcome.status == "finished"]
    chosen = {
        task: name
        for outcome in finished
        for task in outcome.scores
        if (name := outcome.scores.main(task, metric)) == metric or not strict
    }
    described = {
        task: outcome.scores.metrics[task][name]
        for outcome in finished
        for task, name in chosen.items()
        if name in outcome.scores.get(task, {})
    }
    groups: dict[tuple[str, str], list[Outcome]] = {}
    for outcome in finished:
        groups.setdefault((names[outcome.cell.id], shown(outcome.cell.width)), []).append(outcome)
    rows = list(dict.fromkeys(names[outcome.cell.id] for outcome in outcomes))
    widths = list(dict.fromkeys(shown(outcome.cell.width) for outcome in outcomes))
    base = baseline if baseline in rows else ""
    entries = {}
    for (row, width), cells in groups.items():
        for task, name in chosen.items():
            theirs = [outcome.by_language(task, name) for outcome in groups.get((base, width), [])]
            ours = [outcome.by_language(task, name) for outcome in cells]
            entry = _entry(ours, theirs if row != base else [], described[task])
            if entry is not None:
                entries[row, width, task] = entry
    return Table(rows, widths, {task: described[task] for task in chosen}, entries, base)


def other_metrics(outcomes: Sequence[Outcome], metric: str) -> list[str]:
    """Metrics that a table of `metric` does not show, and of which one direction is better.

    Args:
        outcomes: of all cells.
        metric: the one that is shown.
    """
    return sorted({
        name
        for outcome in outcomes
        for task, found in outcome.scores.items()
        for name in found
        if name != outcome.scores.main(task, metric) and outcome.scores.metrics[task][name].better is not None
    })  # fmt: skip


def _entry(runs: list[dict[str, float]], baseline: list[dict[str, float]], metric: Metric) -> Entry | None:
    runs = [run for run in runs if run]
    ours, theirs = mean_over_seeds(runs), mean_over_seeds([run for run in baseline if run])
    if not ours:
        return None
    difference = paired_difference(ours, theirs, _rng()) if set(ours) & set(theirs) else None
    spread = float(np.std([np.mean(list(run.values())) for run in runs], ddof=1)) if len(runs) > 1 else 0.0
    return Entry(mean_interval(list(ours.values()), _rng()), difference, ours, len(runs), spread, metric)


def _rng() -> np.random.Generator:
    # Anew for each interval: none of them changes when a method is added to the table.
    return np.random.default_rng(_SEED)


# Files.


def write_csv(path: Path, outcomes: Sequence[Outcome]) -> None:
    """Write a row a cell: what it is, whether it finished, its rows by origin, its scores; the same for equal results.

    Scores of a language are columns `TASK METRIC LANGUAGE`, means over the foreign languages `TASK METRIC`.

    Args:
        path: file to write.
        outcomes: of all cells.
    """
    names = labels(outcomes)
    rows = [_csv_row(outcome, names[outcome.cell.id]) for outcome in outcomes]
    columns = list(dict.fromkeys(column for row in sorted(rows, key=len, reverse=True) for column in row))
    partial = path.with_name(f".{path.name}.partial")
    with partial.open("w", encoding="utf-8", newline="") as file:
        table = csv.DictWriter(file, columns, restval="", lineterminator="\n")
        table.writeheader()
        table.writerows(rows)
    partial.replace(path)


def _csv_row(outcome: Outcome, label: str) -> dict[str, Any]:
    cell, result = outcome.cell, outcome.result or {}
    row: dict[str, Any] = {"cell": cell.id, "method": cell.method, "label": label, "seed": cell.seed}
    row |= {key: shown(value) for key, value in cell.axes.items()}
    row |= {"status": outcome.status, "error": " ".join(outcome.error.split())}
    if outcome.status != "finished":
        return row
    row |= {name: result[name] for name in ("coordinate_dim", "parameters")} | {
        "explained": f"{result['explained']:.4f}"
    }
    row |= {f"rows {origin}": count for origin, count in result["rows"].items()}
    for task, found in outcome.scores.items():
        for name in found:
            scores, digits = outcome.by_language(task, name), max(4, outcome.scores.metrics[task][name].digits + 2)
            if scores:
                row[f"{task} {name}"] = f"{np.mean(list(scores.values())):.{digits}f}"
                row |= {f"{task} {name} {language}": f"{score:.{digits}f}" for language, score in scores.items()}
    return row


def to_markdown(table: Table) -> str:
    """The table for a README: scores with intervals, then differences to the baseline."""
    if not table.entries:
        return "No cell has finished.\n"
    heads = [f"{width_name(width)} {task}" for width in table.widths for task in table.tasks]
    blocks = [
        f"Mean {table.measured}, with 95 % bootstrap intervals over languages.",
        "",
    ]
    blocks += _markdown(heads, _grid(table, _score_text("**{}**", " [{}, {}]")))
    if table.baseline:
        blocks += ["", f"Difference to {table.baseline}, language by language, with its 95 % interval.", ""]
        blocks += _markdown(heads, _grid(table, lambda entry, _: difference_text(entry, "{} [{}, {}]"), table.baseline))
    return "\n".join(blocks) + "\n"


def _markdown(heads: Sequence[str], rows: Iterable[tuple[str, list[str]]]) -> list[str]:
    lines = [f"| | {' | '.join(heads)} |", f"|---|{'---|' * len(heads)}"]
    return lines + [f"| {row} | {' | '.join(cells)} |" for row, cells in rows]


def to_latex(table: Table) -> str:
    """Two booktabs tables, to be read in as they are: scores, then differences to the baseline."""
    if not table.entries:
        return "% no cell has finished\n"
    caption = f"Mean {_escaped(table.measured)}, mean over seeds. Small: 95\\,\\% bootstrap interval over languages."
    blocks = [_latex(table, _grid(table, _score_text("\\textbf{{{}}}", " {{\\scriptsize[{}, {}]}}")), caption)]
    if table.baseline:
        caption = (
            f"Difference to {_escaped(table.baseline)}, paired by language. Small: 95\\,\\% bootstrap interval. "
            "Bold: the interval excludes zero."
        )
        texts = _grid(table, lambda entry, _: _latex_difference(entry), table.baseline)
        blocks.append(_latex(table, texts, caption))
    return "% needs \\usepackage{booktabs}\n" + "\n".join(blocks)


def _latex(table: Table, rows: Iterable[tuple[str, list[str]]], caption: str) -> str:
    tasks = len(table.tasks)
    groups = " & ".join(f"\\multicolumn{{{tasks}}}{{c}}{{{_escaped(width_name(w))}}}" for w in table.widths)
    rules = " ".join(f"\\cmidrule(lr){{{2 + tasks * i}-{1 + tasks * (i + 1)}}}" for i in range(len(table.widths)))
    heads = " & ".join(_escaped(task) for _ in table.widths for task in table.tasks)
    lines = [
        "\\begin{table}",
        "\\centering",
        f"\\begin{{tabular}}{{l{'c' * (tasks * len(table.widths))}}}",
        "\\toprule",
        f" & {groups} \\\\ {rules}",
        f" & {heads} \\\\",
        "\\midrule",
        *(f"{_escaped(row)} & {' & '.join(cells)} \\\\" for row, cells in rows),
        "\\bottomrule",
        "\\end{tabular}",
        f"\\caption{{{caption}}}",
        "\\end{table}",
    ]
    return "\n".join(lines) + "\n"


def _escaped(text: str) -> str:
    return "".join(f"\\{character}" if character in "#$%&_{}" else character for character in text)


def _grid(table: Table, text: Callable[[Entry, bool], str], without: str = "") -> list[tuple[str, list[str]]]:
    """Texts of all entries, row by row; `–` where there is none."""
    best = {(width, task): table.best(width, task) for width in table.widths for task in table.tasks}
    rows = []
    for row in table.rows:
        if row == without:
            continue
        entries = [(key, table.entries.get((row, *key))) for key in best]
        rows.append((row, ["–" if entry is None else text(entry, row in best[key]) for key, entry in entries]))
    return rows


def _score_text(bold: str, interval: str) -> Callable[[Entry, bool], str]:
    def text(entry: Entry, best: bool) -> str:
        number, low, high = map(entry.metric.text, entry.score)
        wide = interval.format(low, high) if len(entry.by_language) > 1 else ""
        return (bold.format(number) if best else number) + wide

    return text


def difference_text(entry: Entry, pattern: str) -> str:
    """A difference to the baseline with its interval, `–` without one.

    Args:
        entry: of the table.
        pattern: with places for the difference and its bounds.
    """
    if entry.difference is None:
        return "–"
    digits = entry.metric.digits
    return pattern.format(*(f"{value:+.{digits}f}".replace("-", "−") for value in entry.difference))


def _latex_difference(entry: Entry) -> str:
    bold = entry.difference is not None and entry.difference.excludes_zero
    number = "\\textbf{{{}}}" if bold else "{}"
    return difference_text(entry, number + " {{\\scriptsize[{}, {}]}}").replace("−", "$-$")


def width_name(width: str) -> str:
    """A coordinate width as a column's head."""
    return "full width" if width == "full" else f"K = {width}"


def _unit(metric: Metric) -> str:
    return f", in {'percent' if metric.unit == '%' else metric.unit}" if metric.unit else ""
