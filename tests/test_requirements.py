"""What setup.cfg asks of other packages: all that is imported, from versions that were tried."""

import ast
import re
from configparser import ConfigParser
from importlib.metadata import packages_distributions
from sys import stdlib_module_names

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.conftest import CONFIGS

ROOT = CONFIGS.parent


def requirements() -> list[Requirement]:
    """Those of `setup.cfg`, of all extras."""
    config = ConfigParser()
    config.read(ROOT / "setup.cfg", encoding="utf-8")
    groups = [config["options"]["install_requires"], *config["options.extras_require"].values()]
    lines = [line for group in groups for line in group.splitlines() if line]
    return [required for line in lines if (required := Requirement(line)).name != "hyperofa"]


def pins(name: str) -> dict[str, str]:
    """Versions by package, of a file of constraints."""
    lines = re.findall(r"^([\w-]+)==(\S+)$", (ROOT / name).read_text(encoding="utf-8"), re.MULTILINE)
    return {canonicalize_name(package): version for package, version in lines}


def test_what_is_imported_is_required():
    required = {canonicalize_name(each.name) for each in requirements()}
    imported = set()
    for path in (ROOT / "hyperofa").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            modules = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            modules += [node.module] if isinstance(node, ast.ImportFrom) else []
            imported |= {module.partition(".")[0] for module in modules}
    imported -= {*stdlib_module_names, "hyperofa"}
    assert "torch" in imported
    providers = packages_distributions()
    for module in imported & providers.keys():  # what is not here is an extra
        assert required & set(map(canonicalize_name, providers[module])), module


@pytest.mark.parametrize("name", ["constraints.txt", "constraints-oldest.txt"])
def test_constraints_are_within_the_requirements(name):
    pinned = pins(name)
    assert pinned
    for each in requirements():
        found = pinned.pop(canonicalize_name(each.name), None)
        assert found is None or found in each.specifier, each
    assert not pinned


def test_the_oldest_versions_are_those_that_are_tried():
    pinned = pins("constraints-oldest.txt")
    untried = {"fasttext", "faiss-gpu", "ruff", "mypy", "mkdocs-material", "mkdocstrings", "tensorboard", "wandb"}
    for each in requirements():
        floors = [clause.version for clause in each.specifier if clause.operator == ">="]
        name = canonicalize_name(each.name)
        if floors and name not in untried:
            assert [pinned[name]] == floors
