"""Load a pretrained language model, and encode sentences with it."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors import safe_open
from torch import Tensor
from torch.nn.functional import normalize
from tqdm import tqdm
from transformers import AutoConfig, AutoModel, PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

from hyperofa.errors import InputError
from hyperofa.models import modeling_factorised
from hyperofa.models.objectives import longest
from hyperofa.nets.sizes import bounded
from hyperofa.runtime.processes import bar_hidden
from hyperofa.runtime.trust import remote_code_trusted
from hyperofa.tokens.canonical import A_MODEL, expected_at

_SHOWN = 3
_TENSORS = 2**17  # twice as many as the largest models have
_UNSTORED = (
    1_000,
    8,
)  # weights that a model may have beside this many for each of its file: tied, shared, split on loading
_LAYERS = re.compile(r"\w*(layer|block|expert|stage)s?|depth")  # settings that count what a model has many of
_MOST_LAYERS = 100_000
_LONGEST = 128  # tokens of a sentence, as in the papers


def load_model(
    path: str | Path, flag: str = "--source_model", trust_remote_code: bool | None = None
) -> PreTrainedModel:
    """Load a PLM with the head it was saved with, in evaluation mode and its own precision.

    Args:
        path: Hugging Face folder or hub id.
        flag: command-line flag named in errors.
        trust_remote_code: run code from the folder, if it has any; of a factorised model, this package's own is run in
            any case. `None` for what the command line says: no, unless told otherwise.

    Raises:
        InputError: no model there, or one that lacks some of its weights.

    Example:
        >>> import hyperofa
        >>> hyperofa.load_model("model").config.model_type
        'bert'
    """
    trusted = remote_code_trusted() if trust_remote_code is None else trust_remote_code
    with expected_at(path, flag, A_MODEL):
        most = _most_weights(Path(path))
        with bounded(f"its config.json asks for more than {most:,} weights", most):
            model, report = _open(str(path), trusted)
    # A body that is loaded without its head may have a pooler that was never trained, and that nobody reads here.
    if missing := sorted(name for name in report["missing_keys"] if "pooler" not in name):
        shown = ", ".join(missing[:_SHOWN]) + (", …" if len(missing) > _SHOWN else "")
        raise InputError(
            f"{flag} {path}: expected all weights of {type(model).__name__}, found none for {shown}; they would be "
            "random numbers"
        )
    return model.eval()


def _open(path: str, trusted: bool) -> tuple[PreTrainedModel, dict[str, Any]]:
    """A model, and the report of its loading."""
    config = PreTrainedConfig.get_config_dict(path)[0]
    _check_layers(config)
    names, own_code = config.get("architectures") or [], config.get("auto_map") or {}
    homes = [(home, name) for name in names for home in (transformers, modeling_factorised) if hasattr(home, name)]
    options: dict[str, Any] = {"trust_remote_code": trusted, "output_loading_info": True}
    architecture: Any = getattr(*homes[0]) if homes else AutoModel
    if homes and homes[0][0] is modeling_factorised:
        return architecture.from_pretrained(path, **options)
    if trusted and own_code:
        of_head = [auto for auto, name in own_code.items() if str(name).rpartition(".")[2] in names]
        return getattr(transformers, of_head[0] if of_head else "AutoModel").from_pretrained(path, **options)
    known = AutoConfig.from_pretrained(path, trust_remote_code=trusted)
    return architecture.from_pretrained(path, config=known, **options)


def _most_weights(folder: Path) -> int:
    """How many weights the model of a folder can have, by those that are stored there; none are read."""
    stored = 0
    for path in folder.glob("*.safetensors"):
        with safe_open(path, "np") as file:
            stored += len(file.keys())
    free, times = _UNSTORED
    return min(_TENSORS, free + times * stored) if stored else _TENSORS


def _check_layers(config: dict[str, Any]) -> None:
    """Refuse numbers of layers of which a config alone makes lists that fill the memory."""
    for name, value in config.items():
        if isinstance(value, dict):
            _check_layers(value)
        elif isinstance(value, int) and value > _MOST_LAYERS and _LAYERS.fullmatch(name):
            raise InputError(f"its config.json asks for {name} {value:,}, of which there are {_MOST_LAYERS:,} at most")


def choose_attention(model: PreTrainedModel) -> None:
    """Have a model on a CPU attend in plain steps: three times faster than fused in bfloat16 with a mask, measured."""
    if model.device.type == "cpu" and not torch.cuda.is_available():
        model.set_attn_implementation("eager")


def hidden_state(model: PreTrainedModel, ids: Tensor, mask: Tensor, layer: int, flag: str = "--layer") -> Tensor:
    """One layer's hidden states.

    Args:
        model: an encoder or decoder; of an encoder-decoder the encoder is used.
        ids: `(B, L)` int64.
        mask: `(B, L)` int64, 1 for a token.
        layer: index into the hidden states, 0 the embeddings, -1 the last layer.
        flag: command-line flag named in errors.

    Returns:
        `(B, L, E)`.

    Raises:
        InputError: no such layer.
    """
    body = model.get_encoder() if model.config.is_encoder_decoder else model.base_model
    states = body(input_ids=ids, attention_mask=mask, output_hidden_states=True).hidden_states
    if not -len(states) <= layer < len(states):
        raise InputError(f"{flag}: expected a number from {-len(states)} to {len(states) - 1}, found {layer}")
    return states[layer]


def mean_pool(hidden: Tensor, mask: Tensor) -> Tensor:
    """Unit sentence vectors: the mean over the tokens.

    Args:
        hidden: `(B, L, E)` hidden states.
        mask: `(B, L)` 1 for a token, 0 for padding.

    Returns:
        `(B, E)` float32, length 1.
    """
    hidden, mask = hidden.float(), mask.unsqueeze(-1).float()
    return normalize((hidden * mask).sum(1) / mask.sum(1), dim=-1)


@torch.inference_mode()
def encode(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    sentences: Sequence[str],
    layer: int = -1,
    batch_size: int = 64,
    progress: str | None = None,
) -> Tensor:
    """Sentence vectors: mean of one layer's hidden states over all tokens, special ones too, at length 1.

    Args:
        model: an encoder or decoder; of an encoder-decoder the encoder is used.
        tokenizer: its tokenizer.
        sentences: N texts; what is longer than 128 tokens, or than the model has positions for, is cut.
        layer: index into the hidden states, 0 the embeddings, -1 the last layer.
        batch_size: sentences at a time.
        progress: name of the progress bar; `None` shows none.

    Returns:
        `(N, E)` float32 on the CPU, in the order of `sentences`; the protocol of the OFA and HYPEROFA papers, which
        read layer 8.
    """
    length = longest(model, tokenizer, _LONGEST)
    order = sorted(range(len(sentences)), key=lambda i: len(sentences[i]))
    vectors = torch.empty(len(sentences), 0)
    starts = range(0, len(order), batch_size)
    for start in tqdm(starts, desc=progress, unit=" batches", leave=False, disable=bar_hidden(progress is None)):
        chosen = order[start : start + batch_size]
        texts = [sentences[i] for i in chosen]
        batch = tokenizer(texts, padding=True, truncation=True, max_length=length, return_tensors="pt").to(model.device)
        hidden = hidden_state(model, batch["input_ids"], batch["attention_mask"], layer)
        pooled = mean_pool(hidden, batch["attention_mask"]).cpu()
        if not vectors.shape[1]:
            vectors = torch.empty(len(sentences), pooled.shape[1])
        vectors[chosen] = pooled
    return vectors
