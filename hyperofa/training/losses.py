"""Training losses as pure functions: contrastive, squared and absolute error, cosine distance.

All of them compute in at least float32 with autocast switched off: half-precision cosines divided by a small
temperature are too coarse to rank a batch.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import Literal, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from hyperofa.errors import InputError


class TokenLoss(NamedTuple):
    """The loss of a batch of tokens and its two parts, all scalars."""

    total: Tensor
    contrastive: Tensor
    distance: Tensor


def token_loss(
    predicted: Tensor,
    expected: Tensor,
    *,
    contrastive_weight: float = 0.1,
    temperature: float = 0.25,
    distance: "Distance" = "mse",
) -> TokenLoss:
    """λ · contrastive + (1 - λ) · normalised distance: the direction and the length of each token's coordinates.

    The reference is `distance="l1"` (paper §3.4; hyper-ofa `hypernetwork/lightning_modules.py` 20-38). Ours is the
    squared error, normalised as well, so that λ means the same for every coordinate width and scaling.

    Args:
        predicted: `(B, K)` float.
        expected: `(B, K)` float, coordinates of the same tokens in the same order.
        contrastive_weight: λ in [0, 1]; the paper's is 0.1.
        temperature: > 0; the paper's is 0.25 for XLM-R, 0.5 for RoBERTa.
        distance: `mse`, the normalised squared error, or `l1`, the normalised absolute error.

    Returns:
        The total and its unweighted parts.

    Raises:
        InputError: a weight outside [0, 1], a temperature that is not positive, an unknown distance.
        ValueError: the shapes differ.
    """
    if not 0 <= contrastive_weight <= 1:
        raise InputError(f"contrastive_weight: expected a number from 0 to 1, found {contrastive_weight}")
    contrast = contrastive(predicted, expected, temperature)
    if distance not in DISTANCES:
        raise InputError(f"distance: expected one of {', '.join(DISTANCES)}; found {distance!r}")
    error = DISTANCES[distance](predicted, expected)
    return TokenLoss(contrastive_weight * contrast + (1 - contrastive_weight) * error, contrast, error)


def contrastive(predicted: Tensor, expected: Tensor, temperature: float) -> Tensor:
    """InfoNCE over the batch: each prediction must pick out its own token.

    The code's formula, not the paper's text: the negatives of prediction i are the *expected* rows of the batch, and
    only predictions search, never expectations (hyper-ofa `hypernetwork/lightning_modules.py` 20-33). A batch of one
    has no negatives and costs nothing; under DDP the negatives are those of the process.

    Args:
        predicted: `(B, K)` float.
        expected: `(B, K)` float, coordinates of the same tokens in the same order.
        temperature: > 0, divides the cosine similarities (paper §4: 0.25 for XLM-R, 0.5 for RoBERTa).

    Returns:
        Mean over the batch, in nats.

    Raises:
        InputError: a temperature that is not positive.
        ValueError: the shapes differ.
    """
    return functional.cross_entropy(*_logits(predicted, expected, temperature))


def mse(predicted: Tensor, expected: Tensor, *, normalise: bool = False) -> Tensor:
    """Mean squared error; normalised, the share of the expected energy that is missed.

    Args:
        predicted: `(B, K)` float.
        expected: `(B, K)` float.
        normalise: divide by the mean square of `expected`, so that predicting zero costs 1 on every scale. A batch of
            zero rows is left undivided.

    Returns:
        Mean over all entries.

    Raises:
        ValueError: the shapes differ.
    """
    predicted, expected = _matching(predicted, expected)
    error = (predicted - expected).square().mean()
    return error / _scale(expected.square().mean()) if normalise else error


def normalised_l1(predicted: Tensor, expected: Tensor) -> Tensor:
    """Mean absolute error over the mean absolute value of `expected`: predicting zero costs 1 on every scale.

    The paper's distance (§3.4; hyper-ofa `hypernetwork/lightning_modules.py` 35). Its coordinates are columns of an
    orthonormal U, thus tiny, hence the division. A batch of zero rows, on which the reference fails, is left undivided.

    Args:
        predicted: `(B, K)` float.
        expected: `(B, K)` float.

    Returns:
        Mean over all entries.

    Raises:
        ValueError: the shapes differ.
    """
    predicted, expected = _matching(predicted, expected)
    return (predicted - expected).abs().mean() / _scale(expected.abs().mean())


Distance = Literal["mse", "l1"]
DISTANCES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {"mse": partial(mse, normalise=True), "l1": normalised_l1}
"""The distances of `token_loss`, each of two `(B, K)` tensors, a scalar without a scale."""


def cosine_distance(predicted: Tensor, expected: Tensor) -> Tensor:
    """Mean of 1 - cosine over all rows: 0 for equal directions, 1 for orthogonal ones, 2 for opposite ones.

    Args:
        predicted: `(..., E)` float.
        expected: `(..., E)` float, same shape.

    Returns:
        Mean over all leading dimensions.

    Raises:
        ValueError: the shapes differ.
    """
    predicted, expected = _matching(predicted, expected, dims=None)
    return 1 - (_unit(predicted) * _unit(expected)).sum(dim=-1).mean()


def _logits(predicted: Tensor, expected: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """Cosines `(B, B)` of every prediction with every expected row over the temperature, and the labels `(B,)`."""
    if not (math.isfinite(temperature) and temperature > 0):
        raise InputError(f"temperature: expected a number > 0 (the paper's: 0.25 or 0.5), found {temperature}")
    predicted, expected = _matching(predicted, expected)
    with torch.autocast(device_type=predicted.device.type, enabled=False):
        logits = _unit(predicted) @ _unit(expected).T / temperature
    return logits, torch.arange(len(logits), device=logits.device)


def _matching(predicted: Tensor, expected: Tensor, dims: int | None = 2) -> tuple[Tensor, Tensor]:
    """Check the shapes; lift half precision to float32."""
    if predicted.shape != expected.shape or predicted.numel() == 0 or dims not in (None, predicted.dim()):
        wanted = "the same shape (..., E)" if dims is None else "the same shape (B, K)"
        raise ValueError(
            f"expected two non-empty tensors of {wanted}, "
            f"found predicted {tuple(predicted.shape)} and expected {tuple(expected.shape)}"
        )
    dtype = torch.promote_types(torch.promote_types(predicted.dtype, expected.dtype), torch.float32)
    return predicted.to(dtype), expected.to(dtype)


def _unit(rows: Tensor) -> Tensor:
    """Rows of length 1; zero rows stay zero, with a cosine of 0 to everything."""
    return functional.normalize(rows, dim=-1)


def _scale(scale: Tensor) -> Tensor:
    """A divisor: the scale, or 1 where it is 0."""
    return torch.where(scale > 0, scale, torch.ones_like(scale))
