"""What counts as the code that made a result."""

import ast
import shutil
from pathlib import Path

import pytest

import hyperofa
from hyperofa.experiments.grid import _REPORTING, code_version

PACKAGE = Path(hyperofa.__file__).parent
SOURCES = sorted(path.relative_to(PACKAGE).as_posix() for path in PACKAGE.rglob("*.py"))
# Of each room and of the modules beside them, one that counts.
COUNTED = {name.rpartition("/")[0]: name for name in SOURCES if not {name, name.partition("/")[0]} & _REPORTING}
# They start every command, those that report as well.
DISPATCH = {"cli.py", "__main__.py", "__init__.py"}


@pytest.fixture
def copy(tmp_path):
    shutil.copytree(PACKAGE, tmp_path / "hyperofa", ignore=shutil.ignore_patterns("__pycache__"))
    return tmp_path / "hyperofa"


def edit(path):
    path.write_text(path.read_text(encoding="utf-8") + "# another comment\n", encoding="utf-8")


def test_a_copy_is_the_same_code(copy):
    assert code_version(copy) == code_version()


def test_every_room_counts(copy):
    rooms = {path.name for path in PACKAGE.iterdir() if (path / "__init__.py").is_file()}
    assert COUNTED.keys() == {"", *rooms} - _REPORTING
    versions = {code_version(copy)}
    for name in COUNTED.values():
        edit(copy / name)
        versions.add(code_version(copy))
    (copy / "nets" / "another.py").touch()
    versions.add(code_version(copy))
    (copy / "nets" / "another.py").rename(copy / "nets" / "renamed.py")
    versions.add(code_version(copy))
    assert len(versions) == 1 + len(COUNTED) + 2


def test_reports_do_not_count(copy):
    version = code_version(copy)
    for name in sorted(_REPORTING):
        assert (copy / name).exists(), f"{name}: there is no such file to leave out"
        for path in (copy / name).rglob("*.py") if (copy / name).is_dir() else [copy / name]:
            edit(path)
    assert code_version(copy) == version


def test_nothing_that_counts_imports_a_report():
    reporting = {name.removesuffix(".py").replace("/", ".") for name in _REPORTING}
    for name in SOURCES:
        if name not in DISPATCH and not {name, name.partition("/")[0]} & _REPORTING:
            for node in ast.walk(ast.parse((PACKAGE / name).read_text(encoding="utf-8"))):
                modules = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
                modules += [f"{node.module}.{alias.name}" for alias in getattr(node, "names", []) if modules]
                modules += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
                found = {".".join(module.split(".")[1:3]) for module in modules if module.startswith("hyperofa.")}
                found |= {module.partition(".")[0] for module in found}
                assert not found & reporting, f"{name} imports a module that `_REPORTING` leaves out"
