"""One cell of an ablation: prepare, fit, export, evaluate, pretrain, in a process of its own, and how it went.

A folder of an ablation holds `bundles/` and `runs/` (trained nets), shared by the cells that need the same, and
`cells/ID/` with `cell.json` (what to do), `log.txt` and `result.json` or `failure.json`.
"""

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypedDict

import yaml
from jsonargparse import auto_cli

from hyperofa.bundle.bundle import Bundle
from hyperofa.bundle.prepare import prepare
from hyperofa.errors import InputError
from hyperofa.evaluation.evaluate import evaluate
from hyperofa.evaluation.scores import Metric, Scores
from hyperofa.experiments.grid import Cell, check_keys, is_name, nested
from hyperofa.export.export import export
from hyperofa.flags import Parser
from hyperofa.methods.registry import method_named
from hyperofa.presets import find_config
from hyperofa.pretraining.curves import area
from hyperofa.pretraining.points import Point
from hyperofa.pretraining.pretrain import pretrain
from hyperofa.runtime.folders import write_json
from hyperofa.runtime.locks import locked
from hyperofa.runtime.memory import peak_memory
from hyperofa.runtime.processes import tied_to_this_process
from hyperofa.runtime.records import read_record
from hyperofa.runtime.trust import trust_flags
from hyperofa.runtime.versions import versions
from hyperofa.training.checkpoints import read_checkpoint

_LOGGER = "lightning.pytorch.loggers.CSVLogger"
_LOG_TAIL = 2_000
FOLDERS = ("bundles", "runs", "cells")
_PRETRAINING, _AFTER = "pretraining", " after pretraining"  # a task, and what is added to the names of others
_METRICS = {
    "bits_after": Metric("bits per byte after pretraining", "bits", "lower", 3, main=True),
    "bits_area": Metric("bits per byte, mean over the steps of pretraining", "bits", "lower", 3),
}
TIMES = "seconds.json"
MEMORY = "memory.json"
"""In a cell's folder: how long each stage took, MiB at most. Of two runs of the same cells no other file differs."""


class PlainPoint(TypedDict):
    """What a report draws of a point of a curve."""

    step: int
    loss: float
    perplexity: float
    bits_per_byte: float
    tokens: int
    bytes: int
    languages: dict[str, float]


_RESULT = {
    "rows": dict[str, int],
    "coordinate_dim": int,
    "explained": float,
    "bundle": dict[str, int],
    "parameters": int | None,
    "versions": dict[str, str],
    "curve": list[PlainPoint] | None,
    "seconds": dict[str, float] | None,
    "memory": dict[str, float] | None,
}  # beside scores


def write_cell(output: Path, cell: Cell) -> None:
    """Leave word of what a cell is, for the process that runs it.

    Args:
        output: folder of the ablation.
        cell: to run.
    """
    (output / "cells" / cell.id).mkdir(parents=True, exist_ok=True)
    write_json(output / "cells" / cell.id / "cell.json", asdict(cell))


def read_cell(output: Path, cell_id: str) -> Cell:
    """What `write_cell` left.

    Args:
        output: folder of the ablation.
        cell_id: a folder of `cells/` in it.

    Raises:
        InputError: no cell of that name, or one that would write to another folder than its own.
    """
    expected = f"--cell {cell_id}: expected a cell of the ablation in --output {output}"
    if not is_name(cell_id) or not (output / "cells" / cell_id / "cell.json").is_file():
        raise InputError(f"{expected}, found none")
    cell = Cell(**read_record(output / "cells" / cell_id / "cell.json", Cell, "a cell of the ablation"))
    names = {"id": cell.id, "bundle": cell.bundle, "run": cell.run or "none"}
    if cell.id != cell_id or not all(map(is_name, names.values())):
        raise InputError(f"{expected}, found another one in its cell.json: {names}")
    check_keys(cell.settings, f"{expected}: cell.json")
    return cell


def read_result(output: Path, cell: Cell) -> dict[str, Any] | None:
    """What a finished cell left, `None` if it is not finished; `seconds` and `memory` are of other files.

    Args:
        output: folder of the ablation.
        cell: one of its cells.
    """
    folder = output / "cells" / cell.id
    if not (folder / "result.json").is_file():
        return None
    path, advice = folder / "result.json", "remove it, and the cell is run again"
    result = read_record(path, _RESULT, "what a finished cell leaves", advice)
    Scores.from_dict(result, str(path))
    files = {"seconds": folder / TIMES, "memory": folder / MEMORY}
    costs = {
        name: read_record(file, dict[str, float], "numbers by stage", advice)
        for name, file in files.items()
        if file.is_file()
    }
    return {"seconds": {}, "memory": {}} | result | costs


def read_failure(output: Path, cell: Cell) -> str | None:
    """Why a cell failed, `None` if it did not.

    Args:
        output: folder of the ablation.
        cell: one of its cells.
    """
    path = output / "cells" / cell.id / "failure.json"
    if not path.is_file():
        return None
    return read_record(path, {"error": str}, "what a cell that failed leaves", "remove it")["error"]


