"""Which hypernetworks there are, and how one is made of its specification."""

from typing import Any

from hyperofa.errors import InputError
from hyperofa.nets.bilstm import BiLSTM
from hyperofa.nets.mlp import MLP
from hyperofa.nets.net import Net
from hyperofa.nets.setformer import SetFormer
from hyperofa.nets.source_attention import SourceAttention

NETS: dict[str, type[Net]] = {net.__name__: net for net in (SourceAttention, MLP, BiLSTM, SetFormer)}


def build(spec: dict[str, Any]) -> Net:
    """The net of a `Net.spec`; only the nets of this module, since the specification may come from a stranger's file.

    Raises:
        InputError: another class, or arguments it does not take.
    """
    arguments = dict(spec)
    name = arguments.pop("class", None)
    if name not in NETS:
        raise InputError(f"expected a net of {', '.join(NETS)}, found {name!r}")
    try:
        return NETS[name](**arguments)
    except TypeError as error:
        raise InputError(f"expected the arguments of {name}, found {arguments} ({error})") from None
