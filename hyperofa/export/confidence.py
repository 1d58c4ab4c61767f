"""How far a predicted row can be trusted: a probability for each, calibrated on tokens whose rows are known.

A row is *right* if its true row is among the tenth of all source rows that are nearest to it by cosine, as one in ten
is by chance. The confidence of a row is the probability that it is right. It follows from what the prediction rests on
(`EVIDENCE`), by a logistic regression in which more evidence never means less confidence: held-out source tokens are
mostly single words of one language, which target tokens are not, so that what speaks against a row among the former
(words that do not all say the same, as those of a frequent token) need not do so among the latter.

It is fitted on validation tokens and tested on test tokens, of two kinds: source tokens, and target tokens that are
spelled as a held-out source token is (`exact`) and that the source language uses (`native`, where the source languages
are known). The nets see the training tokens alone, as when they are validated.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from scipy.special import expit

from hyperofa.bundle.bundle import Bundle, Side, SplitName
from hyperofa.runtime.sharding import IN_MEMORY, ShardCache
from hyperofa.tokens.matching import Matches
from hyperofa.vectors.centring import unit_rows
from hyperofa.vectors.neighbours import NeighbourIndex

ABOUT = "probability that the true row is among the tenth of the source rows that are nearest to the predicted one"
EVIDENCE = ("share", "frequency", "surroundings", "agreement")
"""Of the heaviest word: log of the part of it that the token is, times the part of the token that it is; minus half the
log of one more than its rank. Mean cosine of the pooled words with those of the ten nearest training tokens. Mean
cosine of several nets' rows with their mean; of one net there is none."""
LEAST = 100
"""Tokens to fit on, below which nothing is said."""
FEWEST = 5
"""Of these, so many at least must be right, and so many wrong."""
_MOST = 2_000  # tokens of a kind that are predicted to learn from, evenly spread
_OTHERS = 10_000  # source rows that stand for all of them, likewise
_TENTH = 0.1
_NEAREST = 10
_PARTS: tuple[SplitName, ...] = ("val", "test")
_RIDGE = 1.0  # of the weights, beside the sum over the tokens
_SHARD = 32_768

PredictHeld = Callable[[Side, np.ndarray], tuple[np.ndarray, np.ndarray | None]]
"""Of a side and token ids `(n,)`: rows `(n, K)` by nets that see training tokens alone, and their agreement `(n,)`."""


class Bin(NamedTuple):
    """Predicted rows of about one confidence, and how the test tokens of that confidence did.

    Attributes:
        low: lowest confidence; the highest is a tenth more.
        rows: predicted target rows.
        tokens: test tokens.
        expected: their mean confidence; `None` without any.
        found: the part of them whose row is right; likewise.
    """

    low: float
    rows: int
    tokens: int
    expected: float | None
    found: float | None


@dataclass(frozen=True, eq=False)
class Confidence:
    """The confidence of a target vocabulary's predicted rows, and how it did on tokens that it was not fitted on.

    Attributes:
        values: `(T,)` float32, NaN where no row was to be predicted.
        weights: of each evidence, in standard deviations of it.
        fitted: how many tokens it was fitted on.
        expected: `(n,)` confidence of the test tokens.
        right: `(n,)` bool, whether their rows are.
        cosines: `(n,)`, of their rows with the true ones.
    """

    values: np.ndarray
    weights: dict[str, float]
    fitted: int
    expected: np.ndarray = field(repr=False)
    right: np.ndarray = field(repr=False)
    cosines: np.ndarray = field(repr=False)

    @cached_property
    def mean(self) -> float:
        """Over the predicted rows."""
        return float(np.nanmean(self.values.astype(np.float64)))

    def below(self, bound: float) -> float:
        """The part of the predicted rows whose confidence is lower than a bound."""
        return float((self.values < bound).sum() / np.isfinite(self.values).sum())

    @cached_property
    def bins(self) -> tuple[Bin, ...]:
        """Ten tenths, from 0 to 1."""
        known = self.values[np.isfinite(self.values)]
        rows, tests = (np.minimum((each * 10).astype(int), 9) for each in (known, self.expected))
        found = []
        for tenth in range(10):
            here = tests == tenth
            means = (float(self.expected[here].mean()), float(self.right[here].mean())) if here.any() else (None, None)
            found.append(Bin(tenth / 10, int((rows == tenth).sum()), int(here.sum()), *means))
        return tuple(found)

    def as_dict(self) -> dict[str, Any]:
        """What manifests and reports tell."""

        def short(value: float | None) -> float | None:
            return None if value is None else round(value, 4)

        bins = [{**bin._asdict(), "expected": short(bin.expected), "found": short(bin.found)} for bin in self.bins]
        weights = {name: short(weight) for name, weight in self.weights.items()}
        tokens = {"fitted": self.fitted, "tested": len(self.expected)}
        return {"about": ABOUT, "mean": short(self.mean), "tokens": tokens, "weights": weights, "bins": bins}

    def told(self) -> str:
        """The same as `str`, with what it means, for model cards."""
        return f"{self}; it is the {ABOUT} (`provenance.tsv` has that of each)."

    def __str__(self) -> str:
        return f"confidence {self.mean:.2f} in the mean, {self.below(0.5):.0%} of the predicted rows below 0.5"


