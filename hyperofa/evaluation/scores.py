"""What an evaluation found: a number for each task, metric and language, and how each metric is to be read."""

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from html import escape
from pathlib import Path
from typing import Any, Literal

from huggingface_hub import EvalResult

from hyperofa.errors import InputError
from hyperofa.runtime.folders import read_json, write_json
from hyperofa.runtime.records import check_kind

SOURCE_LANGUAGE = "eng"
"""What foreign languages are compared with: it has scores, but no part in a mean over languages."""
_MOST_DIGITS = 20


@dataclass(frozen=True)
class Metric:
    """How a number is to be read.

    Attributes:
        title: in words.
        unit: `%`, `nats`, …; empty for none.
        better: which way; `None` for a number that only describes.
        digits: printed after the point.
        main: whether tables show it if no other metric is asked for; one of each task.
    """

    title: str
    unit: str = "%"
    better: Literal["higher", "lower"] | None = "higher"
    digits: int = 1
    main: bool = False

    def __post_init__(self) -> None:
        if not 0 <= self.digits <= _MOST_DIGITS:
            raise InputError(f"{self.title}: expected 0 to {_MOST_DIGITS} digits after the point, found {self.digits}")

    @property
    def head(self) -> str:
        """Title and unit, for the head of a column or an axis."""
        return f"{self.title} ({self.unit})" if self.unit else self.title

    def text(self, value: float) -> str:
        """The number as it is printed."""
        return f"{value:.{self.digits}f}"

    def best(self, values: Iterable[float]) -> float | None:
        """The best of some values; `None` of none, or where no direction is better."""
        found = list(values)
        if not found or self.better is None:
            return None
        return max(found) if self.better == "higher" else min(found)


Numbers = Mapping[str, Mapping[str, Mapping[str, float]]]
Hits = Mapping[str, Mapping[str, Mapping[str, str]]]
"""By task, metric and language, a character a sentence in the order of the data: 1 where it counted, else 0."""


_KINDS = {
    "scores": dict[str, dict[str, dict[str, float]]],
    "metrics": dict[str, dict[str, Metric]],
    "details": dict[str, dict[str, Any]] | None,
    "hits": dict[str, dict[str, dict[str, str]]] | None,
}  # of plain data


