"""A monolingual space of word vectors, such as fastText's own, turned into a multilingual one."""

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
from hyperofa.vectors.conversion import build_store
from hyperofa.vectors.fasttext_layout import map_fasttext_model
from hyperofa.vectors.formats import WrittenVectors, check_output, read_rows, save_vectors
from hyperofa.vectors.induction import Anchor, Search, Side
from hyperofa.vectors.seeds import Lexicon, Pairs, identical_pairs, listed_pairs, parallel_pairs, read_parallel
from hyperofa.vectors.sounds import Sounds, alike_pairs
from hyperofa.vectors.spelling import split_spec
from hyperofa.vectors.store import WordVectors

_LANGUAGES = 6  # of the space that are looked at, if none are named
_ROMANISED = 16  # of the space, those with most words, that are compared in sound
_FEWEST = 20
"""Pairs below which an alignment is a guess."""


@dataclass(frozen=True)
class Alignment:
    """Vectors that were turned into another space, and how well words find their translations there.

    Attributes:
        written: what was written.
        seeds: pairs of words that it began with, those held out included.
        guesses: those of them that only sound alike.
        nearness: for each step, the mean cosine of frequent words with what it makes their best translations.
        chosen: the step whose map was taken.
        held_out: of words that were held out, the share whose nearest word is the translation. These are rarer words
            than most, names and numerals often: what this share is says less than what it is beside another's.
        words_held_out: how many these are.
    """

    written: WrittenVectors
    seeds: int
    guesses: int
    nearness: dict[str, float]
    chosen: str
    held_out: float
    words_held_out: int

    @property
    def path(self) -> Path:
        """The store's folder, or the file."""
        return self.written.path

    def __str__(self) -> str:
        guesses = f", {self.guesses:,} of them only alike in sound" if self.guesses else ""
        lines = [
            str(self.written),
            f"  {self.seeds:,} pairs to begin with{guesses}; mean cosine of frequent words with their translations "
            f"{self.nearness['procrustes']:.3f} at first, {self.nearness[self.chosen]:.3f} after {self.chosen}",
        ]
        if self.words_held_out:
            lines.append(f"  precision@1 on {self.words_held_out:,} words held out: {self.held_out:.1%}")
        return "\n".join(lines)


