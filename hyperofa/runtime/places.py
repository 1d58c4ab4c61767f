"""Where something is to be written: whether it may be, and what lies beside it."""

import os
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from hyperofa.errors import InputError
from hyperofa.runtime.hashing import sha256_text

_LONGEST = 160  # bytes of a name that a prefix and a suffix are put to


def resolve_place(path: str | Path, inputs: Iterable[object], within: bool = True) -> Path:
    """Where a folder really is: of a link, what it points to.

    Args:
        path: the folder.
        inputs: what it must not hold.
        within: whether it may be within one of these.

    Raises:
        InputError: nothing can be made there, or an input would be lost.
    """
    path = Path(path)
    if path.is_symlink() and not path.exists():
        raise InputError(f"{path}: expected a folder to write to, found a link to nothing; give another --output")
    place = path.resolve()
    check_parents(path)
    if place == Path.cwd():
        raise InputError(f"{path}: expected a folder to make, found the current one; give the name of a new --output")
    if os.path.ismount(place):
        raise InputError(f"{path}: expected a folder to make, found a mount point; give a folder in it as --output")
    for given in inputs:
        if isinstance(given, str | Path) and os.path.exists(given):
            source = Path(given).resolve()
            if place == source or place in source.parents:
                raise InputError(f"--output {path}: expected a folder apart from the input, found {given} in it")
            if not within and source in place.parents:
                raise InputError(f"--output {path}: expected a folder apart from the input, found it in {given}")
    return place


def check_parents(path: Path) -> None:
    """See that a file or folder may be made where it is to be.

    Raises:
        InputError: it would be within a file.
    """
    place = path.resolve()
    above = next((parent for parent in place.parents if os.path.exists(parent)), place)  # a name may be too long
    if not above.is_dir():
        raise InputError(f"{path}: expected a folder to write to, but {above} is a file; give another --output")


@contextmanager
def new_parents(place: Path) -> Iterator[None]:
    """Make the parents of a file or folder; the new ones go again if the block fails and leaves them empty."""
    made = [parent for parent in place.parents if not parent.exists()]
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=place.parent):  # some file systems say no only now
            pass
    except OSError as error:
        below = (
            f"nothing can be made in {place.parent}" if place.parent.is_dir() else f"{error.filename} cannot be made"
        )
        raise InputError(
            f"{place}: expected a place to write to, but {below} ({error.strerror}); give another --output"
        ) from None
    try:
        yield
    except Exception:
        if made:  # nobody waits for the lock in a folder that this process has just made
            beside(place, "lock").unlink(missing_ok=True)
        for parent in made:
            if not any(parent.iterdir()):
                parent.rmdir()
        raise


def beside(place: Path, suffix: str) -> Path:
    """A hidden name for something that belongs to a folder; short enough for a folder with the longest name.

    Args:
        place: the folder.
        suffix: what the name ends with.
    """
    name = place.name
    if len(os.fsencode(name)) > _LONGEST:
        name = f"{os.fsencode(name)[: _LONGEST // 2].decode(errors='ignore')}-{sha256_text(name)[:16]}"
    return place.with_name(f".{name}.{suffix}")
