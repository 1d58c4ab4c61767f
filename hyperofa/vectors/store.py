"""The word-vector store: a folder of arrays that is mapped into memory, never read whole."""

import hashlib
import mmap
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import IO, Any, overload

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hyperofa.errors import InputError, did_you_mean
from hyperofa.runtime.folders import read_json, write_json
from hyperofa.runtime.hashing import sha256_text
from hyperofa.runtime.records import check_kind, open_array

KIND = {"kind": "hyperofa word vectors", "version": 1}  # what a store's `meta.json` says of itself
_META = {
    "words": int, "dim": int, "dtype": str, "languages": list[str], "content_hash": str, "sources": list[dict[str, Any]]
}  # fmt: skip

ROWS = 16384  # words that are handled at a time

CHECKPOINT = 65536
"""Words after which a writer notes how far it is."""

_NOTE = "progress.json"


class WordList(Sequence[str]):
    """Words that stay on disk until asked for.

    Args:
        blob: all words as UTF-8.
        offsets: `(V + 1,)` int64, where each begins, and the end.
    """

    def __init__(self, blob: bytes | mmap.mmap, offsets: NDArray[np.int64]) -> None:
        self._blob, self._offsets = blob, offsets

    def __len__(self) -> int:
        return len(self._offsets) - 1

    @overload
    def __getitem__(self, rows: int) -> str: ...
    @overload
    def __getitem__(self, rows: slice | NDArray[np.integer[Any]] | Sequence[int]) -> list[str]: ...
    def __getitem__(self, rows: int | slice | NDArray[np.integer[Any]] | Sequence[int]) -> str | list[str]:
        """One word for an int (negative ones count from the end), a list of them for a slice, ids or a mask."""
        if isinstance(rows, int | np.integer):
            row = range(len(self))[rows]
            return self[[row]][0]
        if isinstance(rows, slice):
            ids = np.fromiter(range(len(self))[rows], np.int64)
        else:
            ids = np.asarray(rows, None if len(rows) else np.int64)
            ids = np.flatnonzero(ids) if ids.dtype == bool else np.where(ids < 0, ids + len(self), ids)
            if ids.size and not 0 <= ids.min() <= ids.max() < len(self):
                raise IndexError(f"row {ids.min() if ids.min() < 0 else ids.max()} of {len(self)} words")
        starts, ends = self._offsets[ids].tolist(), self._offsets[ids + 1].tolist()
        try:
            return [self._blob[start:end].decode("utf-8") for start, end in zip(starts, ends, strict=True)]
        except UnicodeDecodeError as error:
            raise InputError(f"words.bin: expected UTF-8, found {error.object!r}; convert the vectors anew") from None

    def __iter__(self) -> Iterator[str]:
        for start in range(0, len(self), ROWS):
            yield from self[start : start + ROWS]


