"""JSON and arrays from elsewhere, checked when they are read: what a file holds is told once, as a type."""

import math
import re
import reprlib
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, fields, is_dataclass
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints, is_typeddict
from zipfile import ZIP_STORED, ZipFile

import numpy as np

from hyperofa.errors import InputError
from hyperofa.runtime.folders import read_json

_LARGEST = 2**63  # beyond it a whole number fits no array
_SURROGATE = re.compile("[\ud800-\udfff]")  # half of a letter, which UTF-8 has no bytes for


def read_record(path: str | Path, kind: Any, what: str, advice: str = "") -> Any:
    """Read a JSON file that must be of a type.

    Args:
        path: of the file.
        kind: as for `misfit`.
        what: the file should be, for errors.
        advice: what to do if it is not, for errors.

    Raises:
        InputError: it is missing, not JSON, or of another type.
    """
    found = read_json(path)
    check_kind(found, kind, f"{path}: expected {what}", advice)
    return found


def check_kind(value: Any, kind: Any, expected: str, advice: str = "") -> None:
    """Refuse plain data that is not of a type.

    Args:
        value: as JSON has it.
        kind: as for `misfit`.
        expected: the beginning of the error.
        advice: what to do, for errors.

    Raises:
        InputError: it is of another type.
    """
    if wrong := misfit(value, kind):
        raise InputError(f"{expected}, found {wrong}{advice and f'; {advice}'}")


def misfit(value: Any, kind: Any, place: str = "") -> str | None:
    """What of plain data is not of a type, and where; `None` if nothing is.

    Args:
        value: as JSON has it.
        kind: `Any`, a plain type, `list[…]`, `dict[str, …]`, a union, a `Literal`, a dataclass for an object of its
            fields, or the types of some keys of an object, by name or as a `TypedDict`; a missing key counts as `None`.
            An `int` has 64 bits at most, a `float` is finite and may be whole, and a `str` has bytes in UTF-8.
        place: where the value was found.
    """
    origin, arguments = get_origin(kind), get_args(kind)
    wrong = f"{'nothing' if value is None else reprlib.repr(value)}{place and f' as {place}'}"
    if origin in (Union, UnionType):
        problems = [misfit(value, each, place) for each in arguments]
        return None if None in problems else next((each for each in problems if each != wrong), wrong)
    parts = _parts(value, kind)
    if parts is None:
        known = kind is Any or (value in arguments if origin is Literal else _is_plain(value, kind))
        return None if known else wrong
    return next(filter(None, (misfit(each, of, f"{place}.{name}".lstrip(".")) for name, each, of in parts)), None)


def _parts(value: Any, kind: Any) -> list[tuple[Any, Any, Any]] | None:
    """Name, value and type of each part of what has parts; `None` of anything else, and of what is not of a type."""
    origin, arguments = get_origin(kind), get_args(kind)
    if origin is list and isinstance(value, list):
        return [(number, each, arguments[0]) for number, each in enumerate(value)]
    if not isinstance(value, dict):
        return None
    if origin in (dict, Mapping):
        return [(name, each, arguments[1]) for name, each in value.items()]
    if isinstance(kind, Mapping) or is_typeddict(kind):
        kinds = kind if isinstance(kind, Mapping) else get_type_hints(kind)
        return [(name, value.get(name), each) for name, each in kinds.items()]
    if is_dataclass(kind) and _names(kind, required=True) <= value.keys() <= _names(kind):
        kinds = get_type_hints(kind)
        return [(name, each, kinds[name]) for name, each in value.items()]
    return None


def _names(kind: Any, required: bool = False) -> set[str]:
    found = (
        each for each in fields(kind) if not required or (each.default is MISSING and each.default_factory is MISSING)
    )
    return {each.name for each in found}


def _is_plain(value: Any, kind: Any) -> bool:
    if isinstance(value, int) and not isinstance(value, bool):
        return kind in (int, float) and abs(value) < _LARGEST
    if isinstance(value, float):
        return kind is float and math.isfinite(value)
    if isinstance(value, str):
        return kind is str and _SURROGATE.search(value) is None
    return type(value) is (NoneType if kind is None else kind)


def open_array(path: str | Path) -> np.ndarray:
    """Memory-map a `.npy` file of plain numbers, so that no more is ever read than the file has.

    Args:
        path: of the file.

    Raises:
        InputError: it is missing, damaged, or something else; nothing in it was run.
    """
    try:
        found = np.load(path, mmap_mode="r", allow_pickle=False)
        if isinstance(found, np.ndarray):
            return found
        reason = "it is an archive"
    except Exception as error:  # a damaged file may raise anything
        reason = " ".join(str(error).split())
    raise InputError(f"{path}: expected an array of plain numbers; {reason}")


def open_arrays(path: str | Path, names: Sequence[str]) -> list[np.ndarray]:
    """Read arrays of an `.npz` file that is not compressed, so that it fills no more memory than it takes on disk.

    Args:
        path: of the file.
        names: of the arrays.

    Raises:
        InputError: as `open_array`.
    """
    try:
        with ZipFile(path) as file:
            packed = [each.filename for each in file.infolist() if each.compress_type != ZIP_STORED]
        if not packed:
            with np.load(path, allow_pickle=False) as arrays:
                return [arrays[name] for name in names]
        reason = f"{packed[0]} is compressed"
    except Exception as error:  # a damaged file may raise anything
        reason = " ".join(str(error).split())
    raise InputError(f"{path}: expected arrays of plain numbers; {reason}")


def are_ids(ids: np.ndarray, bound: int) -> bool:
    """Whether an array lists integers from 0 to `bound` - 1.

    Args:
        ids: of any kind and shape.
        bound: number of things that there are.
    """
    return ids.ndim == 1 and ids.dtype.kind in "iu" and (not len(ids) or (ids.min() >= 0 and int(ids.max()) < bound))
