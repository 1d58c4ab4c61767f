"""Put a new vocabulary into any Hugging Face model: rows, head, bias, tying, padding, ids in the configs.

Where these are, `layout` finds out. Rebuilding the model from the new config tells how `from_pretrained` will see it,
and the model in memory is made to agree. Tying is read from storage, since config flags lie (T5 v1.1, mT5), and nothing
here re-ties.
"""

import copy
import hashlib
import math
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor
from transformers import PretrainedConfig, PreTrainedModel

from hyperofa.errors import InputError
from hyperofa.models.config_fields import (
    ID_FIELD,
    MODAL_FIELD,
    Translate,
    id_fields,
    nested_configs,
    no_target_token,
    rewrite_ids,
    size_fields,
)
from hyperofa.models.layout import Layout, find_layout, rebuild, same_storage, tensors_by_name, unsupported

_ROLES = [f"{role}_token_id" for role in ("mask", "unk", "sep", "cls", "bos", "pad", "eos")]
_TWINS = {"bos_token_id": "cls_token_id", "eos_token_id": "sep_token_id"}
_PADDING_GAP = 10.0  # nats below the smallest bias: a padding row takes under 1/20,000 of what a token would


@dataclass(frozen=True, eq=False)
class Vocabulary:
    """The rows of a model that belong to its vocabulary, as float32 copies (exact for bfloat16 and float16).

    Attributes:
        input_rows: `(S, E)`, input embeddings.
        output_rows: `(S, E)`, output embeddings; the very object `input_rows` when tied; `None` without a head.
        bias: `(S,)`, added to the logits (`lm_head.bias`, `decoder.bias`, `final_logits_bias`); `None` without one.
        tied: whether the head reads the storage of the input embeddings.
    """

    input_rows: NDArray[np.float32]
    output_rows: NDArray[np.float32] | None
    bias: NDArray[np.float32] | None
    tied: bool

    def take(self, source_ids: ArrayLike) -> "Vocabulary":
        """Copy tokens: row t of the result is row `source_ids[t]` of this one; `(T,)` ids, which may repeat."""
        ids, size = np.asarray(source_ids, dtype=np.int64), len(self.input_rows)
        if ids.ndim != 1 or not np.all((ids >= 0) & (ids < size)):
            raise InputError(f"source_ids: expected a list of ids from 0 to {size - 1}, found {ids}")
        rows = self.input_rows[ids]
        output = rows if self.tied else None if self.output_rows is None else self.output_rows[ids]
        return Vocabulary(rows, output, None if self.bias is None else self.bias[ids], self.tied)


def read_vocabulary(model: PreTrainedModel) -> Vocabulary:
    """The vocabulary's rows of a model, which is not changed: in its own memory where that is float32 on the CPU.

    Raises:
        InputError: the model is quantised, offloaded, sharded, an adapter, or keeps its vocabulary in an unknown way.
    """
    layout = find_layout(model)
    inputs = as_array(layout.inputs)
    output = inputs if layout.tied else None if layout.output is None else as_array(layout.output)
    return Vocabulary(inputs, output, None if layout.bias is None else as_array(layout.bias).reshape(-1), layout.tied)


def hash_rows(vocabulary: Vocabulary) -> str:
    """Content hash of a PLM's input rows and untied output rows, by which a bundle knows its source model again."""
    digest = hashlib.sha256(np.ascontiguousarray(vocabulary.input_rows).data)
    if vocabulary.output_rows is not None and not vocabulary.tied:
        digest.update(np.ascontiguousarray(vocabulary.output_rows).data)
    return digest.hexdigest()


def tokenizer_ids(tokenizer: Any) -> dict[str, int]:
    """Ids of the special tokens that a tokenizer has, under the names that configs use (`pad_token_id`)."""
    names = {*_ROLES, *(f"{name}_id" for name in tokenizer.special_tokens_map)}
    ids = {name: getattr(tokenizer, name, None) for name in sorted(names)}
    return {name: value for name, value in ids.items() if isinstance(value, int)}


