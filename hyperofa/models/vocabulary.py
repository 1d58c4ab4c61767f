"""Put a new vocabulary into any Hugging Face model: rows, head, bias, tying, padding, ids in the configs.

Nothing here knows a family by name. What depends on the vocabulary is measured: the model is rebuilt from its config on
the meta device, once as it is and once with one more token and the next pad id; the tensors and attributes that differ
are those to change. Rebuilding it from the new config tells how `from_pretrained` will see the model, and the model in
memory is made to agree. Tying is read from storage, since config flags lie (T5 v1.1, mT5), and nothing here re-ties.
"""

import copy
import hashlib
import math
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor, nn
from transformers import PretrainedConfig, PreTrainedModel

from hyperofa.errors import InputError
from hyperofa.models.config_fields import ID_FIELD, Translate, id_fields, nested_configs, rewrite_ids, size_fields

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
    layout = _inspect(model)
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
    layout = _inspect(model)
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
    rebuilt = _rebuild(model, config)
    live, after = _tensors(model), _tensors(rebuilt)
    values = _new_values(layout, live, after, rows, extra, shift, copy_rows)
    for name, known in _tensors(layout.rebuilt).items():
        if (shape := values.get(name, known).shape) != after[name].shape:
            raise _unsupported(model, f"{name} {tuple(shape)} would be loaded as {tuple(after[name].shape)}")
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


@dataclass(frozen=True, eq=False)
class _Layout:
    """Where a model keeps its vocabulary, and what follows its pad id."""

    rebuilt: PreTrainedModel  # from its present config, on the meta device
    names: tuple[str, ...]  # every tensor with one entry per token
    inputs: Tensor
    output: Tensor | None  # None: no head, or one that reads the input embeddings itself
    bias: Tensor | None
    tied: bool
    retied: bool  # its config ties the two on loading, unless they differ
    tables: dict[str, nn.Embedding]  # rebuilt, learned position tables that count from the pad id on
    fixed_pad: int | None  # the pad id that positions or masks are bound to (MPNet, M2M100, XGLM)


def _inspect(model: PreTrainedModel) -> _Layout:
    """Find all that depends on the vocabulary, by rebuilding the model with one more token and the next pad id."""
    _refuse_partial(model)
    embedding, head = _embeddings(model)
    size, config = embedding.num_embeddings, copy.deepcopy(model.config)
    for part in nested_configs(config):
        names = size_fields(part, size)
        if names and (others := set(size_fields(part)) - set(names)):
            raise _unsupported(model, f"its config has a second vocabulary in {', '.join(sorted(others))}")
        for name in names:
            setattr(part, name, size + 1)
        rewrite_ids(part, lambda name, old: old + 1 if name == "pad_token_id" and old is not None else old)
    rebuilt, probe = _rebuild(model, model.config), _rebuild(model, config)
    live, before, after = _tensors(model), _tensors(rebuilt), _tensors(probe)
    held = {name: live[name] for name in before if name in live and before[name].shape != after[name].shape}
    if not any(_shared(tensor, embedding.weight) for tensor in held.values()):
        raise _unsupported(model, f"it embeds {size} tokens, but its config has no such vocabulary size")
    output = next((tensor for tensor in held.values() if head is not None and _shared(tensor, head.weight)), None)
    for name, tensor in held.items():
        known = _shared(tensor, output) or tensor.numel() == size or torch.equal(tensor, embedding.weight)
        if not known or not tensor.is_floating_point() or tensor.shape != before[name].shape:
            raise _unsupported(model, f"{name} {tuple(tensor.shape)} is neither its input nor its output embeddings")
    vectors = {name: tensor for name, tensor in held.items() if tensor.numel() == size}
    bias = getattr(head, "bias", None) if output is not None else None
    # BERT-likes name the bias twice, in the head and one level up; untied, the one above is never read.
    above = {name.rsplit(".", 2)[0] for name, tensor in held.items() if bias is not None and _shared(tensor, output)}
    bias = next(iter(vectors.values()), None) if bias is None else bias
    for name, vector in vectors.items():
        if not _shared(vector, bias) and name.rpartition(".")[0] not in above:
            raise _unsupported(model, f"expected one head bias, found another in {name}")
    tied = _shared(embedding.weight, output) if output is not None else bool(vectors)
    retied = output is not None and len({id(module.weight) for module in _embeddings(rebuilt)}) == 1
    if tied and output is not None and not retied:
        raise _unsupported(model, "its head is tied, but not by config.tie_word_embeddings, so saving would lose it")
    pads = _pad_bound(rebuilt, probe, held)
    return _Layout(rebuilt, tuple(held), embedding.weight, output, bias, tied, retied, *pads)


def _unsupported(model: Any, why: str) -> InputError:
    return InputError(f"{type(model).__name__} is not supported: {why}")


