"""Knowledge distillation: sentence encoders and parallel text in, model folders and their curves out."""

from dataclasses import asdict, replace
from functools import cache
from pathlib import Path

import numpy as np
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from hyperofa.models.sentence_modules import pooling_of
from hyperofa.models.source import ModelLike, source_of
from hyperofa.pretraining.pairs import ParallelCorpus, tokenise_pairs
from hyperofa.pretraining.results import DISTILLATION, Pretrained, PretrainedModels
from hyperofa.pretraining.runs import ModelsLike, Run, TextLike, learners_of, shared_uses, train_models
from hyperofa.pretraining.sentence_encoder import SentenceDistillation, Teacher, reader_of
from hyperofa.pretraining.settings import DistillationLoss, EvaluationOptions, TrainerOptions, Training
from hyperofa.pretraining.trainer import check_trainer
from hyperofa.runtime.calls import written_call
from hyperofa.runtime.files import FilePath
from hyperofa.runtime.idle import Use, check_read
from hyperofa.runtime.processes import is_first_process

_LOSS, _TRAINER, _EVALUATION = DistillationLoss(), TrainerOptions(precision="auto"), EvaluationOptions()
_TRAINING = Training(steps=0, new_steps=1000, batch_size=64, block_size=128, new_learning_rate=1e-3)


def distill(
    model: ModelsLike,
    source_model: ModelLike,
    parallel: TextLike,
    output: FilePath,
    validation_parallel: TextLike | None = None,
    validation_pairs: int = 500,
    loss: DistillationLoss = _LOSS,
    training: Training = _TRAINING,
    trainer: TrainerOptions = _TRAINER,
    evaluation: EvaluationOptions = _EVALUATION,
    baseline: str | None = None,
    new_rows: list[int] | None = None,
    resume: bool = False,
    overwrite: bool = False,
) -> Pretrained | PretrainedModels:
    """Teach sentence encoders from parallel text to place a translation where the source model places its sentence.

    What `pretrain` is to language models (knowledge distillation, Reimers & Gurevych 2020): first the new rows alone,
    then, with --training.steps, all parameters. Several models get the same training and are compared. A run that was
    killed goes on when the same call is made again, and ends with the same bytes.

    Args:
        model: folder or hub id, or `(model, tokenizer)` in memory, which stays as it is. Several, given one after the
            other, are called by their folders, or `NAME=FOLDER`.
        source_model: the model that the vocabulary was made for, which teaches and stays as it is.
        parallel: files of a source sentence, a tab and its translation a line (.tsv, .gz). `deu=FILE` says what
            language the translations are in; each is measured, and drawn as often as --training.sampling says. Text may
            be larger than memory.
        output: folder for the model, its tokenizer, `curve.csv`, `curve.json` and `curve.png`; of several models each
            has a folder of its own in it, beside `curves.csv`, `curves.json`, `curves.svg` and `curves.png`.
        validation_parallel: such files to measure on, by language too.
        validation_pairs: source sentences of each language of --parallel to hold out for that where there is no
            --validation_parallel, with all their translations; at most a tenth.
        loss: what is asked of the model.
        training: steps, learning rates, …
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
        >>> taught = hyperofa.distill("model", "bert", "pairs.tsv", "taught", training=steps, trainer=quiet)
        >>> [point.step for point in taught.curve]
        [0, 1, 2]
    """
    call = written_call(distill, locals())
    learners = learners_of(model, baseline, training, new_rows)
    source = source_of(source_model)
    corpus = ParallelCorpus.given(parallel, validation_parallel, validation_pairs, training.seed)
    corpus.check()
    check_read(
        distill, locals(),
        *shared_uses(learners.alone, training, evaluation),
        Use(("training.learning_rate",), training.steps > 0 or training.new_learning_rate is None,
            "with --training.steps"),
        Use(("validation_pairs",), not corpus.val, "without --validation_parallel"),
    )  # fmt: skip
    pooling = pooling_of(source.name) if source.has_home else "mean"

    @cache
    def teacher() -> Teacher:
        return Teacher(source.load(), source.load_tokenizer(), pooling).half()

    def make(
        model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, rows: np.ndarray | None, work: Path
    ) -> SentenceDistillation:
        known = teacher()
        readers = reader_of(model, tokenizer, training), reader_of(known.model, known.tokenizer, training)
        check_trainer(training, trainer)
        shown = trainer.progress and is_first_process()
        pairs = tokenise_pairs(corpus, *readers, work, loss.source_share > 0, shown)
        return SentenceDistillation(model, tokenizer, known, pairs, training, loss, rows)

    settings = {"source_model": source.name, "validation_pairs": validation_pairs, "loss": asdict(loss)}
    asked = replace(evaluation, source_model=evaluation.source_model or source.name) if evaluation.asked else evaluation
    run = Run(DISTILLATION, make, training, trainer, asked, corpus, settings, source)
    return train_models(learners, run, output, call, resume, overwrite)
