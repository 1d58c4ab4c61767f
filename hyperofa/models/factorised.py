"""Factorised embeddings as the papers use them: F and P as a model's parameters, E = F P never made.

With K columns instead of E, a vocabulary of T tokens takes T·K + K·E parameters instead of T·E: with T = 401,145
(Glot500-m), E = 768 and K = 400, 161 million instead of 308 million. All rows are F P then, those of copied tokens too,
where a dense export has the source model's own. Where a head is tied it reads the same F and P.
"""

from typing import cast

import numpy as np
import torch
import transformers
from torch import Tensor, nn
from transformers import PreTrainedModel

from hyperofa.errors import InputError
from hyperofa.models import modeling_factorised
from hyperofa.models.modeling_factorised import FactorisedEmbedding, FactorisedLinear, auto_map, replace_embeddings
from hyperofa.models.vocabulary import Vocabulary, as_array, read_vocabulary


def is_factorised(model: nn.Module) -> bool:
    """Whether a model's token embeddings are factors."""
    return any(isinstance(module, FactorisedEmbedding) or _kind(module) == "embedding" for module in model.modules())


def _kind(module: nn.Module) -> str:
    """Whether a module is a factorised one, of this package or of the file saved with a model."""
    return {"FactorisedEmbedding": "embedding", "FactorisedLinear": "head"}.get(type(module).__name__, "")


def factorise(
    model: PreTrainedModel,
    coordinates: np.ndarray,
    input_primitives: np.ndarray,
    output_primitives: np.ndarray | None = None,
) -> None:
    """Turn a dense model into one with factorised embeddings, in place.

    Args:
        model: with R rows; of a class of transformers.
        coordinates: `(T, K_in)`, T ≤ R, or `(T, K_in + K_out)` where the head is untied; further rows get their mean.
        input_primitives: `(K_in, E)`.
        output_primitives: `(K_out, E)`; given exactly where the head is untied.

    Raises:
        InputError: the model keeps its vocabulary in another way, or the widths do not fit.
    """
    dense, config = type(model), type(model.config)
    vocabulary = read_vocabulary(model)
    size, width = vocabulary.input_rows.shape
    untied = vocabulary.output_rows is not None and not vocabulary.tied
    input_dim, output_dim = len(input_primitives), 0 if output_primitives is None else len(output_primitives)
    if getattr(transformers, dense.__name__, None) is not dense:
        raise InputError(f"--factorised: expected a model class of transformers, found {dense.__name__}")
    if getattr(dense, "config_class", config) is not config:  # InternLM 3 is a Llama; transformers finds no such pair
        raise InputError(f"--factorised: {dense.__name__} is not supported: it is made from a {config.__name__}")
    if untied != (output_primitives is not None):
        raise InputError(f"output_primitives: expected {'some' if untied else 'none'} for this model")
    if coordinates.shape[1] != input_dim + output_dim or input_primitives.shape[1] != width:
        raise InputError(
            f"coordinates: expected width {input_dim + output_dim} and primitives of width {width}, found "
            f"{coordinates.shape[1]} and {input_primitives.shape[1]}"
        )
    if len(coordinates) > size:
        raise InputError(f"coordinates: expected at most {size} rows, found {len(coordinates)}")
    extra = np.broadcast_to(coordinates.mean(0), (size - len(coordinates), coordinates.shape[1]))
    padded = torch.from_numpy(np.concatenate([coordinates, extra]).astype(np.float32))
    old = torch.from_numpy(vocabulary.input_rows)
    try:
        replace_embeddings(model, input_dim, output_dim)
    except ValueError as error:
        raise InputError(f"--factorised: {dense.__name__} is not supported: {error}") from None
    for name, parameter in model.named_parameters():
        if parameter.shape == old.shape and torch.equal(parameter.detach().float().cpu(), old):
            raise InputError(f"--factorised: {dense.__name__} is not supported: {name} is a vocabulary of its own")
    parts = padded.split([input_dim, output_dim], dim=1)
    primitives = (input_primitives, output_primitives)
    for module, part, given in zip(factor_owners(model), parts, primitives, strict=False):
        with torch.no_grad():
            module.coordinates.copy_(part)
            module.primitives.copy_(torch.from_numpy(np.array(given, np.float32)))
    model.__class__ = getattr(modeling_factorised, f"Factorised{dense.__name__}")
    model.config.__class__ = getattr(modeling_factorised, f"Factorised{config.__name__}")
    model.config.factorised = {"input_dim": input_dim, "output_dim": output_dim}
    model.config.auto_map = auto_map(config)


def factor_owners(model: nn.Module) -> list[FactorisedEmbedding | FactorisedLinear]:
    """The modules that hold factors of their own: the input embeddings', then those of an untied head."""
    found = [module for module in model.modules() if _kind(module) and hasattr(module, "coordinates")]
    return cast(list[FactorisedEmbedding | FactorisedLinear], sorted(found, key=lambda module: _kind(module) == "head"))


def read_rows(model: PreTrainedModel) -> Vocabulary:
    """A model's vocabulary row by row: dense rows, or the coordinates of a factorised one."""
    owners = factor_owners(model)
    if not owners:
        return read_vocabulary(model)
    head = next((module for module in model.modules() if _kind(module) == "head"), None)
    bias = cast(Tensor | None, getattr(head, "bias", None))
    inputs, *outputs = (as_array(module.coordinates) for module in owners)
    output = outputs[0] if outputs else None if head is None else inputs
    return Vocabulary(inputs, output, None if bias is None else as_array(bias), head is not None and not outputs)


def parameter_count(model: nn.Module) -> int:
    """Parameters, each counted once: what the papers report."""
    return sum(parameter.numel() for parameter in model.parameters())
