"""Folders that are whole or absent: written aside, picked up after a kill, never at the cost of what others wrote."""

import hashlib
import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from hyperofa.errors import InputError
from hyperofa.runtime.hashing import sha256_text
from hyperofa.runtime.locks import only_holder
from hyperofa.runtime.marks import MARK, read_mark, unfinished_key
from hyperofa.runtime.places import beside, new_parents, resolve_place
from hyperofa.runtime.processes import SINGLE_PROCESS, ProcessGroup
from hyperofa.runtime.scratch import remove_abandoned, scratch_folder

# What is written before it takes its place: by us, and by the Rust of safetensors and tokenizers.
_PARTIAL = re.compile(r"\..+\.partial-[0-9a-z_]+(\.\w+)?|\.tmp\w{6}")


@contextmanager
def new_folder(
    path: str | Path, overwrite: bool = False, *, kind: str = "", inputs: Iterable[object] = ()
) -> Iterator[Path]:
    """Yield a temporary folder beside `path` that takes its place once the block has ended without an error.

    Args:
        path: folder to create; its parents are made, and go again if the block fails.
        overwrite: replace a folder of this kind that is already there; it stays until the new one is whole.
        kind: what the folder will hold (bundle, model, …); without one it gets no mark, and nothing can replace it.
        inputs: files and folders that the block reads, which a replaced folder must not hold.

    Raises:
        InputError: `path` is a file, cannot be replaced, or holds what hyperofa did not write.
    """
    place = resolve_place(path, inputs)
    with new_parents(place):
        _check_free(path, overwrite, kind)
        with scratch_folder(beside(place, "partial-").name, place.parent) as partial:
            yield partial
            partial.chmod(0o777 & ~_umask())
            _take_place(partial, Path(path), overwrite, kind)


@contextmanager
def resumed_folder(
    path: str | Path,
    key: str,
    overwrite: bool = False,
    group: ProcessGroup = SINGLE_PROCESS,
    *,
    kind: str = "",
    inputs: Iterable[object] = (),
) -> Iterator[Path]:
    """Like `new_folder`, but a killed process leaves its temporary folder to the next one that does the same work.

    What the block finds in the folder is what an earlier process wrote there, perhaps not to its end: a part counts
    only if it was renamed into its place. All processes of a job get the same folder, and leave it together.

    Args:
        path: as for `new_folder`.
        key: of all that decides the content; what another key left behind is removed.
        overwrite: as for `new_folder`.
        group: the processes of the job.
        kind: as for `new_folder`.
        inputs: as for `new_folder`; nor may `path` be within one, since what is written would change the input.

    Raises:
        InputError: as `new_folder`, or another job is writing there at this moment.
    """
    place = resolve_place(path, inputs, within=False)
    partial = beside(place, f"partial-{key[:16]}")
    with ExitStack() as stack:
        if group.first:
            stack.enter_context(new_parents(place))
            _check_free(path, overwrite, kind)
            stack.enter_context(only_holder(beside(place, "lock"), _BUSY.format(path=path)))
            remove_abandoned(left for left in _left_behind(place, "partial") if left != partial)
            partial.mkdir(exist_ok=True)
        group.wait()
        try:
            yield partial
            group.wait()
        except Exception:  # a kill or Ctrl-C leaves it to be gone on with
            if group.first:
                shutil.rmtree(partial, ignore_errors=True)
            raise
        if group.first:
            _take_place(partial, Path(path), overwrite, kind)
        group.wait()


