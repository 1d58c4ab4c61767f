"""The report of an ablation: one HTML file with its tables, plots, settings and provenance, to be read or printed."""

import base64
import json
import platform
import shlex
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

import numpy as np

from hyperofa.experiments.grid import SEED, Settings, shown
from hyperofa.experiments.plots import draw_all
from hyperofa.experiments.results import (
    Entry,
    Outcome,
    Table,
    difference_text,
    labels,
    other_metrics,
    tabulate,
    to_latex,
    to_markdown,
    width_name,
    write_csv,
)
from hyperofa.runtime.folders import versions


@dataclass(frozen=True)
class Provenance:
    """What an ablation was made from.

    Attributes:
        title: of the report.
        code: version of the package's sources.
        common: settings of all cells.
        grid: values by key.
        methods: settings by name.
        seconds: that this start took.
    """

    title: str
    code: str
    common: Settings
    grid: Settings
    methods: dict[str, dict[str, Any]]
    seconds: float = 0.0


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
    (output / "table.md").write_text(to_markdown(table), encoding="utf-8")
    (output / "table.tex").write_text(to_latex(table), encoding="utf-8")
    pictures = draw_all(table, outcomes, output / "runs", output / "plots")
    others = [tabulate(outcomes, baseline, name, strict=True) for name in other_metrics(outcomes, metric)]
    (output / "report.html").write_text(to_html(table, others, outcomes, pictures, provenance), encoding="utf-8")


def to_html(
    table: Table,
    others: Sequence[Table],
    outcomes: Sequence[Outcome],
    pictures: Mapping[str, Path],
    provenance: Provenance,
) -> str:
    """The report as one self-contained page.

    Args:
        table: scores under the metric of choice.
        others: the same under other metrics, for the appendix.
        outcomes: of all cells.
        pictures: SVG files by caption.
        provenance: what it was made from.
    """
    body = [
        f"<header><h1>{escape(provenance.title)}</h1>{_summary(table, outcomes)}</header>",
        _findings(table),
        _open_cells(outcomes),
        "<section><h2>Scores</h2>",
        _scores(table),
        _differences(table),
        "</section>",
        "<section><h2>Figures</h2>" if pictures else "",
        *(_figure(number, caption, path) for number, (caption, path) in enumerate(pictures.items(), 1)),
        "</section>" if pictures else "",
        "<section><h2>By language</h2>",
        *(_languages(table, task) for task in table.tasks),
        "</section>",
        *(
            f"<section><h2>Under {escape(next(iter(other.metrics.values())).title)}</h2>"
            f"{_scores(other)}{_differences(other)}</section>"
            for other in others
        ),
        f"<section><h2>What each method needs</h2>{_costs(table, outcomes)}</section>",
        f"<section><h2>Settings</h2>{_settings(provenance)}</section>",
        f"<section><h2>Provenance</h2>{_provenance(outcomes, provenance)}</section>",
        "<section class='screen'><h2>For your paper</h2>",
        f"<details><summary>LaTeX</summary><pre>{escape(to_latex(table))}</pre></details>",
        f"<details><summary>Markdown</summary><pre>{escape(to_markdown(table))}</pre></details>",
        "<p>Every figure is in <code>plots/</code> as PDF and SVG; every number is in <code>results.csv</code>.</p>",
        "</section>",
    ]
    return _PAGE.format(title=escape(provenance.title), style=_STYLE, body="\n".join(part for part in body if part))


def _summary(table: Table, outcomes: Sequence[Outcome]) -> str:
    seeds = {outcome.cell.seed for outcome in outcomes}
    languages = {language for entry in table.entries.values() for language in entry.by_language}
    finished = sum(outcome.status == "finished" for outcome in outcomes)
    facts = {
        "methods": len(table.rows),
        "coordinate widths": len(table.widths),
        "seeds": len(seeds),
        "languages": len(languages),
        "cells finished": f"{finished} of {len(outcomes)}",
    }
    return "<ul class='facts'>" + "".join(f"<li><b>{v}</b> {escape(k)}</li>" for k, v in facts.items()) + "</ul>"


def _findings(table: Table) -> str:
    """A sentence a task: who is best where, and how sure that is."""
    said = []
    for task in table.tasks:
        found = {(row, width): e for (row, width, t), e in table.entries.items() if t == task}
        if not found:
            continue
        metric = table.metrics[task]
        top = metric.best(entry.score.mean for entry in found.values())
        if top is None:
            continue
        (row, width), entry = next(item for item in found.items() if item[1].score.mean == top)
        score = escape(f"{metric.text(top)} {metric.unit}".rstrip())
        text = f"<b>{escape(row)}</b> is best at {escape(task)}: {score} ({escape(width_name(width))})"
        if entry.difference is not None:
            sure = "" if entry.difference.excludes_zero else ", which may be chance"
            unit = "points" if metric.unit == "%" else metric.unit
            text += (
                f", {difference_text(entry, '{}')} {escape(unit)} against {escape(table.baseline)} at that width "
                f"(95 % interval {difference_text(entry, '{1} to {2}')}){sure}"
            )
        said.append(f"<li>{text}.</li>")
    return f"<ul class='findings'>{''.join(said)}</ul>" if said else "<p>No cell has finished yet.</p>"


