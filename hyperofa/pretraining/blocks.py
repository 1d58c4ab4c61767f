"""Text as blocks of tokens for a language model, and the order in which they are read."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, Sampler
from transformers import PreTrainedTokenizerBase

from hyperofa.errors import InputError
from hyperofa.models.objectives import Objective, mask_tokens, special_affixes
from hyperofa.pretraining.corpus import TokenStream
from hyperofa.training.samplers import Draw

IGNORED = -100
_DRAWN = 2**14  # languages at a time


@dataclass(frozen=True)
class Frame:
    """What a block of L tokens is made of beside text.

    Attributes:
        before: special tokens at its start.
        after: special tokens at its end.
        room: tokens of text between them.
        pad: what fills a block that is too short.
        objective: a masked model is asked for the tokens of the text, a causal one for separators too, each the one
            byte of a newline, so that bits per byte of different tokenizers compare.
    """

    before: Sequence[int]
    after: Sequence[int]
    room: int
    pad: int
    objective: Objective

    @property
    def length(self) -> int:
        """Tokens of a block, L."""
        return len(self.before) + self.room + len(self.after)


def frame_of(tokenizer: PreTrainedTokenizerBase, length: int, objective: Objective) -> Frame:
    """How a model's blocks look.

    Args:
        tokenizer: of the model.
        length: L.
        objective: of the model.

    Raises:
        InputError: no room for two tokens in a block.
    """
    before, after = special_affixes(tokenizer)
    after = after if objective == "masked" else []
    room = length - len(before) - len(after)
    if room < 2:
        raise InputError(f"expected --training.block_size above {length - room + 1}, found {length}")
    return Frame(before, after, room, padding_id(tokenizer), objective)


def padding_id(tokenizer: PreTrainedTokenizerBase) -> int:
    """What fills a sequence that is too short."""
    return next((int(i) for i in (tokenizer.pad_token_id, tokenizer.eos_token_id) if i is not None), 0)


class BlockArrays(NamedTuple):
    """B blocks of L tokens.

    Attributes:
        ids: `(B, L)` int32; the tokenizer's special tokens frame each block.
        mask: `(B, L)` bool, false where padded.
        is_target: `(B, L)` bool, tokens that a model may be asked to predict.
        sizes: `(B, L)` int32, UTF-8 bytes of the text that each token stands for.
    """

    ids: np.ndarray
    mask: np.ndarray
    is_target: np.ndarray
    sizes: np.ndarray


class Blocks:
    """The text of some languages, cut into blocks, which are read from it when they are asked for.

    Blocks are numbered through: those of the first language, then those of the second; the last one of a language may
    be short.

    Args:
        streams: text of each language.
        frame: what a block looks like.
    """

    def __init__(self, streams: Sequence[TokenStream], frame: Frame) -> None:
        self.streams, self._frame = streams, frame
        self.counts = [-(-len(stream) // frame.room) for stream in streams]
        self._starts = np.cumsum([0, *self.counts])

    def __len__(self) -> int:
        return int(self._starts[-1])

    def __getitem__(self, items: np.ndarray) -> BlockArrays:
        """Some blocks.

        Args:
            items: `(B,)` their numbers.
        """
        frame = self._frame
        shape = len(items), frame.length
        found = BlockArrays(
            np.full(shape, frame.pad, np.int32), np.zeros(shape, bool), np.zeros(shape, bool), np.zeros(shape, np.int32)
        )
        first = len(frame.before)
        found.ids[:, :first], found.mask[:, :first] = frame.before, True
        languages = np.searchsorted(self._starts, items, side="right") - 1
        for row, (item, language) in enumerate(zip(items.tolist(), languages.tolist(), strict=True)):
            stream, start = self.streams[language], (item - int(self._starts[language])) * frame.room
            part = slice(start, min(start + frame.room, len(stream)))
            end = first + part.stop - part.start
            found.ids[row, first:end], found.sizes[row, first:end] = stream.ids[part], stream.sizes[part]
            found.is_target[row, first:end] = True if frame.objective == "causal" else ~stream.separators[part]
            found.ids[row, end : end + len(frame.after)] = frame.after
            found.mask[row, first : end + len(frame.after)] = True
        if frame.objective == "causal":
            found.is_target[:, 0] = False  # nothing comes before it
        return found


class TextBlock(NamedTuple):
    """A batch of blocks as a model is trained on them.

    Attributes:
        ids: `(B, L)` int64, with tokens hidden for a masked model.
        mask: `(B, L)` int64, 1 for a token.
        labels: `(B, L)` int64, the token itself where it is asked for, else `IGNORED`.
        sizes: `(B, L)` float32 bytes.
    """

    ids: Tensor
    mask: Tensor
    labels: Tensor
    sizes: Tensor


class BlockBatches(Dataset[TextBlock]):
    """Blocks as a dataset whose items are whole batches.

    Args:
        blocks: the text.
        mask_id: the mask token of a masked model, `None` for a causal one.
        vocabulary: see `objectives.mask_tokens`; `None` masks all hidden tokens.
    """

    def __init__(self, blocks: Blocks, mask_id: int | None, vocabulary: Tensor | None) -> None:
        self._blocks, self._mask_id, self._vocabulary = blocks, mask_id, vocabulary

    def __len__(self) -> int:
        return len(self._blocks)

    def __getitem__(self, draw: Draw) -> TextBlock:
        ids, mask, is_target, sizes = map(torch.from_numpy, self._blocks[draw.items])
        ids, shown = ids.long(), ids.long()
        if self._mask_id is not None:
            shown, is_target = mask_tokens(
                ids, is_target, self._mask_id, self._vocabulary, np.random.default_rng(draw.seed)
            )
        return TextBlock(shown, mask.long(), ids.masked_fill(~is_target, IGNORED), sizes.float())


class BlockOrder:
    """An endless order of blocks: languages at random by their weights, the blocks of each in shuffled passes.

    Any stretch of it can be asked for, and is the same however often a run was interrupted; it costs least to go on
    from the last one.

    Args:
        counts: blocks of each language.
        weights: how often each language is drawn; they add up to 1.
        seed: of the order.
    """

    def __init__(self, counts: Sequence[int], weights: Sequence[float], seed: int) -> None:
        self._counts, self._weights, self._seed = counts, weights, seed
        self._starts = np.cumsum([0, *counts])
        self._orders: dict[int, tuple[int, np.ndarray]] = {}
        self._drawn = (-1, np.empty(0, np.int64), np.empty(0, np.int64))
        self._before = [np.zeros(len(counts), np.int64)]  # blocks of each language before each stretch of draws

    def items(self, start: int, stop: int) -> np.ndarray:
        """Numbers of the blocks at some places of the order.

        Args:
            start: first place.
            stop: the one after the last.
        """
        return np.array([self._item(place) for place in range(start, stop)], np.int64)

    def _item(self, place: int) -> int:
        language, number = 0, place
        if len(self._counts) > 1:
            stretch, within = divmod(place, _DRAWN)
            _, languages, numbers = self._draw(stretch)
            language, number = int(languages[within]), int(numbers[within])
        turn, at = divmod(number, self._counts[language])
        if self._orders.get(language, (-1,))[0] != turn:
            # A seed of two numbers is that of three with a 0: the first language has the order it has alone.
            order = np.random.default_rng((self._seed, turn, language)).permutation(self._counts[language])
            self._orders[language] = turn, order
        return int(self._starts[language] + self._orders[language][1][at])

    def _draw(self, stretch: int) -> tuple[int, np.ndarray, np.ndarray]:
        """Of a stretch of places the languages, and how many blocks of the same language came before each."""
        if self._drawn[0] != stretch:
            while len(self._before) <= stretch:
                drawn = np.bincount(self._languages(len(self._before) - 1), minlength=len(self._counts))
                self._before.append(self._before[-1] + drawn)
            languages = self._languages(stretch)
            numbers = np.empty(len(languages), np.int64)
            for language, before in enumerate(self._before[stretch].tolist()):
                own = languages == language
                numbers[own] = before + np.arange(np.count_nonzero(own))
            self._drawn = stretch, languages, numbers
        return self._drawn

    def _languages(self, stretch: int) -> np.ndarray:
        draws = np.random.default_rng((self._seed, stretch, 0, 1))
        return draws.choice(len(self._counts), _DRAWN, p=self._weights)


def language_weights(streams: Sequence[TokenStream], exponent: float) -> list[float]:
    """How often each language is drawn: in proportion to its bytes to a power (Conneau et al. 2020, §3.1).

    Bytes, not tokens, so that all tokenizers get the same mixture.

    Args:
        streams: text of each language.
        exponent: the power, from 0 to 1.
    """
    return shares_of([int(stream.sizes.sum(dtype=np.int64)) for stream in streams], exponent)


def shares_of(sizes: Sequence[int], exponent: float) -> list[float]:
    """How often each language is drawn: in proportion to how much there is of it, to a power; they add up to 1.

    Args:
        sizes: of each language.
        exponent: the power, from 0 to 1.
    """
    powers = np.array(sizes, float) ** exponent
    return (powers / powers.sum()).tolist()


class SteppedBatches(Sampler[Draw]):
    """The batches of some steps of a run.

    Args:
        order: of the blocks.
        batch_size: blocks a batch and process.
        steps: first batch of the run to give, and the one after the last.
        seed: of what is random in a batch.
        rank: this process.
        world_size: number of processes.
    """

    def __init__(
        self, order: BlockOrder, batch_size: int, steps: tuple[int, int], seed: int, rank: int = 0, world_size: int = 1
    ) -> None:
        self._order, self._batch_size, self._steps, self._seed = order, batch_size, steps, seed
        self._rank, self._world_size = rank, world_size

    def __len__(self) -> int:
        return self._steps[1] - self._steps[0]

    def __iter__(self) -> Iterator[Draw]:
        for step in range(*self._steps):
            first = (step * self._world_size + self._rank) * self._batch_size
            items = self._order.items(first, first + self._batch_size)
            yield Draw(items, (self._seed, step, self._rank))
