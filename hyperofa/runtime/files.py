"""Single files that are whole or absent."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from hyperofa.errors import InputError
from hyperofa.runtime.places import check_parents, new_parents
from hyperofa.runtime.scratch import scratch_folder

if TYPE_CHECKING:
    FilePath = str | Path
    """A file or folder, as somebody writes it in Python."""
    FilePaths = Sequence[str | Path]
else:  # what a command line can give, which reads these types
    FilePath, FilePaths = Path, list[Path]


@contextmanager
def new_file(path: str | Path, overwrite: bool = False) -> Iterator[Path]:
    """Yield a temporary file name beside `path`; what is there at the end takes its place.

    Args:
        path: file to create; its parents are made.
        overwrite: replace a file that is already there.

    Raises:
        InputError: `path` is there and may not be replaced, or is a folder.
    """
    path = Path(path)
    check_file(path, overwrite)
    with new_parents(path), scratch_folder(".hyperofa-", path.parent) as folder:
        partial = folder / path.name
        yield partial
        partial.replace(path)


def check_file(path: Path, overwrite: bool = False) -> None:
    """See that a file can be written.

    Args:
        path: the file; its parents need not be there.
        overwrite: whether it may be replaced.

    Raises:
        InputError: as `new_file`.
    """
    check_parents(path)
    if path.is_dir():
        raise InputError(f"{path}: expected a file to write to, found a folder; give another --output")
    if path.exists() and not overwrite:
        raise InputError(f"{path} already exists; give another --output, or --overwrite true")
