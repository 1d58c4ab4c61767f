"""The jobs of the stages that prepare data: the product's own code, and the plain way.

Each function makes ready what is not measured and returns a `Job`. Imports are inside: a measurement holds nothing but
what it needs.
"""

from collections.abc import Callable
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from inputs import SPECIALS, Inputs
from jobs import Job, Seconds, now, sampled

CHUNK = 20_000
WORDS = 30_000  # that a loop over words is timed on, at most


# Word vectors.


def convert(inputs: Inputs) -> Job:
    from hyperofa.vectors.conversion import build_store

    words, rows, output = inputs.size.words, _rows(inputs.vec), inputs.scratch("converted")

    def check(store: Any) -> dict[str, np.ndarray]:
        return {"vectors": store.vectors[sampled(rows, 100)]}

    traffic = words / rows * inputs.vec.stat().st_size + 4 * words * inputs.size.word_dim
    return Job(lambda: build_store([str(inputs.vec)], output), words, rows / words, check=check, traffic=traffic)


def load_plain(inputs: Inputs) -> Job:
    import plain

    words, rows = inputs.size.words, _rows(inputs.vec)

    def check(loaded: tuple[list[str], np.ndarray]) -> dict[str, np.ndarray]:
        return {"vectors": loaded[1][sampled(rows, 100)]}

    return Job(lambda: plain.load_vectors(inputs.vec), words, rows / words, check=check)


def load(inputs: Inputs) -> Job:
    """Map the store, then read every word and vector once."""
    from hyperofa.vectors.store import ROWS, WordVectors

    size, rows = inputs.size, _rows(inputs.vec)

    def run() -> tuple[WordVectors, float]:
        start = now()
        store = WordVectors.load(inputs.store)
        mapped = float((now() - start)[0])
        for first in range(0, len(store), ROWS):
            store.vectors[first : first + ROWS].view(np.uint16).max()
            store.words[first : first + ROWS]
        return store, mapped

    def check(result: tuple[WordVectors, float]) -> dict[str, Any]:
        return {"vectors": result[0].vectors[sampled(rows, 100)].astype(np.float32), "mapping_alone_s": result[1]}

    traffic = size.words * size.word_dim * np.dtype(size.dtype).itemsize
    return Job(run, size.words, check=check, traffic=traffic)


def _rows(vec: Path) -> int:
    with vec.open(encoding="utf-8") as file:
        return int(file.readline().split()[0])


# Matching, with the source tokenizer.


def match(inputs: Inputs) -> Job:
    from hyperofa.bundle.pooling import match_shards
    from hyperofa.runtime.processes import process_group
    from hyperofa.tokens.canonical import bare_backend, load_tokenizer
    from hyperofa.tokens.matching import Matches
    from hyperofa.tokens.spellings import surface_variants
    from hyperofa.vectors.store import WordVectors

    words, tokenizer = WordVectors.load(inputs.store), load_tokenizer(inputs.model)
    shards, merged = inputs.scratch("shards"), inputs.scratch("matches")
    shards.mkdir()
    settings: dict[str, Any] = {"num_tokens": len(tokenizer), "ignored": range(len(SPECIALS))}

    def run() -> Matches:
        backend = bare_backend(tokenizer)
        with process_group() as ranks:
            match_shards(
                backend,
                words,
                None,
                shards,
                ranks,
                **settings,
                variants=surface_variants,
                unspaced=True,
                progress="matching",
            )
        return Matches.merge([Matches.load(path) for path in sorted(shards.iterdir())], merged)

    return Job(run, len(words), check=lambda matches: {"pairs": _pairs(matches, len(words))})


def _pairs(matches: Any, num_words: int) -> np.ndarray:
    """The matches of the sampled words, each as one number."""
    chosen = np.isin(matches.words, sampled(num_words, WORDS))
    return np.sort(matches.tokens[chosen] * num_words + matches.words[chosen])


def match_plain(inputs: Inputs) -> Job:
    import plain

    from hyperofa.tokens.canonical import load_tokenizer
    from hyperofa.vectors.store import WordVectors

    store, tokenizer = WordVectors.load(inputs.store), load_tokenizer(inputs.model)
    ids = sampled(len(store), WORDS)
    words = store.words[ids]

    def check(matches: dict[str, list[int]]) -> dict[str, np.ndarray]:
        return {"pairs": _plain_pairs(matches, tokenizer, ids, len(store))}

    return Job(lambda: plain.match_words(words, tokenizer), len(store), len(ids) / len(store), check=check)


def _plain_pairs(matches: dict[str, list[int]], tokenizer: Any, ids: np.ndarray, num_words: int) -> np.ndarray:
    """As `_pairs`; special tokens left out."""
    numbers = {token: tokenizer.convert_tokens_to_ids(token) for token in matches}
    real = {token: number for token, number in numbers.items() if number >= len(SPECIALS)}
    return np.unique(np.concatenate([number * num_words + ids[matches[token]] for token, number in real.items()]))


