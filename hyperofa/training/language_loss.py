"""The frozen PLM's own predictions as a loss: a text with predicted rows must be as likely as these rows can make it.

Text that is translated word by word keeps the source's order, so what the PLM expects next (or behind a mask) is a
teacher of new rows as inputs and, through the model's own head, as outputs. All target rows compete at every position;
those of a batch and a few others stand for them, each for as many as its chance of being there says.
"""

from typing import Any, cast

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, embedding, linear
from transformers import PreTrainedModel

from hyperofa.errors import InputError

_CHECKED = 7  # tokens of the text that a head is checked with
_DECODER = "decoder_inputs_embeds", "decoder_attention_mask"
_TOLERANCE = 0.05  # of the largest logit; half precision errs by less than half of it


class HeadError(InputError):
    """A head that cannot be given other rows."""


class Head:
    """A model's language-model head, with other output rows in place of its own.

    All else of the model stays as it is: transforms before the rows, scales and soft caps after them.

    Args:
        model: with output embeddings in a module of their own, tied or not; that module's `forward` is replaced.

    Raises:
        HeadError: it has none, or does more with its rows than compare hidden states with them.
    """

    def __init__(self, model: PreTrainedModel) -> None:
        self._model = model
        self._rows: tuple[Tensor, Tensor | None, Tensor] | None = None
        head = model.get_output_embeddings()
        if head is None:
            raise _unsupported(model, "no output embeddings in a module of their own")
        self._own, self.has_bias = head.forward, getattr(head, "bias", None) is not None
        head.forward = self._forward
        self._check(head)

    def logits(
        self,
        embedded: Tensor,
        mask: Tensor,
        positions: Tensor,
        rows: Tensor,
        bias: Tensor | None,
        heard: tuple[Tensor, Tensor] | None = None,
    ) -> Tensor:
        """Scores of output rows at the positions that are asked.

        Args:
            embedded: `(n, L, E)` input embeddings.
            mask: `(n, L)` int64, 1 for a token.
            positions: `(N,)` int64, out of `n · L` places, or of the decoder's `n · D`.
            rows: `(U, E)` output rows.
            bias: `(U,)`, theirs; `None` for a head without.
            heard: `(n, D, E)` embeddings that a decoder reads, and their `(n, D)` mask; `None` without a decoder.

        Returns:
            `(N, U)` float32.
        """
        dtype = embedded.dtype
        self._rows = rows.to(dtype), None if bias is None or not self.has_bias else bias.to(dtype), positions
        decoder = {} if heard is None else dict(zip(_DECODER, heard, strict=True))
        try:
            logits: Tensor = self._model(inputs_embeds=embedded, attention_mask=mask, **decoder).logits.float()
        finally:
            self._rows = None
        return logits

    def _forward(self, hidden: Tensor) -> Tensor:
        if self._rows is None:
            scores: Tensor = self._own(hidden)
            return scores
        rows, bias, positions = self._rows
        # What is not asked is not computed; embedding(i, x) is x[i], whose gradient on CPUs is always the same.
        return linear(embedding(positions, hidden.flatten(0, 1)), rows, bias)

    @torch.no_grad()
    def _check(self, head: torch.nn.Module) -> None:
        """Given some of the model's own rows, the head must say of them what the model says."""
        inputs: Any = self._model.get_input_embeddings()
        pad = getattr(
            self._model.config.get_text_config(), "pad_token_id", None
        )  # which moves positions in some families
        tokens = [token for token in range(len(inputs.weight)) if token != pad][:_CHECKED]
        chosen = torch.tensor(tokens, device=inputs.weight.device)
        ids, mask = chosen[None], torch.ones_like(chosen)[None]
        try:
            decodes = self._model.config.is_encoder_decoder
            decoder = {"decoder_input_ids": ids} if decodes else {}
            expected = self._model(input_ids=ids, attention_mask=mask, **decoder).logits[0, :, chosen].float()
            weight, bias = cast(Tensor, head.weight), cast(Tensor | None, getattr(head, "bias", None))
            bias = None if bias is None else bias[chosen]
            embedded = inputs(ids)
            asked = torch.arange(len(tokens), device=ids.device)
            heard = (embedded, mask) if decodes else None
            found = self.logits(embedded, mask, asked, weight[chosen], bias, heard)
        except (RuntimeError, IndexError, TypeError, ValueError, AttributeError) as error:
            raise _unsupported(self._model, f"a head that fails with other rows ({error})") from None
        if found.shape != expected.shape or (found - expected).abs().max() > _TOLERANCE * expected.abs().max():
            raise _unsupported(self._model, "a head that does more than compare hidden states with its rows")


def _unsupported(model: PreTrainedModel, why: str) -> HeadError:
    return HeadError(
        f"--data.judges: expected sentence for a {type(model).__name__}, found language: it has {why}, so text "
        "cannot train new rows as outputs"
    )


def language_loss(logits: Tensor, labels: Tensor, chances: Tensor) -> Tensor:
    """Cross-entropy over all rows, estimated from those that a batch happens to have.

    The partition function is estimated as Horvitz and Thompson (1952) do: each candidate counts 1 / chance, but for
    the right answer, which is there for certain and counts once. Without bias, whatever the chances are.

    Args:
        logits: `(N, U)` float32.
        labels: `(N,)` int64, the right rows.
        chances: `(U,)` float32, of each row to be a candidate in such a batch, in (0, 1]; 0 for a row that is none.

    Returns:
        `(N,)` nats.
    """
    others = logits - chances.log()  # + inf where the chance is 0 …
    others = others.masked_fill(chances == 0, -torch.inf)  # … which is no candidate
    corrected = others.scatter(1, labels[:, None], logits.gather(1, labels[:, None]))
    return cross_entropy(corrected, labels, reduction="none")
