"""One measurement, in a process of its own that starts with everything imported and nothing loaded.

The processes are forked from a server that has done no work; so imports, about 350 MiB of memory, are in every
peak, and in no time.
"""

import json
import os
import resource
import shutil
import sys
from collections.abc import Iterator
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
from inputs import Inputs
from jobs import Job, now

PRELOADED = ["net_jobs", "stages", "floors", "plain", "faiss", "gensim.models", "hyperofa.training_commands"]
_POLL = 0.02  # seconds
_KIB_PER_MIB = 1024


class Laboratory:
    """Where measurements are made; keeps their logs."""

    def __init__(self, logs: Path) -> None:
        """`logs` is the folder that they go to."""
        self._logs = logs
        logs.mkdir(parents=True, exist_ok=True)
        root, here = Path(__file__).parent.parent, Path(__file__).parent
        os.environ["PYTHONPATH"] = os.pathsep.join([str(root), str(here), os.environ.get("PYTHONPATH", "")])
        os.environ |= {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "true"}
        self._context = get_context("forkserver")
        self._context.set_forkserver_preload(PRELOADED)

    def measure(self, inputs: Inputs, stage: str, side: str) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        """Run one side of a stage.

        Returns:
            What was measured, or an `error`, and the facts to compare.
        """
        name = f"{inputs.size.name}-{stage}-{side}"
        log, record, facts = (self._logs / f"{name}.{ending}" for ending in ("log", "json", "npz"))
        record.unlink(missing_ok=True)
        process = self._context.Process(target=_work, args=(inputs.as_json(), stage, side, log, record, facts))
        process.start()
        private = 0.0
        while process.is_alive():
            if not record.exists():  # then it is done, and checks its result
                private = max(private, _private_mib(process.pid))
            process.join(_POLL)
        shutil.rmtree(inputs.root / "scratch", ignore_errors=True)
        measured = {"stage": stage, "size": inputs.size.name, "side": side}
        if process.exitcode != 0:
            lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
            return measured | {"error": lines[-1] if lines else f"exit code {process.exitcode}"}, {}
        with np.load(facts) as arrays:
            found = dict(arrays)
        facts.unlink()
        numbers = {key: value.item() for key, value in found.items() if value.ndim == 0}
        return measured | json.loads(record.read_text()) | {"private_mib": private, "facts": numbers}, found


def _work(inputs_json: str, stage: str, side: str, log: Path, record: Path, facts: Path) -> None:
    """In the new process: make ready, run, write what it cost, then the facts."""
    with log.open("wb", buffering=0) as file:
        for stream in (1, 2):
            os.dup2(file.fileno(), stream)
    job = _job(Inputs.of_json(inputs_json), stage, side)
    start = now()
    result = job.run()
    took = now() - start
    peak = max(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    whole = took / job.share if job.estimate is None else job.estimate(result)
    measured = {
        "wall": took[0],
        "cpu": took[1],
        "peak_mib": peak / _KIB_PER_MIB,
        "items": job.items,
        "seconds": whole[0],
        "cpu_seconds": whole[1],
        "estimated": bool(job.share < 1),
        "operations": float(job.operations),
        "searched": float(job.searched),
        "traffic": float(job.traffic),
    }
    partial_record = record.with_suffix(".partial")
    partial_record.write_text(json.dumps(measured))
    partial_record.replace(record)
    np.savez(facts, **job.check(result))
    sys.stdout.flush()


def _job(inputs: Inputs, stage: str, side: str) -> Job:
    from floors import measure_rates
    from stages import STAGES

    if stage == "machine":
        return Job(measure_rates, 1, check=lambda rates: rates)
    if stage == "inputs":
        return Job(inputs.make, 1)
    return STAGES[stage].sides[side](inputs)


def _private_mib(pid: int | None) -> float:
    """Memory of a process and those it started that is theirs, not a file's."""
    return sum(map(_own_kib, _family(pid))) / _KIB_PER_MIB


def _family(pid: int | None) -> Iterator[int | None]:
    yield pid
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:  # it has ended
        return
    for child in children:
        yield from _family(int(child))


def _own_kib(pid: int | None) -> int:
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith("RssAnon")), 0)
