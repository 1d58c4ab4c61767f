"""Evaluate a model with a new vocabulary on every task that there is data for."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hyperofa.errors import InputError, did_you_mean
from hyperofa.evaluation.scores import Scores
from hyperofa.evaluation.task import UNNAMED, Finding, LoadedModel, Request, Sample, Task, find_tasks
from hyperofa.models.source import ModelLike, source_of
from hyperofa.runtime.files import FilePath, FilePaths
from hyperofa.runtime.folders import write_json
from hyperofa.runtime.idle import Use, check_read
from hyperofa.runtime.places import check_parents
from hyperofa.runtime.ranges import Count, in_range


@in_range()
def evaluate(
    model: ModelLike,
    source_model: ModelLike,
    data: FilePath | None = None,
    languages: list[str] | None = None,
    sentences: Count = 500,
    layer: int = -1,
    output: FilePath | None = None,
    text: FilePaths | None = None,
) -> Scores:
    """Score a model with a new vocabulary: sentence retrieval against the source model, bits per byte and more.

    Args:
        model: folder that `hyperofa export` wrote, or `(model, tokenizer)` in memory; it is moved to the GPU if there
            is one, in evaluation mode.
        source_model: folder or hub id of the source model, or it and its tokenizer in memory; likewise.
        data: folder with `heldout.tsv.gz` (language, verse id, text; English among the languages) for SR-B, with
            `tatoeba/LNG-eng.tsv.gz` (foreign, English) for SR-T, with `pos/LNG/test.conllu` or `ner/LNG/test.bio` and
            `train` files of English there for tagging, or with several of these. Without it, none of these tasks.
        languages: only these. All if not given.
        sentences: at most this many of each language, and lines of each text.
        layer: hidden state that sentences are compared in, -1 the last; the papers read 8.
        output: JSON file to write the scores to as well; with --text, histograms beside it (.png).
        text: files of text that the source model knows, one sentence a line. If given, of a causal or masked language
            model: KL divergence of old and new next-token distributions, mass on new tokens, partition functions.

    Returns:
        The scores, by task, metric and language.

    Raises:
        InputError: no model, sentences or text there, or a language that is not.

    Example:
        >>> import hyperofa
        >>> scores = hyperofa.evaluate("model", "bert", "data")
        >>> sorted(scores["SR-B"]["top1"])
        ['deu', 'eng']
    """
    check_read(evaluate, locals(), Use(("languages", "layer"), data is not None or not text, "with --data"))
    if output is not None:
        _check_output(Path(output), drawn=bool(text))
    request = Request(None if data is None else Path(data), list(map(Path, text or [])), languages, sentences, layer)
    found = read_samples(request)
    target, source = _load(model, "--model"), _load(source_model, "--source_model")
    scores, findings = score_samples(found, target, source, request)
    if wrong := scores.undefined():
        raise InputError(
            f"--model, --source_model: expected models that give numbers, found NaN or infinity for {wrong[0]} "
            f"(of {len(wrong)} such scores); the weights of one of them are damaged, or a training has diverged"
        )
    if output is not None:
        output = Path(output)
        output.parent.mkdir(parents=True, exist_ok=True)
        write_json(output, _file(scores, request))
        for finding in findings:
            if finding.draw is not None:
                finding.draw(output)
    return scores


def _check_output(output: Path, drawn: bool) -> None:
    """See that no file is lost but the scores of an earlier evaluation, and the picture that came with them.

    Args:
        output: the JSON file.
        drawn: whether this evaluation draws a picture beside it.
    """
    check_parents(output)
    picture = output.with_suffix(".png")
    if output == picture:
        raise InputError(f"--output {output}: expected the name of a JSON file, found that of a picture")
    try:
        found = json.loads(output.read_text(encoding="utf-8"))
        earlier = [output, *([picture] if "shift" in found["scores"] else [])] if found["metrics"] else []
    except (OSError, ValueError, KeyError, TypeError):
        earlier = []
    for path in (output, *([picture] if drawn else [])):
        if path.exists() and path not in earlier:
            raise InputError(
                f"--output {output}: expected a new file, or scores of an earlier evaluation to replace, but {path} is "
                f"another {'folder' if path.is_dir() else 'file'}; give another name"
            )


def _load(model: ModelLike, flag: str) -> LoadedModel:
    """A model and its tokenizer; those in memory are read as they are, without a copy."""
    found = source_of(model, flag)
    if found.in_memory is None:
        return found.load(), found.load_tokenizer()
    return found.in_memory[0].eval(), found.in_memory[1]


Samples = Sequence[tuple[Task, Sequence[Sample]]]


def read_samples(request: Request, names: Sequence[str] | None = None) -> Samples:
    """The samples of each task that has any, in the languages that are asked for.

    Args:
        request: what an evaluation is asked for.
        names: of the tasks that are wanted, all if `None`.

    Raises:
        InputError: no such task, or no data for any, or none in a language.
    """
    tasks = find_tasks()
    if names is not None:
        if unknown := sorted(set(names) - {task.name for task in tasks}):
            known = [task.name for task in tasks]
            near = did_you_mean(unknown[0], known)
            raise InputError(f"--evaluation.tasks {' '.join(unknown)}: expected tasks among {', '.join(known)}{near}")
        tasks = [task for task in tasks if task.name in names]
    if request.data is None and not request.text:
        raise InputError("expected --data, --text or both, to know what to evaluate on; found neither")
    found = [(task, samples) for task in tasks if (samples := task.read(request))]
    if request.data is not None and not any(task.source == "data" for task, _ in found):
        needs = " or ".join(dict.fromkeys(task.needs for task in tasks if task.source == "data"))
        raise InputError(f"--data {request.data}: expected {needs} in it, found neither")
    asked = request.languages
    if asked is not None:
        read = found
        found = [(task, [each for each in samples if each.language in {UNNAMED, *asked}]) for task, samples in read]
        missing = sorted(set(asked) - {each.language for _, samples in found for each in samples})
        if missing:
            there = sorted({each.language for _, samples in read for each in samples} - {UNNAMED})
            raise InputError(
                f"--languages {' '.join(missing)}: expected languages with sentences in --data {request.data}, which "
                f"has {', '.join(there)}; found none{did_you_mean(missing[0], there)}"
            )
    return [(task, samples) for task, samples in found if samples]


def score_samples(
    found: Samples, target: LoadedModel, source: LoadedModel, request: Request
) -> tuple[Scores, list[Finding]]:
    """Run tasks on two models.

    Args:
        found: what `read_samples` read.
        target: the model with the new vocabulary and its tokenizer; moved to the GPU if there is one.
        source: the source model and its tokenizer; likewise.
        request: that it was read for.

    Returns:
        The scores, and what each task found.
    """
    findings = [(task, task.score(samples, target, source, request)) for task, samples in found]
    numbers = {name: of for _, finding in findings for name, of in finding.numbers.items()}
    metrics = {name: task.metrics for task, finding in findings for name in finding.numbers}
    details = {name: of for _, finding in findings for name, of in finding.details.items()}
    hits = {name: of for _, finding in findings for name, of in finding.hits.items()}
    return Scores(numbers, metrics, details, hits), [finding for _, finding in findings]


def _file(scores: Scores, request: Request) -> dict[str, Any]:
    """What the JSON file holds: the scores, and retrieval and shift also as scripts of earlier versions read them."""
    found: dict[str, Any] = scores.as_dict() | {"sentences": request.sentences, "layer": request.layer}
    retrieval = [task for task in scores if {"top1", "top10"} <= scores[task].keys()]
    if retrieval:
        means = scores.means()
        found["accuracy"] = {
            task: {language: [top1, scores[task]["top10"][language]] for language, top1 in scores[task]["top1"].items()}
            for task in retrieval
        }
        found["means"] = {task: [means[task]["top1"], means[task]["top10"]] for task in retrieval if task in means}
    if "shift" in scores:
        numbers = {name: value for name, of in scores["shift"].items() for value in of.values()}
        found["safety"] = {**scores.details["shift"], **numbers}
    return found
