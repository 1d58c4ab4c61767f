"""The house: flat modules, imports only downward, nothing that runs code from a file."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "hyperofa"
MODULES = sorted(PACKAGE.glob("*.py"))
MAX_LINES = 400

# A module imports from lower floors, and from those before it on its own floor. A new module goes where it fits.
FLOORS = {
    "ground: files, vocabularies, word vectors, nets": """
        errors devices ranks locks artifacts samplers metrics curves factorization losses objectives
        tokens surfaces matching reference tokenizer_json mining readers store conversion screening vectors pooling
        modeling_factorised plm __init__ config_fields surgery factorised""",
    "what is prepared, and what trains on it": """
        bundle shards splitting prepare wordsets wordtable translation functional texts safety verification""",
    "methods": "baselines initialisation datamodule module prediction resumption",
    "models on disk": "card export expansion trimming",
    "what they are worth": """
        evaluation blocks languagemodel pretraining grid bootstrap results plots report cells ablation hewitt
        lexicon grammar world demo""",
    "commands": "flags cli __main__",
}
HEIGHT = {name: height for height, name in enumerate(name for floor in FLOORS.values() for name in floor.split())}


def imported(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Line and module of every import from the package, also of those within functions."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: a relative import"
            package, _, module = (node.module or "").partition(".")
            if package == "hyperofa":
                names = [module] if module else [alias.name for alias in node.names]
                yield from ((node.lineno, name) for name in names)
        elif isinstance(node, ast.Import):
            names = [alias.name.split(".") for alias in node.names]
            yield from ((node.lineno, name[1]) for name in names if name[0] == "hyperofa" and len(name) > 1)


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.stem)
def test_imports_point_downward(path):
    assert path.stem in HEIGHT, f"{path.name} has no place in FLOORS"
    for line, name in imported(ast.parse(path.read_text(encoding="utf-8"))):
        assert HEIGHT[name] < HEIGHT[path.stem], f"{path.name}, line {line} imports {name}, which stands higher"


def test_every_place_is_taken():
    assert set(HEIGHT) == {path.stem for path in MODULES}


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.stem)
def test_modules_stay_short(path):
    lines = path.read_text(encoding="utf-8").count("\n")
    assert lines <= MAX_LINES, f"{path.name} has {lines} lines and two nouns: split it"
    assert not re.search("util|helper|common|misc", path.stem)


def calls(tree: ast.AST) -> Iterator[tuple[int, str, dict[str, ast.expr]]]:
    """Line, dotted name and keyword arguments of every call."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            yield node.lineno, ast.unparse(node.func), {word.arg: word.value for word in node.keywords if word.arg}


def dangers(source: str) -> list[str]:
    """What runs code that is not in the package: pickles, eval, exec, code of a model's author."""
    tree = ast.parse(source)
    found = []
    for line, name, keywords in calls(tree):
        values = {word: ast.unparse(value) for word, value in keywords.items()}
        if name in ("eval", "exec", "compile", "__import__", "os.system"):
            found.append(f"line {line}: {name}")
        if name in ("np.load", "numpy.load") and values.get("allow_pickle", "False") != "False":
            found.append(f"line {line}: {name} with pickles")
        if name == "torch.load" and values.get("weights_only") != "True":
            found.append(f"line {line}: {name} without weights_only=True")
        if values.get("trust_remote_code", "False") != "False" or values.get("shell", "False") != "False":
            found.append(f"line {line}: {name} runs foreign code")
    for node in ast.walk(tree):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        found += [
            f"line {node.lineno}: {name}" for name in names if name in ("pickle", "dill", "joblib", "cloudpickle")
        ]
    return found


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.stem)
def test_nothing_runs_code_from_a_file(path):
    assert dangers(path.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    "source",
    [
        "import pickle", "from pickle import load", "np.load(x, allow_pickle=True)", "torch.load(x)",
        "torch.load(x, weights_only=False)", "eval('1')", "AutoModel.from_pretrained(x, trust_remote_code=True)",
    ],
)  # fmt: skip
def test_dangers_are_seen(source):
    assert len(dangers(source)) == 1
    assert dangers("np.load(x, allow_pickle=False)\ntorch.load(x, weights_only=True)\nmodel.eval()") == []
