"""The cells of an ablation: every method at every point of a grid, each known by a hash of all that decides its result.

A setting is a key `stage.flag` (`prepare.coordinate_dim`, `fit.model.net`, `export.method`, …) and a value; a cell is
one value for each key. Cells that share what a stage reads share what it makes.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any

from hyperofa.errors import InputError
from hyperofa.methods.registry import Method, method_named
from hyperofa.runtime.folders import sha256_file
from hyperofa.runtime.hashing import sha256_text
from hyperofa.runtime.trust import trusted_files
from hyperofa.vectors.spelling import split_spec

Settings = dict[str, Any]

STAGES = ("prepare", "fit", "export", "evaluate", "pretrain")
SEED = "seed"
WIDTH = "prepare.coordinate_dim"
_PLACEHOLDER = re.compile(r"\{([a-z]+(?:\.\w+)*)\}")
# The last part of keys whose values are names of other things, whatever lies in the current folder.
_NO_FILE = re.compile(r"(\w+\.)*(version|method|copied|tasks|baseline|\w*languages|\w*dtype)")
# Below the package; editing these changes no result. What is not named here counts.
_REPORTING = {
    "demo", "experiments/ablate.py", "experiments/courses.py", "experiments/hewitt.py", "experiments/plots.py",
    "experiments/report.py", "experiments/results.py", "experiments/statistics.py", "experiments/tables.py",
}  # fmt: skip


@dataclass(frozen=True)
class Cell:
    """One method at one point of the grid.

    Attributes:
        method: its name in the table.
        axes: the point, a value for each key of the grid that plays a part for this method; without the seed.
        seed: of training, of noise and of the order of text; 0 for a cell that has none.
        settings: the flags of each stage, by key.
        bundle: hash of what `prepare` reads.
        run: hash of what `fit` reads; empty if nothing is trained.
        id: hash of all of it, with a readable start.
    """

    method: str
    axes: Settings
    seed: int
    settings: Settings
    bundle: str
    run: str
    id: str

    def flags(self, stage: str) -> Settings:
        """The flags of one stage."""
        return _part(self.settings, stage)

    @property
    def width(self) -> int | None:
        """Coordinate width K, `None` for the full one."""
        return self.settings.get(WIDTH)


def expand(
    methods: Mapping[str, Mapping[str, Any]],
    common: Mapping[str, Any],
    grid: Mapping[str, Sequence[Any]],
    code: str,
) -> list[Cell]:
    """All cells, in the order of the grid, methods innermost.

    Args:
        methods: settings by the method's name; a method may have a `grid` of its own.
        common: settings of all methods; those of the grid win over those of a method, which win over these.
        grid: values by key; `seed` is a key too.
        code: version of the code.

    Returns:
        Each cell once: what a method does not depend on (training settings where nothing is trained, the seed where
        nothing is random) makes no further cells.

    Raises:
        InputError: no method, or a key or placeholder that is none.
    """
    if not methods:
        raise InputError("methods: expected at least one, by name, with an export.method each; found none")
    cells: dict[str, Cell] = {}
    for point in _points(grid):
        for name, method in methods.items():
            own = {key: value for key, value in method.items() if key != "grid"}
            for further in _points(method.get("grid", {})):
                cell = _cell(name, {**common, **own}, {**point, **further}, code)
                cells.setdefault(cell.id, cell)
    return list(cells.values())


def _points(grid: Mapping[str, Sequence[Any]]) -> list[Settings]:
    for key, values in grid.items():
        if not isinstance(values, Sequence) or isinstance(values, str) or not values:
            raise InputError(f"grid: {key}: expected a list of values, found {values!r}")
    return [dict(zip(grid, values, strict=True)) for values in product(*grid.values())]


def _cell(method: str, settings: Settings, point: Settings, code: str) -> Cell:
    merged = {**settings, **point}
    known = check_keys(merged, f"methods: {method}")
    if not known.trained:
        merged = {key: value for key, value in merged.items() if not key.startswith("fit.")}
    seed = merged.pop(SEED, 0)
    if type(seed) is not int or seed < 0:
        raise InputError(f"methods: {method}: seed: expected a whole number from 0, found {seed}")
    seed = seed if known.seeded or _part(merged, "pretrain") else 0
    axes = {key: value for key, value in point.items() if key in merged}
    merged = {key: _filled(value, {**merged, SEED: seed}) for key, value in merged.items()}
    merged.setdefault("evaluate.source_model", merged.get("prepare.source_model"))
    bundle = _hash({"version": code}, _part(merged, "prepare"))
    run = _hash(bundle, _part(merged, "fit"), seed) if known.trained else ""
    stages = [_part(merged, stage) for stage in ("export", "evaluate", "pretrain")]
    names = {"version": code, "method": method}
    whole = _hash(names, bundle, run, *(stages if stages[-1] else stages[:-1]), seed, axes)
    slug = re.sub(r"\W+", "-", f"{method} {' '.join(map(shown, axes.values()))} {seed}").strip("-").lower()
    return Cell(method, axes, seed, merged, bundle, run, f"{slug[:60]}-{whole}")


def check_keys(settings: Settings, named: str) -> Method:
    """See that settings are flags of stages.

    Args:
        settings: by key; a seed may be among them.
        named: whose they are, for errors.

    Returns:
        The method that they name.

    Raises:
        InputError: a key is none, or no method is named.
    """
    kind = settings.get("export.method")
    if not isinstance(kind, str):
        found = "none" if kind is None else kind
        raise InputError(f"{named}: expected an export.method (ofa, mean, random, hyperofa, …), found {found}")
    for key in settings:
        if key != SEED and (key.split(".")[0] not in STAGES or "." not in key):
            raise InputError(f"{named}: expected keys such as {WIDTH} or fit.model.net, found {key}")
    return method_named(kind, f"{named}: export.method")


def _part(settings: Settings, stage: str) -> Settings:
    return {key.removeprefix(f"{stage}."): value for key, value in settings.items() if key.startswith(f"{stage}.")}


def _filled(value: Any, settings: Settings) -> Any:
    """Put settings in place of `{prepare.coordinate_dim}` and the like."""

    def fill(match: re.Match[str]) -> str:
        if match[1] not in settings:
            raise InputError(f"{value}: expected a setting in braces, such as {{{WIDTH}}}, found {{{match[1]}}}")
        return shown(settings[match[1]])

    return _PLACEHOLDER.sub(fill, value) if isinstance(value, str) else value


def shown(value: Any) -> str:
    """A setting's value as a reader wants it: `full` for no width, the name of a class alone."""
    if value is None:
        return "full"
    if isinstance(value, Mapping) and "class_path" in value:
        return shown(value["class_path"])
    if isinstance(value, str):
        return value.rsplit(".", 1)[-1] if re.fullmatch(r"[\w.]+\.[A-Z]\w*", value) else value
    return json.dumps(value) if isinstance(value, Mapping | list | tuple) else str(value)


