"""Exact nearest neighbours from products of bytes: 8-bit integers say which keys could win, float32 decides.

On processors with instructions for it (VNNI) this takes a fraction of the time of a search in single precision. Nothing
is lost: how far a product of rounded vectors is off is bounded, and every key within the bound is looked at again.
"""

import warnings

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

_CHUNK = 2048  # keys a product, so that its scores stay in the processor's cache
_GROUP = 32  # keys that one maximum stands for
_GROUPS = _CHUNK // _GROUP
_QUERIES = 1024  # searched at a time, at most
_SCORES = 2**28  # held at a time
_HITS = 2**18  # groups looked into at a time
_LARGEST = 127  # of the integers
_SINGLE = 2.0**-24  # relative rounding error of float32


class Int8Index:
    """Keys to search; called like an index of faiss, and finds what `IndexFlatIP` finds.

    Args:
        keys: `(N, d)` float32, finite.
    """

    def __init__(self, keys: NDArray[np.float32]) -> None:
        self._keys = torch.from_numpy(keys)
        count, width = keys.shape
        self._padding = -count % _CHUNK
        # A random rotation spreads over all coordinates what is in a few, so that one step is fine enough for all.
        wide = max(width, 2)  # torch multiplies bytes wrongly that are one wide
        normal = torch.randn(wide, width, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
        self._rotation = torch.linalg.qr(normal).Q.T.float()
        parts = self._keys.split(_CHUNK)
        self._step = float(_steps(torch.stack([self._rotated(part).abs().max() for part in parts]).max()))
        self._chunks = torch.zeros(count + self._padding, wide, dtype=torch.int8).split(_CHUNK)
        self._length = self._error = 0.0
        for part, chunk in zip(parts, self._chunks, strict=True):
            rotated = self._rotated(part)
            chunk[: len(part)] = rounded = (rotated / self._step).round()
            self._length = max(self._length, float(_lengths(rotated).max()))
            self._error = max(self._error, float(_lengths(rotated - rounded * self._step).max()))
        queries = max(1, min(_QUERIES, _SCORES // (count + self._padding)))
        self._scores = torch.empty(len(self._chunks), queries, _CHUNK, dtype=torch.int32)

    def search(self, queries: NDArray[np.float32], k: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Find the keys of the largest inner products.

        Args:
            queries: `(Q, d)` float32, finite.
            k: at most N.

        Returns:
            Products `(Q, k)`, descending, all summed in one order, and the indices `(Q, k)` of their keys.
        """
        products, indices = torch.empty(len(queries), k), torch.empty(len(queries), k, dtype=torch.int64)
        whole = 4 * _GROUP * k > len(self._keys)  # too few groups to leave any out
        blocks = [part.split(self._scores.shape[1]) for part in (torch.from_numpy(queries), products, indices)]
        for block, *found in zip(*blocks, strict=True):
            if whole:
                best = (block @ self._keys.T).topk(k).indices.flatten()
                found[0][:], found[1][:] = self._decide(block, torch.arange(len(block)).repeat_interleave(k), best, k)
            else:
                self._search(block, *found)
        return products.numpy(), indices.numpy()

    def _search(self, queries: Tensor, products: Tensor, indices: Tensor) -> None:
        """Fill in what is found, for as many queries as there is room for their scores."""
        rotated, k = self._rotated(queries), products.shape[1]
        steps = _steps(rotated.abs().amax(1))
        rounded = (rotated / steps[:, None]).round()
        scores, best = self._multiply(rounded.to(torch.int8))
        limits = self._reached(queries, scores, best.topk(k, sorted=False).indices).double()
        limits -= self._uncertainty(rotated, rounded * steps[:, None])
        limits = (limits / (steps.double() * self._step)).floor().int()
        rows, groups = (best >= limits[:, None]).nonzero(as_tuple=True)
        ends = torch.searchsorted(rows, torch.arange(len(queries) + 1)).numpy()
        start = 0
        while start < len(queries):
            stop = max(start + 1, int(np.searchsorted(ends, ends[start] + _HITS, "right")) - 1)
            some, hits = slice(start, stop), slice(ends[start], ends[stop])
            near = _within(scores[:, some], limits[some], rows[hits] - start, groups[hits])
            products[some], indices[some] = self._decide(queries[some], *near, k)
            start = stop

    def _rotated(self, vectors: Tensor) -> Tensor:
        return vectors @ self._rotation

    def _multiply(self, queries: Tensor) -> tuple[Tensor, Tensor]:
        """Scores `(chunks, Q, group, groups)` of integers `(Q, d)`, and each group's best `(Q, chunks · groups)`."""
        scores = self._scores[:, : len(queries)]
        best = torch.empty(len(queries), len(self._chunks), _GROUPS, dtype=torch.int32)
        for number, chunk in enumerate(self._chunks):
            torch._int_mm(queries, chunk.T, out=scores[number])
            if number == len(self._chunks) - 1 and self._padding:
                scores[number, :, -self._padding :] = torch.iinfo(torch.int32).min
            torch.amax(scores[number].unflatten(1, (_GROUP, _GROUPS)), 1, out=best[:, number])
        return scores.unflatten(2, (_GROUP, _GROUPS)), best.flatten(1)

    def _reached(self, queries: Tensor, scores: Tensor, groups: Tensor) -> Tensor:
        """Products `(Q,)` that k keys have at least: the best keys of `groups` `(Q, k)`."""
        members = _members(scores, torch.arange(len(queries))[:, None], groups).argmax(2)
        indices = _places(groups, members)
        ends = torch.arange(len(queries) + 1) * indices.shape[1]
        return self._products(queries, ends, indices.flatten()).view_as(indices).amin(1)

    def _uncertainty(self, rotated: Tensor, rounded: Tensor) -> Tensor:
        """How far products `(Q,)` of rounded queries with rounded keys are off, at most.

        By |q - q'||k| + |q'||k - k'| (Cauchy-Schwarz), and what float32 loses: no more than d^1.5 roundings in rotating
        either vector, and d in summing up the products that these are held against.
        """
        apart = _lengths(rotated - rounded) * self._length + _lengths(rounded) * self._error
        return apart + 8 * rotated.shape[1] ** 1.5 * _SINGLE * _lengths(rotated) * self._length

    def _decide(self, queries: Tensor, rows: Tensor, indices: Tensor, k: int) -> tuple[Tensor, Tensor]:
        """Products and indices `(Q, k)` of the best of the candidates `(n,)`, which come query by query."""
        ends = torch.searchsorted(rows, torch.arange(len(queries) + 1))
        table = torch.full((len(queries), int(ends.diff().max())), -torch.inf)
        table[rows, torch.arange(len(rows)) - ends[rows]] = self._products(queries, ends, indices)
        products, order = table.topk(k)
        return products, indices[ends[:-1, None] + order]

    def _products(self, queries: Tensor, ends: Tensor, indices: Tensor) -> Tensor:
        """Products `(n,)` of query q with the keys at `indices[ends[q] : ends[q + 1]]`, all summed in one order."""
        shape = (len(queries), len(self._keys))
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Sparse CSR tensor support")
            pairs = torch.sparse_csr_tensor(ends, indices, torch.zeros(len(indices)), shape, check_invariants=False)
            return torch.sparse.sampled_addmm(pairs, queries, self._keys.T, beta=0.0).values()


def _steps(largest: Tensor) -> Tensor:
    """Widths of the steps with which integers reach so far; any where there is nothing to reach."""
    return torch.where(largest > 0, largest / _LARGEST, 1.0)


def _lengths(vectors: Tensor) -> Tensor:
    return vectors.double().norm(dim=1)


def _within(scores: Tensor, limits: Tensor, rows: Tensor, groups: Tensor) -> tuple[Tensor, Tensor]:
    """Queries and indices of the `scores` `(chunks, Q, group, groups)` within `limits` `(Q,)`, of these groups."""
    pairs, members = (_members(scores, rows, groups) >= limits[rows, None]).nonzero(as_tuple=True)
    return rows[pairs], _places(groups[pairs], members)


def _members(scores: Tensor, rows: Tensor, groups: Tensor) -> Tensor:
    """The scores `(..., group)` of all keys of a group, for each query and group."""
    return scores[groups // _GROUPS, rows, :, groups % _GROUPS]


def _places(groups: Tensor, members: Tensor) -> Tensor:
    """The indices of keys among all, of their indices in groups."""
    return groups // _GROUPS * _CHUNK + members * _GROUPS + groups % _GROUPS
