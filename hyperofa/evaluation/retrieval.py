"""Sentence retrieval: does a model with a new vocabulary still mean what the source model means?

For each language, every sentence read by the new model must find its English translation, read by the untouched source
model, among all of its set. SR-B uses verses of the Bible, SR-T Tatoeba sentences (the tasks of the OFA and HYPEROFA
papers; their queries are English, ours foreign, since the English side is the fixed one here).
"""

import csv
import gzip
import math
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from hyperofa.errors import InputError
from hyperofa.evaluation.shift import DistributionShift, measure
from hyperofa.models.loading import encode, load_model
from hyperofa.runtime.devices import best_device
from hyperofa.runtime.folders import write_json
from hyperofa.runtime.text_files import read_lines
from hyperofa.tokens.canonical import load_tokenizer

TOP = (1, 10)


@dataclass(frozen=True)
class RetrievalSet:
    """Sentences of one language and their translations, position by position."""

    task: str
    language: str
    foreign: list[str]
    english: list[str]


@dataclass(frozen=True)
class Scores:
    """Accuracy in percent by task and language, `(top-1, top-10)` each; and what new tokens take, if measured."""

    accuracy: dict[str, dict[str, tuple[float, float]]]
    safety: DistributionShift | None = None

    def means(self) -> dict[str, tuple[float, float]]:
        """Mean over the foreign languages, by task."""
        foreign = {
            task: [pair for language, pair in scores.items() if language != "eng"]
            for task, scores in self.accuracy.items()
        }
        return {task: tuple(np.mean(pairs, axis=0).tolist()) for task, pairs in foreign.items() if pairs}

    def __str__(self) -> str:
        lines = []
        for task, scores in self.accuracy.items():
            lines.append(
                f"{task} " + " ".join(f"{name}:{top1:.0f}/{top10:.0f}" for name, (top1, top10) in scores.items())
            )
        for task, (top1, top10) in self.means().items():
            count = sum(name != "eng" for name in self.accuracy[task])
            lines.append(f"{task} mean over {count} languages: top-1 {top1:.1f} top-10 {top10:.1f}")
        return "\n".join([*lines, *([] if self.safety is None else [str(self.safety)])])


def evaluate(
    model: Path,
    source_model: str,
    data: Path | None = None,
    languages: list[str] | None = None,
    sentences: int = 500,
    layer: int = -1,
    output: Path | None = None,
    text: list[Path] | None = None,
) -> Scores:
    """Score an exported model: sentence retrieval against the source model's English, and what its new tokens take.

    Args:
        model: folder that `hyperofa export` wrote.
        source_model: folder or hub id of the source model.
        data: folder with `heldout.tsv.gz` (language, verse id, text; English among the languages) for SR-B, with
            `tatoeba/LNG-eng.tsv.gz` (foreign, English) for SR-T, or both. Without it, no retrieval.
        languages: only these. All if not given.
        sentences: at most this many of each language, and lines of each text.
        layer: hidden state that sentences are compared in, -1 the last; the papers read 8.
        output: JSON file to write the scores to as well; with --text, histograms beside it (.png).
        text: files of text that the source model knows, one sentence a line. If given, of a causal or masked language
            model: KL divergence of old and new next-token distributions, mass on new tokens, partition functions.

    Returns:
        The scores.

    Raises:
        InputError: no model, sentences or text there, or a language that is not.
    """
    if sentences < 1:
        raise InputError(f"--sentences: expected at least 1, found {sentences}")
    if data is None and not text:
        raise InputError("expected --data, --text or both, to know what to evaluate on; found neither")
    sets = [] if data is None else _choose_sets(data, sentences, languages)
    lines = [line for path in text or [] for line in read_lines([path], "--text")[:sentences]]
    source, source_tokenizer = load_model(source_model), load_tokenizer(source_model, "--source_model")
    target, target_tokenizer = load_model(model, "--model"), load_tokenizer(model, "--model")
    pair = (target, target_tokenizer), (source, source_tokenizer)
    scores = Scores(score(sets, *pair, layer), measure(pair[1], pair[0], lines) if lines else None)
    if output is not None:
        output.parent.mkdir(parents=True, exist_ok=True)
        found: dict[str, Any] = {}
        if data is not None:
            found = {"accuracy": scores.accuracy, "means": scores.means(), "layer": layer, "sentences": sentences}
        if scores.safety is not None:
            found["safety"] = scores.safety.as_dict()
            scores.safety.plot(output.with_suffix(".png"))
        write_json(output, found)
    return scores


