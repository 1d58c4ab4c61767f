"""A monolingual space of word vectors, such as fastText's own, turned into a multilingual one."""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from hyperofa.errors import InputError
from hyperofa.runtime.files import FilePath, new_file
from hyperofa.runtime.processes import bar_hidden
from hyperofa.runtime.ranges import Count, Seed, Share, Size, in_range
from hyperofa.runtime.scratch import scratch_folder
from hyperofa.vectors.alignment import Candidates, align, mutual_translations, refine, translate
from hyperofa.vectors.centring import unit_rows
from hyperofa.vectors.conversion import build_store
from hyperofa.vectors.fasttext_layout import map_fasttext_model
from hyperofa.vectors.formats import WrittenVectors, check_output, read_rows, save_vectors
from hyperofa.vectors.seeds import Lexicon, Pairs, identical_pairs, listed_pairs, parallel_pairs, read_parallel
from hyperofa.vectors.spelling import split_spec
from hyperofa.vectors.store import WordVectors

_REFINED = 5_000  # pairs of the most frequent words that RCSLS takes: each costs two searches a step
_FEWEST = 20
"""Pairs below which an alignment is a guess."""


@dataclass(frozen=True)
class Alignment:
    """Vectors that were turned into another space, and how well words find their translations there.

    Attributes:
        written: what was written.
        seeds: pairs of words that it began with, those held out included.
        precision: for each step, of the held-out words that chose among the steps the share whose nearest word is the
            translation.
        chosen: the step whose map was taken.
        held_out: the same share of words that neither trained nor chose.
        words_held_out: how many these are.
    """

    written: WrittenVectors
    seeds: int
    precision: dict[str, float]
    chosen: str
    held_out: float
    words_held_out: int

    @property
    def path(self) -> Path:
        """The store's folder, or the file."""
        return self.written.path

    def __str__(self) -> str:
        steps = ", ".join(f"{step} {share:.1%}" for step, share in self.precision.items())
        return (
            f"{self.written}\n  {self.seeds:,} pairs to begin with; precision@1 of steps: {steps}\n"
            f"  precision@1 of {self.chosen}, the one taken, on {self.words_held_out:,} other pairs held out: "
            f"{self.held_out:.1%}"
        )


@in_range()
def align_vectors(
    vectors: str,
    into: list[str],
    output: FilePath,
    dictionary: list[str] | None = None,
    parallel: list[str] | None = None,
    identical: bool | None = None,
    languages: list[str] | None = None,
    rounds: Size = 3,
    method: Literal["procrustes", "rcsls"] = "rcsls",
    held_out: Share = 0.2,
    frequent_words: Count = 10_000,
    prefixes: bool = True,
    allow_pickle: bool = False,
    seed: Seed = 0,
    overwrite: bool = False,
) -> Alignment:
    """Turn the vectors of one language into the space of others, so that translations lie near each other.

    It begins with pairs of words that mean the same, finds the rotation that fits them (Procrustes), finds more pairs
    with it, and so on; last, RCSLS brings translations nearer than their neighbours.

    Args:
        vectors: LANG=FILE, the vectors of one language (`vectors.READERS`, or a store folder).
        into: files of the space that they are to be in, of the same kinds.
        output: what to write: .vec, .vec.gz, .bin, .wv, or a store folder. From .bin to .bin the n-grams are turned
            too, so that words which the model has never seen still get a vector.
        dictionary: LANG=FILE, word lists: a word of the language that is aligned and a word of LANG a line.
        parallel: LANG=FILE, parallel text: a sentence in the language that is aligned, a tab, and its translation into
            LANG. A thousand lines are a good beginning.
        identical: begin with words that are spelled alike, and numerals. If not given, only where there is neither a
            dictionary nor parallel text.
        languages: of the space, those whose words are looked at; if not given, those of the dictionary and the parallel
            text, or the three that have most words spelled alike.
        rounds: how often more pairs are looked for, at most: it ends where it finds what it has found before.
        method: end with RCSLS, or with Procrustes alone.
        held_out: part of the pairs that is held out: half of them to choose among the steps, half to tell how good the
            chosen one is.
        frequent_words: of each language, the most frequent words that are looked at.
        prefixes: write words into files with their language, as in `deu:haus`.
        allow_pickle: open gensim files, which can run code; only for files you trust.
        seed: of what is held out.
        overwrite: replace what is already there.

    Returns:
        What was written, and how well it fits.

    Raises:
        InputError: an input is missing or damaged, or there are too few pairs to begin with.

    Example:
        >>> import hyperofa
        >>> print(hyperofa.align_vectors("fra=turned.vec", ["words.vec"], "french", languages=["eng"]))
        french: ... words, 12 wide: fra ...
        ... pairs to begin with; precision@1 of steps: procrustes ...
    """
    language, path = split_spec(vectors)
    if language is None:
        raise InputError(f"--vectors {vectors}: expected LANG=FILE, the language of the words with their file")
    check_output(output, overwrite, [path, *(split_spec(spec)[1] for spec in into)], prefixes)
    with scratch_folder("hyperofa-align-") as scratch:
        store = build_store([vectors], scratch / "own", allow_pickle=allow_pickle, duplicates="first")
        space = build_store(into, scratch / "space", allow_pickle=allow_pickle, duplicates="first", flag="--into")
        store.language_ids_of([language], "--vectors")
        source = _Side.of(store, store.select([language]), frequent_words)
        anchors = _anchors(source, space, language, (dictionary or [], parallel or []), languages, frequent_words)
        if identical is None:
            identical = not dictionary and not parallel
        pairs = {code: _seed_pairs(source, anchors[code], code, dictionary, parallel, identical) for code in anchors}
        count = sum(map(len, pairs.values()))
        if count < _FEWEST:
            raise InputError(
                f"expected at least {_FEWEST} pairs of words to begin with, found {count} between {language} and "
                f"{', '.join(anchors)}; give a --dictionary or --parallel text, or other --languages"
            )
        search = _Search(source, anchors, pairs, held_out, seed)
        matrix, precision, chosen = search.run(rounds, method)
        scale = np.linalg.norm(space.vectors[: len(source.rows)], axis=1).mean()
        scale /= np.linalg.norm((source.raw - source.mean) @ matrix, axis=1).mean()
        matrix = (matrix * scale).astype(np.float32)
        written = _write(store, path, output, source.mean, matrix, language, prefixes, overwrite)
        return Alignment(written, count, precision, chosen, search.score(matrix, 1), search.held_out(1))


