"""E ≈ F P: embeddings as token coordinates times shared primitives.

A hypernetwork predicts K coordinates instead of E columns (as in OFA and HYPEROFA). The truncated SVD goes through
the Gram matrix EᵀE: many times faster than a full SVD of a tall matrix, and blocked, so that a memory-mapped matrix
is never held twice.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import eigh

from hyperofa.errors import InputError

Scaling = Literal["coordinates", "primitives"]

_BLOCK_ROWS = 8192
_SINGLE = 1e-12, 1e15  # largest entries of a block whose products single precision holds
_ROUNDINGS = 16  # of the norm of the embeddings: a singular value below that is none
_SMALL = 2**22  # entries below which double precision costs nothing


@dataclass(frozen=True, eq=False)
class Factors:
    """Coordinates and primitives whose product approximates the embeddings.

    Attributes:
        coordinates: F `(V, K)` float32, one row per token.
        primitives: P `(K, E)` float32, shared by all tokens.
        explained: share of the squared norm of the embeddings that F P keeps, in [0, 1].
    """

    coordinates: NDArray[np.float32]
    primitives: NDArray[np.float32]
    explained: float


def check_width(embeddings: NDArray[np.floating], coordinate_dim: int | None) -> None:
    """See that embeddings have coordinates of a width, before long work begins.

    Args:
        embeddings: E `(V, E)`.
        coordinate_dim: K, `None` for E.

    Raises:
        InputError: K is neither E nor within 1 … min(V, E).
    """
    height, width = embeddings.shape
    if coordinate_dim not in (None, width) and not 1 <= coordinate_dim <= min(height, width):
        raise InputError(
            f"--coordinate_dim: expected a width from 1 to {min(height, width)} for {height} tokens of width {width}, "
            f"found {coordinate_dim}; leave it out for the full width"
        )


def factorize(
    embeddings: NDArray[np.floating], coordinate_dim: int | None, *, scaling: Scaling = "coordinates"
) -> Factors:
    """Split embeddings into coordinates and primitives: the best F P of rank K in the least-squares sense.

    Signs are fixed (each primitive's largest entry is positive), so that equal input gives equal factors. Directions
    whose singular value is below about 1e-3 of the largest (1e-8 in matrices of up to four million entries, which are
    multiplied in double precision) may be lost in the Gram matrix: they add nothing to F P that one could see.

    Args:
        embeddings: E `(V, E)` float of any precision, may be memory-mapped.
        coordinate_dim: K. `None`, or the full width E, means no factorisation: F = E, P = I, nothing is lost.
        scaling: which factor carries the singular values. `coordinates` (default): F = U_K Σ_K, P = V_Kᵀ
            orthonormal, so that distances between coordinates are those between the rows of F P and a squared error on
            coordinates is one on embeddings. `primitives` (the reference: hyper-ofa `hyperofa/utils.py` 388-405):
            F = U_K orthonormal, P = Σ_K V_Kᵀ; columns without a singular value are zero here, arbitrary there.

    Returns:
        The factors, float32.

    Raises:
        InputError: K outside 1 … min(V, E), an unknown scaling, NaN or infinity in the embeddings.
        ValueError: the embeddings are not a non-empty matrix.
    """
    if embeddings.ndim != 2 or embeddings.size == 0:
        raise ValueError(f"expected a non-empty embedding matrix (V, E), found shape {embeddings.shape}")
    if scaling not in ("coordinates", "primitives"):
        raise InputError(f"scaling: expected 'coordinates' or 'primitives', found {scaling!r}")
    height, width = embeddings.shape
    if coordinate_dim is None or coordinate_dim == width:
        return _unfactorized(embeddings)
    check_width(embeddings, coordinate_dim)

    single = embeddings.size > _SMALL
    gram, blocks = np.zeros((width, width)), []
    for at, rows in _blocks(embeddings, single):
        gram += rows.T @ rows
        blocks.append((at, rows.dtype))
    primitives = _top_directions(gram, coordinate_dim)

    coordinates = np.empty((height, coordinate_dim), dtype=np.float32)
    energy = np.zeros(coordinate_dim)
    for at, dtype in blocks:
        rows = np.asarray(embeddings[at]).astype(dtype, copy=False)
        np.matmul(rows, primitives.T.astype(dtype), out=coordinates[at], casting="same_kind")
        energy += np.square(coordinates[at], dtype=np.float64).sum(axis=0)
    total = float(np.trace(gram))
    if scaling == "primitives":
        precision = np.finfo(np.float32 if single else np.float64).eps
        _move_scale(coordinates, primitives, np.sqrt(energy), _ROUNDINGS * precision * np.sqrt(total))
    explained = min(1.0, float(energy.sum()) / total) if total > 0 else 1.0
    return Factors(coordinates, primitives.astype(np.float32), explained)


def _unfactorized(embeddings: NDArray[np.floating]) -> Factors:
    """F = E and P = I."""
    height, width = embeddings.shape
    coordinates = np.empty((height, width), dtype=np.float32)
    for at, rows in _blocks(embeddings, single=True):
        coordinates[at] = rows
    return Factors(coordinates, np.eye(width, dtype=np.float32), 1.0)


def _top_directions(gram: NDArray[np.float64], count: int) -> NDArray[np.float64]:
    """Eigenvectors `(count, E)` of a Gram matrix, largest eigenvalue first, signs fixed."""
    _, vectors = eigh(gram, subset_by_index=(len(gram) - count, len(gram) - 1))
    directions = vectors.T[::-1].copy()
    largest = np.abs(directions).argmax(axis=1)
    directions *= np.where(directions[np.arange(count), largest] < 0, -1.0, 1.0)[:, None]
    return directions


def _move_scale(
    coordinates: NDArray[np.float32], primitives: NDArray[np.float64], singular: NDArray[np.float64], smallest: float
) -> None:
    """Move the singular values from F to P, in place; up to `smallest` they leave zero columns, not amplified noise."""
    vanishing = singular <= smallest
    np.divide(coordinates, np.where(vanishing, 1.0, singular), out=coordinates, casting="same_kind")
    coordinates[:, vanishing] = 0.0
    primitives *= np.where(vanishing, 0.0, singular)[:, None]


def _blocks(embeddings: NDArray[np.floating], single: bool) -> Iterator[tuple[slice, NDArray[np.floating]]]:
    """Slices of the rows, checked to be finite, in single precision if asked for and if it holds their products."""
    for start in range(0, len(embeddings), _BLOCK_ROWS):
        at = slice(start, min(start + _BLOCK_ROWS, len(embeddings)))
        rows = np.asarray(embeddings[at])
        largest = max(float(rows.max()), -float(rows.min()))
        if not np.isfinite(largest):
            row = start + int(np.argmin(np.isfinite(rows).all(axis=1)))
            raise InputError(f"embeddings: expected finite numbers, found NaN or infinity in row {row}")
        held = single and _SINGLE[0] < largest < _SINGLE[1]
        yield at, rows.astype(np.float32 if held else np.float64, copy=False)
