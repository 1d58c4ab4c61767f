"""Readers of word-vector files: fastText .bin and .vec, word2vec text, gensim; how words spell language and borders."""

import codecs
import gzip
import re
import struct
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import IO, Any, Literal

import numpy as np
from numpy.typing import NDArray

from hyperofa.errors import InputError
from hyperofa.vectors.fasttext_layout import WIDEST, read_fasttext_layout

WORD_START, WORD_END = 1, 2
"""Bits of a word's borders: it starts, or ends, where a word of the text does, so a space may stand there."""

SEEN = 4096
"""Words by which `Spelling.detect` decides."""

_BLOCK = 4096
_LONGEST_WORD = 65_536  # bytes
_LONGEST_NUMBER = 64  # bytes
_SHARE = 0.1
_LANGUAGE = r"[a-z]{3}(?:_[A-Z][a-z]{3})?|[a-z]{2}"
_PREFIX = re.compile(rf"({_LANGUAGE}):(?!//)(?=.)", re.DOTALL)
_SPEC = re.compile(rf"({_LANGUAGE})=(.+)", re.DOTALL)
_TEXT_ENDINGS = (".vec", ".txt", ".vec.gz", ".txt.gz")
_GENSIM_ENDINGS = (".wv", ".kv")
_ENDINGS = (*_TEXT_ENDINGS, ".bin", *_GENSIM_ENDINGS)

