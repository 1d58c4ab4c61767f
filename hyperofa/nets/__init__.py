"""Hypernetworks: from the weighted set of words that contain a token to the token's coordinates.

Every net sees a `WordSets` batch and returns `(B, K)`. `SourceAttention` is the default; `MLP` is the simple choice;
`BiLSTM` and `SetFormer` are the two of the paper. Word vectors and memory come with the call: no net holds the word
table or the source embeddings. A new net is a file of this room and its name below.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hyperofa.nets.bilstm import BiLSTM
    from hyperofa.nets.mlp import MLP
    from hyperofa.nets.net import Net
    from hyperofa.nets.setformer import SetFormer
    from hyperofa.nets.source_attention import SourceAttention

__all__ = ["BiLSTM", "MLP", "Net", "SetFormer", "SourceAttention"]
NETS = {"SourceAttention": "source_attention", "MLP": "mlp", "BiLSTM": "bilstm", "SetFormer": "setformer"}
"""The module of each net, the default first."""


def __getattr__(name: str) -> Any:
    if name not in (*NETS, "Net"):
        raise AttributeError(f"module {__name__} has no attribute {name}")
    return getattr(import_module(f"{__name__}.{NETS.get(name, 'net')}"), name)
