"""fastText's model files: what one says of itself, checked before the library, which checks nothing, sees it."""

import mmap
import struct
from collections.abc import Iterable, Sequence
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from hyperofa.errors import InputError

WIDEST = 65_536
"""Numbers of the widest vector that is read."""

_MAGIC = 793712314
_ROWS = 16_384  # rows of a matrix that are handled at a time
_LONGEST_WORD = 65_536  # bytes
_LONGEST_NGRAM = 64  # characters
_MOST_TOKENS = 10**15  # where fastText's tree of counts has its sentinel


class _FastTextHeader(NamedTuple):
    """What stands before the words of a fastText 0.9 model (`args.cc`, `dictionary.cc`), less the magic number."""

    version: int
    dim: int
    window: int
    epochs: int
    min_count: int
    negatives: int
    word_ngrams: int
    loss: int
    model: int
    buckets: int
    shortest: int
    longest: int
    update_rate: int
    sampling: float
    entries: int
    words: int
    labels: int
    tokens: int
    pruned: int

    @classmethod
    def read(cls, data: bytes | mmap.mmap) -> "_FastTextHeader":
        """From the start of a file."""
        return cls(*struct.unpack_from("<13id3i2q", data, 4))

    def problem(self) -> str | None:
        """What fastText would trust and be led astray by: it indexes by these numbers, and divides by the buckets."""
        ngrams = self.longest > 0 and self.longest >= self.shortest
        checks = {
            f"a width from 1 to {WIDEST:,}, found {self.dim:,}": 1 <= self.dim <= WIDEST,
            f"at least one word, found {self.words}": self.words >= 1,
            f"as many entries as words and labels, found {self.entries}, {self.words} and {self.labels}": (
                self.labels >= 0 and self.entries == self.words + self.labels
            ),
            f"buckets for its n-grams, found {self.buckets}": self.buckets >= (1 if ngrams else 0),
            f"n-grams of at most {_LONGEST_NGRAM} characters, found {self.longest}": self.longest <= _LONGEST_NGRAM,
            f"a known kind of model and loss, found {self.model} and {self.loss}": (
                self.model in (1, 2, 3) and self.loss in (1, 2, 3, 4)
            ),
            "labels in a classifier, found none": self.model != 3 or self.labels >= 1,
        }
        return next((expected for expected, holds in checks.items() if not holds), None)


class FastTextLayout(NamedTuple):
    """What a fastText model file holds, and where.

    Attributes:
        words: in the file's order.
        dim: width of a vector.
        matrices: first byte of the input matrix, behind which the output matrix follows.
    """

    words: list[str]
    dim: int
    matrices: int


def read_fasttext_layout(path: Path) -> FastTextLayout:
    """The layout of a fastText model, once all that its header says is seen to be so.

    The layout is that of fastText 0.9 (`fasttext.cc`, `args.cc`, `dictionary.cc`, `densematrix.cc`): 12 integers and a
    double of settings, then five counts, the words (zero-ended, with a count and a kind) before the labels, and two
    matrices, each behind a flag that says whether it is quantised. The library checks none of it: a wrong number is an
    index out of its arrays.

    Raises:
        InputError: another format, a quantised model, or numbers that do not fit each other or the file.
        IndexError, struct.error: the file ends too early.
    """
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        if len(data) < 4 or struct.unpack_from("<i", data)[0] != _MAGIC:
            raise InputError(f"{path}: expected a fastText model (.bin), found another format; save word2vec's as text")
        header = _FastTextHeader.read(data)
        if header.words == header.entries == 0:
            raise InputError(f"{path}: expected word vectors, found a fastText model without words")
        if (problem := header.problem()) is not None:
            raise InputError(f"{path}: expected a fastText model with {problem}; is the file damaged?")
        if header.pruned >= 0:
            raise InputError(f"{path}: quantised fastText models are not read; give the model before quantisation")
        position, words, total = 92, [], 0
        for entry in range(header.entries):
            end = data.find(b"\0", position, position + _LONGEST_WORD + 1)
            if end < 0 and position + _LONGEST_WORD < len(data):
                raise InputError(f"{path}, word {entry + 1}: expected at most {_LONGEST_WORD:,} bytes, found more")
            if end < 0 or end + 10 > len(data):
                raise IndexError
            (count,), is_label = struct.unpack_from("<q", data, end + 1), data[end + 9]
            total += count
            if is_label != (entry >= header.words) or count < 1 or total >= _MOST_TOKENS:
                raise InputError(
                    f"{path}, word {entry + 1}: expected {header.words:,} words, then {header.labels:,} labels, each "
                    f"seen at least once, found one of kind {is_label} seen {count} times; is the file damaged?"
                )
            if not is_label:
                try:
                    words.append(data[position:end].decode("utf-8"))
                except UnicodeDecodeError:
                    found = data[position:end]
                    raise InputError(f"{path}, word {len(words) + 1}: expected UTF-8, found {found!r}") from None
            position = end + 10
        matrices = position
        targets = header.labels if header.model == 3 else header.words
        for expected in ((header.words + header.buckets, header.dim), (targets, header.dim)):
            quantised, rows, columns = struct.unpack_from("<?2q", data, position)
            if quantised:
                raise InputError(f"{path}: quantised fastText models are not read; give the model before quantisation")
            if (rows, columns) != expected:
                raise InputError(
                    f"{path}: expected a matrix of {expected[0]} × {expected[1]} by the model's own counts, found "
                    f"{rows} × {columns}; is the file damaged?"
                )
            position += 17 + 4 * rows * columns
        if position > len(data):
            raise IndexError
        if position < len(data):
            raise InputError(f"{path}: the fastText model ends {len(data) - position} bytes before the file does")
    return FastTextLayout(words, header.dim, matrices)