def _open_cells(outcomes: Sequence[Outcome]) -> str:
    names = labels(outcomes)
    rows = [
        f"<tr><th>{escape(names[o.cell.id])}</th><td>{escape(width_name(shown(o.cell.width)))}</td>"
        f"<td>{o.cell.seed}</td><td>{o.status}</td><td class='error'>{escape(o.error)}</td></tr>"
        for o in outcomes
        if o.status != "finished"
    ]
    if not rows:
        return ""
    head = "<tr><th>Method</th><th>Width</th><th>Seed</th><th>Status</th><th>Why</th></tr>"
    return f"<section class='missing'><h2>Without a result</h2><table>{head}{''.join(rows)}</table></section>"


def _heads(table: Table) -> str:
    groups = "".join(
        f"<th colspan='{len(table.tasks)}' class='group'>{escape(width_name(width))}</th>" for width in table.widths
    )
    tasks = "".join(f"<th>{escape(task)}</th>" for _ in table.widths for task in table.tasks)
    return f"<thead><tr><td></td>{groups}</tr><tr><td></td>{tasks}</tr></thead>"


def _scores(table: Table) -> str:
    if not table.entries:
        return "<p>–</p>"
    lines = []
    for row in table.rows:
        cells = []
        for width in table.widths:
            for task in table.tasks:
                entry = table.entries.get((row, width, task))
                cells.append(_score(entry, row in table.best(width, task)))
        lines.append(f"<tr><th>{escape(row)}</th>{''.join(cells)}</tr>")
    return (
        f"<figure><table class='numbers'>{_heads(table)}<tbody>{''.join(lines)}</tbody></table>"
        f"<figcaption>Mean {escape(table.measured)}, mean over seeds; below it the "
        "95 % bootstrap interval over languages. Best of each column in bold.</figcaption></figure>"
    )


def _score(entry: Entry | None, best: bool) -> str:
    if entry is None:
        return "<td>–</td>"
    spread = f"±{entry.metric.text(entry.spread)} between {entry.seeds} seeds" if entry.seeds > 1 else "one seed"
    mean, low, high = map(entry.metric.text, entry.score)
    interval = f"<small>{low} – {high}</small>" if len(entry.by_language) > 1 else ""
    return f"<td{' class=best' if best else ''} title='{spread}'>{mean}{interval}</td>"


def _differences(table: Table) -> str:
    if not table.baseline or not table.entries:
        return ""
    lines = []
    for row in table.rows:
        if row == table.baseline:
            continue
        cells = []
        for width in table.widths:
            for task in table.tasks:
                entry = table.entries.get((row, width, task))
                if entry is None or entry.difference is None:
                    cells.append("<td>–</td>")
                    continue
                small = difference_text(entry, "<small>{1} to {2}</small>")
                cells.append(f"<td class='{entry.verdict}'>{difference_text(entry, '{}')}{small}</td>")
        lines.append(f"<tr><th>{escape(row)}</th>{''.join(cells)}</tr>")
    return (
        f"<figure><table class='numbers'>{_heads(table)}<tbody>{''.join(lines)}</tbody></table><figcaption>"
        f"Difference to {escape(table.baseline)} at the same width, paired by language, with 95 % bootstrap intervals. "
        "Coloured where the interval excludes zero.</figcaption></figure>"
    )


def _figure(number: int, caption: str, path: Path) -> str:
    data = base64.b64encode(path.read_bytes()).decode()
    text = escape(caption)
    return (
        f"<figure class='picture'><img alt='{text}' src='data:image/svg+xml;base64,{data}'>"
        f"<figcaption>Figure {number}. {text}</figcaption></figure>"
    )