def check_tokenizer(model: PreTrainedModel, source: Any, target: Any) -> None:
    """See, before any work, whether a target tokenizer has the tokens and the pad id that a model cannot do without.

    Args:
        model: of the source; not changed.
        source: its tokenizer.
        target: the tokenizer whose vocabulary it is to get.

    Raises:
        InputError: it lacks the token for images, say, has another pad id than positions are bound to, or one id for
            two tokens.
    """
    ids, token_of = target.get_vocab(), dict[int, str]()
    for token, token_id in ids.items():
        if (other := token_of.setdefault(token_id, token)) != token:
            raise InputError(
                f"--target_tokenizer: expected an id of its own for each token, found {token_id} for both {other!r} "
                f"and {token!r}"
            )
    moved = {source_id: ids[content] for content, source_id in source.get_vocab().items() if content in ids}
    translate, _ = _translation(model, target, moved, max(ids.values()) + 1)
    for part in nested_configs(copy.deepcopy(model.config)):
        rewrite_ids(part, translate)
    _position_shift(model, find_layout(model), translate)


def replace_vocabulary(
    model: PreTrainedModel,
    input_rows: Any,
    *,
    special_ids: Any,
    output_rows: Any = None,
    bias: Any = None,
    moved: Mapping[int, int] | None = None,
    pad_to_multiple_of: int | None = None,
    copy_rows: bool = True,
) -> None:
    """Give a model a vocabulary of T tokens, in place; all checks come first, so an error leaves it as it was.

    Rows take the model's dtype and device; tied stays tied and untied untied, also after saving and loading. Families
    that count positions from the pad id on (RoBERTa, XLM-R, Longformer) get their learned position rows moved with it,
    and `max_position_embeddings` changed by as much: texts keep their positions, and their greatest length.

    Padding rows are the mean of the given rows, with 10 nats less than the smallest given bias: next to no mass, yet
    finite in half precision. Without a bias, they get no more mass than as many average tokens (Hewitt 2021).

    Args:
        model: a PreTrainedModel with token embeddings, with or without a language-model head.
        input_rows: `(T, E)` array or tensor.
        special_ids: the target tokenizer, or target ids by config field (`{"pad_token_id": 0, "bos_token_id": None}`).
            A field that is not given follows the role whose id it had (T5's `decoder_start_token_id` its pad), then
            `moved`; at last, bos follows cls and eos sep. What is still unknown is unset, with a warning.
        output_rows: `(T, E)`; given exactly when the model has a head of its own, `None` when tied or without a head.
        bias: `(T,)`; given exactly when the model has a head bias.
        moved: target id by source id, of tokens that both have; for ids that no role explains (language codes).
        pad_to_multiple_of: round the number of rows up to a multiple of this.
        copy_rows: `False` lets the model keep the given arrays as its own memory, where their type and number fit.

    Raises:
        InputError: wrong shapes, missing or superfluous rows, ids outside `[0, T)`, or a layout that would break.
    """
    layout = find_layout(model)
    rows = _checked_rows(layout, input_rows, output_rows, bias)
    size, tokens = len(layout.inputs), len(rows[0])
    if pad_to_multiple_of is not None and pad_to_multiple_of < 1:
        raise InputError(f"pad_to_multiple_of: expected at least 1, found {pad_to_multiple_of}")
    extra = -tokens % (pad_to_multiple_of or 1)
    translate, lost = _translation(model, special_ids, moved or {}, tokens)
    shift = _position_shift(model, layout, translate)
    lengths = {table.num_embeddings for table in layout.tables.values()}

    def rewrite(config: PretrainedConfig) -> None:
        for name in size_fields(config, size):
            setattr(config, name, tokens + extra)
        if (length := getattr(config, "max_position_embeddings", None)) in lengths:
            config.max_position_embeddings = length + shift
        rewrite_ids(config, translate)

    config = copy.deepcopy(model.config)
    for part in nested_configs(config):
        rewrite(part)
    rebuilt = rebuild(model, config)
    live, after = tensors_by_name(model), tensors_by_name(rebuilt)
    values = _new_values(layout, live, after, rows, extra, shift, copy_rows)
    for name, known in tensors_by_name(layout.rebuilt).items():
        if (shape := values.get(name, known).shape) != after[name].shape:
            raise unsupported(model, f"{name} {tuple(shape)} would be loaded as {tuple(after[name].shape)}")
    for name, value in values.items():
        live[name].data = value  # in the Parameter that is there, hence for every module that shares it
        live[name].grad = None
    _copy_attributes(model, layout.rebuilt, rebuilt)
    parts = {id(part): part for module in model.modules() for part in nested_configs(getattr(module, "config", None))}
    for part in parts.values():
        rewrite(part)
    rewrite_ids(getattr(model, "generation_config", None), translate)
    if lost:
        fields = ", ".join(f"{name} (was {old})" for name, old in sorted(lost.items()))
        warnings.warn(f"unset, as no target token is known: {fields}; give them in special_ids", stacklevel=2)