def map_fasttext_model(
    path: Path, output: Path, matrix: NDArray[np.floating[Any]], shift: NDArray[np.floating[Any]]
) -> None:
    """Write a fastText model whose every vector x, of words and of n-grams, has become (x - shift) · matrix.

    A word's vector is the mean of its rows, so words that the model has never seen go the same way. Output vectors are
    mapped too, but not shifted: under a rotation the model's predictions change by what the shift takes off alone.

    Args:
        path: the model.
        output: file to write.
        matrix: `(d, e)`.
        shift: `(d,)`.
    """
    layout, factor = read_fasttext_layout(path), np.asarray(matrix, np.float32)
    with path.open("rb") as source, output.open("wb") as target:
        head = bytearray(source.read(layout.matrices))
        struct.pack_into("<i", head, 8, factor.shape[1])  # behind the magic number and the version
        target.write(head)
        for offset in (np.asarray(shift, np.float32), np.float32(0)):
            quantised, rows, _ = struct.unpack("<?2q", source.read(17))
            target.write(struct.pack("<?2q", quantised, rows, factor.shape[1]))
            for start in range(0, rows, _ROWS):
                count = min(_ROWS, rows - start)
                block = np.frombuffer(source.read(4 * count * layout.dim), "<f4").reshape(count, layout.dim)
                target.write(((block - offset) @ factor).astype("<f4").tobytes())


def write_fasttext_model(path: Path, words: Sequence[str], blocks: Iterable[NDArray[np.floating[Any]]]) -> None:
    """Write words and their vectors as a fastText model without n-grams.

    Args:
        path: file to write.
        words: V, the most frequent first; fastText wants to know how often each was seen: V times the first, once the
            last.
        blocks: their vectors, `(n, d)` each, V in all.
    """
    encoded = [word.encode("utf-8") for word in words]
    bad = next((word for word, name in zip(words, encoded, strict=True) if b"\0" in name or not name), None)
    if bad is not None:
        raise InputError(f"{path}: expected words without zero bytes, found {bad!r}, which fastText cannot hold")
    count, parts = len(words), iter(blocks)
    first = next(parts)
    dim = first.shape[1]
    header = _FastTextHeader(
        version=12, dim=dim, window=5, epochs=0, min_count=1, negatives=5, word_ngrams=1, loss=2, model=2, buckets=0,
        shortest=0, longest=0, update_rate=100, sampling=1e-4, entries=count, words=count, labels=0,
        tokens=count * (count + 1) // 2, pruned=-1,
    )  # fmt: skip
    with path.open("wb") as file:
        file.write(struct.pack("<i", _MAGIC) + struct.pack("<13id3i2q", *header))
        for row, name in enumerate(encoded):
            file.write(name + b"\0" + struct.pack("<qb", count - row, 0))
        file.write(struct.pack("<?2q", False, count, dim))
        for block in chain([first], parts):
            file.write(np.asarray(block, "<f4").tobytes())
        file.write(struct.pack("<?2q", False, count, dim))
        empty = np.zeros((_ROWS, dim), "<f4")
        for start in range(0, count, _ROWS):
            file.write(empty[: min(_ROWS, count - start)].tobytes())
