"""What is in files of word vectors."""

from dataclasses import dataclass

import numpy as np

from hyperofa.bundle.fertility import measure_words
from hyperofa.inspection.coverage import count_tokens
from hyperofa.methods.fallbacks import script
from hyperofa.models.source import TokenizerLike, tokenizer_of
from hyperofa.runtime.ranges import Count, Seed, in_range
from hyperofa.runtime.scratch import scratch_folder
from hyperofa.tokens.canonical import bare_backend, canonical_tokens
from hyperofa.tokens.matching import match_words
from hyperofa.vectors.centring import unit_rows
from hyperofa.vectors.conversion import build_store
from hyperofa.vectors.neighbours import NeighbourIndex
from hyperofa.vectors.store import WordVectors

_SAMPLE = 10_000  # words among which hubs are looked for
_NEIGHBOURS = 10


@dataclass(frozen=True)
class LanguageInfo:
    """The words of one language.

    Attributes:
        language: its code.
        words: how many.
        norm: mean length of the vectors.
        zeros: vectors that are zero.
        common: length of the mean of the unit vectors: what all words share, 0 to 1.
        hub: of the most frequent words, the one that is most often among the ten nearest of others.
        hub_count: how often that is, for each time that it would be by chance.
        tokens: tokens of the tokenizer that are part of a word; `None` without a tokenizer.
        fertility: tokens a word; `None` without a tokenizer.
    """

    language: str
    words: int
    norm: float
    zeros: int
    common: float
    hub: str
    hub_count: float
    tokens: int | None = None
    fertility: float | None = None


@dataclass(frozen=True)
class VectorInfo:
    """What is in files of word vectors.

    Attributes:
        dim: width of a vector.
        languages: each of them.
        scripts: of a tokenizer, for each script its tokens and those that are part of a word.
    """

    dim: int
    languages: list[LanguageInfo]
    scripts: dict[str, tuple[int, int]]

    def __str__(self) -> str:
        asked = bool(self.scripts)
        words = sum(each.words for each in self.languages)
        lines = [
            f"{words:,} words of {len(self.languages)} languages, {self.dim} wide",
            f"{'language':<10}{'words':>10}{'norm':>9}{'zeros':>8}{'common':>8}  hub"
            + ("              tokens  tokens a word" if asked else ""),
        ]
        for each in self.languages:
            line = (
                f"{each.language or 'unknown':<10}{each.words:>10,}{each.norm:>9.3f}{each.zeros:>8,}{each.common:>8.2f}"
            )
            line += f"  {each.hub[:12]} × {each.hub_count:.0f}"
            if asked:
                line = f"{line:<65}{each.tokens:>7,}{each.fertility:>15.2f}"
            lines.append(line)
        if asked:
            lines += ["", f"{'script':<20}{'tokens':>9}{'with words':>12}"]
            lines += [f"{name:<20}{count:>9,}{covered:>12,}" for name, (count, covered) in self.scripts.items()]
        return "\n".join(lines)


@in_range()
def inspect_vectors(
    vectors: list[str],
    tokenizer: TokenizerLike | None = None,
    max_words: Count | None = None,
    allow_pickle: bool = False,
    seed: Seed = 0,
) -> VectorInfo:
    """Say what is in files of word vectors: words by language, norms, hubs, and what they cover of a tokenizer.

    Args:
        vectors: word-vector files of one space (`vectors.READERS`, or a store folder); LANG=FILE names the language
            of a file whose words carry none. Give the flag again for each further file.
        tokenizer: folder or hub id of a tokenizer; in Python also a tokenizer. Its coverage is told by script and
            language.
        max_words: read at most this many words of each file; they are the most frequent ones.
        allow_pickle: open gensim files, which can run code; only for files you trust.
        seed: of the words among which hubs are looked for.

    Raises:
        InputError: a file is missing or damaged.

    Example:
        >>> import hyperofa
        >>> info = hyperofa.inspect_vectors(["words.vec"], "tokenizer")
        >>> [each.language for each in info.languages]
        ['deu', 'eng']
    """
    with scratch_folder("hyperofa-vectors-") as scratch:
        folder = scratch / "store"
        store = build_store(vectors, folder, max_words=max_words, allow_pickle=allow_pickle, duplicates="first")
        rng = np.random.default_rng(seed)
        infos = [_describe(store, language, rng) for language in store.languages]
        if tokenizer is None:
            return VectorInfo(store.dim, infos, {})
        loaded = tokenizer_of(tokenizer, "--tokenizer").load()
        tokens, backend = canonical_tokens(loaded), bare_backend(loaded)
        special = [number for number, token in enumerate(tokens) if token is not None and token.special]
        matches = match_words(backend, store.words, store.boundaries, num_tokens=len(tokens), ignored=special)
        reached = count_tokens(matches, store).tolist()
        fertility = [
            measure_words(backend, store.words[store.select([code])[:_SAMPLE]], None)[0] for code in store.languages
        ]
        infos = [
            LanguageInfo(**{**vars(info), "tokens": count, "fertility": length})
            for info, count, length in zip(infos, reached, fertility, strict=True)
        ]
        names = np.array([script(token) or "none" for token in tokens])
        counts = {name: int((names == name).sum()) for name in sorted(set(names.tolist()))}
        ordered = sorted(counts, key=lambda name: (-counts[name], name))
        return VectorInfo(
            store.dim, infos, {name: (counts[name], int(matches.covered[names == name].sum())) for name in ordered}
        )


def _describe(store: WordVectors, language: str, rng: np.random.Generator) -> LanguageInfo:
    """One language of a store, looked at through at most `_SAMPLE` of its words."""
    rows = store.select([language])
    some = rows if len(rows) <= _SAMPLE else np.sort(rng.choice(rows, _SAMPLE, replace=False))
    raw = np.asarray(store.vectors[some], np.float32)
    units, known = unit_rows(raw)
    norms = np.linalg.norm(raw, axis=1)
    hub, count = "", 0.0
    if len(some) > _NEIGHBOURS + 1:
        found = NeighbourIndex(units).candidates(units, _NEIGHBOURS + 1)
        times = np.bincount(found.ravel(), minlength=len(some)) - 1  # each is its own neighbour
        hub, count = store.words[int(some[times.argmax()])], times.max() / _NEIGHBOURS
    return LanguageInfo(
        language=language,
        words=len(rows),
        norm=float(norms.mean()),
        zeros=int((~known).sum()),
        common=float(np.linalg.norm(units.mean(0))),
        hub=hub,
        hub_count=float(count),
    )
