"""Which classes the settings of a command may name: those of this package and of Lightning, and whom the user trusts.

A YAML file comes from anywhere, and a `class_path` in it is imported and called. So a path outside of these modules is
refused before anything is imported; jsonargparse then checks that the class is one that its slot takes.
"""

import inspect
import sys
from collections.abc import Iterator, Mapping
from typing import Any

from jsonargparse import Namespace, set_parsing_settings

from hyperofa.errors import InputError
from hyperofa.runtime.trust import FLAG, take_flag, trust, trusted

_ALLOWED = [
    "hyperofa.nets",
    "hyperofa.training.curves",
    "hyperofa.training.resumption",
    "hyperofa.export.prediction",
    "hyperofa.export.watching",
    "hyperofa.curves",  # where older configs name `CurvePlot`
    *(
        f"lightning.{package}"
        for package in (
            "pytorch.accelerators", "pytorch.callbacks", "pytorch.loggers", "pytorch.plugins", "pytorch.profilers",
            "pytorch.strategies", "fabric.accelerators", "fabric.loggers", "fabric.plugins", "fabric.strategies",
        )
    ),
    "torch.distributed.algorithms.ddp_comm_hooks",
    "torch.distributed.fsdp",
]  # fmt: skip


def restrict_class_paths(words: list[str]) -> list[str]:
    """Let settings name no other classes than the allowed ones, from now on.

    Args:
        words: the command line; what follows `--trust` in it is imported and allowed too. In a file it does not count.

    Returns:
        The command line without these.

    Raises:
        InputError: `--trust` without a module, or with one that is not there.
    """
    others, modules = take_flag(words, FLAG)
    for module in modules:
        if not all(part.isidentifier() for part in module.split(".")):
            raise InputError(f"{FLAG}: expected the name of a module, such as my_nets, found {module!r}")
    trust(modules)
    set_parsing_settings(
        import_path_denylist=["*"],
        import_path_allowlist=[*_ALLOWED, *trusted()],
        instantiate_subclass_spec_in_any=False,
    )
    return others


def check_classes(config: Any) -> None:
    """Refuse what is called by its `class_path` and is no class: of a function no slot says what it may do.

    Args:
        config: parsed settings, before anything is made of them.

    Raises:
        InputError: naming the setting.
    """
    for key, path in _class_paths(config, ""):
        found = _imported(path)
        if found is not None and not inspect.isclass(found):
            raise InputError(f"--{key}: expected a class, found {path}")


def _imported(path: str) -> Any:
    """What a path with dots names among what is imported already; a setting that was parsed is."""
    module, names = path, list[str]()
    while module and module not in sys.modules:
        module, _, name = module.rpartition(".")
        names.insert(0, name)
    found: Any = sys.modules.get(module)
    for name in names:
        found = getattr(found, name, None)
    return found


def _class_paths(value: Any, key: str) -> Iterator[tuple[str, str]]:
    """Where a class is named, and which."""
    if isinstance(value, list | tuple):
        for each in value:
            yield from _class_paths(each, key)
    elif isinstance(value, Mapping | Namespace):
        inner = vars(value) if isinstance(value, Namespace) else value
        if isinstance(inner.get("class_path"), str):
            yield key, inner["class_path"]
        for name, each in inner.items():
            yield from _class_paths(each, f"{key}.{name}".lstrip("."))
