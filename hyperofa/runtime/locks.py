"""Locks between processes, in files that stay: whoever removes one parts those who hold it from those who come."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from hyperofa.errors import InputError


@contextmanager
def only_holder(lock: Path, refusal: str) -> Iterator[None]:
    """Hold a lock file; the system frees it when the process ends, however it ends.

    Args:
        lock: the file, which no other lock uses.
        refusal: what to say if another process holds it.

    Raises:
        InputError: another process holds it.
    """
    try:
        held = FileLock(lock).acquire(timeout=0)
    except Timeout:
        raise InputError(refusal) from None
    with held:
        yield


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the lock of the work on a file or folder, once any other process has let go of it.

    Args:
        path: what is worked on. The commands that write a folder lock another file.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(path.with_name(f".{path.name}.work.lock")):
        yield
