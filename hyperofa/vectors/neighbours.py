"""Nearest neighbours among word vectors, exact and repeatable, through faiss or screened in bytes."""

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from hyperofa.errors import InputError
from hyperofa.runtime.devices import has_fast_bytes
from hyperofa.vectors.int8_index import Int8Index
from hyperofa.vectors.store import ROWS

_SLACK = 8  # candidates beyond k, to see whether a tie reaches past it
_TIE = 4e-6  # scores nearer than this may be a tie that faiss rounded apart
_QUERIES = 4096  # searched at a time
_GPU_LIMIT = 2048  # the most neighbours that faiss finds on a GPU
_SCREENED = 4_096  # keys from which screening saves time


def nearest(
    queries: NDArray[np.floating[Any]],
    keys: NDArray[np.floating[Any]],
    k: int,
    *,
    metric: Literal["cosine", "dot"] = "cosine",
    valid: NDArray[np.bool_] | None = None,
    device: Literal["auto", "cpu", "cuda"] = "auto",
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Find each query's k best keys through faiss; equal scores are ordered by id, so that results repeat.

    faiss finds candidates, or `Int8Index` among many keys on a CPU that is fast at bytes; what faiss found is scored
    again in a fixed order, because a matrix product rounds equal rows differently, and where a tie reaches past the
    candidates, that query is settled by brute force.

    Args:
        queries: `(Q, d)` float. A zero query scores 0 with all keys.
        keys: `(N, d)` float; may be a memory map. Zero rows never match: they would outrank negative neighbours.
        k: at most this many.
        metric: cosine or inner product.
        valid: `(N,)` keys that may match; None for all.
        device: 'auto' takes a GPU if faiss has one.

    Returns:
        Scores `(Q, k')`, descending, and ids `(Q, k')` into `keys`; k' is k or the number of keys there are, if fewer.

    Raises:
        InputError: NaN or inf, widths that differ, k < 1, no faiss, or no GPU where one was asked for.
    """
    if k < 1 or queries.ndim != 2 or keys.ndim != 2 or queries.shape[1] != keys.shape[1]:
        raise InputError(
            f"nearest: expected k ≥ 1 and two matrices of one width, found k = {k}, {queries.shape} and {keys.shape}"
        )
    return NeighbourIndex(keys, metric=metric, valid=valid, device=device).nearest(queries, k)


class NeighbourIndex:
    """Keys that are searched more than once.

    Args:
        keys: as for `nearest`, like the other arguments.
        metric: cosine or inner product.
        valid: keys that may match.
        device: where to search.

    Attributes:
        count: N; `len` is the number of keys that may match.

    Raises:
        InputError: as `nearest`.
    """

    def __init__(
        self,
        keys: NDArray[np.floating[Any]],
        *,
        metric: Literal["cosine", "dot"] = "cosine",
        valid: NDArray[np.bool_] | None = None,
        device: Literal["auto", "cpu", "cuda"] = "auto",
    ) -> None:
        self.count = len(keys)
        if valid is not None and (valid.shape != (self.count,) or valid.dtype != bool):
            raise InputError(f"nearest: valid: expected ({self.count},) bools, found {valid.shape} {valid.dtype}")
        norms = _finite_norms(keys, "keys")
        self._ids = np.flatnonzero(norms > 0 if valid is None else (norms > 0) & valid)
        self._cosine = metric == "cosine"
        self._reach = 1.0 if self._cosine else float(norms.max(initial=0))
        units = norms if self._cosine else np.ones_like(norms)
        self._search = _Search(keys, self._ids, units, device) if len(self._ids) else None

    def __len__(self) -> int:
        return len(self._ids)

    def nearest(self, queries: NDArray[np.floating[Any]], k: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Find each query's k best keys, equal scores ordered by id; see `nearest`.

        Args:
            queries: `(Q, d)` float.
            k: at most this many.
        """
        norms, k = _finite_norms(queries, "queries"), min(k, len(self._ids))
        scores, found = np.zeros((len(queries), k), np.float32), np.tile(self._ids[:k], (len(queries), 1))
        if self._search is None:
            return scores, found
        units = norms if self._cosine else np.ones_like(norms)
        rows = np.flatnonzero(norms)
        step = max(1, min(_QUERIES, 2**24 // (k + _SLACK)))
        for start in range(0, len(rows), step):
            some = rows[start : start + step]
            tolerance = _TIE * self._reach * norms[some] / units[some]
            scores[some], found[some] = self._search(_scaled(queries, units, some), k, k + _SLACK, tolerance)
        return scores, found

    def candidates(self, queries: NDArray[np.floating[Any]], k: int) -> NDArray[np.int64]:
        """Find the same by cosine in no certain order, without the second look by which `nearest` repeats ties.

        Args:
            queries: `(Q, d)` float.
            k: at most the number of keys that may match.

        Returns:
            Ids `(Q, k)`; any for a zero query.
        """
        norms, found = _finite_norms(queries, "queries"), np.tile(self._ids[:k], (len(queries), 1))
        if self._search is None:
            return found
        rows = np.flatnonzero(norms)
        for start in range(0, len(rows), _QUERIES):
            some = rows[start : start + _QUERIES]
            found[some] = self._ids[self._search.find(_scaled(queries, norms, some), k)[1]]
        return found


class _Search:
    """Keys in an index, by position in `ids`."""

    def __init__(
        self,
        keys: NDArray[np.floating[Any]],
        ids: NDArray[np.int64],
        units: NDArray[np.float32],
        device: Literal["auto", "cpu", "cuda"],
    ) -> None:
        try:
            import faiss
        except ImportError:
            raise InputError(
                "faiss is not installed; run: pip install 'hyperofa[cpu]' (or 'hyperofa[gpu]' on a machine with CUDA)"
            ) from None
        if device == "cuda" and faiss.get_num_gpus() == 0:
            raise InputError("device cuda: faiss finds no GPU; install 'hyperofa[gpu]', or take device cpu or auto")
        self._index: Any
        self._on_cpu: Any
        self._keys, self._ids, self._units = keys, ids, units
        count, width = len(ids), keys.shape[1]
        on_gpu = device != "cpu" and faiss.get_num_gpus() > 0
        if count >= _SCREENED and not on_gpu and has_fast_bytes():
            scaled = np.empty((count, width), np.float32)
            for start in range(0, count, ROWS):
                scaled[start : start + ROWS] = _scaled(keys, units, ids[start : start + ROWS])
            self._index = self._on_cpu = Int8Index(scaled)
            return
        self._index = faiss.IndexFlatIP(width)
        for start in range(0, count, ROWS):
            self._index.add(_scaled(keys, units, ids[start : start + ROWS]))
        self._on_cpu = self._index
        if on_gpu:
            self._index = faiss.index_cpu_to_gpu(faiss.StandardGpuResources(), 0, self._index)

    def __call__(
        self, queries: NDArray[np.float32], k: int, fetch: int, tolerance: NDArray[np.float32]
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Best k of `fetch` candidates by score, then id; asks again for the queries where they do not decide."""
        fetch = min(fetch, len(self._ids))
        scores, indices = self.find(queries, fetch)
        if not isinstance(self._index, Int8Index):
            scores = self._score(queries, indices)
        order = np.lexsort((indices, -scores), axis=1)
        scores, indices = np.take_along_axis(scores, order, 1), np.take_along_axis(indices, order, 1)
        best, found = scores[:, :k], self._ids[indices[:, :k]]
        if fetch < len(self._ids):
            tied = np.flatnonzero(scores[:, k - 1] - scores[:, -1] <= tolerance)
            step = max(1, 2**24 // (4 * fetch))
            for start in range(0, len(tied), step):
                some = tied[start : start + step]
                best[some], found[some] = self(queries[some], k, 4 * fetch, tolerance[some])
        return best, found

    def find(self, queries: NDArray[np.float32], fetch: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """What the index finds: products and indices `(n, fetch)`."""
        index = self._index if fetch <= _GPU_LIMIT else self._on_cpu
        return index.search(queries, fetch)

    def _score(self, queries: NDArray[np.float32], indices: NDArray[np.int64]) -> NDArray[np.float32]:
        """Products `(n, fetch)`, summed in one order, so that equal keys score equal."""
        scores = np.empty(indices.shape, np.float32)
        step = max(1, 2**22 // (indices.shape[1] * queries.shape[1]))
        for start in range(0, len(queries), step):
            some = slice(start, start + step)
            keys = _scaled(self._keys, self._units, self._ids[indices[some]])
            keys *= queries[some, None]
            scores[some] = keys.sum(-1)
        return scores


def _scaled(
    matrix: NDArray[np.floating[Any]], units: NDArray[np.float32], rows: NDArray[np.int64]
) -> NDArray[np.float32]:
    picked = matrix[rows].astype(np.float32)
    picked /= units[rows][..., None]
    return picked


def _finite_norms(matrix: NDArray[np.floating[Any]], name: str) -> NDArray[np.float32]:
    norms = np.empty(len(matrix), np.float32)
    for start in range(0, len(matrix), ROWS):
        norms[start : start + ROWS] = np.linalg.norm(np.asarray(matrix[start : start + ROWS], np.float64), axis=1)
    if not np.isfinite(norms).all():
        row = int(np.flatnonzero(~np.isfinite(norms))[0])
        raise InputError(f"nearest: expected finite numbers, found NaN or inf in row {row} of the {name}")
    return norms
