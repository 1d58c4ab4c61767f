"""The house: rooms with doors, imports only leftwards, nothing that runs code from a file."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "hyperofa"
MODULES = sorted(PACKAGE.rglob("*.py"))
MAX_LINES = 400

# From left to right: a room imports from itself and from rooms on its left; rooms that share a place, not from each
# other. A module that stands beside the rooms is a place of its own.
ORDER = [
    ["errors"],
    ["runtime", "nets", "presets", "closing"],
    ["vectors"],
    ["tokens"],
    ["models", "reference"],
    ["bundle", "evaluation"],
    ["methods"],
    ["training"],
    ["export", "pretraining"],
    ["flags", "class_paths"],
    ["training_commands"],
    ["experiments", "demo", "inspection"],
    ["curves", "signatures", "help", "commands", "completion", "cli", "__init__", "__main__"],
]
PLACE = {room: place for place, rooms in enumerate(ORDER) for room in rooms}


def name_of(path: Path) -> str:
    """A module's name below the package, with dots: `nets.mlp`, `nets.__init__`, `cli`."""
    return ".".join(path.relative_to(PACKAGE).with_suffix("").parts)


def imported(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Line and name of every module that is imported from the package, also within functions."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: a relative import"
            package, _, module = (node.module or "").partition(".")
            if package == "hyperofa":
                for alias in node.names:
                    below = f"{module}.{alias.name}".lstrip(".")
                    yield (
                        node.lineno,
                        below if (PACKAGE / below.replace(".", "/")).with_suffix(".py").exists() else module,
                    )
        elif isinstance(node, ast.Import):
            names = [alias.name.partition(".") for alias in node.names]
            yield from ((node.lineno, below) for package, _, below in names if package == "hyperofa" and below)


def graph() -> dict[str, set[str]]:
    """What each module imports."""
    return {name_of(path): {name for _, name in imported(ast.parse(path.read_text("utf-8")))} for path in MODULES}


def test_models_are_written_in_one_place():
    """`save_model` opens what it wrote; without it, a folder may load as another model."""
    found = set()
    for path in MODULES:
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Attribute) and node.attr == "save_pretrained":
                found |= set() if "okenizer" in ast.unparse(node.value) else {name_of(path)}
    assert found == {"models.saving"}


def test_imports_point_left():
    wrong = []
    for name, names in graph().items():
        room = name.partition(".")[0]
        assert room in PLACE, f"{name} has no place in ORDER"
        for other in names:
            left = other.partition(".")[0] or "__init__"
            if left != room and not (PLACE[left] < PLACE[room] or PLACE[room] == len(ORDER) - 1):
                wrong.append(f"{name} imports {other}")
    assert wrong == []


def test_rooms_have_no_circles():
    below = graph()

    def visit(name: str, path: tuple[str, ...]) -> None:
        assert name not in path, " → ".join([*path[path.index(name) :], name])
        for other in sorted(below.get(name, ())):
            if other.partition(".")[0] == name.partition(".")[0] and other != name:
                visit(other, (*path, name))

    for name in below:
        if not name.endswith("__init__"):
            visit(name, ())


def test_every_room_is_there_and_says_what_it_is():
    rooms = {path.name for path in PACKAGE.iterdir() if path.is_dir() and any(path.glob("*.py"))}
    assert rooms | {path.stem for path in PACKAGE.glob("*.py")} == set(PLACE)
    for room in rooms:
        assert ast.get_docstring(ast.parse((PACKAGE / room / "__init__.py").read_text("utf-8")))


def test_modules_stay_short():
    lengths = {name_of(path): path.read_text("utf-8").count("\n") for path in MODULES}
    assert {name: lines for name, lines in lengths.items() if lines > MAX_LINES} == {}
    assert [name for name in lengths if re.search("util|helper|common|misc", name)] == []


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
        allowed = ("False", "trusted")  # where `trusted` is what the user said
        if values.get("trust_remote_code", "False") not in allowed or values.get("shell", "False") != "False":
            found.append(f"line {line}: {name} runs foreign code")
    for node in ast.walk(tree):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        found += [
            f"line {node.lineno}: {name}" for name in names if name in ("pickle", "dill", "joblib", "cloudpickle")
        ]
    return found


def test_nothing_runs_code_from_a_file():
    found = {name_of(path): dangers(path.read_text("utf-8")) for path in MODULES}
    assert {name: each for name, each in found.items() if each} == {}


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


def loud_bars(source: str) -> list[int]:
    """Lines of progress bars that say themselves when to be silent: those would fill a log file."""
    found = [(line, keywords.get("disable")) for line, name, keywords in calls(ast.parse(source)) if name == "tqdm"]
    return [line for line, silent in found if silent is not None and "bar_hidden(" not in ast.unparse(silent)]


def test_progress_bars_are_quiet_in_a_log_file():
    assert {name_of(path): lines for path in MODULES if (lines := loud_bars(path.read_text("utf-8")))} == {}
    assert loud_bars("tqdm(x)\ntqdm(x, disable=bar_hidden(True))\ntqdm(x, disable=True)") == [3]


def test_tests_stand_where_their_module_does():
    """`tests/nets/test_mlp.py` is of `hyperofa/nets/mlp.py`; those beside the rooms are of several rooms."""
    tests = Path(__file__).parent
    of_rooms = [path.relative_to(tests) for path in tests.glob("*/test_*.py")]
    assert len(of_rooms) > 50
    missing = [str(path) for path in of_rooms if not (PACKAGE / path.with_name(path.name[len("test_") :])).is_file()]
    assert not missing
