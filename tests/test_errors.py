"""Errors name parameters where the library is called, flags on the command line; every text of the package is read."""

import ast
import inspect
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import hyperofa
from hyperofa.cli import main
from hyperofa.errors import InputError
from hyperofa.methods.registry import METHODS
from hyperofa.training.datamodule import HyperDataModule
from hyperofa.training.module import HyperModule

PACKAGE = Path(hyperofa.__file__).parent
COMMANDS_OWN = {"config", "ckpt_path", "trust", "cell"}


def read_text(node: ast.expr) -> str:
    """What a message says, `…` for what it is told at run time."""
    if isinstance(node, ast.Constant):
        return str(node.value)
    if isinstance(node, ast.JoinedStr):
        return "".join(map(read_text, node.values))
    if isinstance(node, ast.BinOp):
        return read_text(node.left) + read_text(node.right)
    if isinstance(node, ast.IfExp):
        return read_text(node.body)
    return "…"


def texts() -> Iterator[str]:
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and getattr(node.func, "id", None) == "InputError":
                yield read_text(node.args[0])


def choices() -> set[str]:
    """Every word that a type lists."""
    found = set(METHODS)
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Subscript) and ast.unparse(node.value) == "Literal":
                found |= {str(each.value) for each in ast.walk(node.slice) if isinstance(each, ast.Constant)}
    return found


def parameters() -> set[str]:
    """Names of what the public calls take."""
    calls = [getattr(hyperofa, name) for name in hyperofa.__all__ if name != "InputError"]
    methods = [each for call in calls if inspect.isclass(call) for _, each in inspect.getmembers(call, callable)]
    names = set[str]()
    for call in [*calls, *methods, HyperDataModule, HyperModule]:
        try:
            names |= set(inspect.signature(call).parameters)
        except ValueError:  # a method of `object`
            continue
    return names


def test_every_text_names_parameters_and_keeps_its_flags():
    found = sorted(set(texts()))
    assert len(found) > 150
    named, values = set[str](), set[str]()
    for text in found:
        error = InputError(text)
        assert error.with_flags == text
        said = re.sub(r"`[^`]*`", "", str(error))
        assert not re.search(r"--(?!help)\w", said), said
        named |= {
            flag.removeprefix("data.").removeprefix("model.") for flag in re.findall(r"--([a-z]\w*[.\w]*\w)", text)
        }
        values |= set(re.findall(r"\b\w+='(\w+)'", said)) - set(re.findall(r"'(\w+)'", text))
    for flag in named - {"help"} - COMMANDS_OWN:
        assert flag.partition(".")[0] in parameters() | {"checkpoint"}, f"no call takes {flag}"
    assert values <= choices(), "a word after a flag was taken for its value"


@pytest.mark.parametrize(
    ("flags", "parameters"),
    [
        ("--data.bundle gone: expected a folder", "bundle='gone': expected a folder"),
        ("--data.text a/b.txt line 3: expected", "text a/b.txt line 3: expected"),
        ("give another --output, or --overwrite true", "give another output, or overwrite=True"),
        ("found 2; leave --model.net.init_args.neighbours null", "found 2; leave net.neighbours=None"),
        ("--training.new_steps: expected 0", "training.new_steps: expected 0"),
        ("--checkpoint n.ckpt: expected", "hypernetwork n.ckpt: expected"),
        ("--seed: expected a number from 0 to 9, found -1", "seed: expected a number from 0 to 9, found -1"),
        ("import its module (--trust my_nets)", "import its module"),
        ("what `hyperofa evaluate --output` wrote", "what `hyperofa evaluate --output` wrote"),
        ("/data/x--seed/--y: expected a folder", "/data/x--seed/--y: expected a folder"),
    ],
)  # fmt: skip
def test_flags_become_parameters(flags, parameters):
    assert str(InputError(flags)) == parameters
    assert InputError(flags).with_flags == flags


@given(st.text())
def test_a_text_without_flags_stays(text):
    plain = text.replace("-", "").replace("`", "")
    assert str(InputError(plain)) == plain


def test_call_names_the_parameter_and_command_the_flag(tmp_path, capsys):
    with pytest.raises(InputError) as raised:
        hyperofa.trim("model", [tmp_path / "text"], tmp_path / "out", min_count=0)
    assert str(raised.value) == "min_count: expected at least 1, found 0"
    words = ["--source_model", "model", "--text", "text", "--output", str(tmp_path / "out"), "--min_count", "0"]
    with pytest.raises(SystemExit):
        main(["trim", *words])
    assert "--min_count: expected at least 1, found 0" in capsys.readouterr().err


def test_a_message_quotes_another_with_its_flags():
    quotes = []
    for path in PACKAGE.rglob("*.py"):
        for handler in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(handler, ast.ExceptHandler) and handler.type and "InputError" in ast.unparse(handler.type):
                values = [node.value for node in ast.walk(handler) if isinstance(node, ast.FormattedValue)]
                quotes += [ast.unparse(value) for value in values if ast.unparse(value).startswith(f"{handler.name}")]
    assert set(quotes) == {"error.with_flags"}