@dataclass(frozen=True, eq=False, repr=False)
class WordVectors:
    """Words of many languages in one space: V words, d wide, memory-mapped from a folder.

    Attributes:
        folder: where it lies.
        words: V plain words, without language prefix and border marks.
        languages: sorted codes, '' where unknown; `language_ids` point into it.
        language_ids: `(V,)` int16.
        ranks: `(V,)` int32, 0 for the first (most frequent) word of its language, counted through all files in order.
        boundaries: `(V,)` uint8, bit 1: the word starts at a word's start, bit 2: it ends at a word's end.
        vectors: `(V, d)` float32 or float16, as read.
        content_hash: equal for equal words, languages, boundaries and vectors in equal order and precision.
        sources: what each file gave: path, format, language, words, and which spellings were read.
    """

    folder: Path
    words: WordList
    languages: tuple[str, ...]
    language_ids: NDArray[np.int16]
    ranks: NDArray[np.int32]
    boundaries: NDArray[np.uint8]
    vectors: NDArray[np.floating[Any]]
    content_hash: str
    sources: tuple[dict[str, Any], ...]

    def __len__(self) -> int:
        return len(self.words)

    def __repr__(self) -> str:
        return f"WordVectors({len(self)} words of {len(self.languages)} languages, {self.dim} wide, {self.folder})"

    def __reduce__(self) -> tuple[Any, ...]:
        # Worker processes map the same folder instead of receiving a copy of it.
        return WordVectors.load, (self.folder,)

    @property
    def dim(self) -> int:
        """Width d of a vector."""
        return int(self.vectors.shape[1])

    @classmethod
    def is_store(cls, folder: str | Path) -> bool:
        """Whether the folder looks like one that `build_store` wrote."""
        return (Path(folder) / "meta.json").is_file() and (Path(folder) / "vectors.npy").is_file()

    @classmethod
    def load(cls, folder: str | Path) -> "WordVectors":
        """Map a store into memory; nothing is read but its description.

        Raises:
            InputError: a part of it is missing, cut or does not fit the others.
        """
        folder = Path(folder)
        meta = read_json(folder / "meta.json")
        if not isinstance(meta, dict) or not KIND.items() <= meta.items():
            raise InputError(f"{folder}: expected a store of word vectors (version {KIND['version']}), found none")
        try:
            check_kind(meta, _META, "meta.json: expected numbers and names of its kind")
            count, dim, dtype = meta["words"], meta["dim"], meta["dtype"]
            arrays = {
                name: _map_array(folder / f"{name}.npy", shape, kind)
                for name, shape, kind in (
                    ("offsets", (count + 1,), "int64"),
                    ("language_ids", (count,), "int16"),
                    ("ranks", (count,), "int32"),
                    ("boundaries", (count,), "uint8"),
                    ("vectors", (count, dim), dtype),
                )
            }
            offsets = arrays.pop("offsets")
            with (folder / "words.bin").open("rb") as file:
                blob = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
            if offsets[0] != 0 or offsets[-1] != len(blob) or (np.diff(offsets) < 0).any():
                raise ValueError(f"words.bin has {len(blob)} bytes, expected words that end at {offsets[-1]}")
            if count and not 0 <= arrays["language_ids"].min() <= arrays["language_ids"].max() < len(meta["languages"]):
                raise ValueError(f"language_ids.npy has others than 0 to {len(meta['languages']) - 1}")
            return cls(
                folder=folder,
                words=WordList(blob, offsets),
                languages=tuple(meta["languages"]),
                content_hash=meta["content_hash"],
                sources=tuple(meta["sources"]),
                **arrays,
            )
        except Exception as error:  # a damaged file may raise anything
            problem = f"{type(error).__name__}: {error}"
            raise InputError(f"{folder}: damaged store of word vectors, convert the files anew ({problem})") from None

    def link(self, folder: Path) -> None:
        """Make the same store in an empty folder: its files under second names, or copied to another disk."""
        for path in self.folder.iterdir():
            try:
                os.link(path, folder / path.name)
            except OSError:
                shutil.copyfile(path, folder / path.name)

    def language_ids_of(self, languages: Sequence[str], flag: str = "--languages") -> NDArray[np.int16]:
        """Ids `(n,)` of language codes; an `InputError` if one of them is not here.

        Args:
            languages: the codes.
            flag: command-line flag named in errors.
        """
        if missing := sorted(set(languages) - set(self.languages)):
            known = ", ".join(language or "'' (unknown)" for language in self.languages)
            unknown, near = str(missing)[1:-1], did_you_mean(missing[0], self.languages)
            raise InputError(
                f"{flag}: language {unknown} is not among the word vectors; expected some of: {known}{near}"
            )
        return np.array([self.languages.index(language) for language in languages], np.int16)

    def select(self, languages: Sequence[str]) -> NDArray[np.int64]:
        """Rows `(n,)`, ascending, of the words of these languages; raises like `language_ids_of`."""
        return np.flatnonzero(np.isin(self.language_ids, self.language_ids_of(languages)))


def _map_array(path: Path, shape: tuple[int, ...], dtype: str) -> NDArray[Any]:
    array = open_array(path)
    if array.shape != shape or array.dtype != np.dtype(dtype):
        raise ValueError(f"{path.name} is {array.shape} {array.dtype}, expected {shape} {dtype}")
    return np.asarray(array)  # drops np.memmap's slow indexing, keeps the map


