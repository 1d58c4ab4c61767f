"""The source tokens that a net may look at, and which of them lie nearest to each token."""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from hyperofa.vectors import Keys


class Memory(NamedTuple):
    """The source tokens that a net may look at.

    Attributes:
        keys: `(M, d)` float, pooled word vectors of length 1.
        values: `(M, K)` float, coordinates.
        near: `(N, k)` int32, the places in the memory that each token looks at, in no order, M where there are fewer
            than k. Row n is of the token whose place is n; rows from M on are of tokens outside the memory. `None`:
            every token looks at all of it.
        projected: `(M, d)` float, the keys as a net sees them that learns no more (`Net.remember`); `None`: it still
            does.
        lengths: `(M,)` float, of the values, where they are remembered too.
    """

    keys: Tensor
    values: Tensor
    near: Tensor | None = None
    projected: Tensor | None = None
    lengths: Tensor | None = None

    def to(self, device: torch.device) -> "Memory":
        """The same on another device."""
        return Memory(*(None if part is None else part.to(device) for part in self))  # type: ignore[arg-type]


def near_places(queries: np.ndarray, own: np.ndarray, keys: Keys, count: int) -> np.ndarray:
    """Find the keys nearest to each query by cosine, without the query itself.

    Args:
        queries: `(n, d)` float.
        own: `(n,)` int, each query's own place among the keys; M or more for a query that is none of them.
        keys: M keys; zero rows are never found.
        count: k, at most M.

    Returns:
        `(n, k)` int32 places, in no order, M where there are fewer keys.
    """
    found = keys.candidates(queries, min(count + 1, len(keys)))
    # One more than asked for: it stands in for the query itself.
    spare = found[:, count:] if found.shape[1] > count else keys.count
    others = np.where(found[:, :count] == own[:, None], spare, found[:, :count])
    places = np.full((len(queries), count), keys.count, np.int32)
    places[:, : others.shape[1]] = others
    return places