def is_name(text: Any) -> bool:
    """Whether a text can be the name of a file or folder in one that is given: no path."""
    return isinstance(text, str) and re.fullmatch(r"[\w-]+", text) is not None


def nested(flags: Mapping[str, Any]) -> Settings:
    """Dotted keys as a tree: `{"a.b": 1}` → `{"a": {"b": 1}}`; an inner mapping is joined with what is there."""
    tree: Settings = {}
    for key, value in flags.items():
        *path, last = key.split(".")
        node = tree
        for part in path:
            node = node.setdefault(part, {})
        if isinstance(value, Mapping) and isinstance(node.get(last), dict):
            node[last].update(value)
        else:
            node[last] = value
    return tree


def flat(tree: Mapping[str, Any], stage: str) -> Settings:
    """A stage's settings as the YAML nests them, by key: only one level, since a flag's value may be a mapping.

    Args:
        tree: flags and their values.
        stage: one of `STAGES`.
    """
    return {f"{stage}.{key}": value for key, value in tree.items()}


# Hashes.


def _hash(*parts: Any) -> str:
    """Hash of settings, in which files and folders count by their content."""
    return sha256_text(json.dumps([_content(part) for part in parts], sort_keys=True, default=str))[:12]


def _content(value: Any) -> Any:
    """The value, with the content of a file or folder in place of its name."""
    if isinstance(value, Mapping):
        named = {str(key): inner for key, inner in value.items()}
        return {key: inner if _NO_FILE.fullmatch(key) else _content(inner) for key, inner in named.items()}
    if isinstance(value, list | tuple):
        return [_content(inner) for inner in value]
    if isinstance(value, str | Path) and len(str(value)) < 4096:
        language, path = split_spec(str(value))
        if path.exists() and str(path) not in ("", "."):
            return [language, _hash_path(path)]
    return value


@cache
def _hash_path(path: Path) -> str:
    if path.is_file():
        return sha256_file(path)
    files = sorted(file for file in path.rglob("*") if file.is_file())
    return sha256_text(*(f"{file.relative_to(path)} {sha256_file(file)}" for file in files))


def code_version(package: Path = Path(__file__).parents[1]) -> str:
    """Hash of the sources that can change a result, the package's and those that the user trusts."""
    names = sorted(path.relative_to(package).as_posix() for path in package.rglob("*.py"))
    counted = [name for name in names if not {name, name.partition("/")[0]} & _REPORTING]
    files = [*(package / name for name in counted), *trusted_files()]
    return sha256_text(*counted, *map(sha256_file, files))[:12]
