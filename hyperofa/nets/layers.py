"""Parts that nets are made of."""

import torch
from torch import Tensor, nn


def pool(vectors: Tensor, weights: Tensor, mask: Tensor) -> Tensor:
    """Weighted mean of each set.

    Args:
        vectors: `(B, W, d)` float.
        weights: `(B, W)`, > 0 where there is a word; of any scale, for they are normalised to sum to 1 over the set.
        mask: `(B, W)` bool, true for a word.

    Returns:
        `(B, d)`, of the vectors' type.
    """
    weights = weights.masked_fill(~mask, 0).to(torch.promote_types(vectors.dtype, torch.float32))
    weights = (weights / weights.sum(dim=1, keepdim=True)).to(vectors.dtype)
    return torch.bmm(weights[:, None], vectors)[:, 0]


def correction(input_dim: int, hidden_dim: int, output_dim: int) -> nn.Sequential:
    """A hidden layer whose output is zero before training.

    Args:
        input_dim: width of what is seen.
        hidden_dim: width within.
        output_dim: width of what is corrected.
    """
    last = nn.Linear(hidden_dim, output_dim)
    nn.init.zeros_(last.weight)
    nn.init.zeros_(last.bias)
    return nn.Sequential(nn.Linear(input_dim, hidden_dim), nn.GELU(), last)


def block(width: int, dropout: float) -> nn.Sequential:
    """Linear(Dropout(GELU(Linear(LayerNorm(x))))), for a residual path around it.

    Args:
        width: of input and output.
        dropout: chance of a zero.
    """
    first, last = nn.Linear(width, width), nn.Linear(width, width)
    return nn.Sequential(nn.LayerNorm(width), first, nn.GELU(), nn.Dropout(dropout), last)


def head(input_dim: int, hidden_dim: int, output_dim: int, dropout: float) -> nn.Sequential:
    """Linear(Dropout(GELU(Linear(x)))), with which the published nets end.

    Args:
        input_dim: width of what is seen.
        hidden_dim: width within.
        output_dim: K.
        dropout: chance of a zero.
    """
    first, last = nn.Linear(input_dim, hidden_dim), nn.Linear(hidden_dim, output_dim)
    return nn.Sequential(first, nn.GELU(), nn.Dropout(dropout), last)
