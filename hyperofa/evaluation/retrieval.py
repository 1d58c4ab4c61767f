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

import torch
from torch import Tensor

from hyperofa.errors import InputError
from hyperofa.evaluation.scores import SOURCE_LANGUAGE, Metric
from hyperofa.evaluation.task import Finding, LoadedModel, Request, Task
from hyperofa.models.loading import encode
from hyperofa.runtime.devices import best_device

TOP = (1, 10)
METRICS = {f"top{top}": Metric(f"top-{top} accuracy", main=top == TOP[1]) for top in TOP}


@dataclass(frozen=True)
class RetrievalSet:
    """Sentences of one language and their translations, position by position."""

    task: str
    language: str
    foreign: list[str]
    english: list[str]


def score(sets: Sequence[RetrievalSet], target: LoadedModel, source: LoadedModel, layer: int = -1) -> Finding:
    """Retrieval accuracy of each set.

    Args:
        sets: sentences.
        target: the new model and its tokenizer.
        source: the untouched model and its tokenizer.
        layer: hidden state compared.

    Returns:
        Percent of sentences whose translation is among the 1 (top1) and 10 (top10) nearest, by task, metric and
        language, and which sentences these are.
    """
    for model, _ in (target, source):
        torch.nn.Module.to(model, best_device())
    keys: dict[tuple[str, ...], Tensor] = {}
    numbers: dict[str, dict[str, dict[str, float]]] = {}
    hits: dict[str, dict[str, dict[str, str]]] = {}
    for chosen in sets:
        english = tuple(chosen.english)
        if english not in keys:
            keys[english] = encode(*source, chosen.english, layer)
        queries = encode(*target, chosen.foreign, layer, progress=f"{chosen.task} {chosen.language}")
        found = find_hits(queries, keys[english])
        for metric, hit in zip(METRICS, found, strict=True):
            percent = 100 * hit.mean().item()
            numbers.setdefault(chosen.task, {}).setdefault(metric, {})[chosen.language] = percent
            if math.isfinite(percent):
                marks = "".join("1" if one else "0" for one in hit.tolist())
                hits.setdefault(chosen.task, {}).setdefault(metric, {})[chosen.language] = marks
    return Finding(numbers, hits=hits)


def find_hits(queries: Tensor, keys: Tensor) -> tuple[Tensor, Tensor]:
    """Whether the own row of a query is the nearest of `keys` by inner product, and whether among the 10 nearest.

    Args:
        queries: `(N, E)`.
        keys: `(N, E)`, the right one of each query in its row.

    Returns:
        `(N,)` floats each, 1 or 0; NaN if a row is not finite: nothing can be ranked then.
    """
    scores = queries @ keys.T
    if not scores.isfinite().all():
        return (scores.new_full((len(queries),), math.nan),) * 2
    nearest = scores.topk(min(TOP[1], len(keys)), dim=1).indices
    hits = (nearest == nearest.new_tensor(range(len(queries))).unsqueeze(1)).float()
    return hits[:, : TOP[0]].amax(1), hits.amax(1)


def read_sets(data: Path, sentences: int) -> list[RetrievalSet]:
    """Read the sentences of a folder; none where it has neither file.

    Args:
        data: folder with `heldout.tsv.gz`, `tatoeba/LNG-eng.tsv.gz` or both.
        sentences: at most this many of each language.

    Raises:
        InputError: a file is damaged, or has no English.
    """
    sets = []
    verses: dict[str, dict[str, str]] = {}
    if (data / "heldout.tsv.gz").exists():
        for language, verse, text in _rows(data / "heldout.tsv.gz", 3):
            verses.setdefault(language, {})[verse] = text
        if SOURCE_LANGUAGE not in verses:
            raise InputError(f"{data}/heldout.tsv.gz: expected English (eng) in column 1, found {sorted(verses)}")
    for language, texts in verses.items():
        ids = [verse for verse in verses[SOURCE_LANGUAGE] if verse in texts][:sentences]
        english = [verses[SOURCE_LANGUAGE][verse] for verse in ids]
        sets.append(RetrievalSet("SR-B", language, [texts[verse] for verse in ids], english))
    for path in sorted((data / "tatoeba").glob("*-eng.tsv.gz")):
        rows = list(_rows(path, 2))[:sentences]
        language = path.name.split("-")[0]
        sets.append(RetrievalSet("SR-T", language, [row[0] for row in rows], [row[1] for row in rows]))
    return sets


def _rows(path: Path, columns: int) -> Iterator[list[str]]:
    try:
        with gzip.open(path, "rt", encoding="utf-8-sig", newline="") as file:
            for number, row in enumerate(csv.reader(file, delimiter="\t", quoting=csv.QUOTE_NONE), 1):
                if len(row) != columns:
                    raise InputError(
                        f"{path} line {number}: expected {columns} tab-separated columns, found {len(row)}"
                    )
                yield row
    except (OSError, EOFError, UnicodeDecodeError, zlib.error, csv.Error) as error:
        raise InputError(f"{path}: expected gzipped UTF-8 text; {error}") from None


def _read(request: Request) -> list[RetrievalSet]:
    sets = [] if request.data is None else read_sets(request.data, request.sentences)
    for each in sets:
        asked = request.languages is None or each.language in request.languages
        if asked and len(set(each.english)) < 2:  # nothing to tell them from
            raise InputError(
                f"--data {request.data}: expected at least two different English sentences with a translation into "
                f"{each.language} for {each.task}, found {len(set(each.english))}; leave the language out, or add some"
            )
    return sets


def _score(sets: Sequence[RetrievalSet], target: LoadedModel, source: LoadedModel, request: Request) -> Finding:
    return score(sets, target, source, request.layer)


TASK = Task("retrieval", METRICS, "data", "heldout.tsv.gz or tatoeba/LNG-eng.tsv.gz", _read, _score)
