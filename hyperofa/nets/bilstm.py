"""The hypernetwork that the paper chose, to the parameter."""

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence

from hyperofa.nets import layers
from hyperofa.nets.inputs import Memory, WordSets
from hyperofa.nets.net import Net, check_sizes


class BiLSTM(Net):
    """The paper's network: a bidirectional LSTM reads the words in the order of the set.

    The last hidden states of both directions of the last layer, concatenated, go through
    Linear(2h → 2K) GELU Dropout Linear(2K → K) (hyper-ofa `hypernetwork/lstm.py`). Defaults are Table 1's for
    RoBERTa-100; the published YAML says one layer and dropout 0.2.

    Args:
        word_dim: d, width of the word vectors.
        coordinate_dim: K, width of the coordinates.
        hidden_dim: h, width of each direction (paper: 800, or 1600 for K = 400).
        num_layers: LSTM layers (paper: 2 for RoBERTa, 4 for XLM-R).
        dropout: between layers and in the head (paper: 0.4).
    """

    def __init__(
        self, word_dim: int, coordinate_dim: int, hidden_dim: int = 800, num_layers: int = 2, dropout: float = 0.4
    ) -> None:
        super().__init__(word_dim, coordinate_dim)
        check_sizes(dropout, hidden_dim=hidden_dim, num_layers=num_layers)
        self.hidden_dim, self.num_layers, self.dropout = hidden_dim, num_layers, dropout
        between = dropout if num_layers > 1 else 0.0  # torch warns of a dropout that has nothing to stand between
        self.lstm = nn.LSTM(
            word_dim, hidden_dim, num_layers=num_layers, batch_first=True, dropout=between, bidirectional=True
        )
        self.head = layers.head(2 * hidden_dim, 2 * coordinate_dim, coordinate_dim, dropout)

    def forward(self, sets: WordSets, memory: Memory | None = None, self_index: Tensor | None = None) -> Tensor:
        """Predict coordinates `(B, K)`; the order of the words matters."""
        self.check(sets)
        words_first = sets.mask.argsort(dim=1, descending=True, stable=True)[..., None]
        vectors = sets.vectors.gather(1, words_first.expand_as(sets.vectors))
        lengths = sets.mask.sum(dim=1).cpu()  # as packing wants them: a GPU has to finish first
        packed = pack_padded_sequence(vectors, lengths, batch_first=True, enforce_sorted=False)
        _, (hidden, _) = self.lstm(packed)  # (2 · num_layers, B, h)
        return self.head(torch.cat((hidden[-2], hidden[-1]), dim=-1))
