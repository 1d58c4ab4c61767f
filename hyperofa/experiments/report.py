"""The report of an ablation: one HTML file with its tables, plots, settings and provenance, to be read or printed."""

import base64
import json
import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from jinja2 import Environment, PackageLoader, StrictUndefined

from hyperofa.closing import duration
from hyperofa.experiments.courses import HEADS, Progress, courses, write_curves
from hyperofa.experiments.courses import to_markdown as curves_to_markdown
from hyperofa.experiments.grid import SEED, Settings, shown
from hyperofa.experiments.plots import draw_all
from hyperofa.experiments.results import Entry, Outcome, Table, labels, other_metrics, tabulate
from hyperofa.experiments.tables import difference_text, to_latex, to_markdown, width_name, write_csv
from hyperofa.export.confidence import ABOUT
from hyperofa.runtime.calls import Call
from hyperofa.runtime.versions import versions


@dataclass(frozen=True)
class Provenance:
    """What an ablation was made from.

    Attributes:
        title: of the report.
        code: version of the package's sources.
        common: settings of all cells.
        grid: values by key.
        methods: settings by name.
        call: that made the report.
    """

    title: str
    code: str
    common: Settings
    grid: Settings
    methods: dict[str, dict[str, Any]]
    call: Call


_whole = partial(duration, tenths=False)
TIMES = "times.md"
"""What took how long. All else that an ablation reports is the same for equal settings and seeds, to the byte."""
WRITTEN = ("results.csv", "table.md", "table.tex", "report.html", "curves.csv", TIMES, "plots")


def write_report(output: Path, outcomes: Sequence[Outcome], baseline: str, metric: str, provenance: Provenance) -> None:
    """Write results.csv, table.md, table.tex, plots and report.html.

    Args:
        output: folder of the ablation, with its `runs/`.
        outcomes: of all cells.
        baseline: method that others are compared with.
        metric: what the tables show of the tasks that have it.
        provenance: what it was made from.
    """
    table = tabulate(outcomes, baseline, metric)
    write_csv(output / "results.csv", outcomes)
    progress = courses(outcomes, table.baseline)
    write_curves(output / "curves.csv", outcomes)
    markdown = to_markdown(table) + curves_to_markdown(progress, table.baseline)
    (output / "table.md").write_text(markdown, encoding="utf-8")
    (output / "table.tex").write_text(to_latex(table), encoding="utf-8")
    pictures = draw_all(table, outcomes, output / "runs", output / "plots")
    others = [tabulate(outcomes, baseline, name, strict=True) for name in other_metrics(outcomes, metric)]
    (output / "report.html").write_text(
        to_html(table, others, outcomes, progress, pictures, provenance), encoding="utf-8"
    )


def write_times(output: Path, outcomes: Sequence[Outcome], seconds: float) -> None:
    """Write times.md: what training and writing a model cost, in time and memory, and how long all took.

    Args:
        output: folder of the ablation.
        outcomes: of all cells.
        seconds: that this start took.
    """
    names, of_row = labels(outcomes), dict[tuple[str, str], list[dict[str, Any]]]()
    for outcome in outcomes:
        if outcome.result is not None:
            key = names[outcome.cell.id], width_name(shown(outcome.cell.width))
            of_row.setdefault(key, []).append(outcome.result)
    lines = []
    if of_row:
        heads = ("method", "width", "training", "its memory", "writing a model", "memory of the rest")
        lines = [f"| {' | '.join(heads)} |", "|---|---|--:|--:|--:|--:|"]
    for (row, width), cells in of_row.items():
        training = _most(cells, "seconds", "fit", _whole), _most(cells, "memory", "fit", "{:,.0f} MiB".format)
        rest = _most(cells, "seconds", "export", _whole), _most(cells, "memory", "cell", "{:,.0f} MiB".format)
        lines.append(f"| {row} | {width} | {' | '.join([*training, *rest])} |")
    total = sum(sum(result["seconds"].values()) for cells in of_row.values() for result in cells)
    lines += ["", f"All cells together took {_whole(total)}, this start {_whole(seconds)}."]
    (output / TIMES).write_text("\n".join(lines) + "\n", encoding="utf-8")


