"""Load a pretrained language model, and encode sentences with it."""

from collections.abc import Sequence
from pathlib import Path

import torch
import transformers
from torch import Tensor
from torch.nn.functional import normalize
from tqdm import tqdm
from transformers import AutoConfig, AutoModel, PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

from hyperofa.errors import InputError
from hyperofa.models import modeling_factorised


def load_model(path: str | Path, flag: str = "--source_model") -> PreTrainedModel:
    """Load a PLM with the head it was saved with, in evaluation mode and its own precision.

    No code from the folder is run; of a factorised model, this package's own.

    Args:
        path: Hugging Face folder or hub id.
        flag: command-line flag named in errors.

    Raises:
        InputError: no model there.

    Example:
        >>> import hyperofa
        >>> hyperofa.load_model("model").config.model_type
        'bert'
    """
    try:
        names = PreTrainedConfig.get_config_dict(str(path))[0].get("architectures") or []
        homes = [(home, name) for name in names for home in (transformers, modeling_factorised) if hasattr(home, name)]
        if homes and homes[0][0] is modeling_factorised:
            model = getattr(*homes[0]).from_pretrained(str(path))
        else:
            config = AutoConfig.from_pretrained(str(path), trust_remote_code=False)
            architecture = getattr(*homes[0]) if homes else AutoModel
            model = architecture.from_pretrained(str(path), config=config)
    except Exception as error:  # transformers raises a dozen kinds here, and each means "no model"
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise InputError(f"{flag} {path}: expected a folder or hub id with a Hugging Face model; {reason}") from None
    return model.eval()


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
        sentences: N texts; what is longer than 128 tokens is cut.
        layer: index into the hidden states, 0 the embeddings, -1 the last layer.
        batch_size: sentences at a time.
        progress: name of the progress bar; `None` shows none.

    Returns:
        `(N, E)` float32 on the CPU, in the order of `sentences`; the protocol of the OFA and HYPEROFA papers, which
        read layer 8.
    """
    body = model.get_encoder() if model.config.is_encoder_decoder else model.base_model
    order = sorted(range(len(sentences)), key=lambda i: len(sentences[i]))
    vectors = torch.empty(len(sentences), 0)
    starts = range(0, len(order), batch_size)
    for start in tqdm(starts, desc=progress, unit=" batches", leave=False, disable=progress is None):
        chosen = order[start : start + batch_size]
        texts = [sentences[i] for i in chosen]
        batch = tokenizer(texts, padding=True, truncation=True, max_length=128, return_tensors="pt").to(model.device)
        output = body(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"], output_hidden_states=True)
        pooled = mean_pool(output.hidden_states[layer], batch["attention_mask"]).cpu()
        if not vectors.shape[1]:
            vectors = torch.empty(len(sentences), pooled.shape[1])
        vectors[chosen] = pooled
    return vectors
