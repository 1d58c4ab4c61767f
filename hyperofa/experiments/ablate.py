"""`hyperofa ablate`: methods × settings → table, plots and a report, in as many processes as there are cells."""

import os
import queue
import shlex
import sys
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import torch

from hyperofa.errors import InputError, did_you_mean
from hyperofa.evaluation.task import find_tasks
from hyperofa.experiments.cells import (
    FOLDERS,
    log_tail,
    read_failure,
    read_result,
    run_cell,
    spawn,
    write_cell,
    write_failure,
)
from hyperofa.experiments.check import check_settings
from hyperofa.experiments.grid import STAGES, Cell, code_version, expand, flat, shown
from hyperofa.experiments.report import WRITTEN, Provenance, write_report, write_times
from hyperofa.experiments.results import Outcome, labels, tabulate
from hyperofa.experiments.tables import to_markdown, width_name
from hyperofa.runtime.calls import written_call
from hyperofa.runtime.files import FilePath
from hyperofa.runtime.idle import Use, check_read
from hyperofa.runtime.marks import claim
from hyperofa.runtime.ranges import Count, in_range
from hyperofa.runtime.trust import trust_flags

Runner = Callable[[Cell, str | None], int]

_BASELINE = "OFA"


@dataclass(frozen=True)
class Ablation:
    """Where an ablation was written, and how its cells ended."""

    path: Path
    outcomes: list[Outcome]
    metric: str
    baseline: str

    @property
    def intact(self) -> bool:
        """Whether there is anything to report: a cell that did not fail."""
        return any(outcome.status != "failed" for outcome in self.outcomes)

    def __str__(self) -> str:
        counts = {status: sum(o.status == status for o in self.outcomes) for status in ("finished", "failed", "open")}
        said = ", ".join(f"{count} {status}" for status, count in counts.items() if count)
        failed = [f"  {o.cell.id}: {o.error.splitlines()[-1]}" for o in self.outcomes if o.error]
        table = to_markdown(tabulate(self.outcomes, self.baseline, self.metric))
        return "\n".join([table, f"{self.path}: {said} of {len(self.outcomes)} cells; see report.html", *failed])


