"""How sure a mean over languages is: bootstrap intervals, and differences that pair the languages."""

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


def paired_difference(
    ours: Mapping[str, float], theirs: Mapping[str, float], rng: np.random.Generator, samples: int = SAMPLES
) -> Interval:
    """Mean of the differences language by language, with its bootstrap interval.

    Languages differ far more than methods do: only pairing shows what the method is worth.

    Args:
        ours: score by language.
        theirs: score by language of what it is compared with.
        rng: draws the samples.
        samples: how many.

    Raises:
        ValueError: no language in common.
    """
    shared = sorted(set(ours) & set(theirs))
    if not shared:
        raise ValueError(f"expected languages in common, found {sorted(ours)} and {sorted(theirs)}")
    return mean_interval([ours[language] - theirs[language] for language in shared], rng, samples)


def mean_over_seeds(runs: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Mean score of each language that all runs have, in the first run's order."""
    shared = set.intersection(*(set(run) for run in runs)) if runs else set()
    order = [language for language in (runs[0] if runs else ()) if language in shared]
    return {language: float(np.mean([run[language] for run in runs])) for language in order}
