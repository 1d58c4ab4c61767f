"""Word vectors written out: as a store, or as a file of the format that its ending says."""

import gzip
import io
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TextIO

import numpy as np
from numpy.typing import NDArray

from hyperofa.errors import InputError
from hyperofa.runtime.files import FilePath, check_file, new_file
from hyperofa.runtime.folders import check_folder, new_folder
from hyperofa.runtime.idle import Use, check_read
from hyperofa.runtime.ranges import Count, in_range
from hyperofa.runtime.scratch import scratch_folder
from hyperofa.vectors.conversion import build_store
from hyperofa.vectors.fasttext_layout import write_fasttext_model
from hyperofa.vectors.spelling import WORD_END, WORD_START, split_spec
from hyperofa.vectors.store import ROWS, StoreWriter, WordVectors, forget_progress

FILE_ENDINGS = (".vec", ".vec.gz", ".bin", ".wv")
"""Of files that can be written; anything else is the folder of a store."""

Entry = tuple[str, str, int]
"""A plain word, its language and its border bits."""

_DIGITS = {"float16": 5, "float32": 9}  # as many as tell two numbers of a precision apart


@dataclass(frozen=True)
class WrittenVectors:
    """Word vectors that were written.

    Attributes:
        path: the store's folder, or the file.
        dim: width of a vector.
        languages: how many words each has.
    """

    path: Path
    dim: int
    languages: dict[str, int]

    @property
    def words(self) -> int:
        """All of them."""
        return sum(self.languages.values())

    def __str__(self) -> str:
        languages = ", ".join(f"{language or 'unknown'} {count:,}" for language, count in self.languages.items())
        return f"{self.path}: {self.words:,} words, {self.dim} wide: {languages}"


@in_range()
def convert_vectors(
    vectors: list[str],
    output: FilePath,
    languages: list[str] | None = None,
    prefixes: bool = True,
    vectors_dtype: Literal["float32", "float16"] = "float32",
    max_words: Count | None = None,
    duplicate_words: Literal["error", "first"] = "error",
    allow_pickle: bool = False,
    overwrite: bool = False,
) -> WrittenVectors:
    """Turn word vectors of any format into another: .vec, .vec.gz, .bin, .wv, or a store.

    Args:
        vectors: word-vector files of one space (`vectors.READERS`, or a store folder); LANG=FILE names the language
            of a file whose words carry none. Give the flag again for each further file.
        output: what to write, of the format that its ending says: fastText text .vec or .vec.gz, a fastText model .bin
            (without n-grams), gensim .wv; a store folder otherwise.
        languages: only the words of these. All if not given.
        prefixes: write words into files with their language, as in `deu:haus`.
        vectors_dtype: how a store holds the vectors.
        max_words: read at most this many words of each file; they are the most frequent ones.
        duplicate_words: what to do when a file has a word twice: stop, or keep its first vector.
        allow_pickle: open gensim files, which can run code; only for files you trust.
        overwrite: replace what is already there.

    Returns:
        What was written.

    Raises:
        InputError: an input is missing or damaged, or has words that the format cannot hold.

    Example:
        >>> import hyperofa
        >>> print(hyperofa.convert_vectors(["words.vec"], "converted.bin"))
        converted.bin: ... words, 12 wide: deu ..., eng ...
    """
    inputs = [split_spec(spec)[1] for spec in vectors]
    check_output(output, overwrite, inputs, prefixes)
    with scratch_folder("hyperofa-vectors-") as scratch:
        store = build_store(
            vectors,
            scratch / "store",
            dtype=vectors_dtype,
            max_words=max_words,
            allow_pickle=allow_pickle,
            duplicates=duplicate_words,
        )
        rows = np.arange(len(store)) if languages is None else store.select(languages)
        return save_vectors(read_rows(store, rows), output, vectors_dtype, prefixes, overwrite, inputs)


def read_rows(store: WordVectors, rows: NDArray[np.int64]) -> Iterator[tuple[list[Entry], NDArray[Any]]]:
    """Entries and vectors of some rows of a store, in blocks.

    Args:
        store: where from.
        rows: which, in which order.
    """
    for start in range(0, len(rows), ROWS):
        some = rows[start : start + ROWS]
        codes = [store.languages[number] for number in store.language_ids[some].tolist()]
        yield list(zip(store.words[some], codes, store.boundaries[some].tolist(), strict=True)), store.vectors[some]


def check_output(output: FilePath, overwrite: bool, inputs: Sequence[Path], prefixes: bool = True) -> None:
    """See that vectors may be written somewhere, before the work is done.

    Args:
        output: as for `convert_vectors`.
        overwrite: replace what is already there.
        inputs: what the output must not replace.
        prefixes: as for `convert_vectors`.

    Raises:
        InputError: they may not.
    """
    output = Path(output)
    is_file = output.name.endswith(FILE_ENDINGS)
    check_read(
        check_output, locals(), Use(("prefixes",), is_file, "with a file as --output, as a store keeps words apart")
    )
    if not is_file:
        check_folder(output, overwrite, kind="vector store", inputs=inputs)
        return
    if output.exists() and any(output.samefile(path) for path in inputs if path.exists()):
        raise InputError(f"--output {output}: expected a file apart from the input, found the input")
    check_file(output, overwrite)


