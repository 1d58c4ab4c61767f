"""The frozen PLM as a loss: a text with predicted rows must keep the meaning that it has with the source rows.

Token-level losses pull predictions to the mean row, which the PLM's layers cannot use. Here the PLM itself judges: it
reads a sentence through its own embeddings (expected) and through predicted rows (predicted), and the two must agree.
"""

from collections.abc import Sequence
from typing import Literal, NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, kl_div
from transformers import PreTrainedModel
from transformers.modeling_layers import GradientCheckpointingLayer

from hyperofa.errors import InputError
from hyperofa.models.loading import choose_attention, mean_pool
from hyperofa.runtime.devices import best_device, has_fast_bfloat16
from hyperofa.training.language_loss import Head
from hyperofa.training.language_views import LanguageViews
from hyperofa.training.losses import cosine_distance

Precision = Literal["auto", "float32", "bfloat16"]


class Sentences(NamedTuple):
    """A padded batch of token sequences over a small table of rows.

    Attributes:
        slots: `(B, L)` int64, each position's row in the table; 0 where padded.
        mask: `(B, L)` int64, 1 for a token.
    """

    slots: Tensor
    mask: Tensor


class FrozenPLM:
    """A PLM that only ever runs: no parameter of it is trained, and it belongs to no module's state.

    Args:
        model: the source model; moved to `bfloat16` in place when the precision says so.
        layers: hidden states that sentence vectors are read from, 0 the embeddings, -1 the last.
        precision: of the PLM's arithmetic; `auto` takes bfloat16 on a GPU and on CPUs with instructions for it.
        gradient_checkpointing: compute a layer's activations again in the backward pass instead of keeping them.
        head: whether it will be asked for what it predicts under other rows (`language_logits`).
    """

    def __init__(
        self,
        model: PreTrainedModel,
        layers: Sequence[int] = (-1,),
        precision: Precision = "auto",
        gradient_checkpointing: bool = False,
        head: bool = False,
    ) -> None:
        if not layers:
            raise InputError("expected at least one layer in --model.layers, found none; -1 is the last one")
        depth = _depth(model)
        if wrong := [layer for layer in layers if not -depth - 1 <= layer <= depth]:
            raise InputError(f"--model.layers: expected numbers from {-depth - 1} to {depth}, found {wrong}")
        choose_attention(model)
        self._head = Head(model.eval()) if head else None  # before its numbers lose precision
        half = precision == "bfloat16" or (precision == "auto" and has_fast_bfloat16(best_device()))
        self.model = model.eval().requires_grad_(False).to(torch.bfloat16 if half else torch.float32)
        self.layers = tuple(layers)
        if gradient_checkpointing:
            old = model.gradient_checkpointing_enable  # its former name
            getattr(model, "activation_checkpointing_enable", old)()
            for module in model.modules():
                if isinstance(module, GradientCheckpointingLayer):
                    module.training = True  # what it asks for; dropout, in its children, stays off
        self._scale = _input_scale(model)

    def to(self, device: torch.device) -> "FrozenPLM":
        """Move to a device."""
        self.model.to(device)
        return self

    def encode(self, rows: Tensor, sentences: Sentences) -> Tensor:
        """Sentence vectors of every chosen layer.

        Args:
            rows: `(U, E)` embedding rows of the tokens that occur; gradients flow through them.
            sentences: positions in that table.

        Returns:
            `(B, layers, E)` float32, each vector of length 1.
        """
        return self._read(sentences.mask, inputs_embeds=self._embed(rows, sentences))

    @torch.no_grad()
    def encode_ids(self, ids: Tensor, mask: Tensor) -> Tensor:
        """Sentence vectors under the PLM's own vocabulary.

        Args:
            ids: `(B, L)` int64 source token ids.
            mask: `(B, L)` int64, 1 for a token.

        Returns:
            `(B, layers, E)` float32, each vector of length 1.
        """
        return self._read(mask, input_ids=ids)

    def token_losses(self, rows: Tensor, sentences: Sentences, ids: Tensor) -> tuple[Tensor, Tensor]:
        """How far token by token the PLM's reading changes when rows are predicted under its own tokenizer.

        Args:
            rows: `(U, E)` embedding rows of the tokens that occur.
            sentences: `(B, L)` positions in that table.
            ids: `(B, L)` source token ids of the same positions.

        Returns:
            Means over the tokens: 1 - cosine of the hidden states, averaged over the chosen layers; and, for models
            with a head, KL(expected ‖ predicted) of the distributions over the next (causal) or same (masked) token in
            nats, else 0.
        """
        mask = sentences.mask
        embedded = self._embed(rows, sentences)
        inputs = {"attention_mask": mask, "output_hidden_states": True}
        run = self.model.get_encoder() if self.model.config.is_encoder_decoder else self.model
        with torch.no_grad():
            expected = run(input_ids=ids, **inputs)
        predicted = run(inputs_embeds=embedded, **inputs)
        chosen = mask.bool()
        distances = [
            cosine_distance(predicted.hidden_states[layer][chosen], expected.hidden_states[layer][chosen])
            for layer in self.layers
        ]
        divergence = embedded.new_zeros((), dtype=torch.float32)
        if "logits" in predicted:
            new, old = (output.logits[chosen].float().log_softmax(-1) for output in (predicted, expected))
            divergence = kl_div(new, old, reduction="batchmean", log_target=True)
        return torch.stack(distances).mean(), divergence

    def language_logits(self, rows: Tensor, output_rows: Tensor, views: LanguageViews) -> Tensor:
        """What the PLM says, where it is asked, if its vocabulary were the table of rows.

        Args:
            rows: `(U, E)` embedding rows of the tokens that occur; gradients flow through them.
            output_rows: `(U, E)` rows of its head, the same where it is tied; likewise.
            views: N positions are asked.

        Returns:
            `(N, U)` float32 logits.
        """
        if self._head is None:
            raise ValueError("expected a FrozenPLM with its head, found one without")
        embedded, heard = self._embed(rows, Sentences(views.slots, views.mask)), None
        if views.heard is not None and views.heard_mask is not None:
            heard = self._embed(rows, Sentences(views.heard, views.heard_mask)), views.heard_mask
        return self._head.logits(embedded, views.mask, views.positions, output_rows, views.bias, heard)

    def _embed(self, rows: Tensor, sentences: Sentences) -> Tensor:
        # Not rows[slots]: on CPUs its float32 gradient is summed in another order every time.
        return nn.functional.embedding(sentences.slots, rows.to(self.model.dtype)) * self._scale

    def _read(self, mask: Tensor, **inputs: Tensor) -> Tensor:
        body = self.model.get_encoder() if self.model.config.is_encoder_decoder else self.model.base_model
        hidden = body(**inputs, attention_mask=mask, output_hidden_states=True).hidden_states
        return torch.stack([mean_pool(hidden[layer], mask) for layer in self.layers], 1)


