"""Continual pretraining: language models and text in, model folders and their curves out."""

from pathlib import Path

import numpy as np
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from hyperofa.pretraining.corpus import Corpus, tokenise
from hyperofa.pretraining.language_model import LanguageModelling, check_options
from hyperofa.pretraining.results import PRETRAINING, Pretrained, PretrainedModels
from hyperofa.pretraining.runs import ModelsLike, Run, TextLike, learners_of, shared_uses, train_models
from hyperofa.pretraining.settings import EvaluationOptions, TrainerOptions, Training
from hyperofa.runtime.calls import written_call
from hyperofa.runtime.files import FilePath
from hyperofa.runtime.idle import Use, check_read
from hyperofa.runtime.processes import is_first_process

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
    learners = learners_of(model, baseline, training, new_rows)
    corpus = Corpus.given(text, validation_text, validation_lines, training.seed)
    corpus.check()
    check_read(
        pretrain, locals(),
        *shared_uses(learners.alone, training, evaluation),
        Use(("validation_lines",), not corpus.val, "without --validation_text"),
    )  # fmt: skip

    def make(
        model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, rows: np.ndarray | None, work: Path
    ) -> LanguageModelling:
        check_options(model, tokenizer, training, trainer)
        read = tokenise(corpus, tokenizer, work, trainer.progress and is_first_process())
        return LanguageModelling(model, tokenizer, read, training, rows)

    settings = {"validation_lines": validation_lines}
    run = Run(PRETRAINING, make, training, trainer, evaluation, corpus, settings)
    return train_models(learners, run, output, call, resume, overwrite)
