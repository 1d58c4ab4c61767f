"""More pairs of words that mean the same, and the map that fits them, from a few to begin with."""

import hashlib
from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from hyperofa.runtime.processes import bar_hidden
from hyperofa.vectors.alignment import Candidates, align, mutual_translations, refine, translate
from hyperofa.vectors.centring import unit_rows
from hyperofa.vectors.seeds import Lexicon, Pairs
from hyperofa.vectors.store import WordVectors

_REFINED = 5_000  # pairs of the most frequent words that RCSLS takes: each costs two searches a step
_PAIRED = 2_000  # of the most frequent words of each language that more pairs are looked for among
_FIRST_SHARE = 0.05  # of the pairs of words that the first round looks at, where it begins with guesses
_GROWTH = 1.05  # of this share from round to round
_PLAUSIBLE = 0.5  # of the mean cosine of translations, which pairs to begin with must have to go on with


class Side(NamedTuple):
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
    def of(cls, store: WordVectors, rows: NDArray[np.int64]) -> "Side":
        """Of some words of a store.

        Args:
            store: word vectors.
            rows: `(n,)` of it, most frequent words first.
        """
        raw = np.asarray(store.vectors[rows], np.float32)
        mean = raw.mean(0, dtype=np.float32)
        return cls(Lexicon.of(store.words[rows]), rows, raw, mean, unit_rows(raw - mean)[0])


class Anchor(NamedTuple):
    """A language of the space that is looked at.

    Attributes:
        side: its words.
        known: `(p, 2)` rows of the source and of this side that are believed to mean the same.
        guessed: `(g, 2)` further ones, which only sound alike.
    """

    side: Side
    known: Pairs
    guessed: Pairs

    @classmethod
    def of(cls, side: Side, known: Sequence[Pairs], guessed: Pairs | None) -> "Anchor":
        """Of several lists of pairs, each pair once.

        Args:
            side: words of the language.
            known: lists of `(p, 2)` pairs that are believed to mean the same.
            guessed: `(g, 2)` pairs that only sound alike, if words were compared so.
        """
        none = np.empty((0, 2), np.int64)
        sure = np.unique(np.concatenate([none, *known]), axis=0)
        both = set(map(tuple, sure.tolist()))
        unsure = [pair for pair in (none if guessed is None else guessed).tolist() if tuple(pair) not in both]
        return cls(side, sure, np.array(unsure, np.int64).reshape(-1, 2))


class Search:
    """The search for a map: pairs to fit, and words held out to judge by, half of them for RCSLS to be chosen by.

    Args:
        source: words of the language that is aligned.
        anchors: by language, the words that it is aligned with.
        held_out: share of the source words with known pairs.
        method: of the fit.
        seed: of what is held out and looked at.
    """

    def __init__(
        self,
        source: Side,
        anchors: dict[str, Anchor],
        held_out: float,
        method: Literal["procrustes", "rcsls"],
        seed: int,
    ) -> None:
        self._source, self._anchors, self._method, self._seed = source, anchors, method, seed
        self._targets = {code: Candidates.of(anchor.side.units) for code, anchor in anchors.items()}
        words = np.unique(np.concatenate([anchor.known[:, 0] for anchor in anchors.values()]))
        away = np.random.default_rng(seed).permutation(words)[: int(held_out * len(words))]
        pairs = {code: np.concatenate([anchor.known, anchor.guessed]) for code, anchor in anchors.items()}
        self._seeds = {code: each[~np.isin(each[:, 0], away)] for code, each in pairs.items()}
        self._judges = away[1::2] if method == "rcsls" else away
        self._choosers = np.setdiff1d(away, self._judges)
        self._first_share = _FIRST_SHARE if any(len(anchor.guessed) for anchor in anchors.values()) else 1.0

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
        """The plausible seeds of each language with the pairs that a map finds, and how near translations are."""
        moved, _ = unit_rows(self._source.units @ matrix)
        known, nearness = {}, []
        for place, (code, anchor) in enumerate(self._anchors.items()):
            units, seeds = anchor.side.units, self._seeds[code]
            draw = self._seed + 1000 * number + place
            mutual, near = mutual_translations(moved[:_PAIRED], units[:_PAIRED], kept, draw)
            seeds = seeds[(moved[seeds[:, 0]] * units[seeds[:, 1]]).sum(1) >= _PLAUSIBLE * near]
            known[code] = np.concatenate([seeds, mutual[~np.isin(mutual[:, 0], seeds[:, 0])]])
            nearness.append(near)
        return known, float(np.mean(nearness))

    def _refine(self, matrix: NDArray[np.float32], known: dict[str, Pairs]) -> NDArray[np.float32]:
        offsets = np.cumsum([0, *(len(anchor.side.units) for anchor in self._anchors.values())])
        pairs = np.concatenate([known[code] + [0, offset] for code, offset in zip(known, offsets, strict=False)])
        units = np.concatenate([anchor.side.units for anchor in self._anchors.values()])
        frequent = pairs[np.argsort(pairs[:, 0], kind="stable")[:_REFINED]]
        return refine(matrix, Candidates.of(self._source.units), Candidates.of(units), frequent)

    def _fit(self, known: dict[str, Pairs]) -> NDArray[np.float32]:
        left = np.concatenate([self._source.units[pairs[:, 0]] for pairs in known.values()])
        right = np.concatenate([self._anchors[code].side.units[pairs[:, 1]] for code, pairs in known.items()])
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
            known = self._anchors[code].known
            pairs = known[np.isin(known[:, 0], held_out)]
            words = np.unique(pairs[:, 0])
            found = translate(moved[words], target, own.density(target.vectors)) if len(words) else words
            gold = set(map(tuple, pairs.tolist()))
            hits += sum((a, b) in gold for a, b in zip(words.tolist(), found.tolist(), strict=True))
            count += len(words)
        return hits / count if count else 0.0
