"""Several files of one space as one, with each language's words in the order of their frequency."""

from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from hyperofa.errors import InputError
from hyperofa.runtime.files import FilePath
from hyperofa.runtime.ranges import Count, in_range
from hyperofa.runtime.scratch import scratch_folder
from hyperofa.vectors.centring import unit_rows
from hyperofa.vectors.conversion import build_store
from hyperofa.vectors.formats import Entry, WrittenVectors, check_output, read_rows, save_vectors
from hyperofa.vectors.spelling import split_spec
from hyperofa.vectors.store import ROWS, WordVectors


@in_range()
def merge_vectors(
    vectors: list[str],
    output: FilePath,
    duplicate_words: Literal["mean", "first"] = "mean",
    prefixes: bool = True,
    max_words: Count | None = None,
    allow_pickle: bool = False,
    overwrite: bool = False,
) -> WrittenVectors:
    """Join several files of word vectors of one space, words that two of them have included.

    A language's words are ordered by their places in the files, so that the most frequent ones of each file come first.

    Args:
        vectors: word-vector files of one space (`vectors.READERS`, or a store folder); LANG=FILE names the language
            of a file whose words carry none. Give the flag again for each further file.
        output: what to write: .vec, .vec.gz, .bin (without n-grams), .wv, or a store folder.
        duplicate_words: what a word gets that several files have: the mean of its vectors, each of unit length, or the
            first of them.
        prefixes: write words into files with their language, as in `deu:haus`.
        max_words: read at most this many words of each file; they are the most frequent ones.
        allow_pickle: open gensim files, which can run code; only for files you trust.
        overwrite: replace what is already there.

    Returns:
        What was written.

    Raises:
        InputError: an input is missing or damaged, or has vectors of another width.

    Example:
        >>> import hyperofa
        >>> print(hyperofa.merge_vectors(["words.vec", "fra=french.vec"], "merged"))
        merged: ... words, 12 wide: deu ..., eng ..., fra 2
    """
    inputs = [split_spec(spec)[1] for spec in vectors]
    check_output(output, overwrite, inputs, prefixes)
    with scratch_folder("hyperofa-vectors-") as scratch:
        stores = [
            build_store(
                [spec],
                scratch / str(number),
                max_words=max_words,
                allow_pickle=allow_pickle,
                duplicates="first",
            )
            for number, spec in enumerate(vectors)
        ]
        widths = {store.dim for store in stores}
        if len(widths) > 1:
            raise InputError(f"--vectors: expected files of one space, found vectors {sorted(widths)} wide")
        places: dict[Entry, int] = {}
        ids = []
        for store in stores:
            blocks = read_rows(store, np.arange(len(store)))
            found = [places.setdefault(entry, len(places)) for entries, _ in blocks for entry in entries]
            ids.append(np.array(found, np.int64))
        ranks, merged = _merge(stores, ids, len(places), duplicate_words)
        order, entries = np.argsort(ranks, kind="stable"), list(places)
        parts = (order[start : start + ROWS] for start in range(0, len(order), ROWS))
        blocks = (([entries[row] for row in part.tolist()], merged[part]) for part in parts)
        return save_vectors(blocks, output, "float32", prefixes, overwrite, inputs)


def _merge(
    stores: Sequence[WordVectors], ids: Sequence[NDArray[np.int64]], count: int, duplicates: Literal["mean", "first"]
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Best rank `(count,)` and vector `(count, d)` of each of the words that the stores' rows are numbered by."""
    ranks, times = np.full(count, np.iinfo(np.int64).max), np.zeros(count, np.int64)
    merged, lengths = np.zeros((count, stores[0].dim), np.float32), np.zeros(count, np.float32)
    for store, rows in zip(stores, ids, strict=True):
        ranks[rows] = np.minimum(ranks[rows], store.ranks)
        if duplicates == "first":
            new = times[rows] == 0
            merged[rows[new]] = store.vectors[new]
        else:
            units, _ = unit_rows(store.vectors)
            merged[rows] += units
            lengths[rows] += np.linalg.norm(np.asarray(store.vectors, np.float32), axis=1)
        times[rows] += 1
    if duplicates == "mean":
        merged = unit_rows(merged)[0] * (lengths / times).astype(np.float32)[:, None]
    return ranks, merged
