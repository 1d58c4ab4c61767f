"""Evaluation tasks: what one reads, what it measures, and where tasks are found.

A module of this room that has a `TASK` is a task: a new one is one new file, and `evaluate`, ablations, their tables,
plots and reports know it. `register_task` adds one from elsewhere.
"""

import pkgutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any, Literal, Protocol

from transformers import PreTrainedModel, PreTrainedTokenizerBase

import hyperofa.evaluation
from hyperofa.evaluation.scores import Hits, Metric, Numbers

UNNAMED = "text"
"""Stands for the language of a text of which nobody says what language it is in."""

LoadedModel = tuple[PreTrainedModel, PreTrainedTokenizerBase]


@dataclass(frozen=True)
class Request:
    """What an evaluation is asked for.

    Attributes:
        data: folder with test data, in the layouts that tasks read.
        text: files of text that the source model knows.
        languages: only these, all if `None`.
        sentences: at most this many of each language, or lines of each text.
        layer: hidden state that sentences are compared in, -1 the last.
    """

    data: Path | None = None
    text: Sequence[Path] = ()
    languages: Sequence[str] | None = None
    sentences: int = 500
    layer: int = -1


class Sample(Protocol):
    """Test data of one language, in whatever form its task reads."""

    @property
    def language(self) -> str:
        """ISO 639-3 code, or `UNNAMED`."""


@dataclass(frozen=True)
class Finding:
    """What a task measured.

    Attributes:
        numbers: by task, metric and language; a module may measure several tasks.
        details: what else there is to say, by task; plain data.
        draw: draws a picture beside the scores' JSON file, whose path it is given.
        hits: of percentages of sentences, which ones count; see `Scores.hits`.
    """

    numbers: Numbers
    details: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    draw: Callable[[Path], None] | None = None
    hits: Hits = field(default_factory=dict)


@dataclass(frozen=True)
class Task:
    """One way to measure a model.

    Attributes:
        name: of the module's tasks together, one word.
        metrics: by name, of all that it measures; one is the main one.
        source: what of a request it reads.
        needs: the files that it reads there, as an error names them.
        read: test data of a request, cheaply and without a model; none where the request lacks what it needs.
        score: measures samples under the model and the source model.
    """

    name: str
    metrics: Mapping[str, Metric]
    source: Literal["data", "text"]
    needs: str
    read: Callable[[Request], Sequence[Sample]]
    score: Callable[[Sequence[Any], LoadedModel, LoadedModel, Request], Finding]

    def __post_init__(self) -> None:
        if sum(metric.main for metric in self.metrics.values()) != 1:
            raise ValueError(f"{self.name}: expected one main metric, found {self.metrics}")


_REGISTERED: dict[str, Task] = {}


def register_task(task: Task) -> Task:
    """Add a task that is not a module of this room; one of the same name is replaced.

    Args:
        task: what it reads, and what it measures.

    Returns:
        The task.

    Example:
        >>> import hyperofa
        >>> from hyperofa.evaluation.scores import Hits, Metric
        >>> from hyperofa.evaluation.task import Finding, Task
        >>> metrics = {"size": Metric("rows of the vocabulary", "", None, 0, main=True)}
        >>> def read(request):
        ...     return []  # of each language in request.data something with a `language`
        >>> def score(samples, model, source_model, request):
        ...     return Finding({"size": {"size": {each.language: len(model[1]) for each in samples}}})
        >>> hyperofa.register_task(Task("size", metrics, "data", "sizes.txt", read, score)).name
        'size'
    """
    _REGISTERED[task.name] = task
    return task


def find_tasks() -> list[Task]:
    """All tasks: those of the modules of this room, by the modules' names, then registered ones."""
    modules = [import_module(f"{hyperofa.evaluation.__name__}.{name}") for name in _module_names()]
    own = {task.name: task for module in modules if isinstance(task := getattr(module, "TASK", None), Task)}
    return list((own | _REGISTERED).values())


def _module_names() -> list[str]:
    return sorted(found.name for found in pkgutil.iter_modules(hyperofa.evaluation.__path__))
