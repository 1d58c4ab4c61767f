"""A monolingual space of word vectors, such as fastText's own, turned into a multilingual one."""

import hashlib
from collections.abc import Sequence
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
_PAIRED = 2_000  # of the most frequent words of each language that more pairs are looked for among
_FIRST_SHARE = 0.1  # of the pairs of words that the first round looks at, where words spelled alike are all it has
_GROWTH = 1.2  # of this share from round to round
_LANGUAGES = 6  # of the space that are looked at, if none are named
_FEWEST = 20
"""Pairs below which an alignment is a guess."""


@dataclass(frozen=True)
class Alignment:
    """Vectors that were turned into another space, and how well words find their translations there.

    Attributes:
        written: what was written.
        seeds: pairs of words that it began with, those held out included.
        nearness: for each step, the mean cosine of frequent words with what it makes their best translations.
        chosen: the step whose map was taken.
        held_out: of words that were held out, the share whose nearest word is the translation. These are rarer words
            than most, names and numerals often: what this share is says less than what it is beside another's.
        words_held_out: how many these are.
    """

    written: WrittenVectors
    seeds: int
    nearness: dict[str, float]
    chosen: str
    held_out: float
    words_held_out: int

    @property
    def path(self) -> Path:
        """The store's folder, or the file."""
        return self.written.path

    def __str__(self) -> str:
        return (
            f"{self.written}\n  {self.seeds:,} pairs to begin with; mean cosine of frequent words with their "
            f"translations {self.nearness['procrustes']:.3f} at first, {self.nearness[self.chosen]:.3f} after "
            f"{self.chosen}\n"
            f"  precision@1 on {self.words_held_out:,} words held out: {self.held_out:.1%}"
        )