@in_range()
def ablate(
    output: FilePath,
    # Bare types: jsonargparse would fill a mapping with a `class_path`, such as a net, with defaults if it were `Any`.
    prepare: dict | None = None,
    fit: dict | None = None,
    export: dict | None = None,
    evaluate: dict | None = None,
    pretrain: dict | None = None,
    methods: dict[str, dict] | None = None,
    grid: dict[str, list] | None = None,
    baseline: str = _BASELINE,
    metric: str = "top10",
    title: str = "Ablation",
    gpus: list[str] | None = None,
    jobs: Count = 1,
    keep_models: bool = False,
    print_commands: bool = False,
    slurm: bool = False,
    cell: str | None = None,
    version: str | None = None,
) -> Ablation | str | None:
    """Compare methods on a grid of settings; start it again after a crash and it goes on where it stopped.

    Settings are keys `stage.flag`, such as prepare.coordinate_dim, fit.model.net or export.method. A cell is a method
    at one point of the grid. Each is prepared, trained, exported and evaluated in a process of its own; cells share
    the bundles and the nets that they have in common, and a finished cell is not repeated until something that decides
    its result (settings, contents of the files they name, this package) changes.

    Args:
        output: folder for results.csv, table.md, table.tex, plots, report.html, times.md and what they were made from.
        prepare: flags of `hyperofa prepare` for all cells.
        fit: flags of `hyperofa fit` for all cells that are trained, with `config`, its YAML file.
        export: flags of `hyperofa export` for all cells.
        evaluate: flags of `hyperofa evaluate` for all cells; `data` for one.
        pretrain: flags of `hyperofa pretrain` for all cells, `text` for one: each exported model is trained on, and the
            report draws the curves and says how many steps each method saves. Nothing is pretrained if not given.
        methods: rows of the table: by name, settings of each, `export.method` for one, and perhaps a `grid` of its own.
        grid: lists of values by key; `seed` is a key too. Values go into strings that name their key in braces:
            `paper/roberta-{prepare.coordinate_dim}`.
        baseline: method that the others are compared with.
        metric: what the tables show of the tasks that have it, such as top1 or top10 of retrieval; of other tasks they
            show the main one. The CSV has all.
        title: of the report.
        gpus: ids of the GPUs to use, one cell on each at a time; all there are if not given.
        jobs: cells at a time without a GPU.
        keep_models: keep the weights of the exported models.
        print_commands: run nothing, print a command for each open cell.
        slurm: run nothing, print a SLURM array script for the open cells. When they are done, the same call without
            this flag writes the report.
        cell: run this cell alone, as those commands do.
        version: name of this version of the package; a hash of its sources if not given.

    Returns:
        How the cells ended; the commands or the script where only those were asked for.

    Raises:
        InputError: settings that make no cells.

    Example:
        >>> import hyperofa
        >>> inputs = {"source_model": "bert", "target_tokenizer": "tokenizer", "vectors": ["words.vec"]}
        >>> methods = {"OFA": {"export.method": "ofa"}, "random": {"export.method": "random"}}
        >>> settings = {"prepare": inputs, "evaluate": {"data": "data"}, "methods": methods, "grid": {"seed": [0, 1]}}
        >>> commands = hyperofa.ablate("ablation", **settings, print_commands=True)  # or run it, without this
        >>> len(commands.splitlines())  # a seed changes nothing about OFA
        3
    """
    call, output = written_call(ablate, locals()), Path(output)
    if cell is not None:
        run_cell(output, cell, keep_models)
        return None
    if print_commands and slurm:
        raise InputError("--print_commands and --slurm: expected one of the two, found both")
    runs = not (print_commands or slurm)
    check_read(
        ablate, locals(),
        Use(("gpus",), runs, "without --print_commands and --slurm"),
        Use(("jobs",), runs and not gpus, "without --gpus, --print_commands and --slurm"),
    )  # fmt: skip
    common = {
        key: value
        for stage, flags in zip(STAGES, (prepare, fit, export, evaluate, pretrain), strict=True)
        for key, value in flat(flags or {}, stage).items()
    }
    methods, grid = methods or {}, grid or {}
    version = version or code_version()
    cells = expand(methods, common, grid, version)
    known = {name for task in find_tasks() for name in task.metrics}
    if metric not in known:
        near = did_you_mean(metric, sorted(known))
        raise InputError(f"--metric: expected one of {', '.join(sorted(known))}; found {metric}{near}")
    if baseline not in (*methods, _BASELINE):
        near = did_you_mean(baseline, methods)
        raise InputError(f"--baseline: expected one of the methods {', '.join(methods)}; found {baseline}{near}")
    check_settings(cells)
    claim(output, "ablation", [*FOLDERS, *WRITTEN])
    for planned in cells:
        write_cell(output, planned)
    open_cells = [planned for planned in cells if read_result(output, planned) is None]
    if print_commands or slurm:
        keep = ["--keep_models", "true"] if keep_models else []
        commands = [[*_command(output, planned.id), *keep] for planned in open_cells]
        return slurm_script(output, commands) if slurm else "\n".join(map(shlex.join, commands))
    devices: list[str | None] = [*(find_gpus() if gpus is None else gpus)] or [None] * jobs
    started = time.monotonic()
    outcomes = run_all(output, cells, devices, _in_process(output, keep_models))
    write_report(output, outcomes, baseline, metric, Provenance(title, version, common, grid, methods, call))
    write_times(output, outcomes, time.monotonic() - started)
    if all(outcome.status == "failed" for outcome in outcomes):
        _say(f"hyperofa: --output {output}: every cell failed; what each said is in cells/*/log.txt")
    return Ablation(output, outcomes, metric, baseline)


