"""Compare curves of `hyperofa pretrain`: `python benchmarks/curves.py FOLDER [BASELINE]`, each folder in FOLDER a run.

Prints bits per byte along the way, the mean over the steps (area under the curve), and the step at which each run
reaches what the baseline (`ofa`) ends at.
"""

import csv
import sys
from pathlib import Path

import numpy as np


def read(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    with (folder / "curve.csv").open(encoding="utf-8") as file:
        rows = [(float(row["step"]), float(row["bits_per_byte"])) for row in csv.DictReader(file)]
    steps, bits = np.array(rows).T
    return steps, bits


def reached(steps: np.ndarray, bits: np.ndarray, goal: float) -> str:
    """The first step, between two points on a straight line, at which the curve is as low as the goal."""
    below = np.flatnonzero(bits <= goal)
    if not len(below):
        return "–"
    end = int(below[0])
    if end == 0:
        return "0"
    share = (bits[end - 1] - goal) / (bits[end - 1] - bits[end])
    return f"{steps[end - 1] + share * (steps[end] - steps[end - 1]):.0f}"


def main(folder: Path, baseline: str = "ofa") -> None:
    runs = {path.parent.name: read(path.parent) for path in sorted(folder.glob("*/curve.csv"))}
    goal = runs[baseline][1][-1]
    shown = [step for step in runs[baseline][0].tolist() if step % 50 == 0]
    heads = [*(f"{step:.0f} steps" for step in shown), "mean over steps", f"steps to {goal:.3f}"]
    print("| method | " + " | ".join(heads) + " |")
    print("|---" * (len(heads) + 1) + "|")
    for name, (steps, bits) in runs.items():
        area = np.trapezoid(bits, steps) / (steps[-1] - steps[0])
        cells = [*(f"{np.interp(step, steps, bits):.3f}" for step in shown), f"{area:.3f}", reached(steps, bits, goal)]
        print(f"| {name} | " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:])
