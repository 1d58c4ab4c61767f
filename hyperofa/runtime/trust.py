"""Code that is run only where users say so: modules of their own, and what a model's folder brings along.

Nothing that a file names is imported unless it is in one of these modules, and no code of a model or tokenizer is run
(transformers would ask on a terminal) without `--trust_remote_code true`.
"""

import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

from hyperofa.errors import InputError

FLAG = "--trust"
REMOTE_CODE_FLAG = "--trust_remote_code"
_trusted: list[str] = []
_remote_code = False


def trust(modules: Sequence[str]) -> None:
    """Import modules, so that what they register is there, and let settings name the classes in them.

    Args:
        modules: names with dots; for as long as this process lives.

    Raises:
        InputError: one that is not on the path.
    """
    for module in modules:
        try:
            import_module(module)
        except ModuleNotFoundError as error:
            raise InputError(
                f"{FLAG} {module}: expected a module that Python finds, {error}; install it, or name its folder in "
                "PYTHONPATH (the current folder is not searched)"
            ) from None
        if module not in _trusted:
            _trusted.append(module)


def trusted() -> list[str]:
    """What this process trusts."""
    return list(_trusted)


def trusted_files() -> list[Path]:
    """The sources of what this process trusts, of a package all; they can change a result."""
    modules = [sys.modules[name] for name in _trusted]
    folders = [Path(folder) for module in modules for folder in getattr(module, "__path__", ())]
    files = [Path(module.__file__) for module in modules if module.__file__ is not None]
    return sorted({*files, *(file for folder in folders for file in folder.rglob("*.py"))})


def trust_flags() -> list[str]:
    """The words that make a command trust what this process does."""
    modules = [word for module in _trusted for word in (FLAG, module)]
    return [*modules, *([REMOTE_CODE_FLAG, "true"] if _remote_code else [])]


def remote_code_trusted() -> bool:
    """Whether code in the folders of models and tokenizers may be run, where the caller does not say."""
    return _remote_code


def take_remote_code_flag(words: Sequence[str]) -> list[str]:
    """Trust the code of models and tokenizers, or not, for as long as this process lives or until the next call.

    Args:
        words: the command line; in a file the flag does not count.

    Returns:
        The command line without the flag.

    Raises:
        InputError: the flag without `true` or `false`.
    """
    global _remote_code
    _remote_code = False
    others, values = take_flag(words, REMOTE_CODE_FLAG)
    for value in values:
        if value not in ("true", "false"):
            raise InputError(f"{REMOTE_CODE_FLAG}: expected true or false, found {value!r}")
        _remote_code = value == "true"
    return others


def take_flag(words: Sequence[str], flag: str) -> tuple[list[str], list[str]]:
    """Split a flag off a command line, `--flag VALUE` and `--flag=VALUE` alike.

    Args:
        words: the command line.
        flag: with its dashes.

    Returns:
        The other words, and the flag's values in their order; an empty one where nothing follows it.
    """
    others: list[str] = []
    values: list[str] = []
    left = iter(words)
    for word in left:
        name, _, value = word.partition("=")
        if name == flag:
            values.append(value or next(left, ""))
        else:
            others.append(word)
    return others, values