def find_gpus() -> list[str]:
    """Ids of the GPUs this process may use, as CUDA_VISIBLE_DEVICES names them."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return [device for device in visible.split(",") if device.strip()] if torch.cuda.is_available() else []
    return [str(number) for number in range(torch.cuda.device_count())]


def run_all(output: Path, cells: Sequence[Cell], devices: Sequence[str | None], run: Runner) -> list[Outcome]:
    """Run the cells that are open, one on each device at a time; those that fail do not stop the others.

    Args:
        output: folder of the ablation.
        cells: all of them.
        devices: GPU ids, `None` for a place on the CPU.
        run: runs a cell on a device and returns its exit code.

    Returns:
        How every cell ended, in their order.
    """
    free: queue.SimpleQueue[str | None] = queue.SimpleQueue()
    for device in devices:
        free.put(device)
    lock, names = threading.Lock(), labels([Outcome(cell, "open") for cell in cells])
    done = 0

    def work(cell: Cell) -> Outcome:
        nonlocal done
        fresh = read_result(output, cell) is None
        if fresh:
            _run_one(output, cell, free, run)
        outcome = read_outcome(output, cell)
        with lock:
            done += 1
            _say(f"{done}/{len(cells)} {_line(outcome, names[cell.id])}{'' if fresh else ' (already there)'}")
        return outcome

    with ThreadPoolExecutor(len(devices)) as pool:
        return list(pool.map(work, cells))


def _run_one(output: Path, cell: Cell, free: "queue.SimpleQueue[str | None]", run: Runner) -> None:
    device = free.get()
    try:
        (output / "cells" / cell.id / "failure.json").unlink(missing_ok=True)
        code = run(cell, device)
        if read_result(output, cell) is None and read_failure(output, cell) is None:
            tail = log_tail(output, cell.id)
            write_failure(output, cell.id, f"the process ended with code {code}\n{tail}".strip())
    finally:
        free.put(device)


def read_outcome(output: Path, cell: Cell) -> Outcome:
    """How a cell ended, from what it left.

    Args:
        output: folder of the ablation.
        cell: one of its cells.
    """
    result, failure = read_result(output, cell), read_failure(output, cell)
    if result is not None:
        return Outcome(cell, "finished", result)
    return Outcome(cell, "open") if failure is None else Outcome(cell, "failed", None, failure)


def _line(outcome: Outcome, name: str) -> str:
    cell = outcome.cell
    what = f"{name}, {width_name(shown(cell.width))}, seed {cell.seed}"
    if outcome.result is None:
        return f"{what}: {outcome.status}: {(outcome.error.splitlines() or [''])[-1]}"
    scores, means = outcome.scores, outcome.scores.means()
    said = []
    for task in scores:
        name = scores.main(task)
        metric, mean = scores.metrics[task][name], means.get(task, {}).get(name)
        said.append(task if mean is None else f"{task} {metric.text(mean)} {metric.unit}".rstrip())
    return f"{what}: {', '.join(said)} in {sum(outcome.result['seconds'].values()):.0f} s"


def _say(text: str) -> None:
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()


def _command(output: Path, cell: str) -> list[str]:
    return [sys.executable, "-P", "-m", "hyperofa", "ablate", "--output", str(output), "--cell", cell, *trust_flags()]


def _in_process(output: Path, keep_models: bool) -> Runner:
    """A runner that starts a process for each cell."""

    def run(cell: Cell, device: str | None) -> int:
        variables = {} if device is None else {"CUDA_VISIBLE_DEVICES": device}
        command = [*_command(output, cell.id), *(["--keep_models", "true"] if keep_models else [])]
        process = spawn(command, output / "cells" / cell.id / "log.txt", **variables)
        try:
            return process.wait()
        except BaseException:
            process.kill()
            raise

    return run


def slurm_script(output: Path, commands: Sequence[Sequence[str]]) -> str:
    """A SLURM array with one task a command.

    Args:
        output: folder for the logs.
        commands: of the open cells.
    """
    if not commands:
        return "# every cell is finished: run the same command without --slurm for the report"
    listed = "\n".join(f"  {shlex.quote(shlex.join(command))}" for command in commands)
    return f"""#!/usr/bin/env bash
#SBATCH --job-name=hyperofa-ablate
#SBATCH --array=0-{len(commands) - 1}
#SBATCH --gres=gpu:1
#SBATCH --cpus-per-task=8
#SBATCH --output={output}/slurm-%a.log
commands=(
{listed}
)
eval "exec ${{commands[$SLURM_ARRAY_TASK_ID]}}"
"""