SpellingChoice = Literal["auto", "marked", "plain", "reference"]


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
        format: what it is.
        count: rows it declares.
        dim: width of a vector.
        blocks: reads rows `start` to `limit` in blocks of bounded memory, given limit and start; may be called again.
        language: of words that carry none; '' when unknown.
    """

    path: Path
    format: Literal["text", "fasttext", "gensim", "store"]
    count: int
    dim: int
    blocks: Callable[[int, int], Iterator[Block]]
    language: str = ""

    def where(self, row: int) -> str:
        """Name a row for an error message."""
        return _line(self.path, row) if self.format == "text" else f"{self.path}, word {row + 1}"


@dataclass(frozen=True)
class Spelling:
    """How the words of one file spell their language and their borders.

    A language prefix is a code of two letters, or of three with or without a script (`de:`, `deu:`, `deu_Latn:`),
    with something other than `//` behind it. A border mark is ColexNet's `$` at the start or the end of a word.
    Either may occur by chance (`re:zero`, `$5`), so `detect` reads it only in a file where a tenth of the first 4,096
    words have it.
    """

    prefixes: bool
    marks: bool

    @classmethod
    def detect(cls, words: Sequence[str], choice: SpellingChoice = "auto") -> "Spelling":
        """Decide from a file's first words, or as `choice` says: all spellings ('marked'), none, or as published.

        Args:
            words: as the file spells them.
            choice: `auto` to decide by them.
        """
        if choice == "reference":
            return ReferenceSpelling(True, True)
        if choice != "auto":
            return cls(choice == "marked", choice == "marked")
        prefixed = sum(_PREFIX.match(word) is not None for word in words)
        prefixes = prefixed >= _SHARE * len(words)
        bare = [cls(prefixes, False).split(word, "")[0] for word in words]
        marked = sum(len(word) > 1 and (word[0] == "$" or word[-1] == "$") for word in bare)
        return cls(prefixes, marked >= _SHARE * len(words))

    def split(self, word: str, language: str) -> tuple[str, str, int]:
        """Take a word apart.

        Args:
            word: as the file spells it.
            language: of a word that has no prefix.

        Returns:
            The plain word, its language and its border bits: both in a file that marks none.
        """
        if self.prefixes and (prefix := _PREFIX.match(word)) is not None:
            language, word = prefix[1], word[prefix.end() :]
        if not self.marks:
            return word, language, WORD_START | WORD_END
        borders = 0
        if len(word) > 1 and word[0] == "$":
            borders, word = borders | WORD_START, word[1:]
        if len(word) > 1 and word[-1] == "$":
            borders, word = borders | WORD_END, word[:-1]
        return word, language, borders


class ReferenceSpelling(Spelling):
    """The published rule: English without a prefix, and border marks stay in the word (`reference.QUIRKS`)."""

    def split(self, word: str, language: str) -> tuple[str, str, int]:
        """Take a word apart: the word with its marks, its language, and both border bits.

        Args:
            word: as the file spells it.
            language: of a word that has no prefix.
        """
        if len(word) > 4 and word[3] == ":":
            return word[4:], word[:3], WORD_START | WORD_END
        return word, language or "eng", WORD_START | WORD_END


def split_spec(spec: str) -> tuple[str | None, Path]:
    """Split 'LANG=PATH' (LANG a code of two or three letters, or like deu_Latn) or 'PATH', whose language is None."""
    match = None if Path(spec).exists() else _SPEC.fullmatch(spec)
    return (match[1], Path(match[2])) if match else (None, Path(spec))


def list_shards(folder: Path) -> list[Path]:
    """Vector files of a folder, by name; other files are left alone.

    Raises:
        InputError: there is none.
    """
    shards = sorted(path for path in folder.iterdir() if path.is_file() and path.name.endswith(_ENDINGS))
    if not shards:
        raise InputError(f"{folder}: expected a store or vector files ({', '.join(_ENDINGS)}) in it, found none")
    return shards


def open_file(path: Path, language: str = "", allow_pickle: bool = False) -> VectorFile:
    """Read a file's header and find out what it holds.

    Args:
        path: `.vec` or `.txt` (fastText or word2vec text, plain or gzipped), fastText `.bin`, gensim `.wv` or `.kv`.
        language: of words that carry none.
        allow_pickle: let gensim unpickle `.wv` and `.kv`: a pickle runs whatever code its author put there.

    Raises:
        InputError: missing, empty, cut, of an unknown kind, or a pickle that was not allowed.
    """
    if not path.exists():
        raise InputError(f"{path}: expected a file of word vectors (--vectors), found nothing there")
    try:
        if path.stat().st_size == 0:
            raise InputError(f"{path}: expected word vectors, found an empty file")
        if path.name.endswith(_TEXT_ENDINGS):
            return _open_text(path, language)
        if path.name.endswith(".bin"):
            return _open_fasttext(path, language)
        if path.name.endswith(_GENSIM_ENDINGS):
            return _open_gensim(path, language, allow_pickle)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror or error})") from None
    raise InputError(f"{path}: unknown extension; expected one of {', '.join(_ENDINGS)}, or a folder of such files")


# Text: a line "COUNT DIM", then "word number … number" a line.


def _line(path: Path, row: int) -> str:
    return f"{path}, line {row + 2}"


def _open_text(path: Path, language: str) -> VectorFile:
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
                lines = list(islice(lines_of, min(_BLOCK, limit - row)))
                if not lines:
                    raise InputError(f"{path}: the header says {count} words, found {row}; is the file cut?")
                yield _parse_lines(lines, dim, path, row)
                row += len(lines)
            if limit == count and any(chunk.strip() for chunk in iter(lambda: file.read(1 << 20), b"")):
                raise InputError(f"{_line(path, count)}: the header says {count} words, found more; mend line 1")

    return VectorFile(path, "text", count, dim, blocks, language)


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


# fastText's own format.


class Subwords:
    """Vectors of any text from a fastText model's character n-grams, also of words that it has not seen."""

    def __init__(self, path: str | Path) -> None:
        """Load a fastText `.bin`; checked first, because fastText reads a cut file without complaint, or for ever.

        Raises:
            InputError: missing, cut, quantised or no fastText model.
        """
        import fasttext

        if open_file(Path(path)).format != "fasttext":
            raise InputError(f"{path}: expected a fastText model (.bin): only it has sub-word n-grams")
        try:
            self._model = fasttext.load_model(str(path))
        except (ValueError, RuntimeError) as error:
            raise InputError(f"{path}: expected a fastText model; {error}") from None
        self.dim: int = self._model.get_dimension()

    def vector(self, text: str) -> NDArray[np.float32]:
        """Vector `(d,)` of a text without spaces: the mean of its n-grams' and, if known, its own; else zeros."""
        return self._model.get_word_vector(text)

    def vectors(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Vectors `(n, d)` of texts."""
        vectors = np.empty((len(texts), self.dim), np.float32)
        for row, text in enumerate(texts):
            vectors[row] = self.vector(text)
        return vectors


def _open_fasttext(path: Path, language: str) -> VectorFile:
    try:
        words, dim, _ = read_fasttext_layout(path)
    except (struct.error, IndexError):
        raise InputError(f"{path}: the fastText model ends too early; is the file cut?") from None

    def blocks(limit: int, start: int = 0) -> Iterator[Block]:
        model = Subwords(path)
        for first in range(start, limit, _BLOCK):
            texts = words[first : min(first + _BLOCK, limit)]
            yield Block(texts, model.vectors(texts))

    return VectorFile(path, "fasttext", len(words), dim, blocks, language)


# gensim's KeyedVectors.


def _open_gensim(path: Path, language: str, allow_pickle: bool) -> VectorFile:
    if not allow_pickle:
        raise InputError(
            f"{path}: gensim's format is a pickle, which can run any code; if you trust it, give --allow_pickle true"
        )
    try:
        from gensim.models import KeyedVectors
    except ImportError:
        raise InputError(f"{path}: gensim is not installed; run: pip install 'hyperofa[colexnet]'") from None
    try:
        loaded: Any = KeyedVectors.load(str(path), mmap="r")
        loaded = getattr(loaded, "wv", loaded)
        words, vectors = list(loaded.index_to_key), loaded.vectors
        count, dim = vectors.shape
    except Exception as error:  # a damaged pickle may raise anything
        raise InputError(
            f"{path}: expected gensim KeyedVectors with its .npy files beside it, is it cut? "
            f"({type(error).__name__}: {error})"
        ) from error
    if len(words) != count or not count:
        raise InputError(f"{path}: expected a vector for each word, found {len(words)} words and {count} vectors")

    def blocks(limit: int, start: int = 0) -> Iterator[Block]:
        for first in range(start, limit, _BLOCK):
            rows = slice(first, min(first + _BLOCK, limit))
            yield Block(words[rows], np.asarray(vectors[rows], np.float32))

    return VectorFile(path, "gensim", count, dim, blocks, language)
