"""Bounds on what a setting or a file from elsewhere may have built: a number in it can ask for all memory there is."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import nn
from torch.nn.modules.module import register_module_parameter_registration_hook

from hyperofa.errors import InputError


class _TooLarge(InputError):
    pass


@contextmanager
def bounded(refusal: str, tensors: int, elements: float = float("inf")) -> Iterator[None]:
    """Refuse to build modules that have more parameters than this; of a thousand million layers the first are built.

    Args:
        refusal: what to say then.
        tensors: parameters, at most.
        elements: numbers in them, at most.

    Raises:
        InputError: there are more.
    """
    count = size = 0

    def add(module: nn.Module, name: str, parameter: nn.Parameter) -> None:
        nonlocal count, size
        count, size = count + 1, size + (parameter.numel() if isinstance(parameter, torch.Tensor) else 0)
        if count > tensors or size > elements:
            raise _TooLarge(refusal)

    hook = register_module_parameter_registration_hook(add)
    try:
        yield
    finally:
        hook.remove()


def check_size(make: Callable[[], object], refusal: str, tensors: int, elements: float) -> None:
    """See how large a module would be, in no memory.

    Args:
        make: builds it.
        refusal: as for `bounded`.
        tensors: as for `bounded`.
        elements: as for `bounded`.

    Raises:
        InputError: it would be too large. Any other error is left to whoever builds it.
    """
    try:
        with torch.random.fork_rng(devices=[]), bounded(refusal, tensors, elements), torch.device("meta"):
            make()
    except _TooLarge:
        raise
    except Exception:  # a net of a user's own may need numbers
        return
