"""What buys what, one thing at a time: `python benchmarks/gains.py DATA SOURCE_MODEL OUTPUT`.

HYPEROFA by steps, text, vectors, parallel text and ensembles, each changed from the default alone, starting from the
bundle that `realworld.sh` left in OUTPUT. Prints a table and draws `gains.svg` in OUTPUT. What is in OUTPUT is not run
again; `--only` chooses panels.
"""

import argparse
import json
import random
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from hyperofa.runtime.pictures import save_picture

TASKS = ("SR-B", "SR-T")
METHODS = ("hyperofa", "ofa_tuned")
Measured = dict[str, list[tuple[float, dict[str, dict[str, list[float]]]]]]  # by panel: x, scores by method and task


@dataclass(frozen=True)
class Point:
    """A model of a panel.

    Attributes:
        x: place on the axis of its panel. What follows says how it is made; None changes nothing.
        seeds: of the hypernetworks, whose predictions are averaged; none for tuned OFA.
        steps: batches an epoch, of six.
        lines: of text, drawn at random.
        words: the most frequent of the vectors.
        width: leading dimensions of the vectors, or those of `DATA/vectors_WIDTH.vec`, made alike, if it is there.
        noise: norm of what is added to each vector, whose own is 1.
        pairs: of sentences, drawn at random, that the rows are trained on in the end.
    """

    x: float
    seeds: Sequence[int] = (0,)
    steps: int = 50
    lines: int | None = None
    words: int | None = None
    width: int | None = None
    noise: float | None = None
    pairs: int | None = None

    @property
    def vectors(self) -> str:
        """Which vectors these are; nothing for those of DATA."""
        parts = {"words": self.words, "width": self.width, "noise": self.noise}
        return "_".join(f"{name}_{value:g}" for name, value in parts.items() if value is not None)

    @property
    def net(self) -> str:
        """What its hypernetworks are called, but for the seed."""
        parts = [f"steps_{self.steps}", *([] if self.lines is None else [f"lines_{self.lines}"]), self.vectors]
        return "_".join(filter(None, parts))


PANELS = {  # name: the axis, points; the default is drawn in each
    "steps": ("training steps", [Point(72, steps=12), Point(300), Point(1200, steps=200), Point(4800, steps=800)]),
    "text": ("lines of source text", [Point(1000, lines=1000), Point(10_000, lines=10_000), Point(90_274)]),
    "words": ("words with a vector", [Point(26_000, words=26_000), Point(80_000, words=80_000), Point(260_490)]),
    "width": (
        "dimensions of a vector",
        [Point(50, width=50), Point(100, width=100), Point(200), Point(400, width=400), Point(800, width=800)],
    ),
    "noise": ("noise a vector (norm; its own is 1)", [Point(0), Point(0.5, noise=0.5), Point(1, noise=1)]),
    "pairs": (
        "pairs of parallel text",
        [Point(0), Point(1000, pairs=1000), Point(10_000, pairs=10_000), Point(367_105, pairs=367_105)],
    ),
    "nets": ("hypernetworks, averaged", [Point(1), Point(2, seeds=(0, 1)), Point(3, seeds=(0, 1, 2))]),
}
LINEAR = ("noise", "nets")
FROM_NONE = ("pairs",)  # whose axes are logarithmic but for 0
ALONE = ("pairs",)  # without tuned OFA
TEACHING = 500  # steps on parallel text


