"""The mark `.hyperofa` in a folder that a command has written: of what kind it is, and the files it was left with."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hyperofa.errors import InputError

MARK = ".hyperofa"


def read_mark(path: Path) -> dict[str, Any] | None:
    """What the mark of a folder says, `None` if it says nothing.

    Args:
        path: the folder.
    """
    try:
        mark = json.loads((path / MARK).read_text(encoding="utf-8"))
        return {"kind": str(mark["kind"]), "files": [str(name) for name in mark["files"]], "key": mark.get("key")}
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None


def claim(path: Path, kind: str, names: Sequence[str]) -> None:
    """Make or take a folder that a command writes to time and again; what else is in it stays.

    Args:
        path: the folder; it may be there, with other files.
        kind: of folder.
        names: of the files and folders that the command will write in it, and write anew.

    Raises:
        InputError: it holds one of these, and hyperofa did not write it.
    """
    if path.exists() and not path.is_dir():
        raise InputError(f"--output {path}: expected a folder, found a file; give another one")
    mark = read_mark(path)
    if mark is not None and mark["kind"] == kind:
        return
    found = [name for name in ([MARK] if mark else []) + [*names] if (path / name).exists()]
    if found:
        raise InputError(
            f"--output {path}: expected a new folder, or one of an earlier {kind}, found {found[0]}, which is of "
            "something else; give another one, or move it"
        )
    path.mkdir(parents=True, exist_ok=True)
    (path / MARK).write_text(json.dumps({"kind": kind, "files": []}) + "\n", encoding="utf-8")


def unfinished_key(path: Path) -> str | None:
    """The key of the interrupted run that `kept_folder` left in a folder, `None` if there is none."""
    return (read_mark(path) or {}).get("key")