class StoreWriter:
    """Writes a store block by block; holds 10 bytes a word, and no vectors.

    Every `CHECKPOINT` words it notes how far it is. Opened on a folder that a killed process left, it cuts the files
    back to the last note and goes on from there: `read` says which row of the input comes next.

    Args:
        folder: where to.
        dim: width of the vectors.
        dtype: of the vectors.
    """

    def __init__(self, folder: Path, dim: int, dtype: np.dtype[Any]) -> None:
        self._folder, self._dim, self._dtype = folder, dim, dtype
        self._codes: dict[str, int] = {}
        self._hashes: list[NDArray[np.int64]] = []
        self._digest = hashlib.sha256()
        self._count = 0
        self.read = 0

    def __enter__(self) -> "StoreWriter":
        note: dict[str, Any] = {"rows": 0, "read": 0, "codes": []}
        if (self._folder / _NOTE).exists():
            note |= read_json(self._folder / _NOTE)
        self._count, self.read, codes = note["rows"], note["read"], note["codes"]
        self._codes = {code: number for number, code in enumerate(codes)}
        self._noted = self._count
        with ExitStack() as stack:

            def array(name: str, dtype: Any, rows: int, row: tuple[int, ...] = ()) -> _GrowingArray:
                return stack.enter_context(_GrowingArray(self._folder / f"{name}.npy", np.dtype(dtype), row, rows))

            self._offsets = array("offsets", np.int64, self._count + 1 if self._count else 0)
            self._boundaries = array("boundaries", np.uint8, self._count)
            self._ids = array("codes", np.int16, self._count)
            self._vectors = array("vectors", self._dtype, self._count, (self._dim,))
            if self._count == 0:
                self._offsets.append([0])
            size = int(self._offsets.kept()[-1])
            self._words = stack.enter_context(_open_at(self._folder / "words.bin", size, self._digest))
            self._hash_kept(size)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def __len__(self) -> int:
        return self._count

    def append(self, entries: Sequence[tuple[str, str, int]], vectors: NDArray[Any]) -> None:
        """Write `n` entries (plain word, language, border bits) and their `(n, d)` vectors.

        Args:
            entries: plain word, language and border bits of each.
            vectors: `(n, d)`, a row for each entry.
        """
        encoded = [word.encode("utf-8") for word, _, _ in entries]
        self._offsets.append(self._words.tell() + np.cumsum([len(word) for word in encoded], dtype=np.int64))
        joined = b"".join(encoded)
        self._words.write(joined)
        self._digest.update(joined)
        self._boundaries.append([borders for _, _, borders in entries])
        self._vectors.append(vectors)
        self._ids.append([self._codes.setdefault(code, len(self._codes)) for _, code, _ in entries])
        self._hashes.append(np.fromiter(map(hash, entries), np.int64, len(entries)))
        self._count += len(entries)

    def note(self, read: int) -> None:
        """Say that what was appended is all of the input's first `read` rows; a kill after this loses none of them."""
        self.read = read
        if self._count - self._noted < CHECKPOINT:
            return
        for file in (self._words, self._offsets, self._boundaries, self._ids, self._vectors):
            file.flush()
        write_json(self._folder / _NOTE, {"rows": self._count, "read": read, "codes": list(self._codes)})
        self._noted = self._count

    def finish(self, sources: Sequence[dict[str, Any]]) -> WordVectors:
        """Write what is known only at the end, once the block is left: ranks, sorted languages, the description."""
        languages = sorted(self._codes)
        sorted_ids = np.array([languages.index(code) for code in self._codes], np.int16)
        language_ids = sorted_ids[np.load(self._folder / "codes.npy")]
        np.save(self._folder / "language_ids.npy", language_ids)
        np.save(self._folder / "ranks.npy", _ranks(language_ids))
        digests = (self._digest, self._offsets.digest, self._boundaries.digest, self._vectors.digest)
        hexes = [digest.hexdigest() for digest in (*digests, hashlib.sha256(language_ids.tobytes()))]
        meta = {
            "words": self._count,
            "dim": self._dim,
            "dtype": self._dtype.name,
            "languages": languages,
            "content_hash": sha256_text(*hexes, *languages),
            "sources": list(sources),
        }
        write_json(self._folder / "meta.json", KIND | meta)
        return WordVectors.load(self._folder)

    def _hash_kept(self, size: int) -> None:
        """Hash the entries that were there already, as `append` did."""
        if self._count == 0:
            return
        codes = list(self._codes)
        offsets, ids, borders = self._offsets.kept(), self._ids.kept(), self._boundaries.kept()
        with (self._folder / "words.bin").open("rb") as file:
            words = WordList(mmap.mmap(file.fileno(), size, access=mmap.ACCESS_READ) if size else b"", offsets)
        for start in range(0, self._count, ROWS):
            rows = slice(start, start + ROWS)
            languages = [codes[number] for number in ids[rows].tolist()]
            entries = zip(words[rows], languages, borders[rows].tolist(), strict=True)
            self._hashes.append(np.fromiter(map(hash, entries), np.int64))

    def find_duplicates(self, store: WordVectors) -> dict[int, int]:
        """Rows of the finished store whose word, language and borders came before, and where they came first.

        Costs eight bytes a word, not a set of all words: only words whose hashes meet are compared.
        """
        hashes = np.concatenate(self._hashes)
        order = np.argsort(hashes, kind="stable")
        meets = hashes[order][1:] == hashes[order][:-1]
        suspects = np.union1d(order[1:][meets], order[:-1][meets])
        first: dict[tuple[str, int, int], int] = {}
        repeated = {}
        for row, word in zip(suspects.tolist(), store.words[suspects], strict=True):
            key = word, int(store.language_ids[row]), int(store.boundaries[row])
            if first.setdefault(key, row) != row:
                repeated[row] = first[key]
        return repeated


