"""What every hypernetwork is: word sets in, coordinates out, and a specification that rebuilds it."""

from abc import ABC, abstractmethod
from inspect import signature

import torch
from torch import Tensor, nn

from hyperofa.errors import InputError
from hyperofa.nets.inputs import FEATURES, Memory, WordSets


class Net(nn.Module, ABC):
    """A hypernetwork.

    Args:
        word_dim: d, width of the word vectors.
        coordinate_dim: K, width of the coordinates.
    """

    neighbours: int | None = None  # for `looks_at`
    dense_limit = 0
    frequency = False
    """Whether it asks the memory how often tokens occur."""
    languages = 0
    """How many languages it knows that tokens may be of; 0 for a net that does not ask the memory which."""
    forms = False
    """Whether it asks the memory what part of a word tokens are."""

    def __init__(self, word_dim: int, coordinate_dim: int) -> None:
        super().__init__()
        check_sizes(word_dim=word_dim, coordinate_dim=coordinate_dim)
        self.word_dim, self.coordinate_dim = word_dim, coordinate_dim

    def spec(self) -> dict[str, str | int | float | None]:
        """The net's class and constructor arguments as plain data: `build` makes an equal one of it.

        Every constructor argument is kept in an attribute of its name.
        """
        arguments = {name: getattr(self, name) for name in signature(type(self)).parameters}
        return {"class": net_name(type(self)), **arguments}

    @abstractmethod
    def forward(self, sets: WordSets, memory: Memory | None = None, self_index: Tensor | None = None) -> Tensor:
        """Predict coordinates.

        Args:
            sets: B word sets; call `check` on them first.
            memory: source tokens; only `SourceAttention` looks at them.
            self_index: `(B,)` int64, each token's own index in the memory, which is hidden from it; M or more for a
                token without one. `None` hides nothing, where the memory lists no neighbours.

        Returns:
            `(B, K)` float.

        Raises:
            ValueError: shapes that do not fit, a set without words, or not the memory that the net looks at.
        """

    def looks_at(self, count: int) -> int | None:
        """How many source tokens out of `count` a token looks at, which the memory must list; `None` for all."""
        return None if count <= self.dense_limit else self.neighbours

    def ask_for_usage(self, languages: int, forms: bool = True) -> None:
        """Ask the memory from now on how tokens are used, if this is a net that can.

        Rows say beside their meaning how often a token occurs, what part of a word it is and, for a language model, in
        which languages.

        Args:
            languages: how many there are; 0 not to ask for them.
            forms: whether to ask for parts of words.
        """

    def remember(self, memory: Memory) -> Memory:
        """The memory for a net that learns no more: what every call would compute of it, computed once."""
        return memory

    def check(self, sets: WordSets) -> None:
        """Refuse batches of the wrong shape and sets without words: what to predict from nothing is the caller's call.

        Only on a CPU are the sets looked into: a GPU would have to finish first, at every call, and compiled code would
        stop here.

        Raises:
            ValueError: with the shapes, or the rows without words.
        """
        rows = tuple(sets.mask.shape)
        expected = ((*rows, self.word_dim), (*rows, len(FEATURES)))
        found = (tuple(sets.vectors.shape), tuple(sets.features.shape))
        if len(rows) != 2 or found != expected:
            raise ValueError(
                f"expected word sets of shapes (B, W, {self.word_dim}), (B, W, {len(FEATURES)}) and (B, W), "
                f"found vectors {found[0]}, features {found[1]} and mask {rows}"
            )
        if sets.mask.device.type != "cpu" or torch.compiler.is_compiling():
            return
        empty = ~sets.mask.any(dim=1)
        if empty.any():
            raise ValueError(
                f"expected at least one word in every set, found none in rows {empty.nonzero()[:5, 0].tolist()} "
                f"({int(empty.sum())} of {rows[0]}); leave uncovered tokens out of the batch"
            )


def net_name(cls: type[Net]) -> str:
    """What checkpoints call a class of nets: its name if it is one of this package, its module and name if not."""
    built_in = cls.__module__.startswith(f"{__package__}.")
    return cls.__name__ if built_in else f"{cls.__module__}.{cls.__qualname__}"


def check_sizes(dropout: float = 0.0, /, **sizes: int) -> None:
    """Refuse widths and counts below 1, and a dropout outside of [0, 1).

    Raises:
        InputError: naming the argument.
    """
    for name, size in sizes.items():
        if size < 1:
            raise InputError(f"net.{name}: expected a whole number > 0, found {size}")
    if not 0 <= dropout < 1:
        raise InputError(f"net.dropout: expected a probability from 0 to below 1, found {dropout}")
