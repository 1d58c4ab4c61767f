"""Which validation metric foretells what a model is worth? `python benchmarks/selection.py DATA SOURCE_MODEL OUTPUT`.

Trains a dozen settings, good and bad, on the bundle that `realworld.sh` left in OUTPUT, exports and scores what each
ends with (200 sentences a language), and prints Spearman's rank correlation of each validation metric with SR-B and
SR-T. Steps whose output is there are not run again.
"""

import csv
import json
import subprocess
import sys
from pathlib import Path

from scipy.stats import spearmanr

CONFIGS = Path(__file__).parent.parent / "configs"
TEXT = ["--data.streams", "text", "--data.steps", "20", "--trainer.max_epochs", "3"]
TOKENS = ["--data.streams", "tokens", "--trainer.max_epochs", "3"]
MLP = ["--model.net", "hyperofa.nets.MLP"]
SETTINGS = {  # flags after `hyperofa fit`
    "attention, text": TEXT,
    "attention, text, rate 2e-4": [*TEXT, "--model.learning_rate", "2e-4"],
    "attention, text, rate 2e-2": [*TEXT, "--model.learning_rate", "2e-2"],
    "attention, text, source views": [*TEXT, "--data.views.translated", "0", "--data.views.source", "64"],
    "attention, text, target views": [*TEXT, "--data.views.translated", "0", "--data.views.target", "64"],
    "attention, text, gated head": [*TEXT, "--model.net.init_args.head", "gated"],
    "attention, text, 64 nearest": [*TEXT, "--model.net.init_args.dense_limit", "0"],
    "attention, text and tokens": [*TEXT, "--data.streams", "both"],
    "attention, tokens": TOKENS,
    "MLP, text": [*TEXT, *MLP],
    "MLP, text and tokens": [*TEXT, *MLP, "--data.streams", "both"],
    "MLP, tokens, MSE": [*TOKENS, *MLP, "--model.contrastive_weight", "0"],
    "MLP, tokens, contrastive": [*TOKENS, *MLP, "--model.contrastive_weight", "1"],
    "MLP, tokens, MSE, 30 epochs": [*TOKENS, *MLP, "--model.contrastive_weight", "0", "--trainer.max_epochs", "30"],
}
METRICS = ("translated_mrr", "translated_loss", "target_mrr", "target_loss", "mrr", "hit10", "cosine", "token_loss")


def run(*words: str | Path) -> None:
    subprocess.run(["hyperofa", *map(str, words)], check=True)


def row_of(data: Path, source: str, output: Path, name: str, flags: list[str]) -> dict[str, float]:
    label = name.replace(", ", "-").replace(" ", "_")
    folder = output / "selection" / label
    scores = folder / "scores.json"
    if not scores.exists():
        logger = "--trainer.logger.init_args"
        run("fit", "--config", CONFIGS / "fit.yaml", "--data.bundle", output / "bundle", "--data.text",
            data / "english.txt", f"{logger}.save_dir", output / "selection", f"{logger}.name", label,
            f"{logger}.version", "run", *flags, "--trainer.callbacks", "[]")  # fmt: skip
        run("export", "--bundle", output / "bundle", "--method", "hyperofa", "--checkpoint",
            folder / "run" / "checkpoints" / "last.ckpt", "--output", folder / "model")  # fmt: skip
        run("evaluate", "--model", folder / "model", "--source_model", source, "--data", data, "--sentences", "200",
            "--output", scores)  # fmt: skip
    with (folder / "run" / "metrics.csv").open() as file:
        validated = [row for row in csv.DictReader(file) if row["val/cosine"]][-1]
    means = json.loads(scores.read_text())["means"]
    metrics = {metric: float(validated[f"val/{metric}"]) for metric in METRICS}
    return {**metrics, "SR-B": means["SR-B"][1], "SR-T": means["SR-T"][1]}


def main(data: Path, source: str, output: Path) -> None:
    rows = {name: row_of(data, source, output, name, flags) for name, flags in SETTINGS.items()}
    print("| validation metric | ρ with SR-B | ρ with SR-T |\n|---|---|---|")
    for metric in METRICS:
        sign = -1 if metric.endswith("loss") else 1
        values = [sign * row[metric] for row in rows.values()]
        ranks = [spearmanr(values, [row[task] for row in rows.values()]).statistic for task in ("SR-B", "SR-T")]
        print(f"| {metric} | {ranks[0]:+.2f} | {ranks[1]:+.2f} |")
    print("\n| setting | " + " | ".join(METRICS) + " | SR-B | SR-T |\n" + "|---" * (len(METRICS) + 3) + "|")
    for name, row in rows.items():
        values = " | ".join(f"{row[metric]:.3f}" for metric in METRICS)
        print(f"| {name} | {values} | {row['SR-B']:.1f} | {row['SR-T']:.1f} |")


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], Path(sys.argv[3]))
