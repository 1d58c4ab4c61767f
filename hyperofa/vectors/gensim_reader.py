"""gensim's KeyedVectors, which are a pickle."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from hyperofa.errors import InputError
from hyperofa.vectors.vector_file import BLOCK, Block, VectorFile


def open_vectors(path: Path, language: str) -> VectorFile:
    """Unpickle it, which runs whatever code its author put there: `readers.open_file` asks the user first.

    Args:
        path: a `.wv` or `.kv`, its `.npy` files beside it.
        language: of words that carry none.

    Raises:
        InputError: gensim is not installed, or it cannot read the file.
    """
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
        for first in range(start, limit, BLOCK):
            rows = slice(first, min(first + BLOCK, limit))
            yield Block(words[rows], np.asarray(vectors[rows], np.float32))

    return VectorFile(path, "gensim", count, dim, blocks, language)
