"""What the cells of an ablation found: one tidy CSV, and tables in the layout of the papers."""

import csv
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from hyperofa.experiments.grid import WIDTH, Cell, shown
from hyperofa.experiments.statistics import Interval, mean_interval, mean_over_seeds, paired_difference

Metric = Literal["top1", "top10"]
METRICS: tuple[Metric, ...] = ("top1", "top10")
SOURCE_LANGUAGE = "eng"
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

    def scores(self, task: str, metric: Metric) -> dict[str, float]:
        """Percent by foreign language."""
        pairs = (self.result or {}).get("accuracy", {}).get(task, {})
        return {
            language: float(pair[METRICS.index(metric)])
            for language, pair in pairs.items()
            if language != SOURCE_LANGUAGE
        }


@dataclass(frozen=True)
class Entry:
    """A method at one width and task, over seeds and languages.

    Attributes:
        score: mean over languages of the mean over seeds.
        difference: to the baseline, languages paired; `None` for the baseline itself and without one.
        by_language: means over seeds.
        seeds: how many.
        spread: standard deviation between seeds of the mean over languages; 0 for one seed.
    """

    score: Interval
    difference: Interval | None
    by_language: dict[str, float]
    seeds: int
    spread: float


@dataclass(frozen=True)
class Table:
    """All entries of an ablation under one metric.

    Attributes:
        rows: labels of the methods, in order.
        widths: coordinate widths, as shown.
        tasks: in order.
        entries: by (row, width, task).
        baseline: row that others are compared with; empty for none.
        metric: what is scored.
    """

    rows: list[str]
    widths: list[str]
    tasks: list[str]
    entries: dict[tuple[str, str, str], Entry]
    baseline: str
    metric: Metric

    def best(self, width: str, task: str) -> set[str]:
        """Rows with the highest score of a column, as it is printed."""
        printed = {
            row: f"{entry.score.mean:.1f}" for (row, *key), entry in self.entries.items() if key == [width, task]
        }
        top = max(map(float, printed.values()), default=0.0)
        return {row for row, text in printed.items() if float(text) == top}

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


def tabulate(outcomes: Sequence[Outcome], baseline: str, metric: Metric) -> Table:
    """Bring the finished cells together.

    Args:
        outcomes: of all cells.
        baseline: method that others are compared with.
        metric: what is scored.
    """
    names = labels(outcomes)
    finished = [outcome for outcome in outcomes if outcome.status == "finished"]
    tasks = list(dict.fromkeys(task for outcome in finished for task in (outcome.result or {}).get("accuracy", {})))
    groups: dict[tuple[str, str], list[Outcome]] = {}
    for outcome in finished:
        groups.setdefault((names[outcome.cell.id], shown(outcome.cell.width)), []).append(outcome)
    rows = list(dict.fromkeys(names[outcome.cell.id] for outcome in outcomes))
    widths = list(dict.fromkeys(shown(outcome.cell.width) for outcome in outcomes))
    base = baseline if baseline in rows else ""
    entries = {}
    for (row, width), cells in groups.items():
        for task in tasks:
            theirs = [outcome.scores(task, metric) for outcome in groups.get((base, width), [])]
            entry = _entry([outcome.scores(task, metric) for outcome in cells], theirs if row != base else [])
            if entry is not None:
                entries[row, width, task] = entry
    return Table(rows, widths, tasks, entries, base, metric)


def _entry(runs: list[dict[str, float]], baseline: list[dict[str, float]]) -> Entry | None:
    runs = [run for run in runs if run]
    ours, theirs = mean_over_seeds(runs), mean_over_seeds([run for run in baseline if run])
    if not ours:
        return None
    difference = paired_difference(ours, theirs, _rng()) if set(ours) & set(theirs) else None
    spread = float(np.std([np.mean(list(run.values())) for run in runs], ddof=1)) if len(runs) > 1 else 0.0
    return Entry(mean_interval(list(ours.values()), _rng()), difference, ours, len(runs), spread)


def _rng() -> np.random.Generator:
    # Anew for each interval: none of them changes when a method is added to the table.
    return np.random.default_rng(_SEED)


# Files.


def write_csv(path: Path, outcomes: Sequence[Outcome]) -> None:
    """Write a row a cell: what it is, whether it finished, its rows by origin, its scores; the same for equal results.

    Scores of a language are columns `TASK METRIC LANGUAGE`, means over the foreign languages `TASK METRIC`.
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
    for task in result["accuracy"]:
        for metric in METRICS:
            scores = outcome.scores(task, metric)
            if scores:
                row[f"{task} {metric}"] = f"{np.mean(list(scores.values())):.4f}"
                row |= {f"{task} {metric} {language}": f"{score:.4f}" for language, score in scores.items()}
    return row


def to_markdown(table: Table) -> str:
    """The table for a README: scores with intervals, then differences to the baseline."""
    if not table.entries:
        return "No cell has finished.\n"
    heads = [f"{width_name(width)} {task}" for width in table.widths for task in table.tasks]
    blocks = [
        f"Mean {metric_name(table.metric)} over languages, in percent, with 95 % bootstrap intervals over languages.",
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
    caption = (
        f"Mean {metric_name(table.metric)} over languages (\\%), mean over seeds. "
        "Small: 95\\,\\% bootstrap interval over languages."
    )
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
        number = f"{entry.score.mean:.1f}"
        wide = (
            interval.format(f"{entry.score.low:.1f}", f"{entry.score.high:.1f}") if len(entry.by_language) > 1 else ""
        )
        return (bold.format(number) if best else number) + wide

    return text


def difference_text(entry: Entry, pattern: str) -> str:
    """A difference to the baseline with its interval, `–` without one."""
    if entry.difference is None:
        return "–"
    return pattern.format(*(f"{value:+.1f}".replace("-", "−") for value in entry.difference))


def _latex_difference(entry: Entry) -> str:
    bold = entry.difference is not None and entry.difference.excludes_zero
    number = "\\textbf{{{}}}" if bold else "{}"
    return difference_text(entry, number + " {{\\scriptsize[{}, {}]}}").replace("−", "$-$")


def width_name(width: str) -> str:
    """A coordinate width as a column's head."""
    return "full width" if width == "full" else f"K = {width}"


def metric_name(metric: Metric) -> str:
    """A metric in words."""
    return {"top1": "top-1 accuracy", "top10": "top-10 accuracy"}[metric]
