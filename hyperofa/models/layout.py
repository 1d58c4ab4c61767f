"""Where a model keeps its vocabulary: which tensors have an entry for each token, and what follows the pad id.

Nothing here knows a family by name. What depends on the vocabulary is measured: the model is rebuilt from its config on
the meta device, once as it is and once with one more token and the next pad id; the tensors and attributes that differ
are those to change.
"""

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PretrainedConfig, PreTrainedModel

from hyperofa.errors import InputError
from hyperofa.models.config_fields import nested_configs, rewrite_ids, size_fields


@dataclass(frozen=True, eq=False)
class Layout:
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


def find_layout(model: PreTrainedModel) -> Layout:
    """Find all that depends on the vocabulary, by rebuilding the model with one more token and the next pad id."""
    _refuse_partial(model)
    embedding, head = _embeddings(model)
    size, config = embedding.num_embeddings, copy.deepcopy(model.config)
    others: set[str] = set()
    for part in nested_configs(config):
        if names := size_fields(part, size):
            others |= set(size_fields(part)) - set(names)
        for name in names:
            setattr(part, name, size + 1)
        rewrite_ids(part, lambda name, old: old + 1 if name == "pad_token_id" and old is not None else old)
    rebuilt, probe = rebuild(model, model.config), rebuild(model, config)
    _refuse_second_vocabulary(model, rebuilt, others)
    live, before, after = tensors_by_name(model), tensors_by_name(rebuilt), tensors_by_name(probe)
    held = {name: live[name] for name in before if name in live and before[name].shape != after[name].shape}
    if not any(same_storage(tensor, embedding.weight) for tensor in held.values()):
        raise unsupported(model, f"it embeds {size} tokens, but its config has no such vocabulary size")
    output = next((tensor for tensor in held.values() if head is not None and same_storage(tensor, head.weight)), None)
    for name, tensor in held.items():
        known = same_storage(tensor, output) or tensor.numel() == size or torch.equal(tensor, embedding.weight)
        if not known or not tensor.is_floating_point() or tensor.shape != before[name].shape:
            raise unsupported(model, f"{name} {tuple(tensor.shape)} is neither its input nor its output embeddings")
    vectors = {name: tensor for name, tensor in held.items() if tensor.numel() == size}
    bias = getattr(head, "bias", None) if output is not None else None
    # BERT-likes name the bias twice, in the head and one level up; untied, the one above is never read.
    above = {
        name.rsplit(".", 2)[0] for name, tensor in held.items() if bias is not None and same_storage(tensor, output)
    }
    bias = next(iter(vectors.values()), None) if bias is None else bias
    for name, vector in vectors.items():
        if not same_storage(vector, bias) and name.rpartition(".")[0] not in above:
            raise unsupported(model, f"expected one head bias, found another in {name}")
    tied = same_storage(embedding.weight, output) if output is not None else bool(vectors)
    retied = output is not None and len({id(module.weight) for module in _embeddings(rebuilt)}) == 1
    if tied and output is not None and not retied:
        raise unsupported(model, "its head is tied, but not by config.tie_word_embeddings, so saving would lose it")
    pads = _pad_bound(rebuilt, probe, held)
    return Layout(rebuilt, tuple(held), embedding.weight, output, bias, tied, retied, *pads)


def unsupported(model: Any, why: str) -> InputError:
    """The error for a model that keeps its vocabulary in a way that is not known here.

    Args:
        model: the one that is not known.
        why: end of the sentence.
    """
    return InputError(f"{type(model).__name__} is not supported: {why}")


