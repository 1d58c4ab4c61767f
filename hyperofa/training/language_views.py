"""Target text as a language model is asked for it: what is shown, what must be said, and who competes for it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from tokenizers import Encoding
from tokenizers import Tokenizer as BackendTokenizer
from torch import Tensor

from hyperofa.models.objectives import MASKED_SHARE, Objective

IGNORED = -100
"""In the place of a token where nothing is asked."""
SURVEYED = 2048
"""Texts whose tokens are counted."""
_UNSEEN = 0.5  # times that a token counts which is not among them


class LanguageViews(NamedTuple):
    """Target text over the table of rows of its batch, and N questions about it.

    Attributes:
        slots: `(n, L)` int64, the row of each position, as it is shown; 0 where padded.
        mask: `(n, L)` int64, 1 for a token.
        positions: `(N,)` int64, where something must be said, out of `n · L` places.
        labels: `(N,)` int64, the row that must be said there.
        counts: questions of each kind of view; they come in the order of `VIEWS`.
        chances: `(U,)` float32, see `language_loss`.
        bias: `(U,)` float32, of the head's rows; zero for a head without.
    """

    slots: Tensor
    mask: Tensor
    positions: Tensor
    labels: Tensor
    counts: Sequence[int]
    chances: Tensor
    bias: Tensor


class Line(NamedTuple):
    """A piece of a line of text.

    Attributes:
        text: the piece, in any language.
        kind: what view it is, index into `VIEWS`.
        starts: whether the line begins with it.
        ends: whether the line ends with it.
    """

    text: str
    kind: int
    starts: bool
    ends: bool


@dataclass(frozen=True)
class Asked:
    """Token sequences of target text.

    Attributes:
        shown: what the model reads.
        said: what it must say at each position, else `IGNORED`.
    """

    shown: list[np.ndarray]
    said: list[np.ndarray]

    def labels(self) -> list[np.ndarray]:
        """What must be said, without the positions where nothing is asked."""
        return [ids[ids != IGNORED] for ids in self.said]


class LanguageTask:
    """What a language model is asked of target text.

    Args:
        objective: causal or masked.
        tokenizer: Rust tokenizer of the target vocabulary, truncating.
        size: T, rows of the target vocabulary.
        mask_id: the mask token in it, which a masked model needs.
        bias: `(T,)` float32, of the head; `None` for a head without.
        negatives: other tokens that compete in a batch, drawn evenly.
        surveyed: texts like those of the batches, whose tokens are counted.
    """

    def __init__(
        self,
        objective: Objective,
        tokenizer: BackendTokenizer,
        size: int,
        mask_id: int | None,
        bias: np.ndarray | None,
        negatives: int,
        surveyed: Sequence[str],
    ) -> None:
        self._objective, self._tokenizer, self._mask_id = objective, tokenizer, mask_id
        self.bias = np.zeros(size, np.float32) if bias is None else bias
        self._negatives = min(negatives, size)
        counts = np.full(size, _UNSEEN)
        for encoding in tokenizer.encode_batch_fast(list(surveyed)):
            np.add.at(counts, encoding.ids, 1)
        self._frequency = counts / counts.sum()

    def ask(self, lines: Sequence[Line], rng: np.random.Generator) -> Asked:
        """Tokenise lines and choose what is asked of them.

        Args:
            lines: pieces of text.
            rng: draws the tokens that are masked.
        """
        encodings = self._tokenizer.encode_batch_fast([line.text for line in lines])
        choose = self._next_tokens if self._objective == "causal" else self._masked
        lines = [
            line._replace(ends=line.ends and not each.overflowing)  # one that is cut does not end
            for line, each in zip(lines, encodings, strict=True)
        ]
        pairs = [choose(np.array(e.ids), _special(e), line, rng) for e, line in zip(encodings, lines, strict=True)]
        return Asked([shown for shown, _ in pairs], [said for _, said in pairs])

    def _next_tokens(
        self, ids: np.ndarray, special: np.ndarray, line: Line, rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray]:
        """Each position says the next token; what begins a piece is asked only where it begins the line too."""
        text = np.flatnonzero(~special)
        said = np.full(len(ids), IGNORED)
        if len(text):
            first, last = int(text[0]), int(text[-1])
            said[first:last] = ids[first + 1 : last + 1]
            if line.starts and first > 0:
                said[first - 1] = ids[first]
            if line.ends and last + 1 < len(ids):
                said[last] = ids[last + 1]
        return ids, said

    def _masked(
        self, ids: np.ndarray, special: np.ndarray, line: Line, rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray]:
        """Positions of masked tokens, at least one, say them."""
        draws = np.where(special, 2.0, rng.random(len(ids)))
        hidden = ((draws < MASKED_SHARE) | (draws == draws.min())) & ~special
        return np.where(hidden, -1 if self._mask_id is None else self._mask_id, ids), np.where(hidden, ids, IGNORED)

    def rivals(self, rng: np.random.Generator) -> np.ndarray:
        """Other tokens that compete in a batch, `(n,)` target ids."""
        return np.sort(rng.choice(len(self._frequency), self._negatives, replace=False))

    def chances(self, tokens: np.ndarray, drawn: int) -> np.ndarray:
        """Chances of tokens to be among those of a batch.

        Args:
            tokens: `(n,)` target ids.
            drawn: tokens of text in the batch.

        Returns:
            `(n,)` float32.
        """
        absent = np.exp(drawn * np.log1p(-self._frequency[tokens])) * (1 - self._negatives / len(self._frequency))
        return (1 - absent).astype(np.float32)


def _special(encoding: Encoding) -> np.ndarray:
    return np.array(encoding.special_tokens_mask, bool)
