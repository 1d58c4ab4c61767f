"""The paper's other hypernetwork, to the parameter."""

import torch
from torch import Tensor, nn

from hyperofa.errors import InputError
from hyperofa.nets import layers
from hyperofa.nets.inputs import Memory, WordSets
from hyperofa.nets.net import Net, check_sizes


class SetFormer(Net):
    """The paper's alternative: a Transformer encoder without positions, then the mean over the words.

    Post-norm ReLU layers of width d with feed-forward width 8d, masked mean, then
    Linear(d → 2d) GELU Dropout Linear(2d → K) (hyper-ofa `hypernetwork/setformer.py`). Not Lee et al.'s Set
    Transformer. Defaults are the published ones but for the depth, which would want a GPU.

    Args:
        word_dim: d, width of the word vectors.
        coordinate_dim: K, width of the coordinates.
        num_heads: attention heads; must divide d (paper: 10 for d = 200).
        num_layers: encoder layers (published YAML: 28, which makes 22.6 M parameters at d = 200).
        dropout: in the encoder and the head (paper: 0.4).
    """

    def __init__(
        self, word_dim: int, coordinate_dim: int, num_heads: int = 10, num_layers: int = 4, dropout: float = 0.4
    ) -> None:
        super().__init__(word_dim, coordinate_dim)
        check_sizes(dropout, num_heads=num_heads, num_layers=num_layers)
        if word_dim % num_heads:
            divisors = [heads for heads in range(1, 33) if word_dim % heads == 0]
            raise InputError(
                f"net.num_heads: expected a divisor of the word width {word_dim} (such as {divisors}), "
                f"found {num_heads}"
            )
        self.num_heads, self.num_layers, self.dropout = num_heads, num_layers, dropout
        layer = nn.TransformerEncoderLayer(word_dim, num_heads, 8 * word_dim, dropout, batch_first=True)
        # Nested tensors would cut the output to the longest set, warn, and differ between training and evaluation.
        self.encoder = nn.TransformerEncoder(layer, num_layers, enable_nested_tensor=False)
        self.head = layers.head(word_dim, 2 * word_dim, coordinate_dim, dropout)

    def forward(self, sets: WordSets, memory: Memory | None = None, self_index: Tensor | None = None) -> Tensor:
        """Predict coordinates `(B, K)`; the order of the words plays no role."""
        self.check(sets)
        encoded = self.encoder(sets.vectors, src_key_padding_mask=~sets.mask)
        return self.head(layers.pool(encoded, torch.ones_like(sets.mask), sets.mask))
