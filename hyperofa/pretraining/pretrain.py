"""Continual pretraining: models and text in, model folders and their curves out."""

import csv
import shutil
import time
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from copy import deepcopy
from dataclasses import asdict, replace
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from hyperofa.errors import InputError, did_you_mean
from hyperofa.models.manifest import PROVENANCE
from hyperofa.models.saving import save_model
from hyperofa.models.source import ModelLike, SourceModel, content_hash, source_of
from hyperofa.pretraining.corpus import Corpus, files_by_language, tokenise
from hyperofa.pretraining.curves import Point
from hyperofa.pretraining.evaluation import Evaluation
from hyperofa.pretraining.language_model import check_options, train
from hyperofa.pretraining.results import Pretrained, PretrainedModels, write_comparison, write_trained
from hyperofa.pretraining.settings import EvaluationOptions, TrainerOptions, Training
from hyperofa.runtime.calls import Call, written_call
from hyperofa.runtime.files import FilePath
from hyperofa.runtime.folders import (
    fingerprint,
    kept_folder,
    sha256_file,
    write_json,
)
from hyperofa.runtime.hashing import sha256_text
from hyperofa.runtime.idle import Use, check_read
from hyperofa.runtime.marks import unfinished_key
from hyperofa.runtime.processes import is_first_process
from hyperofa.runtime.records import read_record
from hyperofa.runtime.versions import versions

if TYPE_CHECKING:
    ModelsLike = ModelLike | list[str | Path] | Mapping[str, ModelLike]
    """A model; or several, by name or in folders with names of their own."""
    TextLike = str | Path | Sequence[str | Path]
else:  # what a command line can give, which reads these types
    ModelsLike = str | list[str] | dict[str, str]
    TextLike = str | list[str]

_WORK = "checkpoint"  # below the output: what an interrupted run is gone on with
_SAVED = "checkpoints"  # below a model's folder: the models on the way
_KNOWN_ORIGINS = ("copied",)
_BASELINE = "ofa"
_TRAINING, _TRAINER, _EVALUATION = Training(), TrainerOptions(), EvaluationOptions()


