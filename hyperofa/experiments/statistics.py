"""How sure a mean over languages is: bootstrap intervals, and differences that pair languages and their sentences."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

SAMPLES = 10_000


class Interval(NamedTuple):
    """A mean and the 95 % interval around it."""

    mean: float
    low: float
    high: float

    @property
    def excludes_zero(self) -> bool:
        """Whether a difference this large is more than the choice of languages."""
        return self.low > 0 or self.high < 0


def mean_interval(
    values: Sequence[float] | np.ndarray, rng: np.random.Generator, samples: int = SAMPLES, level: float = 0.95
) -> Interval:
    """Percentile bootstrap of a mean (Efron 1979): how much it depends on which items were drawn.

    Args:
        values: `(N,)`, one an item, N ≥ 1; one alone has an interval without width.
        rng: draws the samples.
        samples: how many.
        level: coverage, in (0, 1).

    Returns:
        The mean of the values, and the quantiles of the means of samples of N drawn with replacement.

    Raises:
        ValueError: no values.
    """
    items = np.asarray(values, np.float64)
    if items.ndim != 1 or len(items) == 0:
        raise ValueError(f"expected at least one value in a row, found shape {items.shape}")
    means = items[rng.integers(len(items), size=(samples, len(items)))].mean(1)
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(items.mean()), float(low), float(high))


class Difference(NamedTuple):
    """A mean difference, the 95 % interval around it, and how likely one as large is by chance (two-sided)."""

    mean: float
    low: float
    high: float
    chance: float

    @property
    def excludes_zero(self) -> bool:
        """Whether a difference this large is more than the choice of languages and sentences."""
        return self.low > 0 or self.high < 0


Scored = Mapping[str, float | np.ndarray]


def paired_difference(
    ours: Scored, theirs: Scored, rng: np.random.Generator, samples: int = SAMPLES, level: float = 0.95
) -> Difference:
    """Mean of the differences language by language, with its bootstrap interval.

    Languages differ far more than methods do: only pairing shows what the method is worth. Languages are drawn with
    replacement, and of each the sentences too, the same ones for both, where there are values of sentences. That errs
    on the side of caution: where languages differ by their sentences alone, these count twice.

    Args:
        ours: by language, its score or `(n,)` those of its sentences.
        theirs: likewise, of what it is compared with; sentences in the same order.
        rng: draws the samples.
        samples: how many.
        level: coverage, in (0, 1).

    Returns:
        The mean over languages, the quantiles of the samples' means, and twice the share of samples on the rarer side
        of zero, at least 2 in `samples` + 1.

    Raises:
        ValueError: no language in common.
    """
    shared = sorted(set(ours) & set(theirs))
    if not shared:
        raise ValueError(f"expected languages in common, found {sorted(ours)} and {sorted(theirs)}")
    parts = [_differences(np.atleast_1d(ours[name]), np.atleast_1d(theirs[name])) for name in shared]
    drawn = rng.integers(len(shared), size=(samples, len(shared)))
    means = np.empty(drawn.shape)
    for language, part in enumerate(parts):
        cells = drawn == language
        values, counts = np.unique(part, return_counts=True)  # n draws of few values are one draw of their counts
        times = rng.multinomial(len(part), counts / len(part), size=int(cells.sum())) if len(values) > 1 else 1
        means[cells] = times @ values / len(part) if len(values) > 1 else values[0]
    found = means.mean(1)
    low, high = np.quantile(found, [(1 - level) / 2, (1 + level) / 2])
    rarer = min(int((~(found > 0)).sum()), int((~(found < 0)).sum()))  # NaN is on both sides
    chance = min(1.0, 2 * (rarer + 1) / (samples + 1))
    return Difference(float(np.mean([part.mean() for part in parts])), float(low), float(high), chance)


def _differences(ours: np.ndarray, theirs: np.ndarray) -> np.ndarray:
    """Of each sentence; of the means where these are not the same sentences."""
    same = ours.shape == theirs.shape
    return ours.astype(np.float64) - theirs if same else np.array([ours.mean() - theirs.mean()])


def holm(chances: Sequence[float]) -> list[float]:
    """Chances corrected for being many: one in twenty that *any* of those below 0.05 is chance (Holm 1979).

    Args:
        chances: of single tests.

    Returns:
        Corrected ones in the same order.
    """
    order = np.argsort(chances, kind="stable")
    scaled = np.asarray(chances, np.float64)[order] * (len(chances) - np.arange(len(chances)))
    corrected = np.empty(len(chances))
    corrected[order] = np.minimum(1, np.maximum.accumulate(scaled))
    return corrected.tolist()


def mean_over_seeds(runs: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Mean score of each language that all runs have, in the first run's order."""
    shared = set.intersection(*(set(run) for run in runs)) if runs else set()
    order = [language for language in (runs[0] if runs else ()) if language in shared]
    return {language: float(np.mean([run[language] for run in runs])) for language in order}
