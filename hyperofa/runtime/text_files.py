"""Text on disk: sentences one a line, parallel text, and the lines that are held out of it."""

import gzip
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from hyperofa.errors import InputError

LONGEST_LINE = 2**24
"""Characters of the longest line: a small archive can hold one that fills the memory."""


def read_lines(paths: Sequence[str | Path], flag: str = "--data.text") -> list[str]:
    """Read sentences, one a line, from plain or gzipped text; of a .tsv file the last column.

    Args:
        paths: files.
        flag: command-line flag named in errors.

    Raises:
        InputError: a file is missing, not UTF-8 text, or empty.
    """
    return list(iterate_lines(paths, flag))


def iterate_lines(paths: Sequence[str | Path], flag: str = "--data.text") -> Iterator[str]:
    """The same as `read_lines`, line by line, for text that is larger than memory.

    Args:
        paths: files.
        flag: command-line flag named in errors.

    Raises:
        InputError: a file is missing, not UTF-8 text, or empty.
    """
    for path in map(Path, paths):
        last_column = ".tsv" in path.suffixes
        for line in lines_of(path, flag):
            yield line.rpartition("\t")[2].strip() if last_column else line.strip()


def check_texts(paths: Sequence[str | Path], flag: str) -> None:
    """See that each is there and begins as text, before anything takes long.

    Args:
        paths: files.
        flag: command-line flag named in errors.

    Raises:
        InputError: one is missing or empty, or its first line is not text.
    """
    for path in paths:
        next(iterate_lines([path], flag))


def in_pieces(line: str, length: int) -> list[str]:
    """A line as it is or, where it is longer than that, in pieces: cut at spaces, and within words of that length.

    Args:
        line: without spaces around it.
        length: of a piece at most, characters.

    Returns:
        Those that are not blank.
    """
    pieces, start = [], 0
    while len(line) - start > length:
        end = line.rfind(" ", start, start + length + 1)
        end = start + length if end <= start else end
        pieces.append(line[start:end])
        start = end
    return [piece.strip() for piece in [*pieces, line[start:]] if piece.strip()]


def read_rows(path: str | Path, flag: str) -> list[list[str]]:
    """The lines of a plain or gzipped text, empty ones included, as columns: those of a .tsv file, else one.

    Args:
        path: the file.
        flag: command-line flag named in errors.

    Raises:
        InputError: as `read_lines`.
    """
    split = ".tsv" in Path(path).suffixes
    return [line.split("\t") if split else [line] for line in lines_of(Path(path), flag, empty=True)]


def read_pairs(paths: Sequence[str | Path], flag: str = "--data.parallel") -> list[tuple[str, str]]:
    """Read parallel text: a source sentence and its translation, tab-separated, one pair a line.

    Args:
        paths: files.
        flag: command-line flag named in errors.

    Raises:
        InputError: a file is missing or empty, or a line has not two columns.
    """
    return list(iterate_pairs(paths, flag))


def iterate_pairs(paths: Sequence[str | Path], flag: str = "--data.parallel") -> Iterator[tuple[str, str]]:
    """The same as `read_pairs`, pair by pair, for text that is larger than memory.

    Args:
        paths: files.
        flag: command-line flag named in errors.

    Raises:
        InputError: a file is missing or empty, or a line has not two columns.
    """
    for path in paths:
        for number, line in enumerate(lines_of(Path(path), flag), 1):
            columns = line.split("\t")
            if len(columns) != 2:
                raise InputError(
                    f"{flag} {path} line {number}: expected a source sentence, a tab and its translation, "
                    f"found {len(columns) - 1 or 'no'} tab{'s' * (len(columns) > 2)}"
                )
            yield columns[0].strip(), columns[1].strip()


def hold_out(lines: Sequence[str], count: int, seed: int) -> tuple[list[str], list[str]]:
    """Split lines at random: the rest and the held-out ones, `count` of them or a tenth, at least one each.

    Args:
        lines: at least two.
        count: wanted to hold out, at least 1.
        seed: of the choice.

    Raises:
        InputError: fewer than two lines, or a count below 1.
    """
    held = choose_held_out(len(lines), count, seed)
    parts = [[line for line, out in zip(lines, held, strict=True) if out == part] for part in (False, True)]
    return parts[0], parts[1]


def choose_held_out(total: int, count: int, seed: int, flag: str = "--text") -> np.ndarray:
    """Which lines `hold_out` holds out: `(total,)` bool.

    Args:
        total: number of lines, at least two.
        count: wanted to hold out, at least 1.
        seed: of the choice.
        flag: command-line flag named in errors.

    Raises:
        InputError: fewer than two lines, or a count below 1.
    """
    if count < 1:
        raise InputError(f"--validation_lines: expected at least 1, found {count}")
    if total < 2:
        raise InputError(f"{flag}: expected at least 2 lines, to train on one and measure on another; found {total}")
    held = np.zeros(total, bool)
    held[np.random.default_rng(seed).permutation(total)[: max(1, min(count, total // 10))]] = True
    return held


def lines_of(path: Path, flag: str, empty: bool = False) -> Iterator[str]:
    """The lines of a plain or gzipped text as they are; a byte order mark is none of its text.

    Args:
        path: the file.
        flag: command-line flag named in errors.
        empty: give empty lines too.

    Raises:
        InputError: as `read_lines`.
    """
    found = False
    try:
        opener = gzip.open if path.suffix == ".gz" else open
        with opener(path, "rt", encoding="utf-8-sig") as file:
            for number, line in enumerate(iter(lambda: file.readline(LONGEST_LINE + 1), ""), 1):
                if len(line) > LONGEST_LINE:
                    raise InputError(
                        f"{flag} {path} line {number}: expected at most {LONGEST_LINE:,} characters, found more; give "
                        "one sentence a line"
                    )
                found = found or bool(line.strip())
                if empty or line.strip():
                    yield line.rstrip("\n")
    except FileNotFoundError:
        raise InputError(f"{flag} {path}: expected a text file, found none") from None
    except IsADirectoryError:
        raise InputError(f"{flag} {path}: expected a text file, found a folder") from None
    except (OSError, UnicodeDecodeError, EOFError, zlib.error) as error:
        raise InputError(f"{flag} {path}: expected UTF-8 text, plain or gzipped; {error}") from None
    if not found:
        raise InputError(f"{flag} {path}: expected sentences, one a line, found none")
