"""Temporary folders that no kill leaves for good: the next one of the same name removes those that nobody holds."""

import fcntl
import os
import re
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def scratch_folder(prefix: str, parent: str | Path | None = None) -> Iterator[Path]:
    """Yield a new folder that is removed at the end, unless it has been moved.

    Args:
        prefix: of its name; folders of this prefix that killed processes left are removed.
        parent: where it is; the system's folder for temporary files if not given.
    """
    place = Path(tempfile.gettempdir() if parent is None else parent)
    name = re.compile(re.escape(prefix) + "[0-9a-z_]{8}")  # as `mkdtemp` draws it
    remove_abandoned(path for path in place.iterdir() if name.fullmatch(path.name))
    new = Path(tempfile.mkdtemp(".new", prefix, place))
    with _held(new):
        folder = new.rename(new.with_suffix(""))  # held before anybody looks for it by this name
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def remove_abandoned(folders: Iterable[Path]) -> None:
    """Remove the folders that no process holds.

    Args:
        folders: made by `scratch_folder`, or by others that no longer need them.
    """
    for folder in folders:
        with _held(folder) as free:
            if free:
                shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _held(folder: Path) -> Iterator[bool]:
    """Hold a folder until the process ends, however it ends; whether that was possible."""
    try:
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except OSError:  # it has just gone, or is not ours
        yield False
        return
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        free = True
    except OSError:  # another process holds it, or the file system cannot tell
        free = False
    try:
        yield free
    finally:
        os.close(handle)