def _checked_rows(layout: Layout, input_rows: Any, output_rows: Any, bias: Any) -> tuple[Any, ...]:
    """Input rows, output rows and bias as the model holds them (dtype, device, `None`), once they are right."""
    own = None if layout.tied else layout.output
    for label, given, wanted in (("output_rows", output_rows, own), ("bias", bias, layout.bias)):
        if (given is None) != (wanted is None):
            head = "a tied" if layout.tied else "no" if layout.output is None else "an untied"
            found = f"{head} head, {'no' if layout.bias is None else 'a'} bias"
            raise InputError(f"{label}: expected {'none' if wanted is None else 'some'} for this model ({found})")
    inputs = _checked("input_rows", input_rows, layout.inputs)
    output = None if own is None else _checked("output_rows", output_rows, own, len(inputs))
    if output is not None and layout.retied and torch.equal(inputs, output):
        raise InputError("output_rows: expected other rows than input_rows, as loading would tie equal ones")
    vector = None if layout.bias is None else _checked("bias", bias, layout.bias.reshape(-1), len(inputs))
    return inputs, output, vector


def _checked(label: str, rows: Any, like: Tensor, length: int | None = None) -> Tensor:
    given = torch.as_tensor(rows).detach()
    if given.shape[1:] != like.shape[1:] or given.ndim != like.ndim or len(given) != (length or max(1, len(given))):
        expected = ", ".join(map(str, (length or "T", *like.shape[1:])))
        raise InputError(f"{label}: expected shape ({expected}), found {tuple(given.shape)}")
    given = given.to(like.device, like.dtype)
    if not all(math.isfinite(bound) for bound in given.aminmax()):
        row = int((~given.isfinite()).nonzero()[0, 0])
        raise InputError(f"{label}: expected finite numbers in {like.dtype}, found others in row {row}")
    return given


def _translation(model: Any, special_ids: Any, moved: Mapping[int, int], tokens: int) -> tuple[Translate, dict]:
    """From an id field's name and source value to its target value; and the fields this had to unset, with values."""
    ids = dict(special_ids) if isinstance(special_ids, Mapping) else tokenizer_ids(special_ids)
    ids = {name: int(value) if isinstance(value, np.integer) else value for name, value in ids.items()}
    for name, value in ids.items():
        if not ID_FIELD.fullmatch(name):
            raise InputError(f"special_ids: expected config fields such as pad_token_id, found {name!r}")
        for one in value if isinstance(value, list) else [value]:
            if one is not None and not (type(one) is int and 0 <= one < tokens):
                raise InputError(f"special_ids: expected {name} from 0 to {tokens - 1}, found {one!r}")
    # The model's own config wins over nested ones.
    configs = [getattr(model, "generation_config", None), *reversed(list(nested_configs(model.config)))]
    old = {name: value for config in configs for name, _, value in id_fields(config) if isinstance(value, int)}
    moves = {int(source): int(target) for source, target in moved.items()}
    # Where roles share an id (GPT-2's bos and eos), the last of them explains it.
    moves |= {old[role]: ids[role] for role in _ROLES if role in old and type(ids.get(role)) is int}
    lost: dict[str, Any] = {}

    def follow(value: Any) -> Any:
        parts = [follow(part) for part in value] if isinstance(value, list) else moves.get(value)
        return None if isinstance(parts, list) and None in parts else parts

    def translate(name: str, value: Any) -> Any:
        if name in ids:
            if type(ids[name]) is not int or not isinstance(value, list):
                return ids[name]
            return list(dict.fromkeys([ids[name], *(moves[end] for end in value if end in moves)]))  # of text, of turns
        target = None if value is None else follow(value)
        if target is None and value is not None and (target := ids.get(_TWINS.get(name, ""))) is None:
            if MODAL_FIELD.fullmatch(name):
                raise no_target_token(name, value)
            lost[name] = value
        return target

    return translate, lost


