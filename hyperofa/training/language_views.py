"""Target text as a language model is asked for it: what is shown, what must be said, and who competes for it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from tokenizers import Encoding
from tokenizers import Tokenizer as BackendTokenizer
from torch import Tensor

from hyperofa.models.objectives import MASKED_SHARE, TextObjective

IGNORED = -100
"""In the place of a token where nothing is asked."""
SURVEYED = 2048
"""Texts whose tokens are counted."""
_SPAN = 3.0  # tokens of a hidden span, on the mean (Raffel et al. 2020)
_UNSEEN = 0.5  # times that a token counts which is not among them


class LanguageViews(NamedTuple):
    """Target text over the table of rows of its batch, and N questions about it.

    Attributes:
        slots: `(n, L)` int64, the row of each position, as it is shown; 0 where padded.
        mask: `(n, L)` int64, 1 for a token.
        positions: `(N,)` int64, where something must be said, out of `n · L` places, or of the `n · D` that are heard.
        labels: `(N,)` int64, the row that must be said there.
        counts: questions of each kind of view; they come in the order of `VIEWS`.
        chances: `(U,)` float32, see `language_loss`.
        bias: `(U,)` float32, of the head's rows; zero for a head without.
        heard: `(n, D)` int64, the rows that a decoder hears of what it says, 0 where padded; `None` without a decoder.
        heard_mask: `(n, D)` int64, 1 for a token of these.
        languages: `(N,)` int64 of the texts, see `TextBatch`; `None` if they are not known.
    """

    slots: Tensor
    mask: Tensor
    positions: Tensor
    labels: Tensor
    counts: Sequence[int]
    chances: Tensor
    bias: Tensor
    heard: Tensor | None = None
    heard_mask: Tensor | None = None
    languages: Tensor | None = None


class Line(NamedTuple):
    """A piece of a line of text.

    Attributes:
        text: the piece, in any language.
        kind: what view it is, index into `VIEWS`.
        starts: whether the line begins with it.
        ends: whether the line ends with it.
        language: see `TextBatch.languages`.
    """

    text: str
    kind: int
    starts: bool
    ends: bool
    language: int = -1


@dataclass(frozen=True)
class Asked:
    """Token sequences of target text.

    Attributes:
        shown: what the model reads.
        said: what it must say at each position, else `IGNORED`.
        heard: what a decoder hears at each of these; `None` where all is said at the positions of what is shown.
    """

    shown: list[np.ndarray]
    said: list[np.ndarray]
    heard: list[np.ndarray] | None = None

    def labels(self) -> list[np.ndarray]:
        """What must be said, without the positions where nothing is asked."""
        return [ids[ids != IGNORED] for ids in self.said]


class LanguageTask:
    """What a language model is asked of target text.

    Args:
        objective: causal, masked or spans.
        tokenizer: Rust tokenizer of the target vocabulary, truncating.
        size: T, rows of the target vocabulary.
        hiding: tokens of it that stand for hidden ones: the mask of a masked model, the sentinels of spans.
        start: what a decoder hears first.
        bias: `(T,)` float32, of the head; `None` for a head without.
        negatives: other tokens that compete in a batch, drawn evenly.
        surveyed: texts like those of the batches, whose tokens are counted.
    """

    def __init__(
        self,
        objective: TextObjective,
        tokenizer: BackendTokenizer,
        size: int,
        hiding: Sequence[int],
        start: int | None,
        bias: np.ndarray | None,
        negatives: int,
        surveyed: Sequence[str],
    ) -> None:
        self._objective, self._tokenizer = objective, tokenizer
        self._hiding, self._start = list(hiding), [] if start is None else [start]
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
        choose = {"causal": self._next_tokens, "masked": self._masked, "spans": self._spans}[self._objective]
        lines = [
            line._replace(ends=line.ends and not each.overflowing)  # one that is cut does not end
            for line, each in zip(lines, encodings, strict=True)
        ]
        pairs = [choose(np.array(e.ids), _special(e), line, rng) for e, line in zip(encodings, lines, strict=True)]
        asked = Asked([shown for shown, _ in pairs], [said for _, said in pairs])
        return asked if self._objective != "spans" else self._with_decoder(asked)

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
        return np.where(hidden, self._hiding[0] if self._hiding else -1, ids), np.where(hidden, ids, IGNORED)

    def _spans(
        self, ids: np.ndarray, special: np.ndarray, line: Line, rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray]:
        """Spans give way to a sentinel each; a decoder says each sentinel and what it stands for, then one more."""
        text = np.flatnonzero(~special)
        if len(text) < 2:  # a text that is hidden as a whole says nothing
            return ids, np.full(1, IGNORED)
        hidden = max(1, round(MASKED_SHARE * len(text)))
        count = min(max(1, round(hidden / _SPAN)), len(text) - hidden, len(self._hiding) - 1)
        lengths = _parts(hidden, count, rng)
        # Before each span at least one token is shown; what is left over may stand after the last.
        gaps = _parts(len(text) - hidden + 1, count + 1, rng)[:-1]
        ends = np.cumsum(gaps + lengths)
        shown, said, done = [ids[: text[0]]], [], 0
        for number, (length, end) in enumerate(zip(lengths.tolist(), ends.tolist(), strict=True)):
            sentinel = np.array([self._hiding[number]])
            shown += [ids[text[done : end - length]], sentinel]
            said += [sentinel, ids[text[end - length : end]]]
            done = end
        shown += [ids[text[done:]], ids[text[-1] + 1 :]]
        return np.concatenate(shown).astype(np.int64), np.concatenate([*said, [self._hiding[count]]]).astype(np.int64)

    def _with_decoder(self, asked: Asked) -> Asked:
        """The decoder hears each token once it is said; sentinels, which are old rows, are not asked for."""
        heard = [np.concatenate([self._start, ids[:-1]]).astype(np.int64) for ids in asked.said]
        said = [np.where(np.isin(ids, self._hiding), IGNORED, ids) for ids in asked.said]
        return Asked(asked.shown, said, heard)

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
        absent[np.isin(tokens, self._hiding + self._start)] = 0  # they are in every batch
        return (1 - absent).astype(np.float32)


def _parts(total: int, count: int, rng: np.random.Generator) -> np.ndarray:
    """A number as a sum of so many, each at least 1, all such sums alike: `(count,)` int64."""
    cuts = np.sort(rng.choice(total - 1, count - 1, replace=False)) + 1
    return np.diff(np.concatenate([[0], cuts, [total]]))


def _special(encoding: Encoding) -> np.ndarray:
    return np.array(encoding.special_tokens_mask, bool)
