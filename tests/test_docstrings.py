"""Whoever calls a function of several arguments finds each of them in its docstring."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "hyperofa"
# Called by Lightning, torch and argparse, which say what they mean.
HOOKS = re.compile("on_.*|.*_step|forward|setup|teardown|error|parse_arguments|save_checkpoint|save_config")
# Copied beside a model's weights, where bytes count: its classes are made by no one else.
COPIED = "modeling_factorised.py"


def public(tree: ast.Module) -> Iterator[tuple[ast.FunctionDef, str]]:
    """Public functions and methods with what documents them: for a class's arguments, the class too."""
    for node in tree.body:
        if isinstance(node, ast.FunctionDef) and not node.name.startswith("_"):
            yield node, ast.get_docstring(node) or ""
        elif isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            for method in node.body:
                if isinstance(method, ast.FunctionDef) and method.name == "__init__":
                    yield method, (ast.get_docstring(node) or "") + (ast.get_docstring(method) or "")
                elif isinstance(method, ast.FunctionDef) and not method.name.startswith("_"):
                    yield method, ast.get_docstring(method) or ""


def undocumented(source: str) -> list[str]:
    found = []
    for function, text in public(ast.parse(source)):
        arguments = function.args.posonlyargs + function.args.args + function.args.kwonlyargs
        names = [argument.arg for argument in arguments if argument.arg not in ("self", "cls")]
        if len(names) > 1 and not HOOKS.fullmatch(function.name):
            section = text.partition("Args:\n")[2].partition("\n\n")[0]
            missing = [name for name in names if not re.search(rf"^ +{name}:", section, re.MULTILINE)]
            found += [f"line {function.lineno}: {function.name}: {' '.join(missing)}"] * bool(missing)
    return found


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_every_argument_is_documented(path):
    if path.name != COPIED:
        assert undocumented(path.read_text(encoding="utf-8")) == []


def test_what_is_missing_is_seen():
    assert undocumented('def f(a, b):\n    """Do.\n\n    Args:\n        a: one.\n    """') == ["line 1: f: b"]
    assert undocumented("class C:\n    def g(self, a, b): ...") == ["line 2: g: a b"]