def _languages(table: Table, task: str) -> str:
    """Every language under every method at the width that most methods have, shaded by the number."""
    width = table.fullest(task)
    metric = table.metrics[task]
    scores = {
        row: table.entries[row, width, task].by_language for row in table.rows if (row, width, task) in table.entries
    }
    if not scores:
        return ""
    languages = sorted({language for values in scores.values() for language in values})
    top = max((max(values.values()) for values in scores.values()), default=0.0) or 1.0
    names = "".join(f"<th class='method'>{escape(row)}</th>" for row in scores)
    lines = []
    for language in languages:
        cells = []
        for values in scores.values():
            value = values.get(language)
            shade = "" if value is None else f" style='--heat:{max(0.0, value / top):.2f}'"
            cells.append(f"<td{shade}>{'–' if value is None else metric.text(value)}</td>")
        lines.append(f"<tr><th>{escape(language)}</th>{''.join(cells)}</tr>")
    return (
        f"<figure><table class='heat'><thead><tr><td></td>{names}</tr></thead><tbody>{''.join(lines)}</tbody></table>"
        f"<figcaption>{escape(task)}, {escape(width_name(width))}: {escape(metric.head)}, "
        "mean over seeds. <code>results.csv</code> has every width.</figcaption></figure>"
    )


def _costs(table: Table, outcomes: Sequence[Outcome]) -> str:
    """What the trained nets cost; the other methods take as long as it takes to write a model."""
    names = labels(outcomes)
    finished = [
        (names[o.cell.id], shown(o.cell.width), bool(o.cell.run), o.result) for o in outcomes if o.result is not None
    ]
    lines = []
    for width in table.widths:
        for row in table.rows:
            done = [result for name, at, trained, result in finished if (name, at, trained) == (row, width, True)]
            if done:
                # Of several cells, those that found a net already trained tell nothing: the slowest trained it.
                seconds = max(result["seconds"].get("fit", 0.0) for result in done)
                lines.append(
                    f"<tr><th>{escape(row)}</th><td>{escape(width_name(width))}</td>"
                    f"<td>{done[0]['parameters']:,}</td><td>{_duration(seconds)}</td></tr>"
                )
    others = [result["seconds"]["export"] for *_, result in finished]
    text = f"<p>Writing a model takes {_duration(float(np.mean(others)))}.</p>" if others else ""
    if not lines:
        return text or "<p>–</p>"
    head = "<tr><th>Trained method</th><th>Width</th><th>Parameters</th><th>Training</th></tr>"
    return f"<table class='plain'><thead>{head}</thead><tbody>{''.join(lines)}</tbody></table>{text}"


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return (
        f"{minutes // 60} h {minutes % 60} min"
        if minutes >= 60
        else f"{minutes} min {rest} s"
        if minutes
        else f"{rest} s"
    )


def _settings(provenance: Provenance) -> str:
    methods = [
        (name, {k: v for k, v in settings.items() if k != "grid"}) for name, settings in provenance.methods.items()
    ]
    grids = {name: settings["grid"] for name, settings in provenance.methods.items() if "grid" in settings}
    parts = ["<h3>Grid</h3>", _pairs({_axis(key): ", ".join(map(shown, v)) for key, v in provenance.grid.items()})]
    for name, settings in methods:
        inner = {key: shown(value) for key, value in settings.items()}
        inner |= {_axis(key): ", ".join(map(shown, values)) for key, values in grids.get(name, {}).items()}
        parts += [f"<h3>{escape(name)}</h3>", _pairs(inner)]
    parts += ["<h3>All cells</h3>", _pairs({key: shown(value) for key, value in provenance.common.items()})]
    return "".join(parts)


def _axis(key: str) -> str:
    return "seeds" if key == SEED else f"{key}, each of"


def _provenance(outcomes: Sequence[Outcome], provenance: Provenance) -> str:
    results = [outcome.result for outcome in outcomes if outcome.result is not None]
    counts = {json.dumps(result["bundle"], sort_keys=True) for result in results}
    facts = {
        "command": shlex.join(["hyperofa", *sys.argv[1:]]),
        "version of the code": provenance.code,
        "Python": platform.python_version(),
        **(results[-1]["versions"] if results else versions()),
        "computing time of all cells": _duration(sum(sum(result["seconds"].values()) for result in results)),
        "this start": _duration(provenance.seconds),
    }
    if len(counts) == 1:
        facts |= {name.replace("_", " "): f"{count:,}" for name, count in json.loads(next(iter(counts))).items()}
    return _pairs({key: str(value) for key, value in facts.items()})


def _pairs(pairs: Mapping[str, str]) -> str:
    return f"<table class='pairs'>{''.join(_pair_rows(pairs.items()))}</table>" if pairs else "<p>–</p>"


def _pair_rows(pairs: Iterable[tuple[str, str]]) -> Iterable[str]:
    return (f"<tr><th>{escape(key)}</th><td>{escape(value)}</td></tr>" for key, value in pairs)


_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>{style}</style>
</head>
<body><main>
{body}
</main></body>
</html>
"""

_STYLE = (Path(__file__).parent / "report.css").read_text(encoding="utf-8")