class _Known(NamedTuple):
    """Tokens of one side, and the source tokens `truth` whose rows are theirs."""

    side: Side
    ids: np.ndarray
    truth: np.ndarray


class _Judged(NamedTuple):
    """Of n tokens: their evidence `(n, F)`, the cosine of predicted and true row, whether that is right."""

    evidence: np.ndarray
    cosines: np.ndarray
    right: np.ndarray


def assess(
    bundle: Bundle,
    predicted: np.ndarray,
    agreement: np.ndarray | None,
    predict_held: PredictHeld,
    cache: ShardCache = IN_MEMORY,
) -> Confidence | None:
    """The confidence of predicted rows.

    Args:
        bundle: the inputs.
        predicted: `(T,)` bool, the target tokens whose rows are predicted.
        agreement: `(T,)` float, how far several nets agree on each; `None` of one net.
        predict_held: predicts tokens of either side as the target's were, but from training tokens alone.
        cache: where shards of the search are kept, and who shares it.

    Returns:
        It; `None` in reference mode, where nothing is predicted, and where too few held-out tokens are known, or
        too few of them right or wrong.
    """
    known = {part: list(_known_tokens(bundle, part)) for part in _PARTS}
    if bundle.meta.reference or not predicted.any() or sum(len(each.ids) for each in known["val"]) < LEAST:
        return None
    evidence = _Evidence(bundle)
    others = unit_rows(_spread(np.asarray(bundle.coordinates), _OTHERS))[0]

    def judge(part: SplitName) -> _Judged:
        """Tokens whose rows are known: what they rest on, how near they come, and whether they are right."""
        parts = []
        for side, ids, truth in known[part]:
            rows, agreed = predict_held(side, ids)
            unit = unit_rows(rows)[0]
            cosines = (unit * unit_rows(bundle.coordinates[truth])[0]).sum(1)
            # A row that is not finite is nearer to nothing: it is wrong.
            right = (unit @ others.T < cosines[:, None] - 1e-6).mean(1) >= 1 - _TENTH
            parts.append(_Judged(evidence.of(side, ids, agreed), cosines, right))
        return _Judged(*map(np.concatenate, zip(*parts, strict=True)))

    fitted = judge("val")
    if np.bincount(fitted.right, minlength=2).min() < FEWEST:
        return None
    model, tested = fit_monotone(fitted.evidence, fitted.right), judge("test")
    ids = np.flatnonzero(predicted)
    values = np.full(len(predicted), np.nan, np.float32)
    values[ids] = model(evidence.of("target", ids, None if agreement is None else agreement[ids], cache))
    weights = dict(zip(EVIDENCE, model.weights[1:].tolist(), strict=False))
    return Confidence(values, weights, len(fitted.right), model(tested.evidence), tested.right, tested.cosines)


def _known_tokens(bundle: Bundle, part: SplitName) -> Iterator[_Known]:
    """Held-out tokens with words: those of the source, and target tokens that are the same."""
    held = bundle.split[part]
    own = _spread(held, _MOST)
    if len(own):
        yield _Known("source", own, own)
    same = bundle.overlap.choose(("exact",))
    kept = np.isin(same.source_ids, held) & bundle.target.covered[same.target_ids]
    if bundle.meta.source_languages is not None:
        kept &= np.isin(same.target_ids, bundle.overlap.choose(("native",)).target_ids)
    kept = np.flatnonzero(kept)
    kept = _spread(kept, _MOST)
    if len(kept):
        yield _Known("target", same.target_ids[kept], same.source_ids[kept])