class Bench:
    """What was measured, and what measures it.

    Args:
        data: laid out as `README.md` here says.
        source_model: folder.
        output: folder, with the bundle.
    """

    def __init__(self, data: Path, source_model: str, output: Path) -> None:
        self.data, self.source_model, self.output = data, source_model, output
        self.folder = output / "gains"
        self.folder.mkdir(exist_ok=True)

    def scores(self, point: Point, method: str) -> dict[str, list[float]]:
        """Top-1 and top-10 by task."""
        file = self.folder / f"{_name(point, method)}.json"
        if not file.exists():
            model = self.model(point, method)
            run(
                "evaluate", "--model", model, "--source_model", self.source_model, "--data", self.data, "--output", file
            )
        means = json.loads(file.read_text())["means"]
        return {task: means[task] for task in TASKS}

    def model(self, point: Point, method: str) -> Path:
        """A model, made if it is not there."""
        model = self.folder / "models" / _name(point, method)
        if (model / "config.json").exists():  # the folder alone may be one that a killed `distill` goes on with
            return model
        if point.pairs is not None:
            start = self.model(replace(point, pairs=None), method)
            files = [word for file in self.pairs(point.pairs) for word in ("--parallel", f"{file.stem}={file}")]
            run("distill", "--config", "distill", "--model", start, "--source_model", self.source_model, *files,
                "--validation_pairs", 100, "--training.new_steps", TEACHING, "--trainer.precision", "bf16-mixed",
                "--output", model)  # fmt: skip
            return model
        checkpoints = [self.checkpoint(point, seed) for seed in point.seeds] if method == "hyperofa" else []
        run("export", "--bundle", self.bundle(point), "--method", method, "--output", model,
            *(["--checkpoint", *checkpoints] if checkpoints else []))  # fmt: skip
        return model

    def pairs(self, count: int) -> list[Path]:
        """Files of pairs, one a language, that many in all."""
        folder = self.folder / f"pairs_{count}"
        folder.mkdir(exist_ok=True)
        files = sorted((self.data / "pairs").glob("*.tsv"))
        every = [(file.name, line) for file in files for line in file.open(encoding="utf-8")]
        by_file: dict[str, list[str]] = {}
        for name, line in random.Random(0).sample(every, min(count, len(every))):
            by_file.setdefault(name, []).append(line)
        for name, lines in by_file.items():
            (folder / name).write_text("".join(lines), encoding="utf-8")
        return sorted(folder.glob("*.tsv"))

    def checkpoint(self, point: Point, seed: int) -> Path:
        """Of a hypernetwork, trained if it is not there."""
        name = f"{point.net}_seed_{seed}"
        best = self.folder / "runs" / name / "run" / "checkpoints" / "best.ckpt"
        if not best.exists():
            logger = "--trainer.logger.init_args"
            run("fit", "--config", "fit", "--seed_everything", seed, "--data.seed", seed, "--data.steps", point.steps,
                "--data.bundle", self.bundle(point), "--data.text", self.text(point), f"{logger}.save_dir",
                self.folder / "runs", f"{logger}.name", name, f"{logger}.version", "run")  # fmt: skip
        return best

    def text(self, point: Point) -> Path:
        """The English sentences that it is trained on."""
        whole = self.data / "english.txt"
        if point.lines is None:
            return whole
        part = self.folder / f"english_{point.lines}.txt"
        lines = whole.read_text(encoding="utf-8").splitlines(keepends=True)
        part.write_text("".join(random.Random(0).sample(lines, point.lines)), encoding="utf-8")
        return part

    def bundle(self, point: Point) -> Path:
        """Of its vectors, prepared if it is not there."""
        if not point.vectors:
            return self.output / "bundle"
        bundle = self.folder / "bundles" / point.vectors
        if not bundle.exists():
            vectors = self.data / f"vectors_{point.width}.vec"
            if not vectors.exists():
                vectors = self.folder / f"{point.vectors}.vec"
                write_vectors(self.data / "vectors.vec", vectors, point)
            run("prepare", "--source_model", self.source_model, "--target_tokenizer", self.data / "target_tokenizer",
                "--vectors", vectors, "--source_languages", "eng", "--output", bundle)  # fmt: skip
            if vectors.parent == self.folder:
                vectors.unlink()
        return bundle


def _name(point: Point, method: str) -> str:
    """What a model is called."""
    seeds = "-".join(map(str, point.seeds))
    made = f"{point.net}_{seeds}" if method == "hyperofa" else point.vectors
    taught = "" if point.pairs is None else f"_pairs_{point.pairs}"
    return f"{method}_{made}{taught}"