def pretrain(
    model: ModelsLike,
    text: TextLike,
    output: FilePath,
    validation_text: TextLike | None = None,
    validation_lines: int = 500,
    training: Training = _TRAINING,
    trainer: TrainerOptions = _TRAINER,
    evaluation: EvaluationOptions = _EVALUATION,
    baseline: str | None = None,
    new_rows: list[int] | None = None,
    resume: bool = False,
    overwrite: bool = False,
) -> Pretrained | PretrainedModels:
    """Go on training causal or masked language models on text: first their new rows alone, then all of each.

    Several models get the same training: the same lines held out, and where their tokenizers are alike the same blocks
    in the same order. Their curves are compared by bits per byte, the area under the curve, and how many steps each
    saves: how much sooner it is as good as the baseline is at its end. A run that was killed goes on when the same call
    is made again, and ends with the same bytes.

    Args:
        model: folder or hub id, or `(model, tokenizer)` in memory, which stays as it is. Several, given one after the
            other, are called by their folders, or `NAME=FOLDER`.
        text: files of text, one sentence or paragraph a line (.txt, .gz, .tsv: last column). `deu=FILE` says what
            language a text is in; each is measured, and drawn as often as --training.sampling says. Text may be larger
            than memory.
        output: folder for the model, its tokenizer, `curve.csv`, `curve.json` and `curve.png`; of several models each
            has a folder of its own in it, beside `curves.csv`, `curves.json`, `curves.svg` and `curves.png`.
        validation_text: files of text to measure on, by language too.
        validation_lines: lines of each language of --text to hold out for that where there is no --validation_text; at
            most a tenth.
        training: steps, learning rate, …
        trainer: devices, precision, …
        evaluation: tasks of `hyperofa evaluate` that are run on the way.
        baseline: name of the model whose end the others are to reach; `ofa` if there is one, else the first.
        new_rows: ids of the rows that --training.new_steps trains; those that `provenance.tsv` in the model's folder
            does not call copied if not given.
        resume: refuse to begin anew: there must be an interrupted run to go on with.
        overwrite: replace a folder that is already there.

    Returns:
        Where the model is, and the curve; of several, each by its name.

    Raises:
        InputError: an input is missing or does not serve.

    Example:
        >>> import hyperofa
        >>> from hyperofa.pretraining.settings import Training, TrainerOptions
        >>> steps = Training(steps=2, evaluate_every=1, batch_size=2, block_size=16)
        >>> quiet = TrainerOptions(progress=False)
        >>> trained = hyperofa.pretrain("model", "german.txt", "trained", training=steps, trainer=quiet)
        >>> [point.step for point in trained.curve]
        [0, 1, 2]
    """
    call = written_call(pretrain, locals())
    sources, alone = _sources(model)
    base = _baseline(list(sources), baseline)
    corpus = Corpus(
        files_by_language(_as_list(text), "--text"),
        files_by_language(_as_list(validation_text), "--validation_text") if validation_text else {},
        validation_lines,
        training.seed,
    )
    corpus.check()
    check_read(
        pretrain, locals(),
        Use(("baseline",), not alone, "with several models"),
        Use(("new_rows",), training.new_steps > 0, "with --training.new_steps"),
        Use(("validation_lines",), not corpus.val, "without --validation_text"),
        Use(("evaluation",), evaluation.asked, "with --evaluation.data or --evaluation.text"),
    )  # fmt: skip
    evaluator = Evaluation(evaluation, training) if evaluation.asked else None
    rows = {name: _new_rows(source, training, new_rows) for name, source in sources.items()}
    settings = {
        "model": {name: source.name for name, source in sources.items()},
        "text": {language: list(map(str, paths)) for language, paths in corpus.train.items()},
        "validation_text": {language: list(map(str, paths)) for language, paths in corpus.val.items()},
        "validation_lines": validation_lines,
        "training": asdict(training),
    }
    # Of a folder of test data what lies in it: the output may be below it.
    measured = [path for path in evaluation.data.iterdir() if path.is_file()] if evaluation.data else []
    others: list[str | Path] = [*corpus.files, *sorted(measured), *(evaluation.text or [])]
    others += [] if evaluation.source_model is None else [evaluation.source_model]
    inputs = [*(each.name for each in sources.values() if each.in_memory is None), *others]
    key = _key(settings, sources, others, repr((replace(trainer, progress=True), evaluation, base, new_rows, alone)))
    output = Path(output)
    folders = {name: output if alone else output / name for name in sources}
    work = output / _WORK / key[:16]
    unfinished = [_WORK, _SAVED] if alone else [_WORK, *sources]
    writing = kept_folder(
        output, key, overwrite, kind="trained model", inputs=inputs, unfinished=unfinished, resume=resume
    )
    with writing if is_first_process() else nullcontext():
        _wait(output, key)
        try:
            trained = {
                name: Pretrained(folders[name], _run(source, name, rows[name], corpus, training, trainer, evaluator,
                                                     settings, folders[name], work, call))
                for name, source in sources.items()
            }  # fmt: skip
        except Exception:
            if is_first_process() and not any(work.glob("*.*")):  # nothing to go on with
                shutil.rmtree(output / _WORK, ignore_errors=True)
            raise
        models = PretrainedModels(output, trained, base)
        if is_first_process():
            if not alone:
                write_comparison(models, settings | {"command": call.text}, training.new_steps)
            shutil.rmtree(output / _WORK)
    return next(iter(trained.values())) if alone else models


def _sources(model: ModelsLike) -> tuple[dict[str, SourceModel], bool]:
    """The models by name, and whether it is one alone."""
    if isinstance(model, Mapping):
        given: list[tuple[str, ModelLike]] = list(model.items())
    elif isinstance(model, list):
        given = [_named(str(spec)) for spec in model]
    else:
        return {"model": source_of(model, "--model")}, True
    if not given:
        raise InputError("--model: expected at least one, found none")
    if isinstance(model, list) and len(given) == 1:
        return {"model": source_of(given[0][1], "--model")}, True
    names = [name for name, _ in given]
    for name in names:
        if names.count(name) > 1 or name in (_WORK, _SAVED) or not _is_name(name):
            raise InputError(
                f"--model: expected names that differ and can be folders, found {' '.join(names)}; give NAME=FOLDER"
            )
    return {name: source_of(each, "--model") for name, each in given}, False


def _named(spec: str) -> tuple[str, str]:
    """`NAME=FOLDER`, or a folder that is called by its name."""
    name, equals, folder = spec.partition("=")
    if equals and _is_name(name) and not Path(spec).exists():
        return name, folder
    return Path(spec).name, spec


def _is_name(text: str) -> bool:
    return bool(text) and not text.startswith(".") and Path(text).name == text


def _baseline(names: Sequence[str], asked: str | None) -> str:
    if asked is not None and asked not in names:
        near = did_you_mean(asked, names)
        raise InputError(f"--baseline: expected the name of a model, {' or '.join(names)}, found {asked}{near}")
    return asked or next((name for name in names if name.lower() == _BASELINE), names[0])


