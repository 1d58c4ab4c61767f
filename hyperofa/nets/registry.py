"""Which hypernetworks there are, and how one is made of its specification."""

from collections.abc import Sequence
from typing import Any, TypeVar

from torch import Tensor

import hyperofa.nets
from hyperofa.errors import InputError
from hyperofa.nets.net import Net, net_name
from hyperofa.nets.sizes import check_size

NETS: dict[str, type[Net]] = {name: getattr(hyperofa.nets, name) for name in hyperofa.nets.NETS}
_BUILT_IN = tuple(NETS)
_Class = TypeVar("_Class", bound=type[Net])


def register_net(cls: _Class) -> _Class:
    """Let checkpoints of a net of your own be read, wherever the module that does this is imported.

    On a command line, `--trust MODULE` imports it; a checkpoint itself never does.

    Args:
        cls: the class, which keeps every constructor argument in an attribute of its name.

    Returns:
        The class, so that this can stand above it: `@register_net`.

    Raises:
        InputError: no class of nets.

    Example:
        >>> import hyperofa
        >>> from hyperofa.nets.mlp import MLP
        >>> @hyperofa.register_net
        ... class MyNet(MLP):
        ...     "Trained by `hyperofa fit --trust my_module --model.net my_module.MyNet`."
    """
    if not isinstance(cls, type) or not issubclass(cls, Net):
        raise InputError(f"register_net: expected a subclass of hyperofa.nets.net.Net, found {cls!r}")
    NETS[net_name(cls)] = cls
    return cls


def check_registered(net: Net) -> None:
    """Refuse a net whose checkpoints nobody could read, before it is trained.

    Raises:
        InputError: its class is not registered.
    """
    name = net_name(type(net))
    if NETS.get(name) is not type(net):
        raise InputError(
            f"--model.net {name}: expected a net that is registered, found one that is not, whose checkpoints could "
            "not be read; put @hyperofa.register_net above its class"
        )


def build(spec: dict[str, Any], weights: Sequence[Tensor] | None = None) -> Net:
    """The net of a `Net.spec`; registered nets alone, since the specification may come from a stranger's file.

    Args:
        spec: class and arguments.
        weights: that it will be given; a net of more is not built, for it might fill the memory.

    Raises:
        InputError: another class, arguments it does not take, or more of a net than there are weights.
    """
    arguments = dict(spec)
    name = arguments.pop("class", None)
    if not isinstance(name, str) or name not in NETS:
        module = name.rpartition(".")[0] if isinstance(name, str) else ""
        raise InputError(
            f"expected a registered net, found {name!r}; if you trust the module {module}, let it call "
            f"hyperofa.register_net on the class, and import it (--trust {module})"
            if module
            else f"expected a net of {', '.join(_BUILT_IN)}, found {name!r}"
        )
    if weights is not None:
        refusal = f"expected the arguments of a {name} of {len(weights)} weights, found {arguments}"
        held = sum(each.numel() for each in weights)  # twice: a net may replace parameters while it is built
        check_size(lambda: NETS[name](**arguments), refusal, 2 * len(weights), 2 * held)
    try:
        return NETS[name](**arguments)
    except (TypeError, ValueError, ArithmeticError, RuntimeError, MemoryError) as error:
        raise InputError(f"expected the arguments of {name}, found {arguments} ({error})") from None
