"""Locks between processes; the system frees them when their holder ends, however it ends."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

try:
    import fcntl
except ImportError:  # not on Windows, where nothing keeps two processes from doing the same work
    fcntl = None  # type: ignore[assignment]


def try_lock(file: IO[str]) -> bool:
    """Lock a file open for writing; false if another process holds it.

    The lock ends when this process does or closes the file, whatever its children do.
    """
    if fcntl is not None:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError):
            return False
    return True


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold a lock file beside `path`, once any other process has let go of it.

    The lock belongs to this opening of the file: it stays when the block takes and drops one of `try_lock` on the same
    file, as the commands that write folders do.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.with_name(f".{path.name}.lock").open("w") as file:
        if fcntl is not None:
            fcntl.flock(file, fcntl.LOCK_EX)
        yield
