"""The words of a command line: flags that take several values, and what is said of a wrong one."""

import inspect
import json
import os
import re
from collections.abc import Callable, Iterator
from dataclasses import is_dataclass
from functools import partial
from pathlib import Path
from types import NoneType
from typing import Any, NoReturn, cast, get_args

import yaml
from jsonargparse import ArgumentParser, get_loader, set_loader

from hyperofa.errors import InputError, did_you_mean
from hyperofa.runtime.yaml_text import read_yaml

set_loader("yaml", partial(read_yaml, load=get_loader("yaml")), (yaml.YAMLError,))


class Parser(ArgumentParser):
    """A parser that says in one line what is wrong, without the list of all flags."""

    def format_help(self, *args: Any, **options: Any) -> str:
        """The list of all flags, with bounds in plain words: `int, at least 1`."""
        return re.sub(r"Annotated\[([^\[\]]*)\]", r"\1", super().format_help(*args, **options))

    def parse_args(self, *args: Any, **options: Any) -> Any:
        """Parse; a class that may not be named is told as any other mistake, also where none is taken."""
        try:
            return self._without_nulls(super().parse_args(*args, **options))
        except ValueError as error:
            if type(error).__name__ != "ImportDenied":  # of a module that is private to jsonargparse
                raise
            self.error(str(error), error)

    def parse_object(self, *args: Any, **options: Any) -> Any:
        """Parse settings that are read already."""
        return self._without_nulls(super().parse_object(*args, **options))

    def _without_nulls(self, settings: Any) -> Any:
        """The settings, unless a file says null where that is no value, which jsonargparse looks at in flags alone."""
        for action in self._actions:
            known = action.default is None or NoneType in get_args(getattr(action, "_typehint", None))
            if not known and settings.get(action.dest, action) is None:
                self.error(f"--{action.dest}: expected a value, found null; leave it out for {action.default!r}")
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
        program, _, command = parser.prog.partition(" [options]")
        if not command:  # of all commands, or of a class that is an argument
            raise InputError(_one_line(message))
        raise InputError(f"{_one_line(message)}{''.join(hints)} (see {program}{command} --help)")


def _one_line(message: str) -> str:
    message = re.sub(r'Parser key "([^"]+)":', r"--\1:", " ".join(message.split()))
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
    refused = re.match(r"(--[\w.]+:) .*Errors: - (Option '\w+' is not accepted)", message)
    if refused:  # by the class that the slot takes, whatever else it takes
        return f"{refused[1]} {refused[2]}"
    kinds = re.findall(r"Expected an? <class '(\w+)'>", message)
    choices = re.search(r"typing\.Literal\[(.*?)\]", message)
    found = re.match(r"(--[\w.]+:).* (?:Given|Got) value: (.*)$", message)
    if found and (kinds or choices):
        expected = [] if choices is None else [f"one of {choices[1]}"]
        expected += dict.fromkeys("null" if kind == "NoneType" else kind for kind in kinds)
        near = did_you_mean(found[2], re.findall(r"'(\w+)'", choices[1] if choices else ""))
        return f"{found[1]} expected {' or '.join(expected)}, found {found[2]}{near}"
    return message


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