class _Side(NamedTuple):
    """The frequent words of one language.

    Attributes:
        lexicon: their spellings.
        rows: `(n,)` of the store.
        raw: `(n, d)` as the store has them.
        mean: `(d,)` of these.
        units: `(n, d)` less the mean, of unit length.
    """

    lexicon: Lexicon
    rows: NDArray[np.int64]
    raw: NDArray[np.float32]
    mean: NDArray[np.float32]
    units: NDArray[np.float32]

    @classmethod
    def of(cls, store: WordVectors, rows: NDArray[np.int64], count: int) -> "_Side":
        rows = rows[:count]
        raw = np.asarray(store.vectors[rows], np.float32)
        mean = raw.mean(0, dtype=np.float32)
        return cls(Lexicon.of(store.words[rows]), rows, raw, mean, unit_rows(raw - mean)[0])


def _anchors(
    source: _Side,
    space: WordVectors,
    language: str,
    given: tuple[Sequence[str], Sequence[str]],
    languages: Sequence[str] | None,
    count: int,
) -> dict[str, _Side]:
    """The languages of the space that are looked at."""
    named = [split_spec(spec)[0] for specs in given for spec in specs]
    if None in named:
        raise InputError(
            "--dictionary, --parallel: expected LANG=FILE, the language of its second column with the file"
        )
    codes = list(languages or dict.fromkeys(code for code in named if code))
    if not set(filter(None, named)) <= set(codes):
        raise InputError(f"--languages: expected those of --dictionary and --parallel among them, found {codes}")
    space.language_ids_of(codes)
    others = codes or [code for code in space.languages if code != language]
    sides = {code: _Side.of(space, space.select([code]), count) for code in others}
    if codes:
        return sides
    shared = {code: len(identical_pairs(source.lexicon, side.lexicon)) for code, side in sides.items()}
    return {code: sides[code] for code in sorted(shared, key=lambda code: (-shared[code], code))[:3]}


def _seed_pairs(
    source: _Side,
    target: _Side,
    code: str,
    dictionary: Sequence[str] | None,
    parallel: Sequence[str] | None,
    identical: bool,
) -> Pairs:
    """All pairs that are known of one language, each once."""
    found = [np.empty((0, 2), np.int64)]
    for spec in dictionary or ():
        if split_spec(spec)[0] == code:
            found.append(listed_pairs(split_spec(spec)[1], source.lexicon, target.lexicon))
    texts = [split_spec(spec)[1] for spec in parallel or () if split_spec(spec)[0] == code]
    if texts:
        found.append(parallel_pairs(read_parallel(texts), source.lexicon, target.lexicon))
    if identical:
        found.append(identical_pairs(source.lexicon, target.lexicon))
    return np.unique(np.concatenate(found), axis=0)