def _choose_sets(data: Path, sentences: int, languages: list[str] | None) -> list[RetrievalSet]:
    sets = [chosen for chosen in read_sets(data, sentences) if languages is None or chosen.language in languages]
    missing = sorted(set(languages or []) - {chosen.language for chosen in sets})
    if missing or not sets:
        raise InputError(
            f"--languages {' '.join(missing)}: expected languages with sentences in --data {data}, found none"
        )
    return sets


Encoder = tuple[PreTrainedModel, PreTrainedTokenizerBase]


def score(
    sets: Sequence[RetrievalSet], target: Encoder, source: Encoder, layer: int = -1
) -> dict[str, dict[str, tuple[float, float]]]:
    """Retrieval accuracy of each set.

    Args:
        sets: sentences.
        target: the new model and its tokenizer.
        source: the untouched model and its tokenizer.
        layer: hidden state compared.

    Returns:
        Percent of sentences whose translation is among the 1 and 10 nearest, by task and language.
    """
    for model, _ in (target, source):
        torch.nn.Module.to(model, best_device())
    keys: dict[tuple[str, ...], Tensor] = {}
    result: dict[str, dict[str, tuple[float, float]]] = {}
    for chosen in sets:
        english = tuple(chosen.english)
        if english not in keys:
            keys[english] = encode(*source, chosen.english, layer)
        queries = encode(*target, chosen.foreign, layer, progress=f"{chosen.task} {chosen.language}")
        result.setdefault(chosen.task, {})[chosen.language] = accuracy(queries, keys[english])
    return result


def accuracy(queries: Tensor, keys: Tensor) -> tuple[float, float]:
    """Percent of queries `(N, E)` whose own row of `keys` `(N, E)` is among the 1 and 10 nearest by inner product.

    NaN if a row is not finite: nothing can be ranked then.
    """
    scores = queries @ keys.T
    if not scores.isfinite().all():
        return math.nan, math.nan
    nearest = scores.topk(min(TOP[1], len(keys)), dim=1).indices
    hits = (nearest == nearest.new_tensor(range(len(queries))).unsqueeze(1)).float()
    return (100 * hits[:, : TOP[0]].any(1).float().mean().item(), 100 * hits.any(1).float().mean().item())


def read_sets(data: Path, sentences: int) -> list[RetrievalSet]:
    """Read the sentences of a folder.

    Raises:
        InputError: neither file is there, or one is damaged.
    """
    sets = []
    verses: dict[str, dict[str, str]] = {}
    if (data / "heldout.tsv.gz").exists():
        for language, verse, text in _rows(data / "heldout.tsv.gz", 3):
            verses.setdefault(language, {})[verse] = text
        if "eng" not in verses:
            raise InputError(f"{data}/heldout.tsv.gz: expected English (eng) in column 1, found {sorted(verses)}")
    for language, texts in verses.items():
        ids = [verse for verse in verses["eng"] if verse in texts][:sentences]
        english = [verses["eng"][verse] for verse in ids]
        sets.append(RetrievalSet("SR-B", language, [texts[verse] for verse in ids], english))
    for path in sorted((data / "tatoeba").glob("*-eng.tsv.gz")):
        rows = list(_rows(path, 2))[:sentences]
        language = path.name.split("-")[0]
        sets.append(RetrievalSet("SR-T", language, [row[0] for row in rows], [row[1] for row in rows]))
    if not sets:
        raise InputError(f"--data {data}: expected heldout.tsv.gz or tatoeba/LNG-eng.tsv.gz in it, found neither")
    return sets


def _rows(path: Path, columns: int) -> Iterator[list[str]]:
    try:
        with gzip.open(path, "rt", encoding="utf-8", newline="") as file:
            for number, row in enumerate(csv.reader(file, delimiter="\t", quoting=csv.QUOTE_NONE), 1):
                if len(row) != columns:
                    raise InputError(
                        f"{path} line {number}: expected {columns} columns apart by tabs, found {len(row)}"
                    )
                yield row
    except (OSError, EOFError, UnicodeDecodeError, zlib.error, csv.Error) as error:
        raise InputError(f"{path}: expected gzipped UTF-8 text; {error}") from None