def _as_list(given: TextLike) -> Sequence[str | Path]:
    return [given] if isinstance(given, str | Path) else given


def _new_rows(source: SourceModel, training: Training, given: Sequence[int] | None) -> np.ndarray | None:
    if not training.new_steps:
        return None
    return read_new_rows(Path(source.name)) if given is None else np.array(given, np.int64)


def read_new_rows(model: Path) -> np.ndarray:
    """Ids of the tokens that an exported model did not copy from its source model.

    Args:
        model: folder with `provenance.tsv`.

    Raises:
        InputError: no such table there, or another one.
    """
    path = model / PROVENANCE
    try:
        with path.open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_MINIMAL))
        return np.array([int(row["id"]) for row in rows if row["origin"] not in _KNOWN_ORIGINS], np.int64)
    except FileNotFoundError:
        raise InputError(
            f"--training.new_steps: expected provenance.tsv in --model {model}, which says what rows are new, found "
            "none; give a folder of `hyperofa export` or `hyperofa expand`, or --new_rows, or 0 steps"
        ) from None
    except (KeyError, ValueError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path}: expected a table with the columns id and origin; {error}") from None


def _key(settings: dict[str, Any], sources: Mapping[str, SourceModel], others: Sequence[Any], options: str) -> str:
    """Of all that decides a run; of models their content."""
    on_disk = [source.name for source in sources.values() if source.in_memory is None]
    in_memory = []
    for source in sources.values():
        if source.in_memory is not None:
            model, tokenizer = source.in_memory
            sums = [(name, str(value.dtype), _digest(value)) for name, value in sorted(model.state_dict().items())]
            in_memory.append(sha256_text(repr(sums), content_hash(tokenizer)))
    parts = repr(sorted(settings.items())), fingerprint(*others), *in_memory, *map(_content, on_disk), options
    return sha256_text(*parts, repr(versions()))


def _content(model: str) -> str:
    """Of a model folder, which may have been written again with the same bytes; of a hub id the name."""
    files = sorted(path for path in Path(model).glob("*") if path.is_file() and not path.name.startswith("."))
    return sha256_text(model, *(f"{path.name} {sha256_file(path)}" for path in files))


def _digest(value: torch.Tensor) -> str:
    return sha256(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data).hexdigest()


def _wait(output: Path, key: str) -> None:
    """Until the first process has made its folder: the others of a job may have started with it."""
    while not is_first_process() and unfinished_key(output) != key:
        time.sleep(0.1)


def _run(
    source: SourceModel,
    name: str,
    new_rows: np.ndarray | None,
    corpus: Corpus,
    training: Training,
    trainer: TrainerOptions,
    evaluator: Evaluation | None,
    settings: dict[str, Any],
    folder: Path,
    work: Path,
    call: Call,
) -> list[Point]:
    """Train one model, unless that is done; its curve."""
    done, checkpoint = work / f"{name}.json", work / f"{name}.ckpt"
    if done.is_file():
        return [Point.from_dict(point) for point in read_record(done, list[dict[str, Any]], "a curve")]
    model, tokenizer = source.load(), source.load_tokenizer()
    dtype = model.dtype
    check_options(model, tokenizer, training, trainer)
    text = tokenise(corpus, tokenizer, work / "text", trainer.progress and is_first_process())
    save = partial(_save_on_the_way, training=training, dtype=dtype, folder=folder) if training.save_every else None
    curve = train(model, tokenizer, text, training, trainer, new_rows, checkpoint, evaluator, save)
    if is_first_process():
        torch.nn.Module.to(model, dtype)
        write_trained(model, tokenizer, curve, settings, folder, training, source, call)
        write_json(done, [point.as_dict() for point in curve])
        checkpoint.unlink(missing_ok=True)
    return curve


def _save_on_the_way(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    step: int,
    *,
    training: Training,
    dtype: torch.dtype,
    folder: Path,
) -> None:
    """Write a model that is to be kept, in the precision that it came in; it is there whole or not at all."""
    if step % training.save_every or step == training.total:
        return
    place = folder / _SAVED / f"step-{step}"
    unfinished = place.with_name(f".{place.name}")
    for left in (unfinished, place):  # of a process that was killed before it noted the step
        shutil.rmtree(left, ignore_errors=True)
    unfinished.mkdir(parents=True)
    save_model(model if model.dtype == dtype else torch.nn.Module.to(deepcopy(model), dtype), unfinished)
    tokenizer.save_pretrained(unfinished)
    unfinished.rename(place)
