"""Small real inputs: tokenizers of three families, models of three families, and aligned word vectors, on disk."""

import gc
import os
from pathlib import Path
from typing import Any

import lightning  # noqa: F401  here, as its logger keeps the standard error that it finds: not that of a test
import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import (
    BertConfig,
    BertForMaskedLM,
    PreTrainedTokenizerFast,
    RobertaConfig,
    RobertaForMaskedLM,
    XLMRobertaConfig,
    XLMRobertaForMaskedLM,
)

from hyperofa.bundle.prepare import prepare
from hyperofa.cli import main
from hyperofa.runtime.pictures import save_picture

os.environ["HF_HUB_OFFLINE"] = "1"
torch.set_num_threads(1)
gc.freeze()  # what is imported stays to the end: it need not be searched for garbage again and again

ENGLISH = [
    "the river runs through the old town and the children swim in it",
    "a teacher reads a letter to the class while the rain falls on the roof",
    "my brother bought bread and milk at the market near the station",
    "she wants to learn the language of her grandmother before the winter",
    "they built a small house of stone on the hill above the sea",
    "we heard the bells of the church and saw the light in the window",
    "he did not open the door because the night was cold and dark",
    "the doctor gave the woman a book about plants and animals",
    "",
][:-1]
GERMAN = [
    "der Fluss fließt durch die alte Stadt und die Kinder schwimmen darin",
    "ein Lehrer liest der Klasse einen Brief vor während der Regen auf das Dach fällt",
    "mein Bruder kaufte Brot und Milch auf dem Markt in der Nähe des Bahnhofs",
    "sie will die Sprache ihrer Großmutter vor dem Winter lernen",
    "sie bauten ein kleines Haus aus Stein auf dem Hügel über dem Meer",
    "wir hörten die Glocken der Kirche und sahen das Licht im Fenster",
    "er öffnete die Tür nicht weil die Nacht kalt und dunkel war",
    "der Arzt gab der Frau ein Buch über Pflanzen und Tiere",
    "",
][:-1]
SPECIALS = {"bos_token": "<s>", "pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>", "mask_token": "<mask>"}
WORD_DIM = 12


def wrap(tokenizer: Tokenizer, folder: Path, **specials: str) -> Path:
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **specials).save_pretrained(folder)
    return folder


def train_wordpiece(texts: list[str], size: int = 200) -> Tokenizer:
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    tokenizer.train_from_iterator(
        texts, trainers.WordPieceTrainer(vocab_size=size, special_tokens=special, show_progress=False)
    )
    ends = [(name, tokenizer.token_to_id(name)) for name in ("[CLS]", "[SEP]")]
    tokenizer.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=ends)
    return tokenizer