def write_failure(output: Path, cell_id: str, error: str) -> None:
    """Record that a cell failed.

    Args:
        output: folder of the ablation.
        cell_id: of the cell.
        error: why, in one line.
    """
    write_json(output / "cells" / cell_id / "failure.json", {"error": error})


def log_tail(output: Path, cell_id: str) -> str:
    """The end of a cell's log.

    Args:
        output: folder of the ablation.
        cell_id: of the cell.
    """
    return _tail(output / "cells" / cell_id / "log.txt")


def _tail(log: Path) -> str:
    text = log.read_text(encoding="utf-8", errors="replace") if log.is_file() else ""
    return text[-_LOG_TAIL:].strip()


def run_cell(output: Path, cell_id: str, keep_models: bool = False) -> None:
    """Run one cell, unless it is finished; what other cells made already is used.

    Args:
        output: folder of the ablation.
        cell_id: a folder of `cells/` in it.
        keep_models: keep the exported model.

    Raises:
        InputError: there is no such cell, or one of its stages refused its input; recorded as well.
    """
    cell = read_cell(output, cell_id)
    folder = output / "cells" / cell.id
    with locked(folder):
        if read_result(output, cell) is not None:
            return
        try:
            result, seconds, memory = _result(output, cell, folder, keep_models)
        except Exception as error:  # whatever ended the cell is recorded, for the others to go on, and raised again
            write_failure(output, cell_id, error.with_flags if isinstance(error, InputError) else repr(error))
            raise
        write_json(folder / TIMES, seconds)
        write_json(folder / MEMORY, memory)
        write_json(folder / "result.json", result)
        (folder / "failure.json").unlink(missing_ok=True)


