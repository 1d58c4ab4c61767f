"""What made a folder: the command line of this process, or a call in Python."""

import inspect
import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, is_dataclass
from pathlib import Path
from typing import Any, Literal

_words: ContextVar[tuple[str, ...] | None] = ContextVar("_words", default=None)


@dataclass(frozen=True)
class Call:
    """What somebody typed, as one could type it again."""

    text: str
    language: Literal["sh", "python"]


@contextmanager
def command_line(words: Sequence[str]) -> Iterator[None]:
    """Whatever is made in this block is made by a command, not by the Python functions that it calls.

    Args:
        words: the command and its flags.
    """
    token = _words.set(tuple(words))
    try:
        yield
    finally:
        _words.reset(token)


def written_call(function: Callable[..., Any], values: Mapping[str, Any]) -> Call:
    """What to write down as the maker of a folder.

    Args:
        function: that was called.
        values: of its parameters, by name; those that are as they would be anyway are left out.

    Returns:
        The command line if this is a command; else the call.
    """
    words = _words.get()
    if words is not None:
        return Call(shlex.join(["hyperofa", *words]), "sh")
    parts = []
    for name, parameter in inspect.signature(function).parameters.items():
        shown = _shown(values[name])
        if parameter.default is inspect.Parameter.empty:
            parts.append(shown)
        elif shown != _shown(parameter.default):
            parts.append(f"{name}={shown}")
    return Call(f"{function.__name__}({', '.join(parts)})", "python")


def _shown(value: Any) -> str:
    """A value as Python writes it; of what has a path the path, of models, nets and tokenizers the class."""
    if isinstance(value, Path):
        return repr(str(value))
    if isinstance(value, list | tuple):
        inner = ", ".join(map(_shown, value))
        return f"[{inner}]" if isinstance(value, list) else f"({inner})"
    if isinstance(getattr(value, "path", None), str | Path):
        return repr(str(value.path))
    settings = is_dataclass(value) and all(map(_is_plain, vars(value).values()))
    return repr(value) if settings or _is_plain(value) else type(value).__name__


def _is_plain(value: Any) -> bool:
    return value is None or isinstance(value, str | int | float | dict)
