"""What a language model is trained to say: the next token, a hidden one, hidden spans; and how it wants its texts."""

import re
from itertools import takewhile
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn
from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
    MODEL_FOR_MASKED_LM_MAPPING_NAMES,
)

from hyperofa.errors import InputError
from hyperofa.tokens.canonical import A_MODEL, expected_at

Objective = Literal["causal", "masked"]
TextObjective = Objective | Literal["spans"]
"""What a model can be taught by text; of hidden `spans` there is no likelihood of a whole text."""
MASKED_SHARE = 0.15
_FEWEST = 8  # tokens: what a tokenizer puts around a text, and some of the text
_HIDES_SPANS = re.compile(r"\w*T5ForConditionalGeneration")


def objective_of(model: PreTrainedModel, flag: str = "--model") -> Objective:
    """Whether a model predicts next tokens or masked ones, by its architecture.

    Args:
        model: with a language-model head.
        flag: command-line flag named in errors.

    Raises:
        InputError: it has another head, or none, or is an encoder-decoder.
    """
    names = {base.__name__ for base in type(model).__mro__}
    if not model.config.is_encoder_decoder:
        if names & set(MODEL_FOR_MASKED_LM_MAPPING_NAMES.values()):
            return "masked"
        if names & set(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.values()):
            return "causal"
    raise InputError(
        f"{flag}: expected a causal or masked language model, found {type(model).__name__}; encoder-decoders and "
        "models without such a head have no next-token distribution over plain text"
    )


def objective_at(path: str | Path, flag: str = "--source_model") -> TextObjective | None:
    """What a model on disk or on the hub predicts, by its config alone; `None` for a head of another kind, or none.

    Args:
        path: Hugging Face folder or hub id.
        flag: what errors begin with.

    Raises:
        InputError: no model there.
    """
    with expected_at(path, flag, A_MODEL):
        config = PreTrainedConfig.get_config_dict(str(path))[0]
    names = {name.removeprefix("Factorised") for name in config.get("architectures") or []}
    if any(map(_HIDES_SPANS.fullmatch, names)):
        return "spans"
    if config.get("is_encoder_decoder"):
        return None
    if names & set(MODEL_FOR_MASKED_LM_MAPPING_NAMES.values()):
        return "masked"
    return "causal" if names & set(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.values()) else None


def hiding_tokens(objective: TextObjective, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Ids of the tokens that stand for hidden ones: the mask, or the sentinels of spans in their order.

    Args:
        objective: what is hidden for; nothing for a causal model.
        tokenizer: may lack them.

    Returns:
        Those that there are; none where they do not serve: a span needs two, and a pad token for the decoder to hear
        first.
    """
    if objective == "causal":
        return []
    if objective == "masked":
        return [] if tokenizer.mask_token_id is None else [tokenizer.mask_token_id]
    vocabulary = tokenizer.get_vocab()
    names = takewhile(vocabulary.__contains__, (f"<extra_id_{number}>" for number in range(len(vocabulary))))
    found = [vocabulary[name] for name in names]
    return found if len(found) > 1 and tokenizer.pad_token_id is not None else []


def special_affixes(tokenizer: PreTrainedTokenizerBase) -> tuple[list[int], list[int]]:
    """Ids of the special tokens that a tokenizer puts before and after a text."""
    found = tokenizer("a", return_special_tokens_mask=True)
    ids, special = found["input_ids"], found["special_tokens_mask"]
    if 0 not in special:
        return list(ids), []
    first, last = special.index(0), len(special) - special[::-1].index(0)
    return list(ids[:first]), list(ids[last:])


def longest(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase | None, limit: int) -> int:
    """The most tokens, at most `limit`, that a model has positions for and its tokenizer allows.

    Args:
        model: with or without a table of positions.
        tokenizer: may set a limit of its own; `None` to ask the model alone.
        limit: of tokens.

    Raises:
        InputError: there is no room for a text.
    """
    found = limit if tokenizer is None else min(limit, tokenizer.model_max_length)
    positions = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    if isinstance(positions, int) and positions > 0:
        tables = [module for module in model.modules() if isinstance(module, nn.Embedding)]
        counted = [m.padding_idx for m in tables if m.num_embeddings == positions and m.padding_idx is not None]
        found = min(found, positions - (counted[0] + 1 if counted else 0))  # RoBERTa counts from its pad id on
    if found < min(limit, _FEWEST):
        raise InputError(f"expected a model and a tokenizer that take texts of {_FEWEST} tokens, found at most {found}")
    return found


def mask_tokens(
    ids: Tensor, maskable: Tensor, mask_id: int, vocabulary: Tensor | None, generator: np.random.Generator
) -> tuple[Tensor, Tensor]:
    """Hide 15 % of the tokens of each text, at least one, for a masked language model.

    Args:
        ids: `(B, L)` int64; not changed.
        maskable: `(B, L)` bool, tokens that may be hidden (none special, no padding).
        mask_id: the mask token.
        vocabulary: ids that may stand for a hidden token: of the hidden, 80 % are masked, 10 % replaced by one of
            these and 10 % left, as in BERT; `None` masks them all.
        generator: draws.

    Returns:
        `(B, L)` int64 ids with tokens hidden, and `(B, L)` bool, the hidden ones.
    """
    draws = torch.from_numpy(generator.random(tuple(ids.shape))).masked_fill(~maskable.cpu(), 2.0)
    first = draws == draws.amin(1, keepdim=True)
    hidden = ((draws < MASKED_SHARE) | first) & maskable.cpu()
    shown = torch.where(hidden, torch.tensor(mask_id), ids.cpu())
    if vocabulary is not None:
        kind = torch.from_numpy(generator.random(tuple(ids.shape)))
        other = vocabulary[torch.from_numpy(generator.integers(0, len(vocabulary), tuple(ids.shape)))]
        shown = torch.where(hidden & (kind < 0.1), other, shown)
        shown = torch.where(hidden & (kind >= 0.9), ids.cpu(), shown)
    return shown.to(ids.device), hidden.to(ids.device)