def _refuse_partial(model: PreTrainedModel) -> None:
    if not isinstance(model, PreTrainedModel) or getattr(model, "_hf_peft_config_loaded", False):
        raise _unsupported(model, "expected a transformers PreTrainedModel without adapters; merge them first")
    if getattr(model, "hf_quantizer", None) is not None or getattr(model.config, "quantization_config", None):
        raise _unsupported(model, "it is quantised; load it in full or half precision")
    for name, parameter in model.named_parameters():
        if parameter.is_meta or hasattr(parameter, "ds_id") or type(parameter.data) is not Tensor:
            raise _unsupported(model, f"{name} is offloaded or sharded; load the model whole, on one device")


def _embeddings(model: PreTrainedModel) -> tuple[nn.Embedding, Any]:
    """The modules of the input and, if there is one, of the output embeddings."""
    try:
        embedding, head = model.get_input_embeddings(), model.get_output_embeddings()
    except (NotImplementedError, AttributeError) as error:
        raise _unsupported(model, "it has no token embeddings") from error
    if not isinstance(embedding, nn.Embedding):
        raise _unsupported(model, f"expected token embeddings in an nn.Embedding, found {type(embedding).__name__}")
    return embedding, head if isinstance(getattr(head, "weight", None), Tensor) else None


def _pad_bound(rebuilt: nn.Module, probe: nn.Module, held: Mapping[str, Tensor]) -> tuple[dict[str, Any], int | None]:
    """Modules whose `padding_idx` shapes positions: learned tables, which can move, and the pad id that cannot."""
    tables, fixed = {}, None
    probed = dict(probe.named_modules(remove_duplicate=False))
    for name, module in rebuilt.named_modules(remove_duplicate=False):
        pad, owned = vars(module).get("padding_idx"), (*module.parameters(False), *module.buffers(False))
        if pad is None or not any(tensor.is_floating_point() for tensor in owned):
            continue
        follows = vars(probed[name])["padding_idx"] != pad
        if f"{name}.weight" in held:
            fixed = fixed if follows else pad  # MPNet wires its pad id, and its positions to it
        elif follows and type(module) is nn.Embedding:
            tables[name] = module
        elif follows:
            fixed = pad  # computed positions, which no config can shift (M2M100, XGLM)
    return tables, fixed


def _checked_rows(layout: _Layout, input_rows: Any, output_rows: Any, bias: Any) -> tuple[Any, ...]:
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
            lost[name] = value
        return target

    return translate, lost


def _position_shift(model: PreTrainedModel, layout: _Layout, translate: Translate) -> int:
    """By how many rows learned position tables move, since they count from the pad id on."""
    table = next(iter(layout.tables.values()), None)
    if (old := layout.fixed_pad if table is None else table.padding_idx) is None:
        return 0
    if (pad := translate("pad_token_id", old)) is None or layout.fixed_pad not in (None, pad):
        wanted = "(any)" if layout.fixed_pad is None else layout.fixed_pad
        raise InputError(
            f"special_ids: expected pad_token_id {wanted}, which {type(model).__name__} counts positions "
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
    layout: _Layout,
    live: dict[str, Tensor],
    after: dict[str, Tensor],
    rows: tuple[Any, ...],
    extra: int,
    shift: int,
    copy_rows: bool,
) -> dict[str, Tensor]:
    """The new tensors by name: the vocabulary's, those that shared a storage sharing it again, and positions."""
    fresh: dict[int, Tensor] = {}
    for old in (live[name] for name in layout.names):
        own = rows[1] is not None and _shared(old, layout.output)
        new = rows[1] if own else rows[2] if old.numel() == len(layout.inputs) else rows[0]
        if extra or copy_rows:
            filler = new.float().mean(0).to(new.dtype) if new.ndim == 2 else new.min() - _PADDING_GAP
            new = torch.cat([new, filler.expand(extra, *new.shape[1:])])
        fresh.setdefault(old.data_ptr(), new.reshape(*old.shape[:-1], -1) if new.ndim == 1 else new)
    values = {name: fresh[live[name].data_ptr()] for name in layout.names}
    for name, table in layout.tables.items():
        kept = live[f"{name}.weight"].detach()[table.padding_idx :]
        values[f"{name}.weight"] = torch.cat([kept.new_zeros(int(table.padding_idx or 0) + shift, kept.shape[1]), kept])
    for name, known in _tensors(layout.rebuilt).items():
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


def _rebuild(model: PreTrainedModel, config: PretrainedConfig) -> PreTrainedModel:
    """The model that `from_pretrained` would make from `config`, on the meta device: shapes without storage."""
    try:
        with torch.device("meta"):
            return type(model)(copy.deepcopy(config))
    except Exception as error:  # a family may object in any way; all mean that the folder would not load
        raise _unsupported(model, f"its config does not rebuild it ({type(error).__name__}: {error})") from error


def _tensors(model: nn.Module) -> dict[str, Tensor]:
    """Parameters and buffers under all their names."""
    return dict(chain(model.named_parameters(remove_duplicate=False), model.named_buffers(remove_duplicate=False)))


def _shared(one: Tensor, other: Tensor | None) -> bool:
    """Whether two tensors are the same piece of storage."""
    return other is not None and one.data_ptr() == other.data_ptr() and one.shape == other.shape


def as_array(tensor: Tensor) -> NDArray[np.float32]:
    """A tensor in float32: its own memory where it is that on the CPU already."""
    return tensor.detach().float().cpu().numpy()
