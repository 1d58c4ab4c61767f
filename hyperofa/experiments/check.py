"""Whether the commands of an ablation would take its settings: asked before any of them runs."""

import json
from collections.abc import Callable, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

from hyperofa.bundle.prepare import prepare
from hyperofa.errors import InputError
from hyperofa.evaluation.evaluate import evaluate
from hyperofa.experiments.cells import fit_words
from hyperofa.experiments.grid import Cell, nested
from hyperofa.export.checks import check_options
from hyperofa.export.export import export
from hyperofa.flags import Parser
from hyperofa.methods.registry import method_named
from hyperofa.pretraining.pretrain import pretrain
from hyperofa.runtime.scratch import scratch_folder

# What a cell adds itself.
_OWN: dict[str, tuple[Callable[..., Any], dict[str, str]]] = {
    "prepare": (prepare, {"output": "x"}),
    "export": (export, {"output": "x", "bundle": "x"}),
    "evaluate": (evaluate, {"output": "x", "model": "x"}),
    "pretrain": (pretrain, {"output": "x", "model": "x"}),
}


def check_settings(cells: Sequence[Cell]) -> None:
    """Parse every stage's settings as its command does; each combination once, whatever the seed.

    Args:
        cells: all of the ablation.

    Raises:
        InputError: a setting that a command does not have or take, with the method and the stage that it is of.
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
    if stage == "export":
        options = {name: parsed[name] for name in ("ofa_share", "least_confidence", "mixing")}
        check_options(method_named(parsed.method), **options, parallel=parsed.parallel or ())


def _parse_fit(cell: Cell) -> None:
    from hyperofa.training_commands import check

    with scratch_folder("hyperofa-ablate-") as folder:
        check(fit_words(cell, Path("x"), folder))
