"""Word vectors made from text: one space for several languages, or one for a single language."""

import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from hyperofa.errors import InputError
from hyperofa.runtime.files import FilePath, new_file
from hyperofa.runtime.idle import Use, check_read
from hyperofa.runtime.ranges import Count, Seed, Size, in_range
from hyperofa.runtime.scratch import scratch_folder
from hyperofa.vectors.centring import unit_rows
from hyperofa.vectors.conversion import build_store
from hyperofa.vectors.fasttext_reader import Subwords
from hyperofa.vectors.formats import Entry, WrittenVectors, check_output, save_vectors
from hyperofa.vectors.spectral import Counts, count_words, projected_vectors, spectral_vectors
from hyperofa.vectors.spelling import WORD_END, WORD_START, split_spec
from hyperofa.vectors.store import ROWS
from hyperofa.vectors.texts import Piece, read_pieces, split_words

LONG_TEXT = 20_000_000
"""Words of text, all languages together, from which fastText alone is taken: a choice by the memory that spectral
vectors take, not by a measurement."""

_WIDTH = {"spectral": 400, "fasttext": 200, "joined": 600}
"""The first is measured (benchmarks, *What buys what*), the last in *Languages without vectors*: 400 and 200 of it."""
_EPOCH_WORDS = 10_000_000  # words that fastText shall have read in all, if no epochs are asked for
# Each draws a tenth of fastText's matrix, and the eleventh what is over: what none draws is zero or, from 0.9.3 on,
# whatever the memory held.
_THREADS = 11

Method = Literal["spectral", "fasttext", "joined", "projected"]


@dataclass(frozen=True)
class TrainedVectors:
    """Word vectors that were made from text.

    Attributes:
        written: what was written.
        method: how.
        running_words: of the text.
        segments: verses or lines that say one thing, in however many languages.
    """

    written: WrittenVectors
    method: Method
    running_words: int
    segments: int

    @property
    def path(self) -> Path:
        """The store's folder, or the file."""
        return self.written.path

    @property
    def kind(self) -> str | None:
        """Whether the space is one of its own, to be aligned, or one that was there; None for several languages."""
        if self.method == "projected":
            return "a space that was there"
        return "a space of its own" if len(self.written.languages) == 1 else None

    def __str__(self) -> str:
        return f"{self.written}\n  {self.method}, from {self.running_words:,} words in {self.segments:,} segments"


