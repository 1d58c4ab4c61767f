"""Numbers within bounds: said once, in the type of a parameter, and checked wherever it is given.

    @in_range()
    def prepare(count: Count | None = None, seed: Seed = 0) -> Bundle: ...

A dataclass does the same in `__post_init__`, with `check_ranges`.
"""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from functools import wraps
from typing import Annotated, Any, TypeVar, get_args, get_type_hints

from hyperofa.errors import InputError

F = TypeVar("F", bound=Callable[..., Any])
LARGEST = 2**31 - 1
"""Largest count: fastText has room for no larger one, and 64 bits for the product of two of them."""


@dataclass(frozen=True)
class Bounds:
    """The lowest and the highest value; `above` and `below` leave out the bound itself."""

    low: float
    high: float | None = None
    above: bool = False
    below: bool = False

    def holds(self, value: float) -> bool:
        """Whether a number is within; what is not finite never is."""
        high = float("inf") if self.high is None else self.high
        over_low = value > self.low if self.above else value >= self.low
        return over_low and value < float("inf") and (value < high if self.below else value <= high)

    def wanted(self, value: float) -> str:
        """What to say is expected in place of a value that is out of bounds."""
        return f"at most {self.high}" if self.high == LARGEST and value > LARGEST else str(self)

    def __repr__(self) -> str:  # `--help` shows it
        if self.high is not None and self.high != LARGEST:
            return f"a number from {self.low} to {'below ' if self.below else ''}{self.high}"
        return f"a number above {self.low}" if self.above else f"at least {self.low}"


Count = Annotated[int, Bounds(1, LARGEST)]
Size = Annotated[int, Bounds(0, LARGEST)]
Seed = Annotated[int, Bounds(0, 2**32 - 1)]
Share = Annotated[float, Bounds(0, 1)]
Chance = Annotated[float, Bounds(0, 1, below=True)]
NonNegative = Annotated[float, Bounds(0)]
Positive = Annotated[float, Bounds(0, above=True)]


def in_range(prefix: str = "") -> Callable[[F], F]:
    """Make a function refuse numbers out of the bounds of its parameters' types, with an `InputError` that names one.

    Args:
        prefix: of its flags, such as `data.`.
    """

    def check_arguments(function: F) -> F:
        @wraps(function)
        def checked(*args: Any, **keywords: Any) -> Any:
            given = inspect.signature(function).bind(*args, **keywords).arguments
            _check(_bounds(function), given, prefix)
            return function(*args, **keywords)

        return checked  # type: ignore[return-value]  # the same parameters, the same result

    return check_arguments


def check_ranges(options: Any, prefix: str) -> None:
    """See that the fields of a dataclass are within their bounds.

    Args:
        options: the dataclass.
        prefix: of its flags, such as `training.`.

    Raises:
        InputError: naming the field.
    """
    _check(_bounds(type(options)), {each.name: getattr(options, each.name) for each in fields(options)}, prefix)


def _check(bounds: Mapping[str, Bounds], values: Mapping[str, Any], prefix: str) -> None:
    for name, value in values.items():
        if name in bounds and value is not None and not bounds[name].holds(value):
            raise InputError(f"--{prefix}{name}: expected {bounds[name].wanted(value)}, found {value}")


def _bounds(typed: Any) -> dict[str, Bounds]:
    """The bounds of parameters or fields by name, also of those that may be `None`."""
    return {
        name: bounds
        for name, hint in get_type_hints(typed, include_extras=True).items()
        for part in (hint, *get_args(hint))
        for bounds in getattr(part, "__metadata__", ())
        if isinstance(bounds, Bounds)
    }
