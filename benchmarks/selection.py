"""Which validation metric foretells what a model is worth? `python benchmarks/selection.py DATA SOURCE_MODEL OUTPUT`.

Trains a few settings on the bundle that `realworld.sh` left in OUTPUT, keeps the checkpoint of every epoch, exports and
scores each (200 sentences a language), and prints Spearman's rank correlation of each validation metric with SR-B and
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
SETTINGS = {  # flags after `hyperofa fit`
    "attention-text": TEXT,
    "attention-tokens": TOKENS,
    "mlp-tokens-mse": [*TOKENS, "--model.net", "hyperofa.nets.MLP", "--model.contrastive_weight", "0"],
    "mlp-tokens-contrastive": [*TOKENS, "--model.net", "hyperofa.nets.MLP", "--model.contrastive_weight", "1"],
}
METRICS = ("translated_mrr", "target_mrr", "translated_loss", "cosine", "mrr", "hit10", "token_loss")


def run(*words: str | Path) -> None:
    subprocess.run(["hyperofa", *map(str, words)], check=True)


def rows_of(data: Path, source: str, output: Path, name: str, flags: list[str]) -> list[dict[str, float]]:
    folder = output / "selection" / name
    if not (folder / "run" / "metrics.csv").exists():
        keep = "--trainer.callbacks.init_args"
        text = ["--data.text", f"[{data / 'english.txt'}]"]
        logger = "--trainer.logger.init_args"
        run("fit", "--config", CONFIGS / "fit.yaml", "--data.bundle", output / "bundle", *text, f"{logger}.save_dir",
            output / "selection", f"{logger}.name", name, f"{logger}.version", "run", *flags, "--trainer.callbacks",
            "ModelCheckpoint", f"{keep}.save_top_k", "-1", f"{keep}.filename", "{epoch}")  # fmt: skip
    with (folder / "run" / "metrics.csv").open() as file:
        validated = {row["epoch"]: row for row in csv.DictReader(file) if row["val/cosine"]}
    rows = []
    for checkpoint in sorted((folder / "run" / "checkpoints").glob("epoch=*.ckpt")):
        epoch = checkpoint.stem.partition("=")[2]
        model, scores = folder / f"model-{epoch}", folder / f"scores-{epoch}.json"
        if not scores.exists():
            run("export", "--bundle", output / "bundle", "--method", "hyperofa", "--checkpoint", checkpoint,
                "--output", model, "--overwrite", "true")  # fmt: skip
            run("evaluate", "--model", model, "--source_model", source, "--data", data, "--sentences", "200",
                "--output", scores)  # fmt: skip
        means = json.loads(scores.read_text())["means"]
        metrics = {metric: float(validated[epoch][f"val/{metric}"]) for metric in METRICS}
        rows.append({"setting": name, "epoch": epoch, **metrics, "SR-B": means["SR-B"][1], "SR-T": means["SR-T"][1]})
    return rows


def main(data: Path, source: str, output: Path) -> None:
    rows = [row for name, flags in SETTINGS.items() for row in rows_of(data, source, output, name, flags)]
    print(f"| validation metric | ρ with SR-B | ρ with SR-T | over {len(rows)} checkpoints |\n|---|---|---|---|")
    for metric in METRICS:
        ranks = [
            spearmanr([row[metric] for row in rows], [row[task] for row in rows]).statistic for task in ("SR-B", "SR-T")
        ]
        print(f"| {metric} | {ranks[0]:+.2f} | {ranks[1]:+.2f} | |")
    print("\n| setting | epoch | " + " | ".join(METRICS) + " | SR-B | SR-T |\n" + "|---" * (len(METRICS) + 4) + "|")
    for row in rows:
        values = " | ".join(f"{row[metric]:.3f}" for metric in METRICS)
        print(f"| {row['setting']} | {row['epoch']} | {values} | {row['SR-B']:.1f} | {row['SR-T']:.1f} |")


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], Path(sys.argv[3]))