@contextmanager
def kept_folder(
    path: str | Path,
    key: str,
    overwrite: bool = False,
    *,
    kind: str,
    inputs: Iterable[object] = (),
    unfinished: Iterable[str],
    resume: bool = False,
) -> Iterator[Path]:
    """Yield `path` itself, for work that leaves there what it can be gone on with.

    A folder that it replaces is put aside. It comes back if the block fails before it has written anything, and is
    removed once the block has ended.

    Args:
        path: as for `new_folder`.
        key: of all that decides the content; what an interrupted block with this key left is gone on with.
        overwrite: as for `new_folder`.
        kind: as for `new_folder`.
        inputs: as for `new_folder`.
        unfinished: folders below `path` that the block writes to before its end.
        resume: refuse to begin anew.

    Raises:
        InputError: as `resumed_folder`, or there is nothing to go on with.
    """
    place = resolve_place(path, inputs)
    with new_parents(place), ExitStack() as stack:
        left = unfinished_key(place)
        goes_on = left == key
        if resume and not goes_on:
            found = "none" if left is None else "one with other settings, models or text"
            raise InputError(
                f"--resume: expected an interrupted run in --output {path} with these flags, found {found}"
            )
        if not goes_on:
            _check_free(path, overwrite, kind, "" if left is None else ", or go on with the run there by its own flags")
        stack.enter_context(only_holder(beside(place, "lock"), _BUSY.format(path=path)))
        retired = None if goes_on else _retire(place)
        place.mkdir(exist_ok=True)
        write_json(place / MARK, {"kind": kind, "files": [f"{name}/" for name in unfinished], "key": key})
        try:
            yield place
        except Exception:
            if _files(place) == [MARK]:
                shutil.rmtree(place)
                _bring_back(retired, place)
            raise
        _finish(place, kind)
        _remove_retired(place)


def check_folder(path: str | Path, overwrite: bool = False, *, kind: str, inputs: Iterable[object] = ()) -> None:
    """See that a folder can be made, before the work is done that will be written to it.

    Args:
        path: as for `new_folder`.
        overwrite: as for `new_folder`.
        kind: as for `new_folder`.
        inputs: as for `new_folder`.

    Raises:
        InputError: as `new_folder`.
    """
    resolve_place(path, inputs)
    _check_free(path, overwrite, kind)


_BUSY = "{path}: another process is writing there; wait for it, or give another --output"


def _check_free(path: str | Path, overwrite: bool, kind: str, otherwise: str = "") -> None:
    """See that a folder can be written to, or replaced by one of a kind.

    Args:
        path: the folder; it need not be there.
        overwrite: whether it may be replaced.
        kind: what it may be replaced by.
        otherwise: what else a user can do.

    Raises:
        InputError: it is a file, it is not empty and `overwrite` is false, or it holds what hyperofa did not write.
    """
    path = Path(path)
    if path.exists() and not path.is_dir():
        raise InputError(f"{path}: expected a folder to write to, found a file; give another --output")
    if not path.exists() or not any(path.iterdir()):
        return
    if not overwrite:
        raise InputError(
            f"{path} already exists and is not empty; give another --output, or --overwrite true{otherwise}"
        )
    mark = read_mark(path)
    if mark is None or mark["kind"] != kind:
        found = f"no mark {MARK} that says so" if mark is None else f"the mark of a {mark['kind']}"
        raise InputError(
            f"--overwrite true: expected a {kind or 'folder'} that hyperofa wrote in {path}, found {found}; give "
            "another --output, or remove it yourself"
        )
    folders = tuple(name for name in mark["files"] if name.endswith("/"))
    known = {MARK, *mark["files"]}
    foreign = [name for name in _files(path) if name not in known and not name.startswith(folders)]
    if foreign:
        raise InputError(
            f"--overwrite true: expected nothing in {path} but what hyperofa wrote, found {foreign[0]}; move it, or "
            "give another --output"
        )


def _left_behind(place: Path, what: str) -> list[Path]:
    """Folders that belong to this one; not by a pattern, since a name may hold `*` or `[`."""
    start = beside(place, f"{what}-").name
    return [
        path
        for path in place.parent.iterdir()
        if path.name.startswith(start) and re.fullmatch(r"[0-9a-z_]+", path.name[len(start) :])
    ]


def _take_place(partial: Path, path: Path, overwrite: bool, kind: str) -> None:
    """Rename; what was there is removed after it."""
    _finish(partial, kind)
    _check_free(path, overwrite, kind)  # again: it took long to get here
    place = path.resolve()
    retired = _retire(place)
    try:
        partial.rename(place)
    except OSError:
        _bring_back(retired, place)
        raise
    _remove_retired(place)