def train_byte_level(texts: list[str], size: int = 400) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    special = list(SPECIALS.values())
    trainer = trainers.BpeTrainer(
        vocab_size=size, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    return tokenizer


def train_unigram(texts: list[str], size: int = 260) -> Tokenizer:
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer = normalizers.NFKC()
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    special = list(SPECIALS.values())
    trainer = trainers.UnigramTrainer(vocab_size=size, special_tokens=special, unk_token="<unk>", show_progress=False)
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    return tokenizer


def contents(folder: Path) -> list[str]:
    """Names of what is in a folder, but for the locks of its parts, which stay."""
    return sorted(path.name for path in folder.iterdir() if not path.name.endswith(".lock"))


def save_without_ticks(figure: Figure, *arguments: Any, **options: Any) -> None:
    """What `save_picture` does, of a figure without the numbers at its axes."""
    for axes in figure.axes:
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_locator(NullLocator())
            axis.set_minor_locator(NullLocator())
    save_picture(figure, *arguments, **options)


@pytest.fixture(scope="session", autouse=True)
def curves_without_ticks():
    """To draw ticks takes a third of the time of a tiny training; `tests/runtime/test_pictures.py` draws them."""
    with pytest.MonkeyPatch.context() as patch:
        for module in ("training", "pretraining"):
            patch.setattr(f"hyperofa.{module}.curves.save_picture", save_without_ticks)
        yield


@pytest.fixture(scope="session")
def tokenizer_folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Source tokenizers of two families (English), and the target one (both languages)."""
    root = tmp_path_factory.mktemp("tokenizers")
    bert = {
        "cls_token": "[CLS]",
        "sep_token": "[SEP]",
        "pad_token": "[PAD]",
        "unk_token": "[UNK]",
        "mask_token": "[MASK]",
    }
    roberta = {**SPECIALS, "cls_token": "<s>", "sep_token": "</s>"}
    return {
        "wordpiece": wrap(train_wordpiece(ENGLISH), root / "wordpiece", **bert),
        "bytelevel": wrap(train_byte_level(ENGLISH), root / "bytelevel", **roberta),
        "unigram": wrap(train_unigram(ENGLISH + GERMAN), root / "unigram", **roberta),
    }


@pytest.fixture(scope="session")
def model_folders(tokenizer_folders: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Two-layer random PLMs with their tokenizers, by family: bert, roberta, xlmr."""
    root = tmp_path_factory.mktemp("models")
    sizes = {"hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 48}
    families = {
        "bert": (BertForMaskedLM, BertConfig, "wordpiece"),
        "roberta": (RobertaForMaskedLM, RobertaConfig, "bytelevel"),
        "xlmr": (XLMRobertaForMaskedLM, XLMRobertaConfig, "unigram"),
    }
    folders = {}
    for family, (model_class, config_class, tokenizer_name) in families.items():
        tokenizer = PreTrainedTokenizerFast.from_pretrained(tokenizer_folders[tokenizer_name])
        torch.manual_seed(0)
        ids = {f"{role}_token_id": getattr(tokenizer, f"{role}_token_id") for role in ("pad", "bos", "eos")}
        config = config_class(vocab_size=len(tokenizer), max_position_embeddings=64, **sizes, **ids)
        model = model_class(config).eval()
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.normal_(0, 0.1)
        model.save_pretrained(root / family)
        tokenizer.save_pretrained(root / family)
        folders[family] = root / family
    return folders


def write_vectors(path: Path, rows: dict[str, np.ndarray]) -> Path:
    dim = len(next(iter(rows.values())))
    lines = [f"{len(rows)} {dim}", *(f"{word} {' '.join(f'{x:.4f}' for x in row)}" for word, row in rows.items())]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


@pytest.fixture(scope="session")
def vector_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random unit vectors for the words of the two languages, most frequent first."""
    rng = np.random.default_rng(0)
    rows = {}
    for language, texts in (("eng", ENGLISH), ("deu", GERMAN)):
        words = [word.lower() for text in texts for word in text.split()]
        for word in sorted(set(words), key=lambda word: (-words.count(word), word)):
            vector = rng.standard_normal(WORD_DIM)
            rows[f"{language}:{word}"] = vector / np.linalg.norm(vector)
    return write_vectors(tmp_path_factory.mktemp("vectors") / "words.vec", rows)


@pytest.fixture(scope="session")
def text_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """English sentences, one a line: whole, and in halves."""
    halves = [" ".join(words[part]) for words in map(str.split, ENGLISH) for part in (slice(6), slice(6, None))]
    path = tmp_path_factory.mktemp("texts") / "english.txt"
    path.write_text("\n".join(ENGLISH + halves) + "\n", encoding="utf-8")
    return path


@pytest.fixture(scope="session")
def bundles(
    model_folders: dict[str, Path],
    tokenizer_folders: dict[str, Path],
    vector_file: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> dict[str, Path]:
    """Bundle folders by source family (and K = 8); the target is `unigram`, but `wordpiece` for xlmr, which has it."""
    root = tmp_path_factory.mktemp("bundles")
    settings = {"bert": ("unigram", None), "bert8": ("unigram", 8), "roberta": ("unigram", None)}
    settings |= {"roberta8": ("unigram", 8), "xlmr": ("wordpiece", None)}
    for name, (target, width) in settings.items():
        prepare(
            source_model=str(model_folders[name.rstrip("8")]),
            target_tokenizer=str(tokenizer_folders[target]),
            vectors=[str(vector_file)],
            source_languages=["eng"],
            coordinate_dim=width,
            output=root / name,
        )
    return {name: root / name for name in settings}


CONFIGS = Path(__file__).parent.parent / "configs"
QUIET = [
    *("--trainer.accelerator", "cpu", "--trainer.devices", "1", "--trainer.enable_progress_bar", "false"),
    *("--trainer.enable_model_summary", "false", "--trainer.log_every_n_steps", "1"),
]
TINY_TEXT = [
    *("--trainer.max_epochs", "2", "--data.steps", "3", "--data.sentences", "6", "--data.views.translated", "6"),
    *("--model.precision", "float32", "--model.net.init_args.hidden_dim", "8"),
]
TINY_TOKENS = [
    *("--trainer.max_epochs", "2", "--data.batch_size", "32"),
    *("--model.net.init_args.hidden_dim", "8", "--model.net.init_args.num_layers", "1"),
]


@pytest.fixture(scope="session")
def fitted(bundles: dict[str, Path], text_file: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Folders of short runs of `hyperofa fit` on the bundle `bert`, by config: `fit` (text) and `tokens`."""
    root = tmp_path_factory.mktemp("runs")
    settings = {"fit": ["--data.text", str(text_file), *TINY_TEXT], "tokens": TINY_TOKENS}
    for name, flags in settings.items():
        bundle = ["--data.bundle", str(bundles["bert"])]
        folder = ["--trainer.logger.init_args.save_dir", str(root)]
        main(["fit", "--config", str(CONFIGS / f"{name}.yaml"), *bundle, *folder, *flags, *QUIET])
    return {name: root / name / "version_0" for name in settings}
