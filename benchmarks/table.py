"""Print the scores that `realworld.sh` left in a folder as Markdown: `python benchmarks/table.py OUTPUT`."""

import json
import statistics
import sys
from pathlib import Path

METHODS = ("random", "mean", "subtokens", "ofa", "ofa_tuned", "hyperofa", "hyperofa_parallel")


def read(folder: Path, method: str) -> list[dict]:
    return [json.loads(path.read_text()) for path in sorted(folder.glob(f"{method}-[0-9]*.json"))]


def spread(values: list[float]) -> str:
    mean = f"{statistics.mean(values):.1f}"
    return mean if len(values) == 1 else f"{mean} ± {statistics.stdev(values):.1f}"


def main(folder: Path) -> None:
    runs = {method: found for method in METHODS if (found := read(folder, method))}
    tasks = list(next(iter(runs.values()))[0]["accuracy"])
    print("| method | " + " | ".join(f"{task} top-1 | {task} top-10" for task in tasks) + " | seeds | CPU minutes |")
    print("|---" * (2 * len(tasks) + 3) + "|")
    for method, found in runs.items():
        cells = [spread([run["means"][task][k] for run in found]) for task in tasks for k in (0, 1)]
        times = [path.read_text().split() for path in sorted(folder.glob(f"{method}-[0-9]*.time"))[: len(found)]]
        minutes = [(float(user) + float(system)) / 60 for user, system, _ in times]
        print(f"| {method} | " + " | ".join(cells) + f" | {len(found)} | {spread(minutes) if minutes else '–'} |")
    for task in tasks:
        languages = list(next(iter(runs.values()))[0]["accuracy"][task])
        print(f"\n{task}, top-10 by language\n\n| method | " + " | ".join(languages) + " |")
        print("|---" * (len(languages) + 1) + "|")
        for method, found in runs.items():
            scores = [statistics.mean(run["accuracy"][task][language][1] for run in found) for language in languages]
            print(f"| {method} | " + " | ".join(f"{score:.0f}" for score in scores) + " |")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