def _refuse_partial(model: PreTrainedModel) -> None:
    if not isinstance(model, PreTrainedModel) or getattr(model, "_hf_peft_config_loaded", False):
        raise unsupported(model, "expected a transformers PreTrainedModel without adapters; merge them first")
    if getattr(model, "hf_quantizer", None) is not None or getattr(model.config, "quantization_config", None):
        raise unsupported(model, "it is quantised; load it in full or half precision")
    for name, parameter in model.named_parameters():
        if parameter.is_meta or hasattr(parameter, "ds_id") or type(parameter.data) is not Tensor:
            raise unsupported(model, f"{name} is offloaded or sharded; load the model whole, on one device")


def _refuse_second_vocabulary(model: PreTrainedModel, rebuilt: PreTrainedModel, fields: set[str]) -> None:
    """Raise where other vocabulary sizes of the config are those of a tensor; Gemma 4's are of none at width 0."""
    if not fields:
        return
    config = copy.deepcopy(model.config)
    for part in nested_configs(config):
        for field in fields & vars(part).keys():
            setattr(part, field, vars(part)[field] + 1)
    other = tensors_by_name(rebuild(model, config))
    if any(tensor.shape != other[name].shape for name, tensor in tensors_by_name(rebuilt).items()):
        raise unsupported(model, f"its config has a second vocabulary in {', '.join(sorted(fields))}")


def _embeddings(model: PreTrainedModel) -> tuple[nn.Embedding, Any]:
    """The modules of the input and, if there is one, of the output embeddings."""
    try:
        embedding, head = model.get_input_embeddings(), model.get_output_embeddings()
    except (NotImplementedError, AttributeError) as error:
        raise unsupported(model, "it has no token embeddings") from error
    if not isinstance(embedding, nn.Embedding):
        raise unsupported(model, f"expected token embeddings in an nn.Embedding, found {type(embedding).__name__}")
    return embedding, head if isinstance(getattr(head, "weight", None), Tensor) else None


def _pad_bound(rebuilt: nn.Module, probe: nn.Module, held: Mapping[str, Tensor]) -> tuple[dict[str, Any], int | None]:
    """Modules whose `padding_idx` shapes positions: learned tables, which can move, and the pad id that cannot."""
    tables, fixed = {}, None
    probed = dict(probe.named_modules(remove_duplicate=False))
    for name, module in rebuilt.named_modules(remove_duplicate=False):
        pad, owned = vars(module).get("padding_idx"), (*module.parameters(False), *module.buffers(False))
        if pad is None or not any(tensor.is_floating_point() and tensor.ndim == 2 for tensor in owned):
            continue
        follows = vars(probed[name])["padding_idx"] != pad
        if f"{name}.weight" in held:
            fixed = fixed if follows else pad  # MPNet wires its pad id, and its positions to it
        elif follows and type(module) is nn.Embedding:
            tables[name] = module
        elif follows:
            fixed = pad  # computed positions, which no config can shift (M2M100, XGLM)
    return tables, fixed


def rebuild(model: PreTrainedModel, config: PretrainedConfig) -> PreTrainedModel:
    """The model that `from_pretrained` would make from `config`, on the meta device: shapes without storage.

    Args:
        model: whose class to use.
        config: to make it from.
    """
    config = copy.deepcopy(config)
    for part in nested_configs(config):
        if isinstance(part.dtype, str):  # as saving leaves it; Apertus builds with it
            part.dtype = getattr(torch, part.dtype)
    try:
        with torch.device("meta"):
            return type(model)(config)
    except Exception as error:  # a family may object in any way; all mean that the folder would not load
        raise unsupported(model, f"its config does not rebuild it ({type(error).__name__}: {error})") from error


def tensors_by_name(model: nn.Module) -> dict[str, Tensor]:
    """Parameters and buffers under all their names."""
    return dict(chain(model.named_parameters(remove_duplicate=False), model.named_buffers(remove_duplicate=False)))


def same_storage(one: Tensor, other: Tensor | None) -> bool:
    """Whether two tensors are the same piece of storage.

    Args:
        one: a tensor.
        other: another, or none.
    """
    return other is not None and one.data_ptr() == other.data_ptr() and one.shape == other.shape