def run(*words: object) -> None:
    subprocess.run(["hyperofa", *map(str, words)], check=True)


def write_vectors(whole: Path, part: Path, point: Point) -> None:
    """Write what a point leaves of the vectors.

    Args:
        whole: fastText text format, unit vectors, the most frequent first.
        part: file to write.
        point: what is left, and what is added.
    """
    noise = np.random.default_rng(0)
    with whole.open(encoding="utf-8") as lines, part.open("w", encoding="utf-8") as out:
        count, width = map(int, next(lines).split())
        count, width = point.words or count, point.width or width
        out.write(f"{count} {width}\n")
        for line, _ in zip(lines, range(count), strict=False):
            word, *values = line.rstrip("\n").split(" ")
            vector = np.array(values[:width], np.float32)
            vector += (point.noise or 0) * noise.standard_normal(width) / np.sqrt(width)
            out.write(f"{word} {' '.join(f'{value:.4f}' for value in vector)}\n")


def table(measured: Measured) -> str:
    """Everything that was measured, as Markdown."""
    heads = [f"{method}, {task}" for method in METHODS for task in TASKS]
    lines = [f"| | | {' | '.join(heads)} |", "|---" * (len(heads) + 2) + "|"]
    for panel, rows in measured.items():
        title = PANELS[panel][0]
        for x, scores in rows:
            values = [
                " / ".join(f"{value:.1f}" for value in scores[method][task]) if method in scores else "–"
                for method in METHODS
                for task in TASKS
            ]
            lines.append(f"| {title} | {x:,g} | {' | '.join(values)} |")
            title = ""
    return "\n".join(lines)


def draw(measured: Measured, path: Path) -> None:
    """Top-10 accuracy, a panel for each thing that is changed."""
    columns = 4
    figure = Figure(figsize=(2.9 * columns, 2.7 * -(-len(measured) // columns)), layout="constrained")
    axes = figure.subplots(-(-len(measured) // columns), columns, sharey=True, squeeze=False).ravel()
    for axis, (panel, rows) in zip(axes, measured.items(), strict=False):
        places = [x for x, _ in rows]
        for method, style in zip(METHODS, ("-", ":"), strict=True):
            for task, colour in zip(TASKS, ("tab:blue", "tab:orange"), strict=True):
                values = [scores[method][task][1] for _, scores in rows if method in scores]
                axis.plot(places[: len(values)], values, style, marker="o", color=colour, label=f"{task}, {method}")
        if panel in FROM_NONE:
            axis.set_xscale("symlog", linthresh=places[1])
        elif panel not in LINEAR:
            axis.set_xscale("log")
        axis.set_xticks(places, [f"{x:,g}" for x in places])
        axis.minorticks_off()
        axis.set_xlabel(PANELS[panel][0])
        axis.grid(alpha=0.3)
    for axis in axes[len(measured) :]:
        axis.set_visible(False)
    for axis in axes[::columns]:
        axis.set_ylabel("top-10 accuracy, %")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside upper center", ncols=4, frameon=False)
    save_picture(figure, path)


def main() -> None:
    """Run what is asked for and is not there, then show all of it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("data", "source_model", "output"):
        parser.add_argument(name)
    parser.add_argument("--only", nargs="*", default=list(PANELS), choices=PANELS)
    asked = parser.parse_args()
    bench = Bench(Path(asked.data), asked.source_model, Path(asked.output))
    measured: Measured = {}
    for panel in asked.only:
        methods = METHODS[:1] if panel in ALONE else METHODS
        points = PANELS[panel][1]
        measured[panel] = [(each.x, {method: bench.scores(each, method) for method in methods}) for each in points]
    print(table(measured))
    draw(measured, bench.output / "gains.svg")


if __name__ == "__main__":
    main()
