"""What a file holds is told once, as a type, and what is not of it is refused in one line."""

import io
import json
import pickle
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypedDict

import numpy as np
import pytest

from hyperofa.errors import InputError
from hyperofa.runtime.records import misfit, open_array, open_arrays, read_record


@dataclass
class Thing:
    name: str
    size: int = 1
    parts: Mapping[str, float] = field(default_factory=dict)


class Place(TypedDict):
    row: int
    note: str | None


GOOD = [
    (3, int), (3, float), (0.5, float), ("ü", str), (True, bool), (None, None), ([1, 2], list[int]),
    ({}, dict[str, int]), (None, int | None), ("a", Literal["a", "b"]), (None, Literal["a"] | None), ([object], Any),
    ({"name": "x"}, Thing), ({"name": "x", "size": 2, "parts": {"a": 1}}, Thing), ({"row": 1, "more": []}, Place),
    ({"a": 1}, {"a": int}),
]  # fmt: skip
BAD = [
    (True, int, "True"), (1, bool, "1"), (1.0, int, "1.0"), (float("nan"), float, "nan"), (float("inf"), float, "inf"),
    (10**30, int, "1000"), (10**400, float, "1000"), ("\ud800", str, "ud800"), (b"a", str, "b'a'"),
    (None, str, "nothing"), ([1, "x"], list[int], "'x' as 1"), ([[1]], list[str], "[1] as 0"),
    ({"a": {"b": 1}}, dict[str, dict[str, str]], "1 as a.b"), ([], dict[str, int], "[]"), ([], {"a": int}, "[]"),
    ({"a": [1]}, {"a": list[str] | None}, "1 as a.0"), ({}, {"a": int}, "nothing as a"), ("c", Literal["a"], "'c'"),
    ({"name": 1}, Thing, "1 as name"), ({}, Thing, "{}"), ({"name": "x", "other": 1}, Thing, "other"),
    ({"name": "x", "parts": {"a": "b"}}, Thing, "'b' as parts.a"), ({"note": "x"}, Place, "nothing as row"),
]  # fmt: skip


@pytest.mark.parametrize(("value", "kind"), GOOD)
def test_what_is_of_a_type(value, kind):
    assert misfit(value, kind) is None


@pytest.mark.parametrize(("value", "kind", "found"), BAD)
def test_what_is_not(value, kind, found):
    assert found in misfit(value, kind)


def test_a_file_of_another_type(tmp_path):
    path = tmp_path / "thing.json"
    path.write_text(json.dumps({"name": "x", "size": "large"}))
    with pytest.raises(InputError, match=r"thing\.json: expected a thing, found 'large' as size; remove it"):
        read_record(path, Thing, "a thing", "remove it")


class Bomb:
    def __reduce__(self):
        return pytest.fail, ("it was run",)


def saved(array: Any, write: Any = np.save) -> bytes:
    file = io.BytesIO()
    write(file, array)
    return file.getvalue()


def with_header(text: str, version: bytes = b"\x01\x00", length: int | None = None) -> bytes:
    size = struct.pack("<H" if version[0] == 1 else "<I", len(text) if length is None else length)
    return b"\x93NUMPY" + version + size + text.encode() + b"abcd"


ARRAYS = {
    "object": saved(np.array([Bomb()], dtype=object)),
    "pickle": pickle.dumps(Bomb()),
    "empty": b"",
    "cut": saved(np.arange(9))[:-1],
    "huge": with_header("{'descr': '<f4', 'fortran_order': False, 'shape': (99999999999, 99999), }\n"),
    "negative": with_header("{'descr': '<f4', 'fortran_order': False, 'shape': (-5,), }\n"),
    "endless": with_header("{" * 5000, b"\x02\x00", 2**32 - 1),
    "deep": with_header("(" * 5000, b"\x02\x00"),
    "code": with_header("{'descr': print('it was run'), 'fortran_order': False, 'shape': (1,), }\n"),
    "archive": saved(np.arange(3), np.savez),
}


@pytest.mark.parametrize("name", ARRAYS)
def test_what_is_no_array(name, tmp_path):
    (tmp_path / "a.npy").write_bytes(ARRAYS[name])
    with pytest.raises(InputError, match=r"a\.npy: expected an array of plain numbers; "):
        open_array(tmp_path / "a.npy")


def test_archives(tmp_path):
    path = tmp_path / "a.npz"
    np.savez(path, a=np.arange(3), b=np.ones(2))
    assert [array.tolist() for array in open_arrays(path, ["b", "a"])] == [[1, 1], [0, 1, 2]]
    for data, reason in (
        (saved(np.zeros(2**20), np.savez_compressed), r"arr_0\.npy is compressed"),  # it could fill the memory
        (path.read_bytes()[:-30], "zip"),
        (saved(np.arange(3), np.savez), "a is not a file"),
    ):
        path.write_bytes(data)
        with pytest.raises(InputError, match=rf"a\.npz: expected arrays of plain numbers; .*{reason}"):
            open_arrays(path, ["a"])
