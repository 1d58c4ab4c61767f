"""A file of word vectors whose header was read: what every format's reader makes of it."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hyperofa.errors import InputError

BLOCK = 4096
"""Rows that a reader gives at a time."""


@dataclass(frozen=True)
class Block:
    """Neighbouring rows of a file: `n` words as the file spells them and their `(n, d)` vectors.

    A store, which knows them apart, also gives `entries`: the plain word, its language and its border bits.
    """

    words: list[str]
    vectors: NDArray[np.float32]
    entries: list[tuple[str, str, int]] | None = None


@dataclass(frozen=True)
class VectorFile:
    """A file of word vectors whose header was read and found whole.

    Attributes:
        path: where it is.
        format: what it is, as the store made of it notes.
        count: rows it declares.
        dim: width of a vector.
        blocks: reads rows `start` to `limit` in blocks of bounded memory, given limit and start; may be called again.
        language: of words that carry none; '' when unknown.
        first_line: number of the line with the first row, where each row is a line of text.
    """

    path: Path
    format: str
    count: int
    dim: int
    blocks: Callable[[int, int], Iterator[Block]]
    language: str = ""
    first_line: int | None = None

    def where(self, row: int) -> str:
        """Name a row for an error message."""
        place = f"word {row + 1}" if self.first_line is None else f"line {row + self.first_line}"
        return f"{self.path}, {place}"


@contextmanager
def reporting(path: Path) -> Iterator[None]:
    """Refuse a file that is missing, empty or cannot be read.

    Args:
        path: of the file that is opened in the block.

    Raises:
        InputError: it is.
    """
    if not path.exists():
        raise InputError(f"{path}: expected a file of word vectors, found nothing there")
    try:
        if path.stat().st_size == 0:
            raise InputError(f"{path}: expected word vectors, found an empty file")
        yield
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror or error})") from None
