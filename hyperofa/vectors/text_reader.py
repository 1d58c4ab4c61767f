"""Text of fastText's or word2vec's kind, plain or gzipped: a line "COUNT DIM", then "word number … number" a line."""

import codecs
import gzip
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import IO

import numpy as np

from hyperofa.errors import InputError
from hyperofa.vectors.fasttext_layout import WIDEST
from hyperofa.vectors.vector_file import BLOCK, Block, VectorFile

_LONGEST_WORD = 65_536  # bytes
_LONGEST_NUMBER = 64  # bytes


def _line(path: Path, row: int) -> str:
    return f"{path}, line {row + 2}"


def open_vectors(path: Path, language: str) -> VectorFile:
    """Read the header, "COUNT DIM"; a word and its numbers stand on each line behind it.

    Args:
        path: plain or gzipped.
        language: of words that carry none.

    Raises:
        InputError: another header, or a damaged archive.
    """
    with _reporting_cut(path), _open_stream(path) as file:
        header = file.readline(1 << 20).removeprefix(codecs.BOM_UTF8).split()
    if not header:
        raise InputError(f"{path}, line 1: expected 'COUNT DIM', found an empty line")
    try:
        count, dim = (int(field) for field in header)
    except ValueError:
        found = f"{len(header)} fields, the first {header[0][:40].decode(errors='replace')!r}"
        raise InputError(
            f"{path}, line 1: expected the header 'COUNT DIM' (number of words, width of a vector), found {found}"
        ) from None
    if count < 1 or not 1 <= dim <= WIDEST:
        raise InputError(
            f"{path}, line 1: expected a header 'COUNT DIM' of positive numbers, DIM up to {WIDEST:,}, found {count} "
            f"and {dim}"
        )

    def blocks(limit: int, start: int = 0) -> Iterator[Block]:
        with _reporting_cut(path), _open_stream(path) as file:
            lines_of = _short_lines(file, path, dim)
            row = sum(1 for _ in islice(lines_of, start + 1)) - 1
            while row < limit:
                lines = list(islice(lines_of, min(BLOCK, limit - row)))
                if not lines:
                    raise InputError(f"{path}: the header says {count} words, found {row}; is the file cut?")
                yield _parse_lines(lines, dim, path, row)
                row += len(lines)
            if limit == count and any(chunk.strip() for chunk in iter(lambda: file.read(1 << 20), b"")):
                raise InputError(f"{_line(path, count)}: the header says {count} words, found more; mend line 1")

    return VectorFile(path, "text", count, dim, blocks, language, first_line=2)


def _short_lines(file: IO[bytes], path: Path, dim: int) -> Iterator[bytes]:
    """Lines of a file, none so long that a small archive could fill the memory with it."""
    longest = _LONGEST_WORD + _LONGEST_NUMBER * dim
    for number, line in enumerate(iter(lambda: file.readline(longest + 1), b""), 1):
        if len(line) > longest:
            raise InputError(
                f"{path}, line {number}: expected a word and {dim} numbers, found more than {longest:,} bytes"
            )
        yield line


def _open_stream(path: Path) -> IO[bytes]:
    with path.open("rb") as file:
        zipped = file.read(2) == b"\x1f\x8b"
    return gzip.open(path, "rb") if zipped else path.open("rb", buffering=1 << 20)  # type: ignore[return-value]


@contextmanager
def _reporting_cut(path: Path) -> Iterator[None]:
    try:
        yield
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise InputError(f"{path}: damaged gzip file, is it cut? ({error})") from None


def _parse_lines(lines: list[bytes], dim: int, path: Path, first: int) -> Block:
    """Parse rows `first`, `first + 1`, … of a text file; a word ends at the first U+0020, at no other space."""
    words, values = [], []
    for row, line in enumerate(lines, first):
        word, _, numbers = line.partition(b" ")
        try:
            words.append(word.decode("utf-8"))
        except UnicodeDecodeError as error:
            raise InputError(
                f"{_line(path, row)}: expected UTF-8, found {error.object[error.start : error.end]!r}; convert the file"
            ) from None
        values.append(numbers.decode("latin-1"))
    try:
        vectors = np.loadtxt(values, dtype=np.float32, comments=None, ndmin=2) if any(map(str.strip, values)) else None
    except ValueError:
        vectors = None
    if vectors is None or vectors.shape != (len(lines), dim):
        raise InputError(_explain(lines, dim, path, first))
    if "" in words:
        raise InputError(f"{_line(path, first + words.index(''))}: expected a word, found a space at the line's start")
    return Block(words, vectors)


def _explain(lines: list[bytes], dim: int, path: Path, first: int) -> str:
    for row, line in enumerate(lines, first):
        fields = line.partition(b" ")[2].decode("latin-1").split()
        if len(fields) != dim:
            hint = "" if line.endswith(b"\n") else "; is the file cut?"
            return f"{_line(path, row)}: expected a word and {dim} numbers, found {len(fields)}{hint}"
        for field in fields:
            try:
                float(field)
            except ValueError:
                return f"{_line(path, row)}: expected a number, found {field[:40]!r}"
    return f"{_line(path, first)} or one of the {len(lines)} after it: expected a word and {dim} numbers"
