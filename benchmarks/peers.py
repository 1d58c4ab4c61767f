"""Other people's packages beside our methods, on one bundle: quality, time, memory, rows left to chance.

    python benchmarks/peers.py DATA SOURCE_MODEL BUNDLE OUTPUT --methods wechsel focus --packages wechsel=ENV/bin/python

DATA is laid out as `README.md` here says, with `foreign.txt`, text of the new languages, for packages that train
vectors on it. Every package runs in an environment of its own, whose Python `--packages` names. Each runs in a fresh
process that is timed from start to end, our own exports too. What is in OUTPUT is not run again.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path

import numpy as np

from hyperofa import evaluate
from hyperofa.bundle.bundle import Bundle
from hyperofa.export.initialise import initialise
from hyperofa.models.source import source_of
from hyperofa.models.vocabulary import read_vocabulary

HERE = Path(__file__).parent
RANDOM = ("script", "mean", "noise")
"""Origins of our rows that know nothing of their token; `noise` is what packages draw."""


def write_inputs(bundle: Bundle, data: Path, source_model: str, folder: Path) -> None:
    """Write what packages need to work on the same inputs as we do.

    Args:
        bundle: ours.
        data: as for the command.
        source_model: folder.
        folder: to write.
    """
    partial = folder.with_name(f".{folder.name}.partial")
    partial.mkdir(parents=True, exist_ok=True)
    np.save(partial / "rows.npy", read_vocabulary(source_of(source_model).load()).input_rows)
    for side in ("source", "target"):
        bundle.load_tokenizer(side).save_pretrained(partial / side)
    np.save(partial / "pooled.npy", bundle.pooled("target"))
    np.save(partial / "vectors.npy", bundle.words.vectors)
    words = bundle.words
    lines = (
        f"{words.languages[language]}\t{word}\t{rank}"
        for word, language, rank in zip(words.words, words.language_ids, words.ranks, strict=True)
    )
    (partial / "words.tsv").write_text("\n".join(lines), encoding="utf-8")
    (partial / "source_languages.txt").write_text(" ".join(bundle.meta.source_languages or []))
    if (data / "foreign.txt").is_file():
        (partial / "target_text.txt").symlink_to((data / "foreign.txt").resolve())
    partial.rename(folder)


# A process counts the memory of the one that started it as its own peak, so a small one starts it.
_START = """
import json, os, subprocess, sys, time
start = time.perf_counter()
_, status, used = os.wait4(subprocess.Popen(sys.argv[2:]).pid, 0)
costs = {"seconds": time.perf_counter() - start, "cpu": used.ru_utime + used.ru_stime, "mib": used.ru_maxrss / 1024}
open(sys.argv[1], "w").write(json.dumps(costs))
sys.exit(status != 0)
"""


def measured(command: list[str | Path], log: Path) -> dict[str, float]:
    """Run a program to its end: seconds, CPU seconds and peak memory in MiB.

    Args:
        command: program and arguments.
        log: file for what it says; its costs are written beside it.
    """
    costs = log.with_suffix(".costs.json")
    start = [sys.executable, "-I", "-S", "-c", _START, costs]
    with log.open("w") as file:
        done = subprocess.run([str(part) for part in (*start, *command)], stdout=file, stderr=file, check=False)
    if done.returncode:
        sys.exit(f"{log}: expected an end without error, found {log.read_text()[-1000:]}")
    return json.loads(costs.read_text())


def run_package(name: str, python: str, bundle: Bundle, inputs: Path, output: Path) -> dict[str, float]:
    """Rows of a package, written into the model.

    Args:
        name: of the package.
        python: of its environment.
        bundle: ours.
        inputs: what `write_inputs` wrote.
        output: folder for what it makes.
    """
    file = output / f"{name}.npz"
    costs = measured([python, HERE / "peer_packages.py", name, inputs, file], output / f"{name}.log")
    with np.load(file) as found:
        rows, left = found["rows"], int(found["random"])
    initialised = initialise(bundle, "zeros")
    model = initialised.to_model()
    table = model.get_input_embeddings().weight.data
    table[: len(rows)] = table.new_tensor(rows)
    model.save_pretrained(output / name)
    initialised.tokenizer().save_pretrained(output / name)
    return {**costs, "random": left}


def run_method(name: str, bundle: Bundle, data: Path, output: Path) -> dict[str, float]:
    """Our export of a method.

    Args:
        name: of the method.
        bundle: ours.
        data: as for the command.
        output: folder for what it makes.
    """
    flags = ["--parallel", f"[{data / 'parallel.tsv'}]"] if name == "transtokenizer" else []
    command = [sys.executable, "-m", "hyperofa", "export", "--bundle", bundle.path, "--method", name]
    costs = measured([*command, "--output", output / name, "--overwrite", "true", *flags], output / f"{name}.log")
    counts = json.loads((output / name / "manifest.json").read_text())["counts"]
    return {**costs, "random": sum(counts.get(origin, 0) for origin in RANDOM)}


def table(output: Path) -> str:
    """Everything that was measured, as Markdown."""
    found = [json.loads(path.read_text()) for path in sorted(output.glob("*/*/result.json"))]
    tasks = list(found[0]["means"])
    heads = [f"{task} top-{k}" for task in tasks for k in (1, 10)]
    heads += ["seconds", "CPU seconds", "MiB", "rows left to chance"]
    lines = [f"| | {' | '.join(heads)} |", "|---" * (len(heads) + 1) + "|"]
    for each in sorted(found, key=lambda each: each["means"][tasks[0]][1]):
        scores = [f"{value:.1f}" for task in tasks for value in each["means"][task]]
        costs = [f"{each['seconds']:.0f}", f"{each['cpu']:.0f}", f"{each['mib']:,.0f}", f"{each['random']:,}"]
        lines.append(f"| {each['name']} | {' | '.join([*scores, *costs])} |")
    return "\n".join(lines)


def main() -> None:
    """Run what is asked for and is not there, then print the table of all."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("data", "source_model", "bundle", "output"):
        parser.add_argument(name)
    parser.add_argument("--methods", nargs="*", default=[])
    parser.add_argument("--packages", nargs="*", default=[], metavar="NAME=PYTHON")
    parser.add_argument("--sentences", type=int, default=500)
    asked = parser.parse_args()
    data, output, bundle = Path(asked.data), Path(asked.output), Bundle.load(asked.bundle)
    inputs = output / "inputs"
    if asked.packages and not inputs.is_dir():
        write_inputs(bundle, data, asked.source_model, inputs)
    runs = [("packages", *each.split("=", 1)) for each in asked.packages]
    runs += [("methods", each, "") for each in asked.methods]
    for kind, name, python in runs:
        folder = output / kind
        folder.mkdir(parents=True, exist_ok=True)
        if (folder / name / "result.json").is_file():
            continue
        if kind == "packages":
            costs, title = run_package(name, python, bundle, inputs, folder), f"{name}, the package"
        else:
            costs, title = run_method(name, bundle, data, folder), f"`{name}`"
        scores = evaluate(folder / name, asked.source_model, data, sentences=asked.sentences)
        means = {task: [of["top1"], of["top10"]] for task, of in scores.means().items() if "top1" in of}
        result = {"name": title, "means": means, **costs}
        (folder / name / "result.json").write_text(json.dumps(result))
        print(json.dumps(result), flush=True)
    print(table(output))


if __name__ == "__main__":
    main()