def _bring_back(retired: Path | None, place: Path) -> None:
    if retired is not None:
        retired.rename(place)
        retired.parent.rmdir()


def _retire(place: Path) -> Path | None:
    """Put a folder aside; where it is now, `None` if there is none."""
    if not place.exists():
        return None
    retired = Path(tempfile.mkdtemp(prefix=beside(place, "retired-").name, dir=place.parent))
    return place.rename(retired / place.name)


def _remove_retired(place: Path) -> None:
    for retired in _left_behind(place, "retired"):
        shutil.rmtree(retired, ignore_errors=True)


def remove_partials(folder: Path) -> None:
    """Take away what kills left half-written in a folder that nobody else writes to."""
    for path in [path for path in folder.rglob(".*") if _PARTIAL.fullmatch(path.name)]:
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)


def _finish(folder: Path, kind: str) -> None:
    """Give all files the mode of any new file, take away locks and what is half-written, leave the mark."""
    remove_partials(folder)
    mode = 0o666 & ~_umask()
    for name in _files(folder):
        file = folder / name
        if re.fullmatch(r"\..+\.lock", file.name):
            file.unlink()
        elif not file.is_symlink():
            file.chmod(mode)
    if kind:
        (folder / MARK).unlink(missing_ok=True)
        write_json(folder / MARK, {"kind": kind, "files": _files(folder)})


def _files(folder: Path) -> list[str]:
    """All files below a folder, by their names from there; a link is a file, wherever it points."""
    found = []
    for parent, folders, files in os.walk(folder):
        links = [name for name in folders if (Path(parent) / name).is_symlink()]
        found += [(Path(parent) / name).relative_to(folder).as_posix() for name in [*files, *links]]
    return sorted(found)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def sha256_file(path: str | Path) -> str:
    """Hex SHA-256 of a file's bytes."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def fingerprint(*paths: str | Path) -> str:
    """Hash of where files lie, how long they are and when they last changed; of folders, all files below.

    Cheap, to know unchanged input again; what is not there (a name on the hub) counts by its name. Hidden files of a
    folder do not count: a job that writes into it has its locks and unfinished work there.
    """
    files = (path for each in map(Path, paths) for path in (_visible(each) if each.is_dir() else [each]))
    states = ((path, path.stat() if path.exists() else None) for path in files)
    return sha256_text(*(f"{path.absolute()} {state and (state.st_size, state.st_mtime_ns)}" for path, state in states))


def _visible(folder: Path) -> list[Path]:
    """Files and folders below a folder, sorted; not what is hidden or lies in something hidden."""
    below = (path.relative_to(folder) for path in folder.rglob("*"))
    return sorted(folder / path for path in below if not any(part.startswith(".") for part in path.parts))


@contextmanager
def whole_file(path: str | Path) -> Iterator[Path]:
    """Yield a name beside that of a file; what the block writes there takes its place, or goes if the block fails.

    Args:
        path: of the file; its folder is there.
    """
    partial = beside(Path(path), f"partial-{os.getpid()}{Path(path).suffix}")
    try:
        yield partial
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def write_json(path: str | Path, value: Any) -> None:
    """Write sorted, indented JSON, so that equal values give equal bytes; whole or not at all.

    Args:
        path: of the file.
        value: plain data.
    """
    with whole_file(path) as partial:
        partial.write_text(json.dumps(value, indent=1, sort_keys=True, ensure_ascii=False) + "\n", encoding="utf-8")


def read_json(path: str | Path, flag: str = "") -> Any:
    """Read a JSON file.

    Args:
        path: of the file.
        flag: command-line flag named in errors, of a file that a user names.

    Raises:
        InputError: it is missing or not JSON.
    """
    if not os.path.isfile(path):  # nor what never ends, or waits for someone to write
        part = "" if flag else " here"
        raise InputError(
            f"{flag} {path}: expected a JSON file{part}, found none{part and '; is the folder complete?'}".lstrip()
        )
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:  # of numbers with thousands of digits, too, and thousands of brackets
        raise InputError(f"{flag} {path}: expected JSON, found something else ({error})".lstrip()) from None
