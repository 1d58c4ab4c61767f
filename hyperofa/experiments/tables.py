"""The results of an ablation as files: one tidy CSV, and tables in the layout of the papers."""

import csv
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from hyperofa.experiments.grid import shown
from hyperofa.experiments.results import CHANCE, Entry, Outcome, Table, labels
from hyperofa.runtime.folders import whole_file


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
    with whole_file(path) as partial, partial.open("w", encoding="utf-8", newline="") as file:
        table = csv.DictWriter(file, columns, restval="", lineterminator="\n")
        table.writeheader()
        table.writerows(rows)


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
    if "confidence" in result:
        row["confidence"] = result["confidence"]["mean"]
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
        blocks += [
            "",
            f"Difference to {table.baseline}, paired by language and sentence, with its 95 % interval; * where it is "
            "below 5 % by chance, corrected for the number of differences (Holm).",
            "",
        ]
        blocks += _markdown(
            heads,
            _grid(
                table,
                lambda entry, _: difference_text(entry, "{} [{}, {}]" + " *" * (entry.chance < CHANCE)),
                table.baseline,
            ),
        )
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
            f"Difference to {_escaped(table.baseline)}, paired by language and sentence. Small: 95\\,\\% bootstrap "
            "interval. Bold: below 5\\,\\% by chance, corrected for the number of differences (Holm)."
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
    return pattern.format(*(f"{value:+.{digits}f}".replace("-", "−") for value in entry.difference[:3]))


def _latex_difference(entry: Entry) -> str:
    number = "\\textbf{{{}}}" if entry.chance < CHANCE else "{}"
    return difference_text(entry, number + " {{\\scriptsize[{}, {}]}}").replace("−", "$-$")


def width_name(width: str) -> str:
    """A coordinate width as a column's head."""
    return "full width" if width == "full" else f"K = {width}"
