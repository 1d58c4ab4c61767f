"""Measure every stage: `python benchmarks/suite.py OUTPUT [--stages a,b] [--sizes small,medium,full]`.

Each stage runs at each size, the product's code and a plain reference in turn, each measurement in its own process.
After each stage OUTPUT/suite.json holds all that was measured, and OUTPUT/suite.md the table. Inputs are made once, in
OUTPUT/inputs (other ones with --corpus). Stages that were measured before and are not chosen now keep their rows.
"""

import argparse
import json
import os
import platform
import sys
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
from inputs import SIZES, Inputs, Size, halves
from jobs import processor
from measure import Laboratory
from report import summarise, table
from stages import STAGES, Stage

REPEATS = {"small": 3, "medium": 2}
ONCE = 20  # seconds: what takes longer is measured once
GROWTH = "medium"  # the size whose halves say how cost grows
PACKAGES = ("torch", "lightning", "transformers", "tokenizers", "numpy", "scipy", "faiss-cpu", "gensim")


class Suite:
    """What was measured so far, on disk after every stage."""

    def __init__(self, output: Path, corpus: Path | None) -> None:
        """`corpus` is a folder of verses for the inputs, or `None`."""
        self._output, self._corpus = output, corpus
        self._inputs = output / ("inputs" if corpus is None else "inputs-of-verses")
        self._laboratory = Laboratory(output / "logs")
        path = output / "suite.json"
        self._done: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {"measurements": []}
        self._done["machine"] = _machine()

    def run(self, sizes: list[str], stages: list[str]) -> bool:
        """Measure these stages at these sizes, and how they grow; whether nothing failed."""
        machine, _ = self._measure(Inputs(self._inputs, SIZES[sizes[0]]), "machine", "product")
        self._done["rates"] = machine["facts"]
        for name in sizes:
            self._run_size(SIZES[name], stages)
            if name == GROWTH:
                for half in halves(SIZES[name]).values():
                    self._run_size(half, [stage for stage in stages if STAGES[stage].sizes is None], ("product",))
        self._write()
        return not any(row["failed"] for row in self._done["summary"])

    def _run_size(self, size: Size, stages: list[str], only: tuple[str, ...] | None = None) -> None:
        inputs = Inputs(self._inputs, size, self._corpus)
        self._measure(inputs, "inputs", "product")
        chosen = [stage for stage in stages if size.name in (STAGES[stage].sizes or (size.name,))]
        if "prepare" not in chosen and not inputs.bundle.exists() and any(STAGES[stage].bundle for stage in chosen):
            self._measure(inputs, "prepare", "product")
        for stage in chosen:
            self._compare(inputs, stage, REPEATS.get(size.name.split("-")[0], 1), only)

    def _compare(self, inputs: Inputs, name: str, repeats: int, only: tuple[str, ...] | None) -> None:
        """Measure the sides of a stage in turn, compare their results, write."""
        stage = STAGES[name]
        self._forget(name, inputs.size.name)
        facts: dict[str, dict[str, np.ndarray]] = {}
        sides = set(only or stage.sides)
        for _ in range(repeats):
            for side in (side for side in stage.sides if side in sides):
                measured, facts[side] = self._measure(inputs, name, side)
                self._done["measurements"].append(measured)
                if measured.get("wall", ONCE) >= ONCE:
                    sides.remove(side)
        self._done["measurements"][-1]["same"] = _same(stage, facts)
        self._write()

    def _forget(self, stage: str, size: str) -> None:
        kept = [one for one in self._done["measurements"] if (one["stage"], one["size"]) != (stage, size)]
        self._done["measurements"] = kept

    def _measure(self, inputs: Inputs, stage: str, side: str) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        print(f"{datetime.now():%H:%M:%S}  {inputs.size.name:14}{stage:14}{side:8}", end="", flush=True)
        start = perf_counter()
        measured, facts = self._laboratory.measure(inputs, stage, side)
        took = measured.get("error") or f"{measured['wall']:9.3f} s, {measured['peak_mib']:6.0f} MiB"
        print(f" {took}  ({perf_counter() - start:.0f} s with setting up)", flush=True)
        return measured | {"at": f"{datetime.now():%Y-%m-%d %H:%M}"}, facts

    def _write(self) -> None:
        self._done["summary"] = summarise(self._done["measurements"], self._done["rates"])
        for name, text in (
            ("suite.json", json.dumps(self._done, indent=1, ensure_ascii=False)),
            ("suite.md", table(self._done)),
        ):
            partial = self._output / f".{name}"
            partial.write_text(text + "\n", encoding="utf-8")
            partial.replace(self._output / name)


def _same(stage: Stage, facts: dict[str, dict[str, np.ndarray]]) -> dict[str, Any] | None:
    if stage.agree is None or not (facts.get("product") and facts.get("plain")):
        return None
    equal, words = stage.agree(facts["product"], facts["plain"])
    return {"equal": bool(equal), "words": words}


def _machine() -> dict[str, Any]:
    return {
        "cpu": processor(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30,
        "python": platform.python_version(),
        **{name: version(name) for name in PACKAGES},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("output", type=Path, help="folder of results and inputs")
    parser.add_argument("--stages", type=lambda text: text.split(","), default=list(STAGES), help=", ".join(STAGES))
    parser.add_argument(
        "--sizes", type=lambda text: text.split(","), default=["small", "medium", "full"], help=", ".join(SIZES)
    )
    parser.add_argument("--corpus", type=Path, help="folder of verses, LNG.tsv.gz, for words of real languages")
    arguments = parser.parse_args()
    for given, known in ((arguments.stages, STAGES), (arguments.sizes, SIZES)):
        if unknown := set(given) - set(known):
            parser.error(f"expected some of {', '.join(known)}, found {', '.join(sorted(unknown))}")
    arguments.output.mkdir(parents=True, exist_ok=True)
    whole = Suite(arguments.output, arguments.corpus).run(arguments.sizes, arguments.stages)
    print((arguments.output / "suite.md").read_text(encoding="utf-8"))
    sys.exit(0 if whole else 1)


if __name__ == "__main__":
    main()
