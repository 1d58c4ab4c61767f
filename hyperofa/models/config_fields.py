"""The fields of Hugging Face configs that speak of a vocabulary: its size, and token ids."""

import re
from collections.abc import Callable, Iterator
from typing import Any

from transformers import PretrainedConfig

from hyperofa.errors import InputError

ID_FIELD = re.compile(r"\w*token_(id|ids|index)|(begin_)?suppress_tokens|(bad|force)_words_ids")

MODAL_FIELD = re.compile(r"(image|video|vision|audio|frame|low_res|bo[ia]|eo[ia])_\w*")
"""Ids of tokens that stand for images or sound: None would make every forward pass fail."""

Translate = Callable[[str, Any], Any]
"""From an id field's name and value to its new value."""


def nested_configs(config: Any) -> Iterator[PretrainedConfig]:
    """A config and those nested in it (`text_config`, `encoder`, `decoder`)."""
    if isinstance(config, PretrainedConfig):
        yield config
        for part in list(vars(config).values()):
            yield from nested_configs(part)


def size_fields(config: PretrainedConfig, size: int | None = None) -> list[str]:
    """Config fields that hold a vocabulary size, this one or any.

    Args:
        config: of a model.
        size: the vocabulary's; `None` for any.
    """
    alias = config.attribute_map.get("vocab_size")  # n_words in XLM
    names = [name for name in vars(config) if name == alias or ("vocab_size" in name and "type_vocab" not in name)]
    return [name for name in names if vars(config)[name] is not None and size in (None, vars(config)[name])]


def id_fields(config: Any) -> Iterator[tuple[str, str, Any]]:
    """Name (as `special_ids` spells it), attribute and value of each field that holds token ids, or could."""
    for field, value in list(vars(config).items()) if config is not None else ():
        name = re.sub("^(pad|bos|eos|unk|mask)_index$", r"\1_token_id", field)  # XLM's
        if ID_FIELD.fullmatch(name) and type(value) in (int, list, type(None)):
            yield name, field, value


def rewrite_ids(config: Any, translate: Translate) -> None:
    """Set every id field of a config to what `translate` makes of its name and value.

    Args:
        config: changed in place.
        translate: from a field's name and value to its new value.

    Raises:
        InputError: the config does not take it.
    """
    for name, field, value in id_fields(config):
        if (new := translate(name, value)) != value:
            try:
                setattr(config, field, new)
            except Exception as error:  # strict configs refuse None, each version with an error of its own
                raise no_target_token(name, value) from error


def no_target_token(name: str, source_id: Any) -> InputError:
    """The error for an id field that a model cannot do without.

    Args:
        name: of the field.
        source_id: its value.
    """
    return InputError(
        f"expected a target token for {name} (of the source: {source_id}), which this model needs, found none; give a "
        "target tokenizer that has this token of the source's, or another source model"
    )
