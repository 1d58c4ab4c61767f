"""The words of a command line: flags that take several values, and what is said of a wrong one."""

import inspect
import json
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import is_dataclass
from functools import partial
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, NoReturn, Union, cast, get_args, get_origin

import yaml
from jsonargparse import ArgumentParser, get_loader, set_loader

from hyperofa.errors import InputError, did_you_mean
from hyperofa.runtime.ranges import Bounds
from hyperofa.runtime.yaml_text import read_yaml

set_loader("yaml", partial(read_yaml, load=get_loader("yaml")), (yaml.YAMLError,))

_ONE = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "text",
    Path: "a path",
    NoneType: "null",
    dict: "{name: value}",
}
_NO_CLASS = re.compile(r"Expected a dot import path string|expects a function or a callable class")
_LISTED = 12  # classes
_INDEX = Bounds(-(2**63), 2**63 - 1)  # what a number can be in the libraries that take it
_MAY_BE_EMPTY = ("languages", "title")  # flags; of words without a language
_MANY = {int: "whole numbers", float: "numbers", str: "texts", Path: "paths"}


class Parser(ArgumentParser):
    """A parser that says in one line what is wrong, without the list of all flags."""

    def format_help(self, *args: Any, **options: Any) -> str:
        """The list of all flags, with bounds in plain words: `int, at least 1`."""
        return re.sub(r"Annotated\[([^\[\]]*)\]", r"\1", super().format_help(*args, **options))

    def parse_args(self, *args: Any, **options: Any) -> Any:
        """Parse; a class that may not be named is told as any other mistake, also where none is taken."""
        try:
            return self._checked(super().parse_args(*args, **options))
        except ValueError as error:
            if type(error).__name__ != "ImportDenied":  # of a module that is private to jsonargparse
                raise
            self.error(str(error), error)

    def parse_object(self, *args: Any, **options: Any) -> Any:
        """Parse settings that are read already."""
        return self._checked(super().parse_object(*args, **options))

    def _checked(self, settings: Any) -> Any:
        """The settings, unless a number is out of bounds, or a file says null where that is no value.

        jsonargparse looks at neither: at null in flags alone.
        """
        for action in self._actions:
            kind, value = getattr(action, "_typehint", None), settings.get(action.dest, action)
            if value is None and action.default is not None and NoneType not in get_args(kind):
                self.error(f"--{action.dest}: expected a value, found null; leave it out for {action.default!r}")
            limits = [*_bounds(kind), *([_INDEX] if type(value) is int else [])]
            for bounds in limits if type(value) in (int, float) else ():
                if not bounds.holds(value):
                    self.error(f"--{action.dest}: expected {bounds.wanted(value)}, found {value}")
        return settings

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Refuse the command line.

        Raises:
            InputError: always.
        """
        parser = getattr(ex, "subcommand_parser", None) or self
        hints = [
            did_you_mean(flag, parser._option_string_actions)
            for flag in re.findall(r"(?<=unrecognized arguments: )--[^\s=]+", message)
        ]
        kinds = {action.dest: kind for action in parser._actions if (kind := getattr(action, "_typehint", None))}
        said = _one_line(message, kinds)
        program, _, command = parser.prog.partition(" [options]")
        if not command:  # of all commands, or of a class that is an argument
            raise InputError(said)
        raise InputError(f"{said}{''.join(hints)} (see {program}{command} --help)")


def _one_line(message: str, kinds: Mapping[str, Any]) -> str:
    """What jsonargparse says of a mistake, in a line.

    Args:
        message: of jsonargparse, of many lines.
        kinds: types of the parser's arguments.
    """
    message = re.sub(r'Parser key "([^"]+)":', r"--\1:", " ".join(message.split()))
    named = re.match(r"--([\w.]+):", message)
    flag = named[1] if named else ""
    kind = kinds.get(flag)
    denied = re.search(r"^(--[\w.]+:)?.*?Importing '([^']+)' is not allowed", message)
    if denied:
        found = denied[2]
        return (
            f"{denied[1] or 'settings:'} expected a class of hyperofa or of Lightning that fits here, or one of a "
            f"module given with --trust, found {found}"
        )
    missing = re.fullmatch(r"(the following arguments are required: )(.*)", message)
    if missing:
        names = (re.sub(r"^(fit|validate|test|predict)\.", "", name) for name in missing[2].split(", "))
        return missing[1] + ", ".join(f"--{name}" for name in names)
    unknown = re.fullmatch(r"Option '([\w.-]+)' is not accepted", message)
    if unknown:  # in a file, or of a class that is an argument
        hint = did_you_mean(unknown[1], sorted(kinds))
        return f"{unknown[1]}: expected a setting that there is, found one of another name{hint}"
    within = re.match(r"--([\w.]+):.* - (\w+: expected .*?, found .*?) - Expected ", message)
    if within:  # an argument of that class
        return f"--{within[1]}.init_args.{within[2]}"
    group = re.match(r"--(\w+): Unable to load config '(.*)' - --\1: Unable", message)
    if group:
        return f"--{group[1]}: expected {_ONE[dict]} or a file of settings, found {group[2]}"
    found = re.search(
        r" (?:(?:Given|Got) value:|Expected a path but)((?!.* Given value:).*?)(?: either not .*)?$", message
    )
    wanted = expected(kind) if found else ""
    if not found or not wanted or (_classes(kind) and _NO_CLASS.search(message) is None):
        return message
    value = {"": "nothing", "None": "null"}.get(found[1].strip(), found[1].strip())
    return f"--{flag}: expected {wanted}, found {value}{did_you_mean(value.strip('[]'), _choices(kind))}"


def expected(kind: Any) -> str:
    """What a value of some type is, in plain words, such as `a whole number, at least 1`; nothing where none are known.

    Args:
        kind: the type.
    """
    origin, inner = get_origin(kind), get_args(kind)
    if origin is Annotated:
        one, limits = expected(inner[0]), str(inner[1])
        return one + limits.removeprefix("a number") if limits.startswith("a number") else f"{one}, {limits}"
    if origin in (Union, UnionType):
        words = [part for part in inner if get_origin(part) is Literal]
        others = [expected(part) for part in inner if part not in words]
        return " or ".join([*([_one_of(words)] if words else []), *dict.fromkeys(others)]) if all(others) else ""
    if origin is Literal:
        return _one_of([kind])
    if origin in (list, Sequence, Iterable):
        if get_origin(inner[0]) is Literal:
            return f"some of {_one_of(inner).removeprefix('one of ')}"
        name = inner[0].__name__ if isinstance(inner[0], type) else "value"
        return f"a list of {_MANY.get(inner[0], f'{name}s')}"
    if origin is Callable:
        return expected(inner[-1])
    if kind in _ONE or not isinstance(kind, type):
        return _shape(kind) if origin is dict else _ONE.get(kind, "")
    names = [each.__name__ for each in _named(kind)]
    listed = f" ({', '.join(names)})" if 0 < len(names) <= _LISTED else ""
    return f"{'an' if kind.__name__[0] in 'AEIOU' else 'a'} {kind.__name__}{listed}"


def _one_of(kinds: Iterable[Any]) -> str:
    return f"one of {', '.join(dict.fromkeys(repr(str(word)) for kind in kinds for word in get_args(kind)))}"


def _shape(kind: Any) -> str:
    """How a dict is written, and what is in one."""
    if (get_origin(kind) or kind) is dict:
        return f"{{name: {_shape((get_args(kind) or [str, str])[1])}}}"
    return "[value, ...]" if (get_origin(kind) or kind) is list else "value"


def _choices(kind: Any) -> list[str]:
    """The words that a type lets one choose from; of a class the names of those that are one."""
    if kind is bool:
        return ["true", "false"]
    if get_origin(kind) is Literal:
        return list(map(str, get_args(kind)))
    inner = [choice for part in get_args(kind) for choice in _choices(part)]
    return inner or [each.__name__ for each in _named(kind)]


def _classes(kind: Any) -> list[type]:
    """The classes in a type whose objects the settings describe."""
    if get_args(kind):
        return [found for part in get_args(kind) for found in _classes(part)]
    return [kind] if isinstance(kind, type) and kind not in (*_ONE, list) else []


def _named(kind: Any) -> list[type]:
    """The classes that can be named where a type is asked for, by name."""
    queue, found = _classes(kind), dict[str, type]()
    while queue:
        below: list[type] = queue.pop().__subclasses__()
        for each in below:
            queue.append(each)
            if not each.__name__.startswith("_") and not inspect.isabstract(each):
                found.setdefault(each.__name__, each)
    return [found[name] for name in sorted(found)]


def _bounds(kind: Any) -> Iterator[Bounds]:
    """The bounds of a number, or of what may be one."""
    for inner in get_args(kind):
        if isinstance(inner, Bounds):
            yield inner
        yield from _bounds(inner)


def check_configs(words: list[str]) -> None:
    """See that the files of settings can be read.

    Args:
        words: the command line.

    Raises:
        InputError: a file of `--config` is not UTF-8 text. One that is not there, or not YAML, the parser refuses.
    """
    for number, word in enumerate(words):
        flag, _, value = word.partition("=")
        path = Path(value or "".join(words[number + 1 : number + 2]))
        if flag == "--config" and os.path.isfile(path):
            try:
                path.read_text(encoding="utf-8")
            except UnicodeDecodeError as error:
                raise InputError(f"--config {path}: expected UTF-8 text; {error}") from None


def check_given(words: list[str]) -> None:
    """See that no flag is given an empty word, such as a variable of the shell that is not set.

    Args:
        words: the command line.

    Raises:
        InputError: one is not; as a path it would be the current folder.
    """
    for number, word in enumerate(words):
        flag, equals, value = word.partition("=")
        empty = value == "" if equals else words[number + 1 : number + 2] == [""]
        if flag.startswith("--") and empty and not flag.endswith(_MAY_BE_EMPTY):
            raise InputError(f"{flag}: expected a value, found nothing")


def gather_lists(words: list[str], functions: dict[str, Callable[..., Any]]) -> list[str]:
    """Let a flag of list type be given several values, or several times: `--vectors A B`, `--vectors A --vectors B`.

    Args:
        words: the command line.
        functions: whose arguments have flags, by the prefix of these.

    Returns:
        The command line with one JSON list for each such flag, at its end: flags win over `--config` as elsewhere.
    """
    lists = {flag for prefix, function in functions.items() for flag in _list_flags(function, f"--{prefix}")}
    others: list[str] = []
    values: dict[str, list[str]] = {}
    flag: str | None = None
    for word in words:
        if word.startswith("--"):
            name, _, value = word.partition("=")
            flag = name if name in lists else None
            if flag is not None:
                values.setdefault(flag, []).extend([value] if value else [])
                continue
        if flag is None:
            others.append(word)
        else:
            values[flag].append(word)
    for flag, given in values.items():
        as_is = len(given) == 1 and (given[0].startswith("[") or given[0] == "null")
        others += [flag, given[0] if as_is else json.dumps(given, ensure_ascii=False)]
    return others


def _list_flags(function: Callable[..., Any], prefix: str) -> Iterator[str]:
    """Flags of a function's parameters of list type, and of those of the options that it takes.

    Args:
        function: or a dataclass.
        prefix: of its flags.
    """
    for name, parameter in inspect.signature(function).parameters.items():
        if is_dataclass(parameter.annotation):
            yield from _list_flags(cast(Callable[..., Any], parameter.annotation), f"{prefix}{name}.")
        elif re.search(r"(list|Sequence)\[(?!int)", str(parameter.annotation)):
            yield f"{prefix}{name}"