@in_range()
def align_vectors(
    vectors: str,
    into: list[str],
    output: FilePath,
    dictionary: list[str] | None = None,
    parallel: list[str] | None = None,
    identical: bool = True,
    languages: list[str] | None = None,
    rounds: Size = 70,
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
        identical: begin with words that are spelled alike, and numerals, too; where there is neither a dictionary nor
            parallel text, also with words that sound alike: that `uroman` spells alike, or nearly, in Latin letters.
        languages: of the space, those whose words are looked at; if not given, those of the dictionary and the parallel
            text and, up to six in all, those that have most words alike; where none spells twenty alike, the largest.
        rounds: how often more pairs are looked for, at most: it ends where it finds what it has found before. From
            words that sound alike the first 62 look at a part of all pairs of words, which keeps them from holding on
            to false ones.
        method: Procrustes alone, or with RCSLS in the end, which is taken if it finds more of half of the words that
            are held out; it is for languages that have good dictionaries.
        held_out: part of the words with pairs that is held out, to tell how good the map is; none of those that only
            sound alike, which tell nothing.
        frequent_words: of each language, the most frequent words that pairs to begin with are looked for among.
        prefixes: write words into files with their language, as in `deu:haus`.
        allow_pickle: open gensim files, which can run code; only for files you trust.
        seed: of what is held out, and of the pairs that are looked at.
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
        source = Side.of(store, store.select([language])[:frequent_words])
        given = _Given(tuple(dictionary or ()), tuple(parallel or ()), identical)
        anchors = _anchors(source, space, language, given, languages, frequent_words)
        guesses = sum(len(anchor.guessed) for anchor in anchors.values())
        count = guesses + sum(len(anchor.known) for anchor in anchors.values())
        if count < _FEWEST:
            raise InputError(
                f"expected at least {_FEWEST} pairs of words to begin with, found {count} between {language} and "
                f"{', '.join(anchors)}; give a --dictionary or --parallel text, or other --languages"
            )
        search = Search(source, anchors, held_out, method, seed)
        matrix, nearness, chosen = search.run(rounds)
        scale = np.linalg.norm(space.vectors[: len(source.rows)], axis=1).mean()
        scale /= np.linalg.norm((source.raw - source.mean) @ matrix, axis=1).mean()
        matrix = (matrix * scale).astype(np.float32)
        written = _write(store, path, output, source.mean, matrix, language, prefixes, overwrite)
        score = search.score(matrix)
        return Alignment(written, count, guesses, nearness, chosen, score, search.words_held_out)


class _Given(NamedTuple):
    """What pairs are taken from.

    Attributes:
        dictionary: LANG=FILE each, word lists.
        parallel: LANG=FILE each, parallel text.
        identical: from words that are spelled alike, too.
    """

    dictionary: Sequence[str]
    parallel: Sequence[str]
    identical: bool

    def languages(self) -> list[str]:
        """That the files are of, each once."""
        codes = [split_spec(spec)[0] for spec in (*self.dictionary, *self.parallel)]
        if None in codes:
            raise InputError(
                "--dictionary, --parallel: expected LANG=FILE, the language of its second column with the file"
            )
        return list(dict.fromkeys(filter(None, codes)))

    def pairs(self, source: Lexicon, target: Lexicon, code: str) -> list[Pairs]:
        """Those that the files have of one language."""
        found = [listed_pairs(path, source, target) for path in self._files(self.dictionary, code)]
        if texts := self._files(self.parallel, code):
            found.append(parallel_pairs(read_parallel(texts), source, target))
        return found

    @staticmethod
    def _files(specs: Sequence[str], code: str) -> list[Path]:
        return [path for language, path in map(split_spec, specs) if language == code]


def _anchors(
    source: Side, space: WordVectors, language: str, given: _Given, languages: Sequence[str] | None, count: int
) -> dict[str, Anchor]:
    """The languages of the space that are looked at, with pairs to begin with."""
    codes = list(languages or given.languages())
    if not set(given.languages()) <= set(codes):
        raise InputError(f"--languages: expected those of --dictionary and --parallel among them, found {codes}")
    space.language_ids_of(codes)
    others = [] if languages else [code for code in space.languages if code not in (language, *codes)]
    rows = {code: space.select([code]) for code in (*codes, *others)}
    others.sort(key=lambda code: (-len(rows[code]), code))
    lexicons = ((code, Lexicon.of(space.words[rows[code][:count]])) for code in rows)
    alike = {code: identical_pairs(source.lexicon, lexicon) for code, lexicon in lexicons}
    counts = {code: len(pairs) for code, pairs in alike.items()}
    guesses: dict[str, Pairs] = {}
    if given.identical and not given.languages():
        own = Sounds.of(source.lexicon.words, language)
        for code in tqdm((*codes, *others[:_ROMANISED]), desc="comparing sounds", disable=bar_hidden()):
            guesses[code] = alike_pairs(own, Sounds.of(space.words[rows[code][:count]], code))
    if max(counts.values(), default=0) >= _FEWEST:  # or else the largest, as chance alone tells them apart
        others.sort(key=lambda code: -counts[code] - len(guesses.get(code, ())))
    codes += others[: max(_LANGUAGES - len(codes), 0)]
    anchors = {}
    for code in codes:
        side = Side.of(space, rows[code][:count])
        known = given.pairs(source.lexicon, side.lexicon, code) + [alike[code]] * given.identical
        anchors[code] = Anchor.of(side, known, guesses.get(code))
    return anchors


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
