"""Models that are trained alike: where each is, what decides a run, and how a killed one goes on."""

import csv
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from copy import deepcopy
from dataclasses import asdict, dataclass, replace
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
from hyperofa.pretraining.evaluation import Evaluation
from hyperofa.pretraining.language_files import LanguageFiles
from hyperofa.pretraining.phases import PhasedTraining
from hyperofa.pretraining.points import Point
from hyperofa.pretraining.results import Lesson, Pretrained, PretrainedModels, write_comparison, write_trained
from hyperofa.pretraining.settings import EvaluationOptions, TrainerOptions, Training
from hyperofa.pretraining.trainer import train_phases
from hyperofa.runtime.calls import Call
from hyperofa.runtime.files import FilePath
from hyperofa.runtime.folders import fingerprint, kept_folder, sha256_file, write_json
from hyperofa.runtime.hashing import sha256_text
from hyperofa.runtime.idle import Use
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

Maker = Callable[[PreTrainedModel, PreTrainedTokenizerBase, np.ndarray | None, Path], PhasedTraining[Any]]
"""Sees that a model can be trained, reads what it is trained on, for which there is a folder, and makes its module."""


@dataclass(frozen=True)
class Learners:
    """Models that are to be trained alike.

    Attributes:
        sources: by name.
        alone: whether it is one that was given without a name.
        baseline: name of the one whose end the others are to reach.
        new_rows: ids of the rows that are trained first, by name; `None` where there is no such phase.
    """

    sources: Mapping[str, SourceModel]
    alone: bool
    baseline: str
    new_rows: Mapping[str, np.ndarray | None]


def learners_of(
    model: ModelsLike, baseline: str | None, training: Training, new_rows: Sequence[int] | None
) -> Learners:
    """What a user gave as one model or several.

    Args:
        model: as `pretrain` takes it.
        baseline: name of a model.
        training: of them.
        new_rows: ids; what each model's provenance says if not given.

    Raises:
        InputError: something else, or a model whose new rows nobody knows.
    """
    sources, alone = _sources(model)
    base = _baseline(list(sources), baseline)
    return Learners(sources, alone, base, {name: _new_rows(each, training, new_rows) for name, each in sources.items()})


def shared_uses(alone: bool, training: Training, evaluation: EvaluationOptions) -> list[Use]:
    """What settings that any training has are of.

    Args:
        alone: whether there is one model.
        training: of it.
        evaluation: on the way.
    """
    first = training.new_steps > 0
    return [
        Use(("baseline",), not alone, "with several models"),
        Use(("new_rows",), first, "with --training.new_steps"),
        Use(("training.new_learning_rate",), first or training.new_learning_rate is None, "with --training.new_steps"),
        Use(("evaluation",), evaluation.asked, "with --evaluation.data or --evaluation.text"),
    ]


@dataclass(frozen=True)
class Run:
    """How some models are trained, and from what.

    Attributes:
        lesson: what they learn.
        make: the module of each.
        training: the settings.
        trainer: of the Trainer.
        evaluation: what is measured on the way.
        files: that they learn from, and that are measured.
        settings: to be noted beside each model, with the files.
        teacher: a model that they learn from.
    """

    lesson: Lesson
    make: Maker
    training: Training
    trainer: TrainerOptions
    evaluation: EvaluationOptions
    files: LanguageFiles
    settings: Mapping[str, Any]
    teacher: SourceModel | None = None


def train_models(
    learners: Learners, run: Run, output: FilePath, call: Call, resume: bool, overwrite: bool
) -> Pretrained | PretrainedModels:
    """Train each in its turn and write it; a run that was killed goes on when it is asked for again.

    Args:
        learners: the models.
        run: how.
        output: folder for one model, or for a folder of each.
        call: what asks for it.
        resume: refuse to begin anew.
        overwrite: replace a folder that is already there.

    Raises:
        InputError: an input is missing or does not serve.
    """
    evaluation, training = run.evaluation, run.training
    evaluator = Evaluation(evaluation, training) if evaluation.asked else None
    sources, alone = learners.sources, learners.alone
    settings = {
        "model": {name: source.name for name, source in sources.items()},
        **run.files.settings,
        **run.settings,
        "training": asdict(training),
    }
    # Of a folder of test data what lies in it: the output may be below it.
    measured = [path for path in evaluation.data.iterdir() if path.is_file()] if evaluation.data else []
    others: list[str | Path] = [*run.files.files, *sorted(measured), *(evaluation.text or [])]
    others += [] if evaluation.source_model is None else [evaluation.source_model]
    read = [*sources.values(), *([] if run.teacher is None else [run.teacher])]
    inputs = [*(each.name for each in read if each.in_memory is None), *others]
    rows = {name: None if ids is None else ids.tolist() for name, ids in learners.new_rows.items()}
    options = replace(run.trainer, progress=True), evaluation, learners.baseline, rows, alone, run.lesson.name
    key = _key(settings, read, others, repr(options))
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
                name: Pretrained(folders[name], _train(learners, name, run, evaluator, settings, folders[name], work,
                                                       call))
                for name in sources
            }  # fmt: skip
        except Exception:
            if is_first_process() and not any(work.glob("*.*")):  # nothing to go on with
                shutil.rmtree(output / _WORK, ignore_errors=True)
            raise
        models = PretrainedModels(output, trained, learners.baseline)
        if is_first_process():
            if not alone:
                write_comparison(models, settings | {"command": call.text}, training.new_steps, run.lesson)
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
        raise InputError(f"--baseline: expected one of the models {' '.join(names)}, found {asked}{near}")
    return asked or next((name for name in names if name.lower() == _BASELINE), names[0])


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


def _key(settings: dict[str, Any], sources: Sequence[SourceModel], others: Sequence[Any], options: str) -> str:
    """Of all that decides a run; of models their content."""
    on_disk = [source.name for source in sources if source.in_memory is None]
    in_memory = []
    for source in sources:
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


def _train(
    learners: Learners,
    name: str,
    run: Run,
    evaluator: Evaluation | None,
    settings: dict[str, Any],
    folder: Path,
    work: Path,
    call: Call,
) -> Sequence[Point]:
    """Train one model, unless that is done; its curve."""
    source, training = learners.sources[name], run.training
    done, checkpoint = work / f"{name}.json", work / f"{name}.ckpt"
    if done.is_file():
        kind = run.lesson.point
        return [kind.from_dict(point) for point in read_record(done, list[dict[str, Any]], "a curve")]
    model, tokenizer = source.load(), source.load_tokenizer()
    dtype = model.dtype
    module = run.make(model, tokenizer, learners.new_rows[name], work / "text")
    save = partial(_save_on_the_way, training=training, dtype=dtype, folder=folder) if training.save_every else None
    curve = train_phases(module, tokenizer, training, run.trainer, checkpoint, evaluator, save)
    if is_first_process():
        torch.nn.Module.to(model, dtype)
        write_trained(model, tokenizer, curve, settings, folder, training, source, call, run.lesson)
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
