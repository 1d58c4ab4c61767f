"""Evaluation tasks that are run while a model is trained."""

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from hyperofa.errors import InputError
from hyperofa.evaluation.evaluate import read_samples, score_samples
from hyperofa.evaluation.scores import Scores
from hyperofa.evaluation.task import LoadedModel, Request
from hyperofa.models.source import SourceModel, own_tokenizer
from hyperofa.pretraining.settings import EvaluationOptions, Training


class Evaluation:
    """Scores a model before training, after it, and every so many steps; the source model is loaded once.

    Args:
        options: what is run.
        training: of the models.

    Raises:
        InputError: no data for it, no source model, or steps at which no point of the curve is.
    """

    def __init__(self, options: EvaluationOptions, training: Training) -> None:
        if options.source_model is None:
            raise InputError("--evaluation.source_model: expected the model to compare with, found none")
        self._every, self._total = options.every or training.evaluate_every, training.total
        if self._every % training.evaluate_every:
            raise InputError(
                f"--evaluation.every: expected a multiple of --training.evaluate_every {training.evaluate_every}, "
                f"found {self._every}"
            )
        self._request = Request(options.data, options.text or [], options.languages, options.sentences, options.layer)
        self._samples = read_samples(self._request, options.tasks)
        self._source_model = SourceModel(options.source_model, flag="--evaluation.source_model")
        self._source: LoadedModel | None = None

    def __call__(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, step: int) -> Scores:
        """Scores after some steps; empty ones where nothing is due.

        Args:
            model: perhaps moved to another device.
            tokenizer: of the model.
            step: optimizer steps so far.
        """
        if step % self._every and step != self._total:
            return Scores({}, {})
        if self._source is None:
            self._source = self._source_model.load(), self._source_model.load_tokenizer()
        target = model, own_tokenizer(tokenizer)  # tasks leave their padding and truncation in it
        return score_samples(self._samples, target, self._source, self._request)[0]
