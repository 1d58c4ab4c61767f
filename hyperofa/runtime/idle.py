"""Settings that nothing would read, as things are: told by their flags, not taken and left aside.

check_read(train_vectors, locals(), Use(("epochs", "buckets"), method == "fasttext", "with --method fasttext"))
"""

import inspect
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, fields, is_dataclass
from typing import Any

from hyperofa.errors import InputError


@dataclass(frozen=True)
class Use:
    """What some settings are of.

    Attributes:
        settings: their names; that of a dataclass stands for all its fields, `training.save_every` for one.
        read: whether they are, as things are.
        where: when they would be, such as "with --text".
    """

    settings: tuple[str, ...]
    read: bool
    where: str


def check_read(function: Callable[..., Any], values: Mapping[str, Any], *uses: Use) -> None:
    """See that what was given is read; what is as it would be anyway was not given.

    Args:
        function: whose settings they are.
        values: of its parameters, by name.
        uses: of some of them.

    Raises:
        InputError: a setting that nothing would read.
    """
    for error in unread(changed_settings(function, values), *uses):
        raise error


def unread(changed: Mapping[str, Any], *uses: Use, prefix: str = "") -> Iterator[InputError]:
    """What to say of each setting that nothing reads.

    Args:
        changed: settings that were given, and their values.
        uses: of some of them.
        prefix: of their flags, such as `data.`.
    """
    for use in uses:
        for name, value in changed.items():
            if not use.read and not {name, name.partition(".")[0]}.isdisjoint(use.settings):
                shown = " ".join(map(str, value)) if isinstance(value, list | tuple) else value
                yield InputError(
                    f"--{prefix}{name}: expected none but {use.where}, found {shown}; leave it out, as nothing would "
                    "read it"
                )


def changed_settings(function: Callable[..., Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that are not as they would be anyway; of a dataclass each field, as `name.field`.

    Args:
        function: whose settings they are.
        values: of its parameters, by name; those that have no default are no settings.
    """
    found: dict[str, Any] = {}
    for name, parameter in inspect.signature(function).parameters.items():
        value, default = values.get(name), parameter.default
        parts = [each.name for each in fields(default)] if is_dataclass(default) else []
        pairs = {f"{name}.{part}": (getattr(value, part), getattr(default, part)) for part in parts}
        found |= {key: one for key, (one, other) in (pairs or {name: (value, default)}).items() if _given(one, other)}
    return found


def _given(value: Any, default: Any) -> bool:
    if default is None or default == ():
        return value is not None and not (isinstance(value, list | tuple) and not value)
    return default is not inspect.Parameter.empty and bool(value != default)