def to_html(
    table: Table,
    others: Sequence[Table],
    outcomes: Sequence[Outcome],
    progress: Sequence[Progress],
    pictures: Mapping[str, Path],
    provenance: Provenance,
) -> str:
    """The report as one self-contained page; all that is put into the template is escaped.

    Args:
        table: scores under the metric of choice.
        others: the same under other metrics, for the appendix.
        outcomes: of all cells.
        progress: what became of the models in pretraining; empty without any.
        pictures: SVG files by caption.
        provenance: what it was made from.
    """
    return (
        _environment()
        .get_template("report.html.jinja")
        .render(
            style=_beside("report.css"),
            script=_beside("report.js"),
            table=table,
            others=others,
            names=labels(outcomes),
            unfinished=[outcome for outcome in outcomes if outcome.status != "finished"],
            facts=_facts(table, outcomes),
            findings=_findings(table),
            pictures={caption: _picture(path) for caption, path in pictures.items()},
            heats={task: heat for task in table.tasks if (heat := _heat(table, task)).rows},
            trained=_parameters(table, outcomes),
            trusted=_confidences(outcomes),
            confidence=ABOUT,
            times=TIMES,
            progress=progress,
            progress_heads=[head.format(table.baseline or "the baseline") for head in HEADS],
            settings=_settings(provenance),
            origin=_origin(outcomes, provenance),
            provenance=provenance,
            latex=to_latex(table),
            markdown=to_markdown(table) + curves_to_markdown(progress, table.baseline),
        )
    )


def _beside(name: str) -> str:
    return (Path(__file__).parent / name).read_text(encoding="utf-8")


def _picture(path: Path) -> tuple[str, str]:
    """An SVG file in base64, and its data."""
    return base64.b64encode(path.read_bytes()).decode(), path.with_suffix(".csv").read_text(encoding="utf-8")


def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("hyperofa.experiments", ""),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    filters = {"width_name": width_name, "difference": difference_text, "shown": shown}
    environment.filters |= filters | {"spread": _spread}
    return environment


def _facts(table: Table, outcomes: Sequence[Outcome]) -> dict[str, str]:
    finished = sum(outcome.status == "finished" for outcome in outcomes)
    return {
        "methods": str(len(table.rows)),
        "coordinate widths": str(len(table.widths)),
        "seeds": str(len({outcome.cell.seed for outcome in outcomes})),
        "languages": str(len({language for entry in table.entries.values() for language in entry.by_language})),
        "cells finished": f"{finished} of {len(outcomes)}",
    }


class _Finding(NamedTuple):
    """Who is best at a task, and where."""

    row: str
    width: str
    task: str
    entry: Entry

    @property
    def score(self) -> str:
        return f"{self.entry.metric.text(self.entry.score.mean)} {self.entry.metric.unit}".rstrip()

    @property
    def unit(self) -> str:
        return "points" if self.entry.metric.unit == "%" else self.entry.metric.unit


def _findings(table: Table) -> list[_Finding]:
    """One a task where one direction is better."""
    said = []
    for task, metric in table.metrics.items():
        found = [_Finding(*key, entry) for key, entry in table.entries.items() if key[2] == task]
        top = metric.best(each.entry.score.mean for each in found)
        said += [each for each in found if each.entry.score.mean == top][:1]
    return said


def _spread(entry: Entry) -> str:
    return f"±{entry.metric.text(entry.spread)} between {entry.seeds} seeds" if entry.seeds > 1 else "one seed"


class _Heat(NamedTuple):
    """Every language under every method at one width: texts, and how dark they are shaded, 0 to 1."""

    width: str
    rows: list[str]
    cells: dict[str, list[tuple[str, float | None]]]


def _heat(table: Table, task: str) -> _Heat:
    """At the width that most methods have."""
    width, metric = table.fullest(task), table.metrics[task]
    scores = {
        row: table.entries[row, width, task].by_language for row in table.rows if (row, width, task) in table.entries
    }
    top = max((max(values.values()) for values in scores.values()), default=0.0) or 1.0

    def cell(value: float | None) -> tuple[str, float | None]:
        return ("–", None) if value is None else (metric.text(value), max(0.0, value / top))

    languages = sorted({language for values in scores.values() for language in values})
    return _Heat(width, list(scores), {name: [cell(of.get(name)) for of in scores.values()] for name in languages})