class _Search:
    """The search for a map: pairs to fit, and pairs to choose and to judge by, no source word in two of these."""

    def __init__(
        self, source: _Side, anchors: dict[str, _Side], pairs: dict[str, Pairs], held_out: float, seed: int
    ) -> None:
        self._source, self._anchors, self._pairs = source, anchors, pairs
        self._targets = {code: Candidates.of(side.units) for code, side in anchors.items()}
        words = np.unique(np.concatenate([each[:, 0] for each in pairs.values()]))
        drawn = np.random.default_rng(seed).permutation(words)[: int(held_out * len(words))]
        self._parts = (drawn[::2], drawn[1::2])

    def held_out(self, part: int) -> int:
        """How many source words choose (0) or judge (1)."""
        return len(self._parts[part])

    def run(
        self, rounds: int, method: Literal["procrustes", "rcsls"]
    ) -> tuple[NDArray[np.float32], dict[str, float], str]:
        """Fit, induce and refine; the best map `(d, e)`, the precision of each step, and the step that it is of."""
        scores: dict[str, float] = {}
        for name, matrix in self._steps(self._known(None), rounds, method):
            scores[name] = self.score(matrix, 0)
            if scores[name] == max(scores.values()):  # of equal ones the last
                chosen, best = name, matrix
        return best, scores, chosen

    def _steps(
        self, known: dict[str, Pairs], rounds: int, method: Literal["procrustes", "rcsls"]
    ) -> Iterator[tuple[str, NDArray[np.float32]]]:
        matrix = self._fit(known)
        yield "procrustes", matrix
        seen = set()
        with tqdm(total=rounds, desc="finding pairs", disable=bar_hidden(rounds == 0)) as bar:
            for number in range(1, rounds + 1):
                known = self._known(matrix)
                found = hashlib.sha256(b"".join(pairs.tobytes() for pairs in known.values())).digest()
                if found in seen:  # from here on the rounds would repeat themselves
                    bar.total = number - 1
                    break
                seen.add(found)
                matrix = self._fit(known)
                bar.update()
                yield f"round {number}", matrix
        if method == "rcsls":
            offsets = np.cumsum([0, *(len(side.units) for side in self._anchors.values())])
            pairs = np.concatenate([known[code] + [0, offset] for code, offset in zip(known, offsets, strict=False)])
            units = np.concatenate([side.units for side in self._anchors.values()])
            frequent = pairs[np.argsort(pairs[:, 0], kind="stable")[:_REFINED]]
            yield "rcsls", refine(matrix, Candidates.of(self._source.units), Candidates.of(units), frequent)

    def _known(self, matrix: NDArray[np.float32] | None) -> dict[str, Pairs]:
        """The pairs of each language to fit: those that are known and, with a map, those that it finds."""
        away = np.concatenate(self._parts)
        known = {code: each[~np.isin(each[:, 0], away)] for code, each in self._pairs.items()}
        if matrix is None:
            return known
        moved = self._source.units @ matrix
        for code, target in self._targets.items():
            mutual = mutual_translations(moved, target)
            fresh = ~np.isin(mutual[:, 0], np.concatenate([known[code][:, 0], away]))
            known[code] = np.concatenate([known[code], mutual[fresh]])
        return known

    def _fit(self, known: dict[str, Pairs]) -> NDArray[np.float32]:
        left = np.concatenate([self._source.units[pairs[:, 0]] for pairs in known.values()])
        right = np.concatenate([self._anchors[code].units[pairs[:, 1]] for code, pairs in known.items()])
        return align(left, right, np.repeat(np.arange(len(left))[:, None], 2, axis=1))

    def score(self, matrix: NDArray[np.float32], part: int) -> float:
        """Of held-out source words and a language in which they have a translation, the share that finds one.

        Args:
            matrix: `(d, e)`.
            part: 0 for the words that choose, 1 for those that judge.
        """
        moved, _ = unit_rows(self._source.units @ matrix)
        own, hits, count = Candidates.of(moved), 0, 0
        for code, target in self._targets.items():
            pairs = self._pairs[code][np.isin(self._pairs[code][:, 0], self._parts[part])]
            words = np.unique(pairs[:, 0])
            found = translate(moved[words], target, own.density(target.vectors)) if len(words) else words
            gold = set(map(tuple, pairs.tolist()))
            hits += sum((a, b) in gold for a, b in zip(words.tolist(), found.tolist(), strict=True))
            count += len(words)
        return hits / count if count else 0.0


def _write(
    store: WordVectors,
    path: Path,
    output: FilePath,
    shift: NDArray[np.float32],
    matrix: NDArray[np.float32],
    language: str,
    prefixes: bool,
    overwrite: bool,
) -> WrittenVectors:
    """Write every word, and for a fastText model every n-gram, as the map has it."""
    rows = store.select([language])
    if Path(path).name.endswith(".bin") and Path(output).name.endswith(".bin"):
        with new_file(output, overwrite) as file:
            map_fasttext_model(path, file, matrix, shift)
        return WrittenVectors(Path(output), matrix.shape[1], {language: len(rows)})
    blocks = ((entries, (block - shift) @ matrix) for entries, block in read_rows(store, rows))
    return save_vectors(blocks, output, "float32", prefixes, overwrite, [path])