def encode(inputs: Inputs, *folders: Path) -> Job:
    """The Rust tokenizers alone on the same spellings: what matching cannot do without."""
    from hyperofa.tokens.canonical import bare_backend, load_tokenizer
    from hyperofa.tokens.spellings import surface_variants
    from hyperofa.vectors.store import WordVectors

    store = WordVectors.load(inputs.store)
    backends = [bare_backend(load_tokenizer(folder)) for folder in folders]
    ids = sampled(len(store), 10 * WORDS)

    def run() -> Seconds:
        seconds = np.zeros(2)
        for start in range(0, len(ids), CHUNK):
            chosen = ids[start : start + CHUNK]
            forms = map(surface_variants, store.words[chosen], store.boundaries[chosen].tolist())
            spellings = list(chain.from_iterable(forms))
            for backend in backends:
                begun = now()
                backend.encode_batch_fast(spellings, add_special_tokens=False)
                seconds += now() - begun
        return seconds

    share = len(ids) / len(store)
    return Job(run, len(store), share, lambda seconds: seconds / share)


# Factorisation.


def factorize(inputs: Inputs, compute: Callable[[np.ndarray, int], tuple[np.ndarray, np.ndarray]]) -> Job:
    rows, rank = source_rows(inputs), inputs.size.coordinates
    height, width = rows.shape
    operations = height * width**2 + 2 * height * width * rank  # half of EᵀE, then E Pᵀ
    return Job(
        lambda: compute(rows, rank),
        height,
        check=lambda factors: {"error": _lost(rows, *factors)},
        operations=operations,
        traffic=2 * rows.nbytes,
    )


def product_factors(rows: np.ndarray, rank: int) -> tuple[np.ndarray, np.ndarray]:
    from hyperofa.bundle.factorization import factorize

    factors = factorize(rows, rank)
    return factors.coordinates, factors.primitives


def plain_factors(rows: np.ndarray, rank: int) -> tuple[np.ndarray, np.ndarray]:
    import plain

    return plain.factorize(rows, rank)


def source_rows(inputs: Inputs) -> np.ndarray:
    """The source model's embeddings `(S, E)`."""
    from safetensors.numpy import load_file

    weights = load_file(inputs.model / "model.safetensors")
    return weights["roberta.embeddings.word_embeddings.weight"]


def _lost(rows: np.ndarray, coordinates: np.ndarray, primitives: np.ndarray) -> float:
    """‖E - F P‖ / ‖E‖, in blocks."""
    lost = total = 0.0
    for start in range(0, len(rows), CHUNK):
        some = slice(start, start + CHUNK)
        lost += float(np.square(rows[some] - coordinates[some] @ primitives).sum(dtype=np.float64))
        total += float(np.square(rows[some]).sum(dtype=np.float64))
    return (lost / total) ** 0.5


# All of it.


def prepare(inputs: Inputs) -> Job:
    from hyperofa.bundle.bundle import Bundle

    size = inputs.size

    def check(_: Any) -> dict[str, Any]:
        bundle, rows = Bundle.load(inputs.bundle), source_rows(inputs)
        pairs = {f"{side}_pairs": _pairs(bundle.matches(side), size.words) for side in ("source", "target")}
        return pairs | {"error": _lost(rows, bundle.coordinates, bundle.input_primitives)}

    vectors = size.words * size.word_dim * np.dtype(size.dtype).itemsize
    pooled = 4 * size.word_dim * (size.source_tokens + size.target_tokens)
    rows = 4 * size.source_tokens * size.width
    operations = size.source_tokens * size.width * (size.width + 2 * size.coordinates)
    return Job(inputs.prepare, size.words, check=check, operations=operations, traffic=2 * vectors + pooled + 2 * rows)


def prepare_plain(inputs: Inputs) -> Job:
    """Load, match both sides, average, compare vocabularies, factorise; loops over words on some of them."""
    import plain

    from hyperofa.tokens.canonical import load_tokenizer
    from hyperofa.vectors.store import WordVectors

    size, store, rows = inputs.size, WordVectors.load(inputs.store), source_rows(inputs)
    ids, share = sampled(len(store), WORDS), _rows(inputs.vec) / size.words
    words, vectors = store.words[ids], store.vectors[ids].astype(np.float32)
    tokenizers = {"source": load_tokenizer(inputs.model), "target": load_tokenizer(inputs.target)}
    matches: dict[str, dict[str, list[int]]] = {}
    factors: list[np.ndarray] = []

    def run() -> Seconds:
        """Seconds of the whole, the loops stretched to all words."""
        marks = [now()]
        plain.load_vectors(inputs.vec)
        marks.append(now())
        for side, tokenizer in tokenizers.items():
            matches[side] = plain.match_words(words, tokenizer)
            plain.token_means(matches[side], tokenizer, vectors, len(tokenizer))
        marks.append(now())
        plain.overlap(*tokenizers.values())
        factors.extend(plain.factorize(rows, size.coordinates))
        marks.append(now())
        loading, loops, rest = np.diff(marks, axis=0)
        return loading / share + loops * len(store) / len(ids) + rest

    def check(_: Any) -> dict[str, Any]:
        pairs = {
            f"{side}_pairs": _plain_pairs(found, tokenizers[side], ids, len(store)) for side, found in matches.items()
        }
        return pairs | {"error": _lost(rows, *factors)}

    return Job(run, size.words, len(ids) / len(store), lambda seconds: seconds, check)