def forget_progress(folder: Path) -> None:
    """Remove from a finished store what only a process that goes on would need."""
    for name in (_NOTE, "codes.npy"):
        (folder / name).unlink(missing_ok=True)


def _ranks(language_ids: NDArray[np.int16]) -> NDArray[np.int32]:
    """How many words of the same language come before each."""
    order = np.argsort(language_ids, kind="stable")
    ordered = language_ids[order]
    ranks = np.empty(len(order), np.int32)
    ranks[order] = np.arange(len(order)) - np.searchsorted(ordered, ordered)
    return ranks


class _GrowingArray:
    """A `.npy` file that rows are appended to; its header, which NumPy pads for this, comes last.

    `digest` hashes the rows on their way. The first `kept` rows of a file that is there already are taken over.
    """

    def __init__(self, path: Path, dtype: np.dtype[Any], row: tuple[int, ...] = (), kept: int = 0) -> None:
        self._path, self._dtype, self._row, self._count = path, dtype, row, kept
        self.digest = hashlib.sha256()
        header = BytesIO()
        self._write_header(header)
        self._start = header.tell()
        size = kept * int(np.prod(row, dtype=np.int64)) * dtype.itemsize
        self._file = _open_at(path, self._start + size, self.digest, self._start)
        self._file.seek(0)
        self._write_header(self._file)
        self._file.seek(0, os.SEEK_END)

    def append(self, rows: ArrayLike) -> None:
        data = np.ascontiguousarray(rows, self._dtype)
        self._count += len(data)
        self.digest.update(data.data)
        self._file.write(data.data)

    def flush(self) -> None:
        self._file.flush()

    def kept(self) -> NDArray[Any]:
        """All rows so far."""
        self.flush()
        if self._count == 0:
            return np.empty((0, *self._row), self._dtype)
        return np.memmap(self._path, self._dtype, "r", self._start, (self._count, *self._row))

    def __enter__(self) -> "_GrowingArray":
        return self

    def __exit__(self, *_: object) -> None:
        self._file.seek(0)
        self._write_header(self._file)
        self._file.close()

    def _write_header(self, file: IO[bytes]) -> None:
        descr, shape = np.lib.format.dtype_to_descr(self._dtype), (self._count, *self._row)
        np.lib.format.write_array_header_1_0(file, {"descr": descr, "fortran_order": False, "shape": shape})


def _open_at(path: Path, size: int, digest: "hashlib._Hash", start: int = 0) -> IO[bytes]:
    """Open a file to append after its first `size` bytes; those from `start` on go into `digest`."""
    path.touch()
    file = path.open("r+b")
    file.truncate(size)
    file.seek(start)
    while chunk := file.read(1 << 22):
        digest.update(chunk)
    return file
