"""A Hugging Face model whose token embeddings are E = F P: coordinates F (tokens, K) times primitives P (K, E).

This file is saved with each factorised model, and needs torch and transformers alone. Load such a folder with
`AutoModelFor….from_pretrained(folder, trust_remote_code=True)`, train it and save it as any other model. Written by
hyperofa (OFA, arXiv 2311.08849; HYPEROFA, arXiv 2504.21018). For `XConfig` and `XForMaskedLM` of transformers, this
module has `FactorisedXConfig` and `FactorisedXForMaskedLM`, made when they are asked for.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any

import torch
import transformers
from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel, conversion_mapping
from transformers.models.auto import modeling_auto

_PREFIX = "Factorised"


class _Factors(nn.Module):
    """F and P, its own or those of another module: the owner is no submodule then, so that nothing is saved twice."""

    def __init__(self, rows: int, width: int, dim: int, owner: "_Factors | None", like: torch.Tensor) -> None:
        super().__init__()
        self._owner = [owner]
        if owner is None:
            self.coordinates = nn.Parameter(like.new_empty(rows, dim).normal_(0, 0.02))
            self.primitives = nn.Parameter(like.new_empty(dim, width).normal_(0, dim**-0.5))

    @property
    def factors(self) -> tuple[nn.Parameter, nn.Parameter]:
        """F `(tokens, K)` and P `(K, E)`."""
        owner = self._owner[0] or self
        return owner.coordinates, owner.primitives

    @property
    def weight(self) -> torch.Tensor:
        """F P `(tokens, E)`, for code that asks for the dense matrix; no parameter."""
        coordinates, primitives = self.factors
        return coordinates @ primitives


class FactorisedEmbedding(_Factors):
    """In the place of `nn.Embedding`: `(…,)` ids to `(…, E)` rows of F P."""

    def __init__(self, replaced: nn.Embedding, dim: int, owner: "FactorisedEmbedding | None" = None) -> None:
        super().__init__(replaced.num_embeddings, replaced.embedding_dim, dim, owner, replaced.weight)
        self.num_embeddings, self.embedding_dim = replaced.num_embeddings, replaced.embedding_dim
        self.padding_idx = replaced.padding_idx
        # Gemma 3, BART and their kin scale what they look up.
        self.embed_scale = float(getattr(replaced, "scalar_embed_scale", getattr(replaced, "embed_scale", 1.0)))

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """Look up coordinates, then project: no dense matrix is made."""
        coordinates, primitives = self.factors
        return nn.functional.embedding(input, coordinates, self.padding_idx) @ primitives * self.embed_scale


class FactorisedLinear(_Factors):
    """In the place of the head's `nn.Linear`: `(…, E)` hidden states to `(…, tokens)` logits, h Pᵀ Fᵀ + b."""

    def __init__(self, replaced: nn.Linear, dim: int, owner: "FactorisedEmbedding | None" = None) -> None:
        super().__init__(replaced.out_features, replaced.in_features, dim, owner, replaced.weight)
        self.in_features, self.out_features = replaced.in_features, replaced.out_features
        self.bias = replaced.bias  # the very parameter, which some models hold under a second name

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """Project, then compare with the coordinates: no dense matrix is made."""
        coordinates, primitives = self.factors
        return nn.functional.linear(input @ primitives.T, coordinates, self.bias)


def replace_embeddings(model: PreTrainedModel, input_dim: int, output_dim: int) -> None:
    """Put factors in the place of a model's token embeddings, in place; their values are new.

    Args:
        model: dense.
        input_dim: K of the input embeddings.
        output_dim: K of an untied head; 0 for one that shares the input's factors.

    Raises:
        ValueError: the embeddings are no `nn.Embedding`, or the head is no `nn.Linear`.
    """
    embedding, head = model.get_input_embeddings(), _head(model)
    if not isinstance(embedding, nn.Embedding) or not (head is None or isinstance(head, nn.Linear)):
        raise ValueError(f"expected nn.Embedding and nn.Linear, found {type(embedding)} and {type(head)}")
    new: dict[int, nn.Module] = {id(embedding): (owner := FactorisedEmbedding(embedding, input_dim))}
    tied = _tied_names(model, embedding)
    for name, module in model.named_modules():
        if isinstance(module, nn.Embedding) and module is not embedding and f"{name}.weight" in tied:
            new[id(module)] = FactorisedEmbedding(module, input_dim, owner)
    if head is not None:
        new[id(head)] = FactorisedLinear(head, output_dim or input_dim, None if output_dim else owner)
    for parent in list(model.modules()):
        for name, child in parent._modules.items():
            if id(child) in new:
                parent._modules[name] = new[id(child)]
    for module in model.modules():
        if isinstance(module, PreTrainedModel):
            _forget_ties(module)