class _Evidence:
    """What predictions rest on, see `EVIDENCE`."""

    def __init__(self, bundle: Bundle) -> None:
        usable = np.zeros(bundle.meta.source_tokens, bool)
        usable[bundle.split["train"]] = True
        self._bundle, self._keys = bundle, NeighbourIndex(bundle.pooled("source"), valid=usable)
        sides: tuple[Side, ...] = ("source", "target")
        self._heaviest = {side: _Heaviest(bundle.matches(side), bundle.words.ranks) for side in sides}

    def of(
        self, side: Side, ids: np.ndarray, agreement: np.ndarray | None, cache: ShardCache = IN_MEMORY
    ) -> np.ndarray:
        """That of some tokens with words, `(n, F)` float64.

        Args:
            side: whose tokens.
            ids: `(n,)`, at least one.
            agreement: `(n,)` of several nets.
            cache: where shards of the search are kept, and who shares it.
        """
        queries = self._bundle.pooled(side)
        shards = cache.shards("surroundings", len(ids), _SHARD, "searching source tokens")
        for span in shards:
            shards.keep(span, self._keys.nearest(queries[ids[span]], _NEAREST)[0].mean(1))
        (near,) = shards.joined()
        columns = [*self._heaviest[side].describe(ids), near, *([] if agreement is None else [agreement])]
        return np.column_stack(columns).astype(np.float64)


class _Heaviest:
    """The heaviest word of each token, of equal ones the first.

    Args:
        matches: words of the tokens.
        ranks: `(V,)` of the words, by frequency.
    """

    def __init__(self, matches: Matches, ranks: np.ndarray) -> None:
        weights, covered = matches.weights(ranks), np.flatnonzero(matches.covered)
        most = np.maximum.reduceat(weights, matches.indptr[covered]) if len(covered) else weights
        entries = np.flatnonzero(weights == np.repeat(most, matches.counts[covered]))
        tokens, first = np.unique(matches.tokens[entries], return_index=True)
        self._entries = np.zeros(len(matches.counts), np.int64)
        self._entries[tokens] = entries[first]
        self._matches, self._ranks = matches, ranks

    def describe(self, ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The first two of `EVIDENCE`, `(n,)` each, of tokens with words `(n,)`."""
        matches, entries = self._matches, self._entries[ids]
        parts = matches.share[entries] * matches.covers[entries]
        return np.log(parts.astype(np.float64)), -0.5 * np.log1p(self._ranks[matches.words[entries]].astype(np.float64))


@dataclass(frozen=True, eq=False)
class Monotone:
    """A logistic regression whose slopes are not negative.

    Attributes:
        centre: `(F,)` of the features.
        spread: `(F,)`, their standard deviation.
        bounds: `(2, F)` lowest and highest that were seen; what lies outside counts as these.
        weights: `(1 + F,)`, the first alone.
    """

    centre: np.ndarray
    spread: np.ndarray
    bounds: np.ndarray
    weights: np.ndarray

    def __call__(self, features: np.ndarray) -> np.ndarray:
        """Probabilities `(n,)` of features `(n, F)`."""
        inside = np.clip(features, *self.bounds)
        return expit(self.weights[0] + ((inside - self.centre) / self.spread) @ self.weights[1:])


def fit_monotone(features: np.ndarray, right: np.ndarray) -> Monotone:
    """Fit a logistic regression with slopes of zero or more, and a light ridge on them.

    Args:
        features: `(n, F)` float64.
        right: `(n,)` bool, what they shall tell.
    """
    from scipy.optimize import minimize

    centre, spread = features.mean(0), np.maximum(features.std(0), 1e-9)
    scaled = np.column_stack([np.ones(len(features)), (features - centre) / spread])
    wanted, ridge = right.astype(np.float64), np.r_[0.0, np.full(features.shape[1], _RIDGE)]

    def loss(weights: np.ndarray) -> tuple[float, np.ndarray]:
        logits = scaled @ weights
        value = np.logaddexp(0, logits).sum() - wanted @ logits + ridge @ weights**2 / 2
        return float(value), scaled.T @ (expit(logits) - wanted) + ridge * weights

    bounds = [(None, None), *[(0.0, None)] * features.shape[1]]
    start = np.zeros(scaled.shape[1])
    weights = minimize(loss, start, jac=True, method="L-BFGS-B", bounds=bounds, options={"ftol": 1e-12}).x
    return Monotone(centre, spread, np.stack([features.min(0), features.max(0)]), weights)


def _spread(rows: np.ndarray, most: int) -> np.ndarray:
    """At most so many of the rows, evenly spread over them."""
    return rows if len(rows) <= most else rows[np.linspace(0, len(rows) - 1, most).astype(np.int64)]
