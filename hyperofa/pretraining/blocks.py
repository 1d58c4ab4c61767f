"""Text as blocks of tokens for a language model, with the bytes that each token stands for."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import torch
from tokenizers import Encoding
from torch import Tensor
from torch.utils.data import Dataset, Sampler
from transformers import PreTrainedTokenizerBase

from hyperofa.errors import InputError
from hyperofa.models.objectives import Objective, mask_tokens, special_affixes
from hyperofa.tokens.canonical import bare_backend
from hyperofa.training.samplers import Draw

IGNORED = -100
_LINES = 10_000


@dataclass(frozen=True)
class Blocks:
    """N texts of L tokens. The lines of a file follow each other, apart by a separator that stands for the newline.

    Attributes:
        ids: `(N, L)` int32; the tokenizer's special tokens frame each block.
        mask: `(N, L)` bool, false where padded.
        is_target: `(N, L)` bool, tokens that a model may be asked to predict.
        sizes: `(N, L)` int32, UTF-8 bytes of the text that each token stands for.
    """

    ids: np.ndarray
    mask: np.ndarray
    is_target: np.ndarray
    sizes: np.ndarray

    def __len__(self) -> int:
        return len(self.ids)


class TextBlock(NamedTuple):
    """A batch of blocks as a model is trained on them.

    Attributes:
        ids: `(B, L)` int64, with tokens hidden for a masked model.
        mask: `(B, L)` int64, 1 for a token.
        labels: `(B, L)` int64, the token itself where it is is_target for, else `IGNORED`.
        sizes: `(B, L)` float32 bytes.
    """

    ids: Tensor
    mask: Tensor
    labels: Tensor
    sizes: Tensor


def chunk(
    lines: Sequence[str], tokenizer: PreTrainedTokenizerBase, length: int, objective: Objective, flag: str = "--text"
) -> Blocks:
    """Cut text into blocks.

    Args:
        lines: the text; all of its tokens are held in memory (about 20 bytes each).
        tokenizer: of the model.
        length: L; texts shorter than one block give one short block.
        objective: a masked model is asked for the tokens of the text, a causal one for separators too, each the one
            byte of a newline, so that bits per byte of different tokenizers compare.
        flag: command-line flag named in errors.

    Raises:
        InputError: no room for a token in a block, or no tokens in the text.
    """
    before, after = special_affixes(tokenizer)
    after = after if objective == "masked" else []
    room = length - len(before) - len(after)
    if room < 2:
        raise InputError(f"expected --training.block_size above {length - room + 1}, found {length}")
    ids, sizes, separators = _stream(lines, tokenizer)
    if not len(ids):
        raise InputError(f"{flag}: expected text that the tokenizer of --model makes tokens of, found none")
    count = -(-len(ids) // room)
    pad = next((i for i in (tokenizer.pad_token_id, tokenizer.eos_token_id) if i is not None), 0)
    inner = slice(len(before), len(before) + room)
    found = Blocks(
        np.full((count, length), pad, np.int32),
        np.zeros((count, length), bool),
        np.zeros((count, length), bool),
        np.zeros((count, length), np.int32),
    )
    found.ids[:, : len(before)], found.mask[:, : len(before)] = before, True
    for number in range(count):
        part = slice(number * room, (number + 1) * room)
        size = len(ids[part])
        here = slice(inner.start, inner.start + size)
        found.ids[number, here], found.sizes[number, here] = ids[part], sizes[part]
        found.is_target[number, here] = True if objective == "causal" else ~separators[part]
        found.ids[number, here.stop : here.stop + len(after)] = after
        found.mask[number, : here.stop + len(after)] = True
    if objective == "causal":
        found.is_target[:, 0] = False  # nothing comes before it
    return found


def _stream(lines: Sequence[str], tokenizer: PreTrainedTokenizerBase) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """All token ids, their bytes, and which of them are separators."""
    backend = bare_backend(tokenizer)
    roles = (tokenizer.eos_token_id, tokenizer.sep_token_id, tokenizer.bos_token_id)
    separator = next((token for token in roles if token is not None), None)
    ids, sizes, separators = [], [], []
    for start in range(0, len(lines), _LINES):
        chunk = list(lines[start : start + _LINES])
        for line, encoding in zip(chunk, backend.encode_batch(chunk, add_special_tokens=False), strict=True):
            own = _sizes(line, encoding)
            end = [] if separator is None else [separator]
            ids.append(np.array([*encoding.ids, *end], np.int32))
            sizes.append(np.array([*own, *([1 + len(line.encode()) - sum(own)] * len(end))], np.int32))
            separators.append(np.arange(len(ids[-1])) >= len(own))
    return np.concatenate(ids), np.concatenate(sizes), np.concatenate(separators)


def _sizes(line: str, encoding: Encoding) -> list[int]:
    """Bytes from the end of the token before to the end of each: they add up, also where tokens share a character."""
    ends = np.maximum.accumulate([0, *(end for _, end in encoding.offsets)])
    if not line.isascii():
        ends = np.cumsum([0, *(len(character.encode()) for character in line)])[ends]
    return [int(end - start) for start, end in pairwise(ends)]


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
        chosen = [torch.from_numpy(values[draw.items]) for values in vars(self._blocks).values()]
        ids, mask, is_target, sizes = chosen
        ids, shown = ids.long(), ids.long()
        if self._mask_id is not None:
            shown, is_target = mask_tokens(
                ids, is_target, self._mask_id, self._vocabulary, np.random.default_rng(draw.seed)
            )
        return TextBlock(shown, mask.long(), ids.masked_fill(~is_target, IGNORED), sizes.float())


class SteppedBatches(Sampler[Draw]):
    """The batches of some steps of a run: shuffled passes over the blocks, the same however often it was interrupted.

    Args:
        count: blocks.
        batch_size: blocks a batch and process.
        steps: first batch of the run to give, and the one after the last.
        seed: of the order.
        rank: this process.
        world_size: number of processes.
    """

    def __init__(
        self, count: int, batch_size: int, steps: tuple[int, int], seed: int, rank: int = 0, world_size: int = 1
    ) -> None:
        self._count, self._batch_size, self._steps, self._seed = count, batch_size, steps, seed
        self._rank, self._world_size = rank, world_size

    def __len__(self) -> int:
        return self._steps[1] - self._steps[0]

    def __iter__(self) -> Iterator[Draw]:
        orders: dict[int, np.ndarray] = {}
        for step in range(*self._steps):
            first = (step * self._world_size + self._rank) * self._batch_size
            places = np.arange(first, first + self._batch_size)
            for turn in range(places[0] // self._count, places[-1] // self._count + 1):
                if turn not in orders:
                    orders[turn] = np.random.default_rng((self._seed, turn)).permutation(self._count)
            items = np.array([orders[place // self._count][place % self._count] for place in places.tolist()])
            yield Draw(items, (self._seed, step, self._rank))
