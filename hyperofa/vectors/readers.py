"""Word-vector files of every format: which reader a file's ending asks for."""

from importlib import import_module
from pathlib import Path

from hyperofa.errors import InputError
from hyperofa.vectors import PICKLES, READERS
from hyperofa.vectors.vector_file import VectorFile, reporting


def list_shards(folder: Path) -> list[Path]:
    """Vector files of a folder, by name; other files are left alone.

    Raises:
        InputError: there is none.
    """
    endings = tuple(READERS)
    shards = sorted(path for path in folder.iterdir() if path.is_file() and path.name.endswith(endings))
    if not shards:
        raise InputError(f"{folder}: expected a store or vector files ({', '.join(READERS)}) in it, found none")
    return shards


def open_file(path: Path, language: str = "", allow_pickle: bool = False) -> VectorFile:
    """Read a file's header and find out what it holds.

    Args:
        path: of one of the endings in `vectors.READERS`.
        language: of words that carry none.
        allow_pickle: read formats that are pickles: a pickle runs whatever code its author put there.

    Raises:
        InputError: missing, empty, cut, of an unknown kind, or a pickle that was not allowed.
    """
    with reporting(path):
        reader = next((module for ending, module in READERS.items() if path.name.endswith(ending)), None)
        if reader is None:
            raise InputError(
                f"{path}: unknown extension; expected one of {', '.join(READERS)}, or a folder of such files"
            )
        if reader in PICKLES and not allow_pickle:
            raise InputError(
                f"{path}: {PICKLES[reader]}'s format is a pickle, which can run any code; if you trust it, give "
                "--allow_pickle true"
            )
        opened: VectorFile = import_module(f"hyperofa.vectors.{reader}").open_vectors(path, language)
        return opened
