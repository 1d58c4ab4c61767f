"""A wrong value of any flag of any command is told in a line that says what is expected there."""

import inspect
import re
from collections.abc import Callable, Iterator
from dataclasses import is_dataclass
from typing import Any

import pytest
from jsonargparse import auto_parser

from hyperofa.cli import main
from hyperofa.commands import COMMANDS
from hyperofa.errors import InputError
from hyperofa.flags import Parser, expected, gather_lists
from hyperofa.runtime.ranges import Count, Seed, Share
from hyperofa.signatures import read_signature

HUGE = str(10**22)  # there is no room for it in an index
WRONG = ["many", "3", "-3", "2.5", "nan", "null", "[1, 2]", "{a: 1}", "yes?", HUGE]
RAW = re.compile(r"<class|typing\.|Union|subtypes|Given value|Expected a|\n|NoneType|None")


def flags_of(function: Callable[..., Any], prefix: str = "") -> Iterator[tuple[str, bool]]:
    """Flags of what a function takes, and whether they are required."""
    for name, parameter in inspect.signature(function).parameters.items():
        if is_dataclass(parameter.annotation):
            yield from flags_of(parameter.annotation, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", parameter.default is inspect.Parameter.empty


@pytest.mark.parametrize("command", COMMANDS)
def test_a_wrong_value_of_any_flag(command):
    function = read_signature(COMMANDS[command])
    parser = auto_parser(function, as_positional=False, parser_class=Parser)
    flags = dict(flags_of(function))
    given = {flag: "x" for flag, required in flags.items() if required}
    told = []
    for flag in flags:
        for wrong in WRONG:
            words = [word for name, value in {**given, flag: wrong}.items() for word in (f"--{name}", value)]
            try:
                parser.parse_args(gather_lists(words, {"": function}))
            except InputError as error:
                told.append((flag, error.with_flags))
    assert told
    for flag, said in told:
        assert re.match(rf"--{re.escape(flag)}: expected .+, found .+", said)
        assert not RAW.search(said)


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        (bool, "true or false"),
        (Count | None, "a whole number, at least 1 or null"),
        (Seed, "a whole number from 0 to 4294967295"),
        (Share, "a number from 0 to 1"),
        (list[int], "a list of whole numbers"),
        (dict[str, dict], "{name: {name: value}}"),
        (dict[str, list] | None, "{name: [value, ...]} or null"),
    ],
)
def test_types_in_plain_words(kind, said):
    assert expected(kind) == said


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["vectors", "convert", "--vectors", "", "--output", "o"], "--vectors: expected a value, found nothing"),
        (["prepare", "--vectors=", "--output", "o"], "--vectors: expected a value, found nothing"),
        (["fit", "--data.bundle="], "--data.bundle: expected a value, found nothing"),
    ],
)
def test_a_variable_that_is_not_set_is_no_path(words, said, capsys):
    """It would be the current folder."""
    with pytest.raises(SystemExit, match="2"):
        main(words)
    assert capsys.readouterr().err == f"hyperofa: {said}\n"
