"""fastText's own format, and the vectors that it makes of any text."""

import struct
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hyperofa.errors import InputError
from hyperofa.vectors.fasttext_layout import read_fasttext_layout
from hyperofa.vectors.vector_file import BLOCK, Block, VectorFile, reporting


class Subwords:
    """Vectors of any text from a fastText model's character n-grams, also of words that it has not seen."""

    def __init__(self, path: str | Path) -> None:
        """Load a fastText `.bin`; checked first, because fastText reads a cut file without complaint, or for ever.

        Raises:
            InputError: missing, cut, quantised or no fastText model.
        """
        import fasttext

        if not str(path).endswith(".bin"):
            raise InputError(f"{path}: expected a fastText model (.bin): only it has sub-word n-grams")
        with reporting(Path(path)):
            open_vectors(Path(path), "")
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


def open_vectors(path: Path, language: str) -> VectorFile:
    """Read what a model says of itself, without fastText.

    Args:
        path: a `.bin`.
        language: of words that carry none.

    Raises:
        InputError: cut, quantised or no fastText model.
    """
    try:
        words, dim, _ = read_fasttext_layout(path)
    except (struct.error, IndexError):
        raise InputError(f"{path}: the fastText model ends too early; is the file cut?") from None

    def blocks(limit: int, start: int = 0) -> Iterator[Block]:
        model = Subwords(path)
        for first in range(start, limit, BLOCK):
            texts = words[first : min(first + BLOCK, limit)]
            yield Block(texts, model.vectors(texts))

    return VectorFile(path, "fasttext", len(words), dim, blocks, language)
