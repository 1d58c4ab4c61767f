"""The one error that is the user's to mend."""

import difflib
import re
from collections.abc import Iterable

_FLAG = re.compile(
    r"`[^`]*`"  # a command, left as it is
    r"|(?<![\w/-])--(?!help\b)(?P<name>[a-z]\w*(?:\.\w+)*)"
    r"(?: (?:(?P<constant>true|false|null)\b|(?P<word>[A-Za-z]*[a-z]\w*)(?=[:;,)]|$)))?"
)
_OF_COMMANDS = re.compile(r" \(--trust [^)]*\)")  # nothing that a call takes
_CONSTANTS = {"true": "True", "false": "False", "null": "None"}
_NAMES = {"checkpoint": "hypernetwork"}  # parameters that have another name than their flag


class InputError(ValueError):
    """Bad input: the message says what was expected, what was found, what to do, and names the parameter or file.

    It is written as the command line has it, `--data.text gone.txt` or `--overwrite true`, and printed so there: alone,
    without a traceback, with exit code 2. To whoever calls the library it says `text gone.txt` and `overwrite=True`.
    """

    @property
    def with_flags(self) -> str:
        """The message as the command line has it; another message that quotes this one quotes it so."""
        return str(self.args[0])

    def __str__(self) -> str:
        return _FLAG.sub(_parameter, _OF_COMMANDS.sub("", self.with_flags))


def _parameter(flag: re.Match[str]) -> str:
    """A flag, and its value where one follows, as a call in Python has it."""
    if flag["name"] is None:
        return flag[0]
    name = re.sub(r"^(data|model)\.|\binit_args\.", "", flag["name"])
    name = _NAMES.get(name, name)
    if flag["constant"]:
        return f"{name}={_CONSTANTS[flag['constant']]}"
    return f"{name}={flag['word']!r}" if flag["word"] else name


def did_you_mean(found: str, known: Iterable[str]) -> str:
    """The end of a message on a wrong name: the nearest right one, if one is near.

    Args:
        found: the wrong name.
        known: the right ones.
    """
    by_letters = {each.casefold(): each for each in known}
    near = difflib.get_close_matches(found.casefold(), by_letters, 1)
    return f"; did you mean {by_letters[near[0]]}?" if near else ""
