"""The simple hypernetwork: pool the words, then a residual MLP."""

from typing import Literal

import torch
from torch import Tensor, nn

from hyperofa.errors import InputError
from hyperofa.nets import layers
from hyperofa.nets.inputs import WEIGHT, Memory, WordSets
from hyperofa.nets.net import Net, check_sizes

Pooling = Literal["weighted", "mean"]


class MLP(Net):
    """Pool the words with fixed weights, then a residual MLP on the pooled vector.

    Blocks x + Linear(Dropout(GELU(Linear(LayerNorm(x))))) between an input and an output Linear. No normalisation
    stands on the residual path, so that a linear map of the pooled vector is what the net starts from.

    Args:
        word_dim: d, width of the word vectors.
        coordinate_dim: K, width of the coordinates.
        hidden_dim: width of the blocks.
        num_layers: number of blocks; with 0 the net is a linear map.
        dropout: probability of dropping a hidden unit.
        pooling: `weighted` by the feature `weight`, normalised over the set, or `mean`.
    """

    def __init__(
        self,
        word_dim: int,
        coordinate_dim: int,
        hidden_dim: int = 512,
        num_layers: int = 2,
        dropout: float = 0.0,
        pooling: Pooling = "weighted",
    ) -> None:
        super().__init__(word_dim, coordinate_dim)
        check_sizes(dropout, hidden_dim=hidden_dim)
        if num_layers < 0:
            raise InputError(f"net.num_layers: expected 0 or more blocks, found {num_layers}")
        if pooling not in ("weighted", "mean"):
            raise InputError(f"net.pooling: expected 'weighted' or 'mean', found {pooling!r}")
        self.hidden_dim, self.num_layers, self.dropout, self.pooling = hidden_dim, num_layers, dropout, pooling
        self.input = nn.Linear(word_dim, hidden_dim)
        self.blocks = nn.ModuleList(layers.block(hidden_dim, dropout) for _ in range(num_layers))
        self.output = nn.Linear(hidden_dim, coordinate_dim)

    def forward(self, sets: WordSets, memory: Memory | None = None, self_index: Tensor | None = None) -> Tensor:
        """Predict coordinates `(B, K)`; the order of the words plays no role."""
        self.check(sets)
        weights = sets.features[..., WEIGHT] if self.pooling == "weighted" else torch.ones_like(sets.mask)
        hidden = self.input(layers.pool(sets.vectors, weights, sets.mask))
        for block in self.blocks:
            hidden = hidden + block(hidden)
        return self.output(hidden)