@dataclass(frozen=True)
class Scores(Mapping[str, Mapping[str, Mapping[str, float]]]):
    """Numbers by task, metric and language: `scores["SR-B"]["top10"]["deu"]`. Prints as a table, also in a notebook.

    Attributes:
        numbers: the scores.
        metrics: how to read them, by task and metric.
        details: what else is known of a task, by task: plain data.
        hits: which sentences make up a percentage, where it is one of sentences; what tests of differences draw from.

    Raises:
        InputError: a metric that `metrics` does not describe.
    """

    numbers: Numbers
    metrics: Mapping[str, Mapping[str, Metric]]
    details: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    hits: Hits = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        for task, found in self.numbers.items():
            if unknown := sorted(set(found) - set(self.metrics.get(task, {}))):
                raise InputError(f"{task}: expected a Metric that describes each number, found none for {unknown}")

    def __getitem__(self, task: str) -> Mapping[str, Mapping[str, float]]:
        return self.numbers[task]

    def __iter__(self) -> Iterator[str]:
        return iter(self.numbers)

    def __len__(self) -> int:
        return len(self.numbers)

    def main(self, task: str, preferred: str = "") -> str:
        """The metric that stands for a task: the preferred one if the task has it, else the one it names itself.

        Args:
            task: one that was measured.
            preferred: the metric wanted; '' for none.
        """
        if preferred in self.numbers[task]:
            return preferred
        return next(
            (name for name in self.numbers[task] if self.metrics[task][name].main), next(iter(self.numbers[task]))
        )

    def means(self) -> dict[str, dict[str, float]]:
        """Mean over the foreign languages, by task and metric; left out where there is none."""
        found = {
            task: {name: _mean(foreign(scores)) for name, scores in metrics.items() if foreign(scores)}
            for task, metrics in self.numbers.items()
        }
        return {task: means for task, means in found.items() if means}

    def undefined(self) -> list[str]:
        """Task, metric and language of each number that is NaN or infinite."""
        return [
            f"{task} {name} {language}"
            for task, metrics in self.numbers.items()
            for name, found in metrics.items()
            for language, number in found.items()
            if not math.isfinite(number)
        ]

    def joined(self, other: "Scores") -> "Scores":
        """These and others, of other tasks."""
        return Scores(
            {**self.numbers, **other.numbers}, {**self.metrics, **other.metrics}, {**self.details, **other.details}
        )

    def as_dict(self) -> dict[str, Any]:
        """Plain data, from which `from_dict` makes the same scores."""
        metrics = {task: {name: asdict(metric) for name, metric in of.items()} for task, of in self.metrics.items()}
        numbers = {task: {name: dict(scores) for name, scores in of.items()} for task, of in self.numbers.items()}
        details = {task: dict(of) for task, of in self.details.items()}
        hits = {task: {name: dict(each) for name, each in of.items()} for task, of in self.hits.items()}
        return {"scores": numbers, "metrics": metrics, "details": details, "hits": hits}

    @classmethod
    def from_dict(cls, found: Mapping[str, Any], named: str = "--scores") -> "Scores":
        """The scores of `as_dict`; other keys are left alone.

        Args:
            found: plain data.
            named: where it comes from, for errors.

        Raises:
            InputError: it is something else.
        """
        check_kind(found, _KINDS, f"{named}: expected scores that `hyperofa evaluate --output` wrote")
        metrics = {task: {name: Metric(**of) for name, of in each.items()} for task, each in found["metrics"].items()}
        return cls(found["scores"], metrics, found.get("details") or {}, found.get("hits") or {})

    def save(self, path: str | Path) -> None:
        """Write them as JSON."""
        write_json(path, self.as_dict())

    @classmethod
    def load(cls, path: str | Path) -> "Scores":
        """Read what `save`, or `hyperofa evaluate --output`, wrote.

        Raises:
            InputError: no such file, or another one.
        """
        return cls.from_dict(read_json(path), str(path))

    def _blocks(self) -> Iterator[tuple[str, list[list[str]], str]]:
        """Of each task its name, its table (the first row and column are heads), and its details in one line."""
        for task, found in self.numbers.items():
            described = [(name, self.metrics[task][name]) for name in found]
            languages = list(dict.fromkeys(language for scores in found.values() for language in scores))
            rows = [["", *(metric.head for _, metric in described)]]
            for language in languages:
                scores = [(metric, found[name].get(language)) for name, metric in described]
                rows.append([language, *("–" if value is None else metric.text(value) for metric, value in scores)])
            counted = foreign(dict.fromkeys(languages, 0.0))
            if len(counted) > 1:
                means = self.means()[task]
                values = [(metric, means.get(name)) for name, metric in described]
                rows.append(
                    [f"mean of {len(counted)}", *("–" if v is None else metric.text(v) for metric, v in values)]
                )
            if len(languages) == 1:  # many metrics of one text read better from above to below
                rows = [list(column) for column in zip(*rows, strict=True)]
            yield task, rows, ", ".join(f"{key.replace('_', ' ')} {_plain(v)}" for key, v in self._told(task).items())

    def _told(self, task: str) -> Mapping[str, Any]:
        return self.details.get(task, {})

    def __str__(self) -> str:
        blocks = []
        for task, rows, details in self._blocks():
            rows[0][0] = task
            widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
            lines = [
                "  ".join([f"{row[0]:<{widths[0]}}", *(f"{c:>{w}}" for c, w in zip(row[1:], widths[1:], strict=True))])
                for row in rows
            ]
            blocks.append("\n".join([*(line.rstrip() for line in lines), *([f"({details})"] if details else [])]))
        return "\n\n".join(blocks)

    def __repr__(self) -> str:
        return str(self)

    def _repr_html_(self) -> str:
        blocks = []
        for task, rows, details in self._blocks():
            head, *body = rows
            heads = "".join(f"<th>{escape(cell)}</th>" for cell in head)
            lines = [
                f"<th>{escape(row[0])}</th>{''.join(f'<td>{escape(cell)}</td>' for cell in row[1:])}" for row in body
            ]
            blocks.append(
                f"<table><caption>{escape(task)}</caption><thead><tr>{heads}</tr></thead>"
                f"<tbody>{''.join(f'<tr>{line}</tr>' for line in lines)}</tbody></table>"
                + (f"<p><small>{escape(details)}</small></p>" if details else "")
            )
        return "".join(blocks)


def foreign(scores: Mapping[str, float]) -> dict[str, float]:
    """Scores of the languages that a mean is over: all but the source language."""
    return {language: score for language, score in scores.items() if language != SOURCE_LANGUAGE}


def numbers_in(found: Any) -> Any:
    """What a model card shows of a JSON file: of an evaluation's the scores with their means, any other as it is."""
    if not isinstance(found, dict) or not {"scores", "metrics"} <= found.keys():
        return found
    scores = Scores.from_dict(found)
    means = {task: {name: {"mean": mean} for name, mean in of.items()} for task, of in scores.means().items()}
    return {
        task: {name: means.get(task, {}).get(name, {}) | dict(by_language) for name, by_language in of.items()}
        for task, of in scores.items()
    }


def hub_results(found: Any) -> list[EvalResult]:
    """The scores of an evaluation as the hub keeps them in a model's card; none of another JSON file."""
    if not isinstance(found, dict) or not {"scores", "metrics"} <= found.keys():
        return []
    scores = Scores.from_dict(found)
    return [
        EvalResult(
            task_type=task,
            dataset_type=task,
            dataset_name=f"{task}, {language}",
            dataset_config=language,
            metric_type=name,
            metric_name=scores.metrics[task][name].head,
            metric_value=value,
        )
        for task, metrics in scores.items()
        for name, by_language in metrics.items()
        for language, value in by_language.items()
    ]


def _mean(scores: Mapping[str, float]) -> float:
    return sum(scores.values()) / len(scores)


def _plain(value: Any) -> str:
    if isinstance(value, Mapping):
        return " ".join(f"{key!r}: {_plain(inner)}" for key, inner in value.items())
    return f"{value:.4g}" if isinstance(value, float) else f"{value:,}" if type(value) is int else str(value)