def _head(model: PreTrainedModel) -> nn.Module | None:
    """The module that has the output embeddings, if there is one; some heads read the input embeddings themselves."""
    try:
        head = model.get_output_embeddings()
    except (NotImplementedError, AttributeError):
        return None
    weight, embedding = getattr(head, "weight", None), model.get_input_embeddings()
    return head if isinstance(weight, torch.Tensor) and len(weight) == embedding.num_embeddings else None


def _tied_names(model: PreTrainedModel, embedding: nn.Embedding) -> set[str]:
    """Names of all that is, or after loading will be, the input embeddings' tensor."""
    named = model.named_parameters(remove_duplicate=False)
    found = {name for name, parameter in named if parameter is embedding.weight}
    ties = [set(pair) for pair in (getattr(model, "all_tied_weights_keys", None) or {}).items()]
    for _ in ties:  # pairs may form chains
        found |= {name for pair in ties if pair & found for name in pair}
    return found


def _forget_ties(model: PreTrainedModel) -> None:
    """Drop ties of tensors that are no more; factors are shared by reference, not by name."""
    names = [name for name, _ in model.named_parameters(remove_duplicate=False)]
    names += [name for name, _ in model.named_buffers(remove_duplicate=False)]
    known = getattr(model, "all_tied_weights_keys", None) or {}
    model.all_tied_weights_keys = {one: two for one, two in known.items() if {one, two} <= set(names)}
    patterns = getattr(model, "_tied_weights_keys", None) or {}
    model._tied_weights_keys = {
        one: two for one, two in dict(patterns).items() if all(any(re.search(p, n) for n in names) for p in (one, two))
    }


class _Factorised:
    """Comes before a model class of transformers: builds it, then replaces its embeddings."""

    def __init__(self, config: PreTrainedConfig, *args: Any, **kwargs: Any) -> None:
        super().__init__(config, *args, **kwargs)  # type: ignore[call-arg]
        dims = config.factorised
        replace_embeddings(self, dims["input_dim"], dims["output_dim"] if _head(self) is not None else 0)  # type: ignore[arg-type]

    @classmethod
    def is_custom_code(cls) -> bool:
        """Whether what loading does not find is made by code from elsewhere: it is made by the base class.

        Of other code transformers skips modules that hold nothing themselves, and with Falcon-H1's all its multipliers.
        """
        return False


def auto_map(config_class: type[PreTrainedConfig]) -> dict[str, str]:
    """What `auto_map` of a factorised model's config says, given the dense config class."""
    module = __name__.rsplit(".", 1)[-1]
    found = {"AutoConfig": f"{module}.{_PREFIX}{config_class.__name__}"}
    for auto, names in _auto_classes():
        name = names.get(config_class.model_type)
        if name is not None:
            found[auto] = f"{module}.{_PREFIX}{name if isinstance(name, str) else name[0]}"
    return found


def _auto_classes() -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Every Auto class of transformers that loads models, with what it loads by model type; `AutoModel` last."""
    for auto in sorted((name for name in modeling_auto.__all__ if name.startswith("AutoModel")), reverse=True):
        yield auto, getattr(modeling_auto, auto)._model_mapping._model_mapping


def _auto_class(name: str) -> str:
    every = ((auto, one) for auto, names in _auto_classes() for one in names.values())
    return next((auto for auto, one in every if name == one or (isinstance(one, tuple) and name in one)), "AutoModel")


def _convert_alike(base: type, made: type) -> None:
    """Let transformers rename, split and merge the weights of a factorised class as it does those of the dense one.

    A model that was loaded is saved under the names that its family had before transformers 5 (`embed_out` for
    `lm_head`, a tensor for each expert). What turns them back is looked up by model type or by class name.
    """
    names = [(each.model_type if issubclass(each, PreTrainedConfig) else each.__name__) for each in (base, made)]
    conversions = conversion_mapping.get_checkpoint_conversion_mapping(names[0])
    if conversions is not None:
        conversion_mapping.register_checkpoint_conversion_mapping(names[1], conversions, overwrite=True)


def __getattr__(name: str) -> type:
    """`FactorisedX` for the model or config class `X` of transformers."""
    base = getattr(transformers, name.removeprefix(_PREFIX), None) if name.startswith(_PREFIX) else None
    if not isinstance(base, type) or not issubclass(base, (PreTrainedModel, PreTrainedConfig)):
        raise AttributeError(f"module {__name__} has no attribute {name}")
    if issubclass(base, PreTrainedConfig):
        made = type(name, (base,), {"model_type": f"factorised-{base.model_type}", "_auto_class": "AutoConfig"})
    else:
        config = getattr(base, "config_class", None)
        values: dict[str, Any] = {"_auto_class": _auto_class(base.__name__)}
        if config is not None:
            values["config_class"] = globals().get(_PREFIX + config.__name__) or __getattr__(_PREFIX + config.__name__)
        made = type(name, (_Factorised, base), values)
    _convert_alike(base, made)
    made.__module__ = __name__
    globals()[name] = made
    return made