def _result(
    output: Path, cell: Cell, folder: Path, keep_models: bool
) -> tuple[dict[str, Any], dict[str, float], dict[str, float]]:
    """What the cell found, the seconds of each stage, and the MiB that training and the cell itself held at most."""
    seconds: dict[str, float] = {}
    memory: dict[str, float] = {}

    @contextmanager
    def timed(stage: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        seconds[stage] = round(time.perf_counter() - start, 2)

    with timed("prepare"):
        bundle = _ensure_bundle(output, cell)
    parameters = None
    arguments = {**cell.flags("export"), "bundle": str(bundle.path), "output": str(folder / "model")}
    if method_named(cell.flags("export")["method"]).trained:
        with timed("fit"):
            checkpoint = _ensure_run(output, cell, bundle)
        memory["fit"] = peak_memory(children=True)
        arguments["checkpoint"] = [str(checkpoint)]
        parameters = sum(tensor.numel() for tensor in read_checkpoint(checkpoint)["state_dict"].values())
    with timed("export"):
        exported = _call(export, {**arguments, "seed": cell.seed, "overwrite": True}, folder / "export.yaml")
    with timed("evaluate"):
        flags = {**cell.flags("evaluate"), "model": str(folder / "model"), "output": str(folder / "scores.json")}
        scores = _call(evaluate, flags, folder / "evaluate.yaml")
    curve: list[Point] = []
    if cell.flags("pretrain"):
        with timed("pretrain"):
            curve = _pretrain(cell, folder)
        scores = scores.joined(_scores_of(curve))
    if not keep_models:
        for path in (*(folder / "model").glob("*"), *(folder / "pretrained").rglob("*")):
            if path.suffix in (".safetensors", ".bin"):
                path.unlink()
    found = {
        **scores.as_dict(),
        **({"curve": [_plain(point) for point in curve]} if curve else {}),
        "rows": exported.counts,
        **({} if exported.confidence is None else {"confidence": exported.confidence.as_dict()}),
        "coordinate_dim": bundle.meta.coordinate_dim,
        "explained": bundle.meta.explained,
        "bundle": bundle.meta.counts,
        "parameters": parameters,
        "versions": versions(),
    }
    return found, seconds, memory | {"cell": peak_memory()}


def _pretrain(cell: Cell, folder: Path) -> list[Point]:
    """Go on training the exported model; a killed cell goes on where it was."""
    flags = {
        "training.seed": cell.seed,
        "trainer.progress": False,
        **cell.flags("pretrain"),
        "model": str(folder / "model"),
        "output": str(folder / "pretrained"),
        "overwrite": True,
    }
    return _call(pretrain, nested(flags), folder / "pretrain.yaml").curve


def _scores_of(curve: Sequence[Point]) -> Scores:
    """Bits per byte by language, and what the evaluation tasks said at the end of pretraining."""
    languages, steps = list(curve[0].languages), [point.step for point in curve]
    series = {language: [point.languages[language] for point in curve] for language in languages}
    last = curve[-1].scores
    return Scores(
        {
            _PRETRAINING: {
                "bits_after": {language: values[-1] for language, values in series.items()},
                "bits_area": {language: area(steps, values) for language, values in series.items()},
            },
            **{f"{task}{_AFTER}": found for task, found in last.items()},
        },
        {_PRETRAINING: _METRICS, **{f"{task}{_AFTER}": found for task, found in last.metrics.items()}},
    )


def _plain(point: Point) -> dict[str, Any]:
    named = {name: getattr(point, name) for name in PlainPoint.__annotations__}
    return named | {"languages": dict(point.languages)}


def _ensure_bundle(output: Path, cell: Cell) -> Bundle:
    path = output / "bundles" / cell.bundle
    with locked(path):
        if not path.is_dir():
            _call(prepare, {**cell.flags("prepare"), "output": str(path)}, path.with_suffix(".yaml"))
    return Bundle.load(path)


def _ensure_run(output: Path, cell: Cell, bundle: Bundle) -> Path:
    """Train in a process of its own, so that nothing of it stays in this one's memory; the checkpoint."""
    path = output / "runs" / cell.run
    partial = path.with_name(f".{path.name}.training")  # where a killed training waits for the next start
    with locked(path):
        if not path.is_dir():
            left = partial.is_dir()
            partial.mkdir(parents=True, exist_ok=True)
            try:
                _fit(cell, bundle, partial)
            except InputError:
                if not left:
                    raise
                shutil.rmtree(partial)  # perhaps it cannot be gone on with
                partial.mkdir()
                _fit(cell, bundle, partial)
            partial.rename(path)
    found = sorted(path.rglob("best*.ckpt")) or sorted(path.rglob("*.ckpt"))
    if not found:
        raise InputError(f"{path}: expected a checkpoint there after training, found none; does the config save one?")
    return found[0]


def fit_words(cell: Cell, bundle: Path, folder: Path) -> list[str]:
    """The command line of a cell's training; its settings are written to `settings.yaml`.

    Args:
        cell: one that is trained.
        bundle: its bundle.
        folder: where it is trained.

    Raises:
        InputError: the cell has no config.
    """
    flags = cell.flags("fit")
    configs = flags.pop("config", None)
    if configs is None:
        raise InputError(f"{cell.method}: expected fit.config, a file or a preset such as fit, found none")
    settings = nested(
        {
            "trainer.enable_progress_bar": False,
            "trainer.enable_model_summary": False,
            "data.seed": cell.seed,
            **flags,
            "seed_everything": cell.seed,
            "data.bundle": str(bundle),
            "trainer.default_root_dir": str(folder),
            "trainer.logger": {
                "class_path": _LOGGER,
                "init_args": {"save_dir": str(folder), "name": "", "version": ""},
            },
        }
    )
    _write_yaml(folder / "settings.yaml", settings)
    files = [*map(find_config, [configs] if isinstance(configs, str) else configs), str(folder / "settings.yaml")]
    return ["fit", *(word for file in files for word in ("--config", file))]


def _fit(cell: Cell, bundle: Bundle, folder: Path) -> None:
    # The command: `training.fit.train` as in `hyperofa.fit`, on as many devices as the config asks for, in a process
    # that gives its memory back.
    words = [*fit_words(cell, bundle.path, folder), *trust_flags()]
    log = folder / "log.txt"
    code = spawn([sys.executable, "-P", "-m", "hyperofa", *words], log).wait()
    if code != 0:
        raise InputError(f"{cell.method}: `hyperofa fit` ended with code {code}: {_tail(log)}")


def spawn(command: Sequence[str], log: Path | None = None, **environment: str) -> subprocess.Popen[bytes]:
    """Start a process that does not outlive this one, as far as the system can promise it.

    Else a killed ablation would leave trainings behind that fight with those of the next start for the GPU.

    Args:
        command: program and arguments.
        log: file for what it says; that of this process if not given.
        environment: variables to set.
    """
    # Nothing of the current folder is imported, by its children neither; bars are no use in a file.
    settled = {"PYTHONSAFEPATH": "1", "TQDM_DISABLE": "1"}
    options: dict[str, Any] = {"env": {**os.environ, **settled, **environment}}
    if log is None:
        return subprocess.Popen(tied_to_this_process(command), **options)
    with log.open("wb") as file:
        return subprocess.Popen(tied_to_this_process(command), stdout=file, stderr=file, **options)


def _call(command: Any, flags: dict[str, Any], config: Path) -> Any:
    """Call a command as its command line does: values from YAML, converted and checked."""
    config.parent.mkdir(parents=True, exist_ok=True)
    _write_yaml(config, flags)
    return auto_cli(command, args=["--config", str(config)], as_positional=False, parser_class=Parser)


def _write_yaml(path: Path, value: Any) -> None:
    path.write_text(yaml.safe_dump(value, sort_keys=True, allow_unicode=True), encoding="utf-8")
