"""What the cells of an ablation found, brought together: methods in rows, widths and tasks in columns."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Literal

import numpy as np

from hyperofa.evaluation.scores import Metric, Scores, foreign
from hyperofa.experiments.grid import WIDTH, Cell, shown
from hyperofa.experiments.statistics import (
    Difference,
    Interval,
    holm,
    mean_interval,
    mean_over_seeds,
    paired_difference,
)

CHANCE = 0.05
"""Below which a difference counts, after correction for the number of differences."""
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

    def by_sentence(self, task: str, metric: str) -> dict[str, np.ndarray]:
        """Scores of each sentence of the foreign languages, `(n,)` of 0 or 100; none where that is not known.

        Args:
            task: of the score.
            metric: of the score.
        """
        hits = self.scores.hits.get(task, {}).get(metric, {})
        found = self.by_language(task, metric)
        return {name: 100.0 * np.array([mark == "1" for mark in hits[name]]) for name in found if name in hits}


@dataclass(frozen=True)
class Entry:
    """A method at one width and task, over seeds and languages.

    Attributes:
        score: mean over languages of the mean over seeds.
        difference: to the baseline, languages and sentences paired; `None` for the baseline itself and without one.
        by_language: means over seeds.
        seeds: how many.
        spread: standard deviation between seeds of the mean over languages; 0 for one seed.
        metric: what the numbers are.
        chance: that of the difference, corrected for all differences of its table; depends on these, unlike the rest.
    """

    score: Interval
    difference: Difference | None
    by_language: dict[str, float]
    seeds: int
    spread: float
    metric: Metric
    chance: float = field(default=1.0, compare=False)

    @property
    def verdict(self) -> Literal["better", "worse", "even"]:
        """Whether it is better than the baseline, where that is more than the choice of languages and sentences."""
        if self.difference is None or self.chance >= CHANCE or self.metric.better is None:
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
            theirs = [] if row == base else groups.get((base, width), [])
            entry = _entry(cells, theirs, task, name, described[task])
            if entry is not None:
                entries[row, width, task] = entry
    compared = {key: entry.difference.chance for key, entry in entries.items() if entry.difference is not None}
    for key, chance in zip(compared, holm(list(compared.values())), strict=True):
        entries[key] = replace(entries[key], chance=chance)
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


def _entry(cells: Sequence[Outcome], baseline: Sequence[Outcome], task: str, name: str, metric: Metric) -> Entry | None:
    """Of the cells of a method and of the baseline at one width."""
    runs = [run for outcome in cells if (run := outcome.by_language(task, name))]
    ours = mean_over_seeds(runs)
    theirs = mean_over_seeds([run for outcome in baseline if (run := outcome.by_language(task, name))])
    if not ours:
        return None
    difference = None
    if set(ours) & set(theirs):
        finer = [_sentences([outcome.by_sentence(task, name) for outcome in side]) for side in (cells, baseline)]
        difference = paired_difference({**ours, **finer[0]}, {**theirs, **finer[1]}, _rng())
    spread = float(np.std([np.mean(list(run.values())) for run in runs], ddof=1)) if len(runs) > 1 else 0.0
    return Entry(mean_interval(list(ours.values()), _rng()), difference, ours, len(runs), spread, metric)


def _sentences(runs: Sequence[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """Mean over the runs of each sentence, of the languages that all have the same sentences of."""
    shared = set.intersection(*map(set, runs)) if runs else set()
    alike = [name for name in sorted(shared) if len({len(run[name]) for run in runs}) == 1]
    return {name: np.mean([run[name] for run in runs], axis=0) for name in alike}


def _rng() -> np.random.Generator:
    # Anew for each interval: none of them changes when a method is added to the table.
    return np.random.default_rng(_SEED)


def _unit(metric: Metric) -> str:
    return f", in {'percent' if metric.unit == '%' else metric.unit}" if metric.unit else ""
