"""Settings of a training that nothing reads, as it is: told in a line each.

They are no errors, as they are elsewhere: the `config.yaml` of a run holds all settings, also those that were a default
when it was written and no longer are.
"""

from collections.abc import Mapping
from itertools import chain
from typing import Any

from lightning.pytorch.utilities import rank_zero_warn

from hyperofa.runtime.calls import as_typed
from hyperofa.runtime.idle import Use, unread
from hyperofa.training.datamodule import HyperDataModule

_OTHERWISE = "where --data.judges is another"


def tell_unread(changed: Mapping[str, Any], data: HyperDataModule) -> None:
    """Warn of what nothing reads.

    Args:
        changed: settings of the module that are not as they would be anyway.
        data: set up to train.
    """
    given = data.changed
    text, judges = data.reads_text, given.get("judges", "auto")
    tokens, source_views = data.streams != "text", given.get("views.source", 0) > 0
    decayed = changed.get("optimizer", "adamw") == "adamw" or changed.get("weight_decay") == 0
    step = changed.get("schedule", "one_cycle") == "step"
    translations = bool(given.get("views.parallel") or given.get("language_views.parallel"))
    of_data = unread(
        given,
        Use(
            (
                "judges", "views", "language_views", "language_crop", "negatives", "sentences", "crop", "steps",
                "validation_sentences", "text_languages", "translated_languages", "drawing",
            ),
            text,
            "with --data.text",
        ),
        Use(("parallel",), translations, "with --data.views.parallel or --data.language_views.parallel"),
        Use(("language_views", "language_crop", "negatives"), judges != "sentence" or not text, _OTHERWISE),
        Use(("views",), judges != "language" or not text, _OTHERWISE),
        Use(("batches",), tokens, "with --data.streams tokens or both"),
        Use(("word_dropout",), given.get("augmentation") != "sample", "with --data.augmentation dropout"),
        prefix="data.",
    )  # fmt: skip
    of_module = unread(
        changed,
        Use(
            ("token_weight", "token_epochs", "contrastive_weight", "temperature", "distance"),
            tokens,
            "with --data.streams tokens or both",
        ),
        Use(
            (
                "usage", "text_weight", "sentence_weight", "language_weight", "sentence_temperature", "cosine_weight",
                "hidden_weight", "kl_weight", "layers", "precision", "gradient_checkpointing",
            ),
            text,
            "with --data.text",
        ),
        Use(
            ("sentence_weight", "sentence_temperature", "cosine_weight"),
            judges != "language" or not text,
            _OTHERWISE,
        ),
        Use(("language_weight",), judges != "sentence" or not text, _OTHERWISE),
        Use(("hidden_weight", "kl_weight"), source_views or not text, "with --data.views.source"),
        Use(("step_epochs", "step_factor"), step, "with --model.schedule step"),
        Use(("weight_decay",), decayed, "with --model.optimizer adamw"),
        prefix="model.",
    )  # fmt: skip
    for error in chain(of_data, of_module):
        rank_zero_warn(as_typed(error))