@in_range()
def train_vectors(
    text: list[str],
    output: FilePath,
    aligned: bool = False,
    into: list[str] | None = None,
    method: Literal["auto", "spectral", "fasttext", "joined"] = "auto",
    dim: Count | None = None,
    min_count: Count = 2,
    max_words: Count | None = None,
    epochs: Count | None = None,
    shortest_ngram: Size = 3,
    longest_ngram: Size = 6,
    buckets: Count = 200_000,
    prefixes: bool = True,
    allow_pickle: bool = False,
    seed: Seed = 0,
    overwrite: bool = False,
) -> TrainedVectors:
    """Make word vectors from text: one space of several languages from parallel text, or that of one language.

    Words are what stands between spaces, in lower case; give text of scripts without spaces segmented.

    Args:
        text: LANG=FILE, plain or gzipped. Of a .tsv file the first column names the line (a verse, say) and the last is
            its text: lines of one name say the same in all files. A language may have several files.
        output: what to write: .vec, .vec.gz, .bin, .wv, or a store folder. A .bin of `fasttext` has n-grams, so that it
            gives unseen words a vector too.
        aligned: line n of each plain file says the same.
        into: files of a space (`vectors.READERS`, or a store folder) that has some of the languages. The others get
            vectors in it: a word lies where the lines lie that it stands in. Takes some thousand lines; for fewer, and
            for text that is not parallel, train the language alone and `hyperofa vectors align` it.
        method: `spectral` (correspondence analysis of which words stand in which lines; repeatable), `fasttext`
            (skip-grams with sub-words; no two runs are quite alike), or for one language both, `joined` side by side,
            which `hyperofa vectors align` makes most of. If not given, fasttext for a .bin and from 20 million words
            on, joined for one language with less text, spectral for several.
        dim: width of a vector, unless it is that of a space; if not given, 400 of `spectral`, where 800 is better still
            and takes twice the memory, 200 of `fasttext`, 600 of `joined`, of which a third is fastText's.
        min_count: least number of times that a word stands in the text.
        max_words: of each language, at most so many, the most frequent ones.
        epochs: how often fastText reads the text; enough for 10 million words in all, from 5 to 30 times, if not given.
        shortest_ngram: characters of fastText's shortest sub-words.
        longest_ngram: characters of the longest ones; 0 for none.
        buckets: how many vectors fastText's sub-words share.
        prefixes: write words into files with their language, as in `deu:haus`.
        allow_pickle: open gensim files of `into`, which can run code; only for files you trust.
        seed: of the projection, and of the order of words in lines of several languages.
        overwrite: replace what is already there.

    Returns:
        What was written.

    Raises:
        InputError: a text is missing or damaged, or several languages have no line in common.

    Example:
        >>> import hyperofa
        >>> print(hyperofa.train_vectors(["eng=eng.tsv", "deu=deu.tsv"], "trained.vec", dim=8))
        trained.vec: ... words, 8 wide: deu ..., eng ...
          spectral, from ... words in ... segments
    """
    given = locals()
    inputs = [split_spec(spec)[1] for spec in (*text, *(into or ()))]
    check_output(output, overwrite, inputs, prefixes)
    pieces = [piece for piece in read_pieces(text, aligned) if piece.text]
    languages = sorted({piece.language for piece in pieces})
    tokens = [split_words(piece.text) for piece in pieces]
    running = sum(map(len, tokens))
    if len(languages) > 1:
        _check_connected(pieces)
    model = Path(output).name.endswith(".bin")
    if method == "auto":
        method = "fasttext" if model or running >= LONG_TEXT else "spectral" if len(languages) > 1 else "joined"
    if method == "joined" and len(languages) > 1:
        raise InputError(f"--method joined: expected text of one language, found {', '.join(languages)}")
    used: Method = "projected" if into else method
    width = dim or _WIDTH.get(used, 0)  # of projected vectors the space's
    if used == "joined" and width < 3:
        raise InputError(f"--dim: expected 3 or more for --method joined, found {width}")
    whole = used == "fasttext" and model
    check_read(
        train_vectors,
        given,
        Use(("method", "dim"), not into, "without --into"),
        Use(
            ("epochs", "shortest_ngram", "longest_ngram", "buckets"),
            used in ("fasttext", "joined"),
            "with --method fasttext or joined",
        ),
        Use(("max_words",), not whole, "with another --output than fastText's own model, which has all words"),
    )
    settings = {
        "dim": width, "minCount": min_count, "minn": shortest_ngram, "maxn": longest_ngram, "bucket": buckets,
        "thread": _THREADS, "epoch": epochs or int(np.clip(_EPOCH_WORDS // max(running, 1), 5, 30)),
    }  # fmt: skip
    if used == "fasttext":
        lines = joined_lines(pieces, tokens, seed)
        written = _write_fasttext(lines, settings, output, languages, max_words, prefixes, overwrite, inputs)
    else:
        segments = [(piece.name, piece.language, words) for piece, words in zip(pieces, tokens, strict=True)]
        counts = count_words(segments).frequent(min_count, max_words)
        if not counts.words:
            raise _too_rare(min_count)
        if into:
            counts, vectors = _project(counts, into, languages, allow_pickle)
        elif used == "joined":
            vectors = _join(counts, joined_lines(pieces, tokens, seed), settings, seed)
        else:
            vectors = spectral_vectors(counts.table, width, seed)
        entries = [
            (word, code, WORD_START | WORD_END) for word, code in zip(counts.words, counts.languages, strict=True)
        ]
        written = save_vectors(_blocks(entries, vectors), output, "float32", prefixes, overwrite, inputs)
    return TrainedVectors(written, used, running, len({piece.name for piece in pieces}))


def _too_rare(min_count: int) -> InputError:
    return InputError(f"--min_count: expected words that stand in the text {min_count} times, found none")


def _check_connected(pieces: Sequence[Piece]) -> None:
    """See that each language says something that another one says too."""
    spoken: dict[str, set[str]] = {}
    for piece in pieces:
        spoken.setdefault(piece.name, set()).add(piece.language)
    together = {code for codes in spoken.values() if len(codes) > 1 for code in codes}
    alone = sorted({piece.language for piece in pieces} - together)
    if alone:
        raise InputError(
            "--text: expected lines that say the same in several languages, found none of "
            f"{', '.join(map(repr, alone))}; give .tsv files whose first columns name the lines, or --aligned true, or "
            "train each language alone and `hyperofa vectors align` them"
        )


def _project(
    counts: Counts, into: Sequence[str], languages: Sequence[str], allow_pickle: bool
) -> tuple[Counts, NDArray[np.float32]]:
    """The words of languages that a space has not, and their vectors in it."""
    with scratch_folder("hyperofa-train-") as scratch:
        space = build_store(into, scratch / "space", allow_pickle=allow_pickle, duplicates="first", flag="--into")
        there = sorted(set(languages) & set(space.languages))
        if not there or len(there) == len(languages):
            raise InputError(
                f"--text: expected text of a language that the space has{' not' * bool(there)}, found "
                f"{', '.join(languages)} alone"
            )
        places = dict[tuple[str, str], int]()
        parts: list[NDArray[np.float32]] = []
        for code in there:
            rows = space.select([code])
            first = sum(map(len, parts))
            for row, word in enumerate(space.words[rows], first):
                places.setdefault((code, word.lower()), row)
            units, _ = unit_rows(space.vectors[rows])
            parts.append(units - units.mean(0))
        vectors = np.concatenate(parts)
    keys = list(zip(counts.languages, counts.words, strict=True))
    known = [(row, places[key]) for row, key in enumerate(keys) if key in places]
    new = [row for row, (code, _) in enumerate(keys) if code not in there]
    if not known or not new:
        raise InputError("--into: expected words of the text among those of the space, found none")
    rows, columns = np.array(known).T
    found = projected_vectors(counts.table[new], counts.table[rows], vectors[columns])
    return Counts([counts.words[row] for row in new], [counts.languages[row] for row in new], counts.table[new]), found


def _blocks(entries: list[Entry], vectors: NDArray[np.float32]) -> Iterator[tuple[list[Entry], NDArray[np.float32]]]:
    for start in range(0, len(entries), ROWS):
        yield entries[start : start + ROWS], vectors[start : start + ROWS]


def joined_lines(pieces: Sequence[Piece], tokens: Sequence[list[str]], seed: int) -> Iterator[str]:
    """The lines that fastText reads: of one language as they are; else all that say the same as one, words shuffled.

    Args:
        pieces: of the text.
        tokens: their words.
        seed: of the order.
    """
    if len({piece.language for piece in pieces}) == 1:
        yield from (" ".join(words) for words in tokens)
        return
    rng = np.random.default_rng(seed)
    lines: dict[str, list[str]] = {}
    for piece, words in zip(pieces, tokens, strict=True):
        lines.setdefault(piece.name, []).extend(f"{piece.language}:{word}" for word in words)
    for words in lines.values():
        yield " ".join(words[place] for place in rng.permutation(len(words)).tolist())


def _join(counts: Counts, lines: Iterator[str], settings: dict[str, Any], seed: int) -> NDArray[np.float32]:
    """Spectral vectors `(V, d)` and fastText's side by side, both of unit length, a third of the width fastText's."""
    dim = settings["dim"] // 3
    with scratch_folder("hyperofa-train-") as scratch:
        path = scratch / "model.bin"
        _train_fasttext(lines, {**settings, "dim": dim}, path)
        beside, _ = unit_rows(_finite(Subwords(path).vectors(counts.words)))
    spectral = spectral_vectors(counts.table, settings["dim"] - dim, seed)
    return np.hstack([spectral, unit_rows(beside - beside.mean(0))[0]])


def _train_fasttext(lines: Iterator[str], settings: dict[str, Any], path: Path) -> Any:
    """Train a model and save it, its text beside it."""
    import fasttext

    corpus = path.with_name("text")
    with corpus.open("w", encoding="utf-8") as file:
        file.writelines(f"{line}\n" for line in lines)
    try:
        trained = fasttext.train_unsupervised(str(corpus), model="skipgram", verbose=0, **settings)
    except ValueError as error:
        if "Empty vocabulary" in str(error):
            raise _too_rare(settings["minCount"]) from None
        raise InputError(f"--text: fastText cannot learn from it; {error}") from None
    trained.save_model(str(path))
    return trained


def _finite(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    if not np.isfinite(vectors).all():
        raise InputError("--text: fastText's vectors are not finite; give more text, or fewer --epochs")
    return vectors


def _write_fasttext(
    lines: Iterator[str],
    settings: dict[str, Any],
    output: FilePath,
    languages: Sequence[str],
    max_words: int | None,
    prefixes: bool,
    overwrite: bool,
    inputs: Sequence[Path],
) -> WrittenVectors:
    """Train a model, and write it whole or its words' vectors."""
    with scratch_folder("hyperofa-train-") as scratch:
        path = scratch / "model.bin"
        trained = _train_fasttext(lines, settings, path)
        words = [word for word in trained.words if word != "</s>"]
        entries: list[Entry] = []
        kept, counts = [], dict.fromkeys(languages, 0)
        for word in words:
            language, _, plain = word.partition(":") if len(languages) > 1 else (languages[0], "", word)
            if max_words is None or counts[language] < max_words:
                counts[language] += 1
                entries.append((plain, language, WORD_START | WORD_END))
                kept.append(word)
        if Path(output).name.endswith(".bin"):
            with new_file(output, overwrite) as file:
                shutil.copyfile(path, file)
            return WrittenVectors(Path(output), trained.get_dimension(), counts)
        vectors = _finite(Subwords(path).vectors(kept))
        return save_vectors(_blocks(entries, vectors), output, "float32", prefixes, overwrite, inputs)
