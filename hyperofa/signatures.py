"""What a command takes, read from its source: a wrong command line or `--help` need not wait for torch.

A signature needs little of its module: the types and defaults that it names. These are defined here again, from the
same source, without what else the module defines and imports.
"""

import ast
import copy
import sys
from collections.abc import Callable, Iterable
from functools import cache
from importlib.abc import InspectLoader
from importlib.util import find_spec
from itertools import chain
from pathlib import Path
from types import ModuleType
from typing import TypeGuard

_PACKAGE = __name__.partition(".")[0]
_parts: dict[str, ModuleType] = {}


def read_summary(command: str) -> str:
    """The first line of a command's docstring.

    Args:
        command: `module:function`.
    """
    module, _, name = command.partition(":")
    return (ast.get_docstring(_function(module, name)) or "").partition("\n")[0]


def read_signature(command: str) -> Callable[..., None]:
    """A function that takes what a command takes, with its docstring, and does nothing.

    Args:
        command: `module:function`, or `module:Class` for what makes one. The types and defaults of its parameters are
            made of the standard library and of what the package defines with it; a callable is told by its name.
    """
    module, _, name = command.partition(":")
    defined = _statements(module)[name]
    assert isinstance(defined, ast.FunctionDef | ast.ClassDef), f"{command} is neither a function nor a class"
    taken = defined.args if isinstance(defined, ast.FunctionDef) else _constructor_arguments(defined)
    # Written as source, as what a function's node must have differs between versions of Python.
    source = f"def {name}({ast.unparse(taken)}):\n    {ast.get_docstring(defined, clean=False)!r}"
    part = _part(module, _names(taken))
    _Source(source).exec_module(part)
    return getattr(part, name)


def read_calls(module: str, name: str, called: str) -> list[ast.Call]:
    """The calls in what a name of a module is, as they follow each other in its source.

    Args:
        module: where the name is.
        name: that is defined there.
        called: what is called.
    """
    found = [node for node in ast.walk(_statements(module)[name]) if isinstance(node, ast.Call)]
    return sorted((call for call in found if ast.unparse(call.func) == called), key=lambda call: call.lineno)


class _Source(InspectLoader):
    """Loads a module from source that is not a file."""

    def __init__(self, source: str) -> None:
        self.source = source

    def get_source(self, fullname: str) -> str:
        return self.source


def _part(module: str, names: Iterable[str]) -> ModuleType:
    """A module that defines some names as another one does, and what they need."""
    # Not the other one, which nobody shall import to look types up; nor one below the package, whose names are tried.
    part = _parts.setdefault(module, ModuleType(_PACKAGE))
    statements, needed, queue = _statements(module), [], list(names)
    while queue:
        name = queue.pop()
        statement = statements.get(name)
        if statement is None or name in vars(part) or statement in needed:
            continue
        if not isinstance(statement, ast.Import | ast.ImportFrom):
            needed.append(statement)
            queue += _names(statement)
        elif _origin(statement).partition(".")[0] in sys.stdlib_module_names:
            needed.append(statement)
        elif isinstance(statement, ast.ImportFrom) and _origin(statement).startswith(f"{_PACKAGE}."):
            alias = next(each for each in statement.names if name in (each.name, each.asname))
            origin = sys.modules.get(_origin(statement)) or _part(_origin(statement), [alias.name])
            setattr(part, name, getattr(origin, alias.name))
    ordered = sorted(needed, key=lambda statement: statement.lineno)
    _Source(ast.unparse(ast.Module(ordered, []))).exec_module(part)
    return part


def _function(module: str, name: str) -> ast.FunctionDef:
    function = _statements(module)[name]
    assert isinstance(function, ast.FunctionDef), f"{module}:{name} is no function"
    return function


def _constructor_arguments(defined: ast.ClassDef) -> ast.arguments:
    """What the constructor of a class takes."""
    found = next(each for each in defined.body if isinstance(each, ast.FunctionDef) and each.name == "__init__")
    arguments = copy.deepcopy(found.args)
    del arguments.args[0]  # self
    for argument in arguments.args:
        if argument.annotation is not None and ast.unparse(argument.annotation).startswith("Callable["):
            argument.annotation = ast.Name("str")
    return arguments


@cache
def _statements(module: str) -> dict[str, ast.stmt]:
    """The statements that define the names of a module."""
    spec = find_spec(module)
    path = Path(str(spec and spec.origin))
    found: dict[str, ast.stmt] = {}
    body = ast.parse(path.read_text(encoding="utf-8"), str(path)).body
    for statement in chain.from_iterable(each.orelse if _for_checkers(each) else [each] for each in body):
        if isinstance(statement, ast.Import | ast.ImportFrom):
            found |= {alias.asname or alias.name: statement for alias in statement.names}
        elif isinstance(statement, ast.FunctionDef | ast.ClassDef):
            found[statement.name] = statement
        elif isinstance(statement, ast.Assign | ast.AnnAssign):
            targets = statement.targets if isinstance(statement, ast.Assign) else [statement.target]
            found |= {name: statement for target in targets for name in _names(target)}
    return found


def _for_checkers(statement: ast.stmt) -> TypeGuard[ast.If]:
    return isinstance(statement, ast.If) and ast.unparse(statement.test) == "TYPE_CHECKING"


def _origin(statement: ast.Import | ast.ImportFrom) -> str:
    return statement.names[0].name if isinstance(statement, ast.Import) else statement.module or ""


def _names(tree: ast.AST) -> list[str]:
    return [node.id for node in ast.walk(tree) if isinstance(node, ast.Name)]
