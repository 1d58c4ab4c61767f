"""Exact nearest neighbours from products in half precision: bfloat16 says which keys could win, float32 decides.

On processors with bfloat16 instructions this takes a third of the time of a search in single precision. Nothing is
lost: the rounding error of a product is bounded, and every key within it of the best is looked at again.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

_CHUNK = 4096  # keys a product, so that its scores stay in the processor's cache
_GROUP = 32  # keys that one maximum stands for
_GROUPS = _CHUNK // _GROUP
_SCORES = 2**27  # held at a time
_PAIRS = 2**15  # vectors multiplied again at a time
_HALF, _SINGLE = 2.0**-9, 2.0**-24  # relative rounding errors of bfloat16 and float32


class Screen:
    """Keys to search; called like an index of faiss, and finds what `IndexFlatIP` finds.

    Args:
        keys: `(N, d)` float32, finite.
    """

    def __init__(self, keys: NDArray[np.float32]) -> None:
        self._keys = torch.from_numpy(keys)
        count, width = keys.shape
        self._padding = -count % _CHUNK
        half = torch.zeros(count + self._padding, width, dtype=torch.bfloat16)
        half[:count] = self._keys
        self._chunks = half.split(_CHUNK)
        queries = max(1, _SCORES // len(half))
        self._scores = torch.empty(len(self._chunks), queries, _CHUNK, dtype=torch.bfloat16)
        self._length = self._error = 0.0
        for exact, rounded in zip(self._keys.split(_CHUNK), self._chunks, strict=True):
            self._length = max(self._length, float(_norms(exact).max()))
            self._error = max(self._error, float(_norms(rounded[: len(exact)] - exact).max()))

    def search(self, queries: NDArray[np.float32], k: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Find the keys of the largest inner products.

        Args:
            queries: `(Q, d)` float32, finite.
            k: at most N.

        Returns:
            Products `(Q, k)`, descending, and the places `(Q, k)` of their keys.
        """
        products, places = torch.empty(len(queries), k), torch.empty(len(queries), k, dtype=torch.int64)
        whole = 4 * _GROUP * k > len(self._keys)  # too few groups to leave any out
        blocks = [part.split(self._scores.shape[1]) for part in (torch.from_numpy(queries), products, places)]
        for block, *found in zip(*blocks, strict=True):
            if whole:
                torch.topk(block @ self._keys.T, k, out=tuple(found))
            else:
                self._search(block, *found)
        return products.numpy(), places.numpy()

    def _search(self, queries: Tensor, products: Tensor, places: Tensor) -> None:
        """Fill in what is found, for as many queries as there is room for their scores."""
        half, scores = queries.bfloat16(), self._scores[:, : len(queries)]
        best = torch.empty(len(queries), len(self._chunks), _GROUPS, dtype=torch.bfloat16)
        for number, chunk in enumerate(self._chunks):
            torch.mm(half, chunk.T, out=scores[number])
            if number == len(self._chunks) - 1 and self._padding:
                scores[number, :, -self._padding :] = -torch.inf
            torch.amax(scores[number].unflatten(1, (_GROUP, _GROUPS)), 1, out=best[:, number])
        best = best.flatten(1)
        limits = self._limits(queries, half, best.topk(products.shape[1]).values[:, -1].float())
        hits = best >= limits[:, None]
        ends = hits.sum(1).cumsum(0).numpy()
        grouped = scores.unflatten(2, (_GROUP, _GROUPS))
        start = 0
        while start < len(queries):
            before = ends[start - 1] if start else 0
            stop = max(start + 1, int(np.searchsorted(ends, before + _PAIRS, "right")))
            some = slice(start, stop)
            near = _within(grouped[:, some], hits[some], limits[some])
            products[some], places[some] = self._decide(queries[some], *near, products.shape[1])
            start = stop

    def _limits(self, queries: Tensor, half: Tensor, reached: Tensor) -> Tensor:
        """Rounded scores `(Q,)` that a key must have to be among the best, if k keys have `reached` `(Q,)`.

        A product of rounded vectors is off by at most |q||k - k'| + |q - q'||k'| (Cauchy-Schwarz) and what is lost in
        summing it up, once for the keys that reached it and once for the key in question; both scores are rounded.
        """
        length = _norms(queries)
        apart = length * self._error + _norms(queries - half) * (self._length + self._error)
        apart += 4 * queries.shape[1] * _SINGLE * length * self._length
        lowest = reached - _HALF * reached.abs() - 2 * apart
        return (lowest - 2 * _HALF * lowest.abs()).float()

    def _decide(self, queries: Tensor, rows: Tensor, places: Tensor, k: int) -> tuple[Tensor, Tensor]:
        """Products and places `(Q, k)` of the best of the candidates `(n,)`, which come query by query."""
        exact = torch.cat(
            [
                torch.linalg.vecdot(queries.index_select(0, row), self._keys.index_select(0, place))
                for row, place in zip(rows.split(_PAIRS), places.split(_PAIRS), strict=True)
            ]
        )
        order = exact.argsort(descending=True, stable=True)
        order = order[rows[order].argsort(stable=True)]
        first = torch.searchsorted(rows, torch.arange(len(queries)))
        best = order[first[:, None] + torch.arange(k)]
        return exact[best], places[best]


def _norms(vectors: Tensor) -> Tensor:
    return vectors.double().norm(dim=1)


def _within(scores: Tensor, hits: Tensor, limits: Tensor) -> tuple[Tensor, Tensor]:
    """Queries and places of the `scores` `(chunks, Q, group, groups)` within `limits`, in the groups of `hits`."""
    rows, numbers = hits.nonzero(as_tuple=True)
    chunks, groups = numbers // _GROUPS, numbers % _GROUPS
    pairs, members = (scores[chunks, rows, :, groups] >= limits[rows, None]).nonzero(as_tuple=True)
    return rows[pairs], chunks[pairs] * _CHUNK + members * _GROUPS + groups[pairs]