def save_vectors(
    blocks: Iterable[tuple[Sequence[Entry], NDArray[Any]]],
    output: FilePath,
    dtype: Literal["float32", "float16"] = "float32",
    prefixes: bool = True,
    overwrite: bool = False,
    inputs: Sequence[Path] = (),
) -> WrittenVectors:
    """Write words and their vectors as a store, or as a file.

    Args:
        blocks: entries and their `(n, d)` vectors, the most frequent words of each language first; no entry twice.
        output: as for `convert_vectors`.
        dtype: of the vectors in a store.
        prefixes: as for `convert_vectors`.
        overwrite: replace what is already there.
        inputs: what the blocks are read from, which the output must not replace.

    Raises:
        InputError: `output` exists, or the format cannot hold a word.
    """
    output = Path(output)
    check_output(output, overwrite, inputs)
    if not output.name.endswith(FILE_ENDINGS):
        with new_folder(output, overwrite, kind="vector store", inputs=inputs) as folder:
            store = _write_store(blocks, folder, np.dtype(dtype))
    else:
        with scratch_folder("hyperofa-vectors-") as scratch, new_file(output, overwrite) as file:
            store = _write_store(blocks, scratch, np.dtype(dtype))
            _write_file(store, file, prefixes)
    counts = np.bincount(store.language_ids, minlength=len(store.languages)).tolist()
    return WrittenVectors(output, store.dim, dict(zip(store.languages, counts, strict=True)))


def _write_store(
    blocks: Iterable[tuple[Sequence[Entry], NDArray[Any]]], folder: Path, dtype: np.dtype[Any]
) -> WordVectors:
    parts = iter(blocks)
    first = next(parts, None)
    if first is None:
        raise InputError("expected at least one word, found none")
    with StoreWriter(folder, first[1].shape[1], dtype) as writer:
        writer.append(*first)
        for entries, vectors in parts:
            writer.append(entries, vectors)
    store = writer.finish([{"path": "", "format": "store", "language": "", "words": len(writer)}])
    forget_progress(folder)
    return store


def _write_file(store: WordVectors, path: Path, prefixes: bool) -> None:
    """Write a file of the kind that its name says."""
    marked = bool((store.boundaries != WORD_START | WORD_END).any())
    blocks = read_rows(store, np.arange(len(store)))
    spelled = (([_spell(entry, prefixes, marked) for entry in entries], vectors) for entries, vectors in blocks)
    if path.name.endswith(".bin"):
        words = [
            _spell(entry, prefixes, marked)
            for entries, _ in read_rows(store, np.arange(len(store)))
            for entry in entries
        ]
        write_fasttext_model(path, words, (vectors for _, vectors in spelled))
    elif path.name.endswith(".wv"):
        _write_gensim(path, spelled, store)
    else:
        _write_text(path, spelled, store)


def _spell(entry: Entry, prefixes: bool, marked: bool) -> str:
    """A word as `spelling.Spelling` reads it."""
    word, language, borders = entry
    if marked:
        word = "$" * bool(borders & WORD_START) + word + "$" * bool(borders & WORD_END)
    return f"{language}:{word}" if prefixes and language else word


def _write_text(path: Path, blocks: Iterable[tuple[list[str], NDArray[Any]]], store: WordVectors) -> None:
    digits = f"%.{_DIGITS[store.vectors.dtype.name]}g"
    line = "%s " + " ".join([digits] * store.dim) + "\n"
    with _open_text(path) as file:
        file.write(f"{len(store)} {store.dim}\n")
        for words, vectors in blocks:
            bad = next((word for word in words if " " in word or "\n" in word), None)
            if bad is not None:
                raise InputError(
                    f"--output {path.name}: expected words without spaces and line ends, found {bad!r}, which a text "
                    "file cannot hold; write a store"
                )
            file.writelines(line % (word, *row) for word, row in zip(words, vectors.tolist(), strict=True))


@contextmanager
def _open_text(path: Path) -> Iterator[TextIO]:
    """A text file to write, zipped if its name says so: without its name and the time, so that equal is equal."""
    if not path.name.endswith(".gz"):
        with path.open("w", encoding="utf-8", newline="\n") as file:
            yield file
        return
    with (
        path.open("wb") as raw,
        gzip.GzipFile("", "wb", fileobj=raw, mtime=0) as packed,
        io.TextIOWrapper(packed, encoding="utf-8", newline="\n") as file,
    ):
        yield file


def _write_gensim(path: Path, blocks: Iterable[tuple[list[str], NDArray[Any]]], store: WordVectors) -> None:
    try:
        from gensim.models import KeyedVectors
    except ImportError:
        raise InputError(f"{path.name}: gensim is not installed; run: pip install 'hyperofa[colexnet]'") from None
    vectors = KeyedVectors(store.dim, count=0, dtype=np.float32)
    for words, rows in blocks:
        vectors.add_vectors(words, np.asarray(rows, np.float32))
    vectors.lifecycle_events = None  # else it notes the time, and where it was saved
    vectors.save(str(path), sep_limit=2**62)  # in one file
