"""Which items make a batch: grouped by size or drawn at random, equal for equal seeds, shared out among processes."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from torch.utils.data import Sampler


class Draw(NamedTuple):
    """What a sampler hands to a dataset: item numbers, and a seed for all that is random in the batch."""

    items: np.ndarray
    seed: tuple[int, ...]


class GroupedBatches(Sampler[Draw]):
    """Batches of items of similar size: less padding, and every item once an epoch.

    Items are shuffled, cut into groups of `group` batches, sorted by size within a group and cut into batches, which
    come in random order, or in that order. Under DDP each process takes its own batches of the same order; batches are
    added from the start so that all processes take equally many.

    Args:
        sizes: `(N,)` size of each item.
        batch_size: items a batch; the last of an epoch may be smaller.
        shuffle: a new order every epoch; else one fixed order by size.
        seed: of the order, with the epoch.
        rank: this process.
        world_size: number of processes.
        group: batches in a group.
        ascending: leave the batches in the order of their sizes within each group and drop an incomplete last one, as
            published (`reference.QUIRKS`).
    """

    def __init__(
        self,
        sizes: np.ndarray,
        batch_size: int,
        shuffle: bool = True,
        seed: int = 0,
        rank: int = 0,
        world_size: int = 1,
        group: int = 50,
        ascending: bool = False,
    ) -> None:
        self._sizes, self._batch_size, self._shuffle = sizes, batch_size, shuffle
        self._seed, self._rank, self._world_size, self._group = seed, rank, world_size, group
        self._ascending = ascending
        self._epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Called by Lightning at the start of each epoch."""
        self._epoch = epoch

    def __len__(self) -> int:
        batches = -(-len(self._sizes) // self._batch_size)
        if self._ascending and batches > 1:
            batches = len(self._sizes) // self._batch_size
        return -(-batches // self._world_size)

    def __iter__(self) -> Iterator[Draw]:
        batches = self._batches()
        for number in range(self._rank, len(self) * self._world_size, self._world_size):
            yield Draw(batches[number % len(batches)], (self._seed, self._epoch if self._shuffle else 0, number))

    def _batches(self) -> list[np.ndarray]:
        rng = np.random.default_rng((self._seed, self._epoch))
        order = rng.permutation(len(self._sizes)) if self._shuffle else np.arange(len(self._sizes))
        span = self._batch_size * (self._group if self._shuffle else len(order))
        batches = []
        for start in range(0, len(order), span):
            group = order[start : start + span]
            group = group[np.argsort(self._sizes[group], kind="stable")]
            batches += [group[at : at + self._batch_size] for at in range(0, len(group), self._batch_size)]
        if self._ascending and len(batches[-1]) < self._batch_size and len(batches) > 1:
            return batches[:-1]
        return [batches[i] for i in rng.permutation(len(batches))] if self._shuffle and not self._ascending else batches


class RandomBatches(Sampler[Draw]):
    """`steps` batches an epoch, drawn without an order; the dataset chooses the items from the seed.

    Args:
        steps: batches an epoch and process.
        seed: of the draws, with the epoch, the step and the process.
        rank: this process.
    """

    def __init__(self, steps: int, seed: int, rank: int) -> None:
        self._steps, self._seed, self._rank = steps, seed, rank
        self._epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Called by Lightning at the start of each epoch."""
        self._epoch = epoch

    def __len__(self) -> int:
        return self._steps

    def __iter__(self) -> Iterator[Draw]:
        for step in range(self._steps):
            yield Draw(np.empty(0, np.int64), (self._seed, self._epoch, step, self._rank))