def sentence_loss(
    predicted: Tensor, expected: Tensor, owners: Tensor, temperature: float, cosine_weight: float
) -> Tensor:
    """Each view of a sentence must find that sentence in the batch, and lie close to it.

    Args:
        predicted: `(n, layers, E)` unit vectors, read through predicted rows.
        expected: `(B, layers, E)` unit vectors, the sentences read by the untouched PLM.
        owners: `(n,)` int64, the sentence that each view is of.
        temperature: of the InfoNCE part, > 0.
        cosine_weight: weight of 1 - cosine.

    Returns:
        Mean over views and layers.
    """
    scores = torch.einsum("nle,ble->nlb", predicted, expected)
    labels = owners[:, None].expand(scores.shape[:2])
    contrast = cross_entropy((scores / temperature).flatten(0, 1), labels.flatten())
    return contrast + cosine_weight * (1 - scores.gather(2, labels[..., None]).mean())


def _depth(model: PreTrainedModel) -> int:
    config = model.config.get_text_config()
    return int(config.num_hidden_layers)


def _input_scale(model: PreTrainedModel) -> float:
    """What the embedding module multiplies its rows with (√E in Gemma 3 and some BARTs): lost with `inputs_embeds`."""
    embedding = cast(nn.Embedding, model.get_input_embeddings())
    weight = embedding.weight.detach()
    row = int(weight.abs().sum(1).argmax())
    column = int(weight[row].abs().argmax())
    with torch.no_grad():
        embedded = embedding(torch.tensor([[row]], device=weight.device))
    return float(embedded[0, 0, column].detach() / weight[row, column])
