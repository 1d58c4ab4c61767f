"""Single files that are whole or absent."""

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from hyperofa.errors import InputError

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
    if path.is_dir():
        raise InputError(f"{path}: expected a file to write to, found a folder; give another --output")
    if path.exists() and not overwrite:
        raise InputError(f"{path} already exists; give another --output, or --overwrite true")
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".hyperofa-", dir=path.parent) as folder:
        partial = Path(folder) / path.name
        yield partial
        partial.replace(path)