@in_range()
def align_vectors(
    vectors: str,
    into: list[str],
    output: FilePath,
    dictionary: list[str] | None = None,
    parallel: list[str] | None = None,
    identical: bool = True,
    languages: list[str] | None = None,
    rounds: Size = 20,
    method: Literal["procrustes", "rcsls"] = "procrustes",
    held_out: Share = 0.2,
    frequent_words: Count = 10_000,
    prefixes: bool = True,
    allow_pickle: bool = False,
    seed: Seed = 0,
    overwrite: bool = False,
) -> Alignment:
    """Turn the vectors of one language into the space of others, so that translations lie near each other.

    It begins with pairs of words that mean the same, finds the rotation that fits them (Procrustes), finds more pairs
    among frequent words with it, and so on; the rotation is taken that brings these nearest to their translations.
    Vectors wider than the space leave it the choice of directions, which helps: `hyperofa vectors train` makes such.

    Args:
        vectors: LANG=FILE, the vectors of one language (`vectors.READERS`, or a store folder).
        into: files of the space that they are to be in, of the same kinds.
        output: what to write: .vec, .vec.gz, .bin, .wv, or a store folder. From .bin to .bin the n-grams are turned
            too, so that words which the model has never seen still get a vector.
        dictionary: LANG=FILE, word lists: a word of the language that is aligned and a word of LANG a line.
        parallel: LANG=FILE, parallel text: a sentence in the language that is aligned, a tab, and its translation into
            LANG. A thousand lines are a good beginning.
        identical: begin with words that are spelled alike, and numerals, too.
        languages: of the space, those whose words are looked at; if not given, those of the dictionary and the parallel
            text and, up to six in all, those that have most words spelled alike.
        rounds: how often more pairs are looked for, at most: it ends where it finds what it has found before. With
            neither a dictionary nor parallel text the first thirteen look at a part of all pairs of words, which keeps
            them from holding on to false ones.
        method: Procrustes alone, or with RCSLS in the end, which is taken if it finds more of half of the words that
            are held out; it is for languages that have good dictionaries.
        held_out: part of the words with pairs that is held out, to tell how good the map is.
        frequent_words: of each language, the most frequent words that pairs to begin with are looked for among.
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
        ... pairs to begin with; mean cosine of frequent words with their translations ... at first, ... after ...
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
        pairs = {code: _seed_pairs(source, anchors[code], code, dictionary, parallel, identical) for code in anchors}
        count = sum(map(len, pairs.values()))
        if count < _FEWEST:
            raise InputError(
                f"expected at least {_FEWEST} pairs of words to begin with, found {count} between {language} and "
                f"{', '.join(anchors)}; give a --dictionary or --parallel text, or other --languages"
            )
        share = 1.0 if dictionary or parallel else _FIRST_SHARE
        search = _Search(source, anchors, pairs, held_out, share, method, seed)
        matrix, nearness, chosen = search.run(rounds)
        scale = np.linalg.norm(space.vectors[: len(source.rows)], axis=1).mean()
        scale /= np.linalg.norm((source.raw - source.mean) @ matrix, axis=1).mean()
        matrix = (matrix * scale).astype(np.float32)
        written = _write(store, path, output, source.mean, matrix, language, prefixes, overwrite)
        return Alignment(written, count, nearness, chosen, search.score(matrix), search.words_held_out)


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
    if not languages:
        alike = {
            code: len(identical_pairs(source.lexicon, Lexicon.of(space.words[space.select([code])[:count]])))
            for code in space.languages
            if code not in (language, *codes)
        }
        codes += sorted(alike, key=lambda code: (-alike[code], code))[: max(_LANGUAGES - len(codes), 0)]
    return {code: _Side.of(space, space.select([code]), count) for code in codes}


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
    """The search for a map: pairs to fit, and words held out to judge by, half of them for RCSLS to be chosen by."""

    def __init__(
        self,
        source: _Side,
        anchors: dict[str, _Side],
        pairs: dict[str, Pairs],
        held_out: float,
        first_share: float,
        method: Literal["procrustes", "rcsls"],
        seed: int,
    ) -> None:
        self._source, self._anchors, self._pairs, self._method = source, anchors, pairs, method
        self._targets = {code: Candidates.of(side.units) for code, side in anchors.items()}
        words = np.unique(np.concatenate([each[:, 0] for each in pairs.values()]))
        self._away = np.random.default_rng(seed).permutation(words)[: int(held_out * len(words))]
        self._seeds = {code: each[~np.isin(each[:, 0], self._away)] for code, each in pairs.items()}
        self._judges = self._away[1::2] if method == "rcsls" else self._away
        self._first_share, self._seed = first_share, seed
        self._choosers = np.setdiff1d(self._away, self._judges)

    @property
    def words_held_out(self) -> int:
        """Source words that neither fitted nor chose."""
        return len(self._judges)

    def run(self, rounds: int) -> tuple[NDArray[np.float32], dict[str, float], str]:
        """Fit, find pairs, fit again; the best map `(d, e)`, the nearness of each step, and the best map's step."""
        matrix, steps, seen = self._fit(self._seeds), dict[str, float](), set[bytes]()
        with tqdm(total=rounds, desc="finding pairs", disable=bar_hidden(rounds == 0)) as bar:
            for number in range(rounds + 1):
                kept = min(self._first_share * _GROWTH ** min(number, 100), 1.0)
                found, nearness = self._translations(matrix, kept, number)
                name = f"round {number}" if number else "procrustes"
                steps[name] = nearness
                if nearness == max(steps.values()):  # of equal ones the last
                    chosen, best, known = name, matrix, found
                digest = hashlib.sha256(b"".join(pairs.tobytes() for pairs in found.values())).digest()
                if (kept == 1 and digest in seen) or number == rounds:  # the rounds would repeat themselves
                    bar.total = number
                    break
                seen.add(digest)
                matrix = self._fit(found)
                bar.update()
        if self._method == "rcsls":
            refined = self._refine(best, known)
            steps["rcsls"] = self._translations(refined, 1, 0)[1]
            if self._precision(refined, self._choosers) > self._precision(best, self._choosers):
                chosen, best = "rcsls", refined
        return best, steps, chosen

    def _translations(self, matrix: NDArray[np.float32], kept: float, number: int) -> tuple[dict[str, Pairs], float]:
        """The seeds of each language with the pairs that a map finds, and the mean nearness of its translations."""
        moved, _ = unit_rows(self._source.units[:_PAIRED] @ matrix)
        known, nearness = {}, []
        for place, (code, side) in enumerate(self._anchors.items()):
            draw = self._seed + 1000 * number + place
            mutual, near = mutual_translations(moved, side.units[:_PAIRED], kept, draw)
            fresh = ~np.isin(mutual[:, 0], np.concatenate([self._seeds[code][:, 0], self._away]))
            known[code] = np.concatenate([self._seeds[code], mutual[fresh]])
            nearness.append(near)
        return known, float(np.mean(nearness))

    def _refine(self, matrix: NDArray[np.float32], known: dict[str, Pairs]) -> NDArray[np.float32]:
        offsets = np.cumsum([0, *(len(side.units) for side in self._anchors.values())])
        pairs = np.concatenate([known[code] + [0, offset] for code, offset in zip(known, offsets, strict=False)])
        units = np.concatenate([side.units for side in self._anchors.values()])
        frequent = pairs[np.argsort(pairs[:, 0], kind="stable")[:_REFINED]]
        return refine(matrix, Candidates.of(self._source.units), Candidates.of(units), frequent)

    def _fit(self, known: dict[str, Pairs]) -> NDArray[np.float32]:
        left = np.concatenate([self._source.units[pairs[:, 0]] for pairs in known.values()])
        right = np.concatenate([self._anchors[code].units[pairs[:, 1]] for code, pairs in known.items()])
        return align(left, right, np.repeat(np.arange(len(left))[:, None], 2, axis=1))

    def score(self, matrix: NDArray[np.float32]) -> float:
        """Of held-out source words and a language in which they have a translation, the share that finds one.

        Args:
            matrix: `(d, e)`.
        """
        return self._precision(matrix, self._judges)

    def _precision(self, matrix: NDArray[np.float32], held_out: NDArray[np.int64]) -> float:
        moved, _ = unit_rows(self._source.units @ matrix)
        own, hits, count = Candidates.of(moved), 0, 0
        for code, target in self._targets.items():
            pairs = self._pairs[code][np.isin(self._pairs[code][:, 0], held_out)]
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