def _parameters(table: Table, outcomes: Sequence[Outcome]) -> list[tuple[str, str, int]]:
    """How large the trained nets are: row, width, parameters."""
    names = labels(outcomes)
    found = {
        (names[o.cell.id], shown(o.cell.width)): o.result["parameters"]
        for o in reversed(outcomes)
        if o.result is not None and o.cell.run
    }
    keys = [(row, width) for width in table.widths for row in table.rows]
    return [(*key, found[key]) for key in keys if key in found]


class _Tenth(NamedTuple):
    """Predicted rows whose confidence is in one tenth: their share, and test tokens of such a confidence."""

    rows: float
    tokens: int
    expected: float
    found: float


def _confidences(outcomes: Sequence[Outcome]) -> list[tuple[str, str, list[_Tenth]]]:
    """How sure predictions are, and whether rightly, all seeds together: row, width, tenths from 0 to 1."""
    names, of_row = labels(outcomes), dict[tuple[str, str], list[list[dict[str, Any]]]]()
    for outcome in outcomes:
        if outcome.result is not None and "confidence" in outcome.result:
            key = names[outcome.cell.id], shown(outcome.cell.width)
            of_row.setdefault(key, []).append(outcome.result["confidence"]["bins"])

    def tenth(bins: Sequence[dict[str, Any]], rows: int) -> _Tenth:
        tested = [each for each in bins if each["tokens"]]
        count = sum(each["tokens"] for each in tested)
        expected, found = (
            sum(each[k] * each["tokens"] for each in tested) / max(1, count) for k in ("expected", "found")
        )
        return _Tenth(sum(each["rows"] for each in bins) / max(1, rows), count, expected, found)

    told = []
    for key, seeds in of_row.items():
        rows = sum(each["rows"] for bins in seeds for each in bins)
        told.append((*key, [tenth(bins, rows) for bins in zip(*seeds, strict=True)]))
    return told


def _most(cells: Sequence[dict[str, Any]], kind: str, stage: str, text: Callable[[float], str]) -> str:
    """The highest cost among cells: of those that share a trained net, only one has trained it."""
    found = [cell[kind][stage] for cell in cells if stage in cell[kind]]
    return text(max(found)) if found else "–"


def _settings(provenance: Provenance) -> dict[str, dict[str, str]]:
    """Of the grid, each method and all cells."""
    found = {"Grid": {_axis(key): ", ".join(map(shown, values)) for key, values in provenance.grid.items()}}
    for name, settings in provenance.methods.items():
        found[name] = {key: shown(value) for key, value in settings.items() if key != "grid"}
        found[name] |= {_axis(key): ", ".join(map(shown, values)) for key, values in settings.get("grid", {}).items()}
    return found | {"All cells": {key: shown(value) for key, value in provenance.common.items()}}


def _axis(key: str) -> str:
    return "seeds" if key == SEED else f"{key}, each of"


def _origin(outcomes: Sequence[Outcome], provenance: Provenance) -> dict[str, str]:
    results = [outcome.result for outcome in outcomes if outcome.result is not None]
    counts = {json.dumps(result["bundle"], sort_keys=True) for result in results}
    facts = {
        "command": provenance.call.text,
        "version of the code": provenance.code,
        "Python": platform.python_version(),
        **(_versions(outcomes) if results else versions()),
    }
    if len(counts) == 1:
        facts |= {name.replace("_", " "): f"{count:,}" for name, count in json.loads(next(iter(counts))).items()}
    return {key: str(value) for key, value in facts.items()}


def _versions(outcomes: Sequence[Outcome]) -> dict[str, str]:
    """Versions of the packages that the rows were made with; which rows, where they differ."""
    names, found = labels(outcomes), dict[str, dict[str, dict[str, None]]]()
    for outcome in outcomes:
        if outcome.result is not None:
            for package, version in outcome.result["versions"].items():
                found.setdefault(package, {}).setdefault(version, {})[names[outcome.cell.id]] = None

    def text(rows_of: Mapping[str, Mapping[str, None]]) -> str:
        if len(rows_of) == 1:
            return next(iter(rows_of))
        return "; ".join(f"{version} ({', '.join(rows)})" for version, rows in rows_of.items())

    return {package: text(rows_of) for package, rows_of in found.items()}
