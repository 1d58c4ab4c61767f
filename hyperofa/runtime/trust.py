"""Modules of their own that users let a command import; nothing that a file names is imported unless it is in one."""

import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

from hyperofa.errors import InputError

FLAG = "--trust"
_trusted: list[str] = []


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
    return [word for module in _trusted for word in (FLAG, module)]
