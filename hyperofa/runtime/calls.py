"""What made a folder: the command line of this process, or a call in Python."""

import inspect
import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, is_dataclass
from pathlib import Path
from typing import Any, Literal

from hyperofa.errors import InputError

_OUTPUT = "output"
_ANYWHERE = "DIR"
_outermost: ContextVar["Call | None"] = ContextVar("_outermost", default=None)


@dataclass(frozen=True)
class Call:
    """What somebody typed, as one could type it again: but for where to, as a folder is the same wherever it lies."""

    text: str
    language: Literal["sh", "python"]

    def __str__(self) -> str:
        return self.text


@contextmanager
def command_line(words: Sequence[str]) -> Iterator[None]:
    """Whatever is made in this block is made by a command, not by the Python functions that it calls.

    Args:
        words: the command and its flags.
    """
    with _making(Call(shlex.join(["hyperofa", *_anywhere(words)]), "sh")):
        yield


def as_typed(error: InputError) -> str:
    """A message in the words of whoever reads it: with flags where a command line was typed, else with parameters."""
    outermost = _outermost.get()
    return error.with_flags if outermost is not None and outermost.language == "sh" else str(error)


@contextmanager
def one_call(function: Callable[..., Any], values: Mapping[str, Any]) -> Iterator[None]:
    """Whatever is made in this block is made by one call, not by those that it makes, perhaps in a temporary folder.

    Args:
        function: that was called.
        values: of its parameters, by name.
    """
    with _making(written_call(function, values)):
        yield


@contextmanager
def _making(call: Call) -> Iterator[None]:
    token = _outermost.set(call)
    try:
        yield
    finally:
        _outermost.reset(token)


def written_call(function: Callable[..., Any], values: Mapping[str, Any]) -> Call:
    """What to write down as the maker of a folder.

    Args:
        function: that was called.
        values: of its parameters, by name; those that are as they would be anyway are left out.

    Returns:
        The command line if this is a command, or the call that this one is a part of; else the call.
    """
    outermost = _outermost.get()
    if outermost is not None:
        return outermost
    parts = []
    for name, parameter in inspect.signature(function).parameters.items():
        shown = _shown(values[name] if name != _OUTPUT else _ANYWHERE)
        if parameter.default is inspect.Parameter.empty:
            parts.append(shown)
        elif shown != _shown(parameter.default):
            parts.append(f"{name}={shown}")
    return Call(f"{function.__name__}({', '.join(parts)})", "python")


def _anywhere(words: Sequence[str]) -> list[str]:
    """A command line without the name of what it writes."""
    others = list(words)
    for place, word in enumerate(words):
        flag, given, _ = word.partition("=")
        if flag == f"--{_OUTPUT}":
            others[place : place + 1 + (not given)] = [f"{flag}={_ANYWHERE}"] if given else [flag, _ANYWHERE]
    return others


def _shown(value: Any) -> str:
    """A value as Python writes it; of what has a path the path, of nets, models and tokenizers the class.

    Of a trained net also the beginning of its digest, which manifests have in full.
    """
    if isinstance(value, Path):
        return repr(str(value))
    if isinstance(value, list | tuple):
        inner = ", ".join(map(_shown, value))
        return f"[{inner}]" if isinstance(value, list) else f"({inner})"
    if isinstance(getattr(value, "path", None), str | Path):
        return repr(str(value.path))
    if isinstance(digest := getattr(value, "digest", None), str):
        return f"<{type(value).__name__} {digest[:12]}>"
    settings = is_dataclass(value) and all(map(_is_plain, vars(value).values()))
    return repr(value) if settings or _is_plain(value) else type(value).__name__


def _is_plain(value: Any) -> bool:
    return value is None or isinstance(value, str | int | float | dict)