def _position_shift(model: PreTrainedModel, layout: Layout, translate: Translate) -> int:
    """By how many rows learned position tables move, since they count from the pad id on."""
    table = next(iter(layout.tables.values()), None)
    if (old := layout.fixed_pad if table is None else table.padding_idx) is None:
        return 0
    if (pad := translate("pad_token_id", old)) is None or layout.fixed_pad not in (None, pad):
        wanted = "(any)" if layout.fixed_pad is None else layout.fixed_pad
        raise InputError(
            f"expected pad_token_id {wanted}, which {type(model).__name__} counts positions "
            f"from, found {pad}; give the target tokenizer's pad token that id"
        )
    if table is not None and (rows := table.num_embeddings) < pad - old:
        warnings.warn(
            f"positions count from the pad id on: {pad} lets their table grow from {rows} to "
            f"{rows + pad - old} rows; a target tokenizer with a low pad id avoids this",
            stacklevel=3,
        )
    return pad - old


def _new_values(
    layout: Layout,
    live: dict[str, Tensor],
    after: dict[str, Tensor],
    rows: tuple[Any, ...],
    extra: int,
    shift: int,
    copy_rows: bool,
) -> dict[str, Tensor]:
    """The new tensors by name: the vocabulary's, those that shared a storage, and they alone, sharing it again."""
    fresh: dict[int, Tensor] = {}
    for old in {live[name].data_ptr(): live[name] for name in layout.names}.values():
        own = rows[1] is not None and same_storage(old, layout.output)
        new = rows[1] if own else rows[2] if old.numel() == len(layout.inputs) else rows[0]
        if extra or copy_rows:
            filler = new.float().mean(0).to(new.dtype) if new.ndim == 2 else new.min() - _PADDING_GAP
            new = torch.cat([new, filler.expand(extra, *new.shape[1:])])
        elif any(new.data_ptr() == other.data_ptr() for other in fresh.values()):
            new = new.clone()  # of two names of one storage, saving keeps one; the other would load as zeros
        fresh[old.data_ptr()] = new.reshape(*old.shape[:-1], -1) if new.ndim == 1 else new
    values = {name: fresh[live[name].data_ptr()] for name in layout.names}
    for name, table in layout.tables.items():
        kept = live[f"{name}.weight"].detach()[table.padding_idx :]
        values[f"{name}.weight"] = torch.cat([kept.new_zeros(int(table.padding_idx or 0) + shift, kept.shape[1]), kept])
    for name, known in tensors_by_name(layout.rebuilt).items():
        if known.shape != after[name].shape and name in live and not known.is_floating_point():
            old, step = live[name], int(live[name].any())  # position ids count up, token types are zero
            if torch.equal(old.flatten().cpu(), torch.arange(known.numel()) * step):
                values[name] = (torch.arange(after[name].numel()) * step).to(old).reshape(after[name].shape)
    return values


def _copy_attributes(model: PreTrainedModel, before: PreTrainedModel, after: PreTrainedModel) -> None:
    """Set the integers that two rebuilt models hold differently: `padding_idx`, `vocab_size`, `out_features`."""
    old, new = (dict(rebuilt.named_modules(remove_duplicate=False)) for rebuilt in (before, after))
    for name, module in model.named_modules(remove_duplicate=False):
        for key, value in vars(new[name]).items() if name in new else ():
            if type(value) in (int, type(None)) and vars(old[name]).get(key) != value:
                setattr(module, key, value)


def as_array(tensor: Tensor) -> NDArray[np.float32]:
    """A tensor in float32: its own memory where it is that on the CPU already."""
    return tensor.detach().float().cpu().numpy()
