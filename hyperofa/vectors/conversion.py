"""Word-vector files converted into the store: streamed, checked, and resumed where an earlier process stopped."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from hyperofa.errors import InputError
from hyperofa.runtime.folders import fingerprint, new_folder, resumed_folder
from hyperofa.runtime.hashing import sha256_text
from hyperofa.vectors.readers import list_shards, open_file
from hyperofa.vectors.spelling import SEEN, Spelling, SpellingChoice, like_spec, split_spec
from hyperofa.vectors.store import ROWS, StoreWriter, WordVectors, forget_progress
from hyperofa.vectors.vector_file import Block, VectorFile


def build_store(
    specs: Sequence[str],
    output: str | Path,
    *,
    dtype: Literal["float32", "float16"] = "float32",
    max_words: int | None = None,
    allow_pickle: bool = False,
    duplicates: Literal["error", "first"] = "error",
    spelling: SpellingChoice = "auto",
    overwrite: bool = False,
    flag: str = "--vectors",
) -> WordVectors:
    """Convert word-vector files into one memory-mapped store; memory does not grow with the vectors.

    Args:
        specs: 'PATH' or 'LANG=PATH' each, LANG for the words that name no language themselves: a file that
            `readers.open_file` reads, a folder of such files (shards, by name), or a store.
        output: folder to write; it appears when it is whole.
        dtype: of the stored vectors.
        max_words: of each file, the first that many; None for all.
        allow_pickle: let gensim unpickle `.wv` and `.kv` files.
        duplicates: refuse a word that comes twice with one language and borders, or keep its first (a second pass).
        spelling: read language prefixes and border marks where a file uses them ('auto'), always, or never.
        overwrite: replace `output`.
        flag: command-line flag named in errors.

    Returns:
        The store, mapped from `output`.

    Raises:
        InputError: a file is missing, cut, malformed or holds NaN; widths differ; a word comes twice; `output` exists.
    """
    if max_words is not None and max_words < 1:
        raise InputError(f"--max_words: expected at least 1, found {max_words}")
    files = open_specs(specs, allow_pickle, flag)
    chosen = f"{specs} {dtype} {max_words} {duplicates} {spelling}"
    key = sha256_text(chosen, fingerprint(*(file.path for file in files)))
    with resumed_folder(output, key, overwrite, kind="vector store", inputs=[file.path for file in files]) as folder:
        if _is_as_wanted(files, dtype, max_words):
            WordVectors.load(files[0].path).link(folder)
        else:
            _convert(files, folder, np.dtype(dtype), max_words, spelling, duplicates)
    return WordVectors.load(output)


def open_specs(specs: Sequence[str], allow_pickle: bool = False, flag: str = "--vectors") -> list[VectorFile]:
    """Read the headers of word-vector files, which tells early what cannot be read.

    Args:
        specs: as for `build_store`.
        allow_pickle: likewise.
        flag: likewise.

    Raises:
        InputError: a file is missing or of an unknown kind, or widths differ.
    """
    files = [file for spec in specs for file in _open_spec(spec, allow_pickle, flag)]
    if not files:
        raise InputError(f"{flag}: expected at least one file of word vectors, found none")
    for file in files:
        if file.dim != files[0].dim:
            raise InputError(
                f"{file.path}: expected vectors {files[0].dim} wide as in {files[0].path}, found {file.dim}; "
                "files of one space must agree"
            )
    return files


def _is_as_wanted(files: list[VectorFile], dtype: str, max_words: int | None) -> bool:
    """Whether the input is one store, and the output would hold the same."""
    if [file.format for file in files] != ["store"] or (max_words or files[0].count) < files[0].count:
        return False
    store = WordVectors.load(files[0].path)
    return store.vectors.dtype == dtype and (not files[0].language or "" not in store.languages)


def _convert(
    files: list[VectorFile],
    folder: Path,
    dtype: np.dtype[Any],
    max_words: int | None,
    spelling: SpellingChoice,
    duplicates: Literal["error", "first"],
) -> None:
    """Write a store into `folder`, from where an earlier process stopped."""
    kept = folder / "kept"
    if not kept.is_dir():
        store, repeated = _write_store(files, folder, dtype, max_words, spelling)
        if repeated and duplicates == "error":
            row, first = next(iter(repeated.items()))
            word, language = store.words[row], store.languages[store.language_ids[row]]
            raise InputError(
                f"{_where(store, files, row)}: the word {word!r}{f' ({language})' if language else ''} was already at "
                f"{_where(store, files, first)}; remove one, or keep the first with --duplicate_words first"
            )
        if repeated:
            with new_folder(kept) as other:
                _write_without(store, np.fromiter(repeated, np.int64), other)
    forget_progress(folder)
    if kept.is_dir():
        for path in kept.iterdir():
            path.replace(folder / path.name)
        kept.rmdir()


def _open_spec(spec: str, allow_pickle: bool, flag: str) -> list[VectorFile]:
    language, path = split_spec(spec)
    language = language or ""
    if not spec or not path.exists():
        raise InputError(f"{flag} {spec}: expected a file of word vectors{like_spec(spec)}, found nothing there")
    if WordVectors.is_store(path):
        return [_open_store(path, language)]
    paths = list_shards(path) if path.is_dir() else [path]
    return [open_file(shard, language, allow_pickle) for shard in paths]


def _open_store(path: Path, language: str) -> VectorFile:
    store = WordVectors.load(path)

    def blocks(limit: int, start: int = 0) -> Iterator[Block]:
        for first in range(start, limit, ROWS):
            rows = slice(first, min(first + ROWS, limit))
            languages = [store.languages[i] or language for i in store.language_ids[rows]]
            words = store.words[rows]
            entries = list(zip(words, languages, store.boundaries[rows].tolist(), strict=True))
            yield Block(words, store.vectors[rows].astype(np.float32), entries)

    return VectorFile(path, "store", len(store), store.dim, blocks, language)


def _where(store: WordVectors, files: list[VectorFile], row: int) -> str:
    file = 0
    while row >= store.sources[file]["words"]:
        row -= store.sources[file]["words"]
        file += 1
    return files[file].where(row)


def _write_store(
    files: list[VectorFile], folder: Path, dtype: np.dtype[Any], max_words: int | None, spelling: SpellingChoice
) -> tuple[WordVectors, dict[int, int]]:
    """Stream all files into `folder`, from where an earlier process stopped; also, the rows that repeat another."""
    limits = [min(file.count, max_words or file.count) for file in files]
    sources: list[dict[str, Any]] = []
    first = 0
    progress = tqdm(total=sum(limits), desc="word vectors", unit=" words", unit_scale=True)
    with progress, StoreWriter(folder, files[0].dim, dtype) as writer:
        progress.update(writer.read)
        for file, limit in zip(files, limits, strict=True):
            start = min(limit, writer.read - first)
            rules = Spelling.detect(next(file.blocks(min(limit, SEEN), 0)).words, spelling) if start else None
            for block in file.blocks(limit, start):
                rules = rules or Spelling.detect(block.words[:SEEN], spelling)
                entries = block.entries or [rules.split(word, file.language) for word in block.words]
                writer.append(entries, _cast(block.vectors, dtype, file, writer.read - first))
                writer.note(writer.read + len(block.words))
                progress.update(len(block.words))
            source: dict[str, Any] = {"path": str(file.path), "format": file.format, "language": file.language}
            if file.format != "store" and rules is not None:
                source |= {"prefixes": rules.prefixes, "marks": rules.marks}
            sources.append(source | {"words": limit})
            first += limit
    store = writer.finish(sources)
    return store, writer.find_duplicates(store)


def _write_without(store: WordVectors, dropped: NDArray[np.int64], folder: Path) -> None:
    """Copy a store less some rows into `folder`."""
    keep = np.ones(len(store), bool)
    keep[dropped] = False
    with StoreWriter(folder, store.dim, store.vectors.dtype) as writer:
        for start in range(0, len(store), ROWS):
            rows = start + np.flatnonzero(keep[start : start + ROWS])
            codes = [store.languages[number] for number in store.language_ids[rows].tolist()]
            entries = zip(store.words[rows], codes, store.boundaries[rows].tolist(), strict=True)
            writer.append(list(entries), store.vectors[rows])
    ends = np.cumsum([source["words"] for source in store.sources])
    counts = [int(part.sum()) for part in np.split(keep, ends[:-1])]
    finished = [source | {"words": count} for source, count in zip(store.sources, counts, strict=True)]
    writer.finish(finished)
    forget_progress(folder)


def _cast(vectors: NDArray[np.float32], dtype: np.dtype[Any], file: VectorFile, first: int) -> NDArray[Any]:
    with np.errstate(over="ignore"):
        cast = vectors.astype(dtype, copy=False)
    bad = ~np.isfinite(cast).all(axis=1)
    if bad.any():
        row = int(bad.argmax())
        found = f"a number too large for {dtype}" if np.isfinite(vectors[row]).all() else "NaN or inf"
        raise InputError(f"{file.where(first + row)}: expected finite numbers, found {found}")
    largest = np.abs(cast).max(axis=1)
    tiny = vectors.any(axis=1) & (largest < np.finfo(cast.dtype).tiny)
    if tiny.any():
        raise InputError(
            f"{file.where(first + int(tiny.argmax()))}: expected numbers that {dtype} can hold, found none above "
            f"{np.finfo(cast.dtype).tiny:.1e} in its vector; scale the vectors up"
            + (", or take --vectors_dtype float32" if dtype == np.float16 else "")
        )
    return cast
