"""Whether the commands of an ablation would take its settings and find its files: asked before any of them runs."""

import json
from collections.abc import Callable, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

from jsonargparse import Namespace

from hyperofa.bundle.prepare import prepare
from hyperofa.errors import InputError
from hyperofa.evaluation.evaluate import evaluate, read_samples
from hyperofa.evaluation.task import Request
from hyperofa.experiments.cells import fit_words
from hyperofa.experiments.grid import Cell, nested
from hyperofa.export.checks import check_options
from hyperofa.export.export import export
from hyperofa.flags import Parser
from hyperofa.methods.registry import method_named
from hyperofa.pretraining.evaluation import Evaluation
from hyperofa.pretraining.language_files import files_by_language
from hyperofa.pretraining.pretrain import pretrain
from hyperofa.runtime.scratch import scratch_folder
from hyperofa.runtime.text_files import check_texts
from hyperofa.vectors.conversion import open_specs

# What a cell adds itself.
_OWN: dict[str, tuple[Callable[..., Any], dict[str, str]]] = {
    "prepare": (prepare, {"output": "x"}),
    "export": (export, {"output": "x", "bundle": "x"}),
    "evaluate": (evaluate, {"output": "x", "model": "x"}),
    "pretrain": (pretrain, {"output": "x", "model": "x"}),
}


def check_settings(cells: Sequence[Cell]) -> None:
    """Parse every stage's settings as its command does, and look at its files; each combination of them once.

    Args:
        cells: all of the ablation.

    Raises:
        InputError: a setting that a command does not have or take, or a file that is not there or does not serve, with
            the method and the stage that it is of.
    """
    seen: set[str] = set()
    for cell in cells:
        trained = method_named(cell.settings["export.method"]).trained
        for stage in (*_OWN, *(["fit"] if trained else [])):
            settings = cell.flags(stage)
            if stage == "pretrain" and not settings:
                continue
            key = json.dumps([stage, settings], sort_keys=True, default=str)
            if key in seen:
                continue
            seen.add(key)
            try:
                _parse_fit(cell) if stage == "fit" else _parse(stage, settings)
            except InputError as error:
                raise InputError(f"methods: {cell.method}: {stage}: {error.with_flags}") from None


def _parse(stage: str, settings: dict[str, Any]) -> None:
    command, own = _OWN[stage]
    parser = Parser(prog=f"hyperofa [options] {stage}", exit_on_error=True)
    parser.add_function_arguments(command)
    # It puts what it parsed into lists that it is given.
    parsed = parser.instantiate(parser.parse_object(deepcopy(nested({**own, **settings}))))
    _LOOK[stage](parsed)


def _look_at_vectors(parsed: Namespace) -> None:
    open_specs(parsed.vectors, parsed.allow_pickle)


def _look_at_method(parsed: Namespace) -> None:
    options = {name: parsed[name] for name in ("ofa_share", "least_confidence", "mixing")}
    check_options(method_named(parsed.method), **options, parallel=parsed.parallel or ())
    check_texts(parsed.parallel or [], "--parallel")


def _look_at_samples(parsed: Namespace) -> None:
    read_samples(Request(parsed.data, parsed.text or [], parsed.languages, parsed.sentences, parsed.layer))


def _look_at_text(parsed: Namespace) -> None:
    for flag in ("text", "validation_text"):
        for files in files_by_language(parsed[flag], f"--{flag}").values() if parsed[flag] else ():
            check_texts(files, f"--{flag}")
    if parsed.evaluation.asked:
        Evaluation(parsed.evaluation, parsed.training)


_LOOK: dict[str, Callable[[Namespace], None]] = {
    "prepare": _look_at_vectors,
    "export": _look_at_method,
    "evaluate": _look_at_samples,
    "pretrain": _look_at_text,
}


def _parse_fit(cell: Cell) -> None:
    from hyperofa.training_commands import parse

    with scratch_folder("hyperofa-ablate-") as folder:
        parsed = parse(fit_words(cell, Path("x"), folder))
    for flag in ("text", "parallel"):
        check_texts(parsed.data[flag] or [], f"--data.{flag}")
