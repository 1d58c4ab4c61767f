"""The stages of the suite: their two sides, when two results are the same, and what is asked of each."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import data_jobs
import net_jobs
import numpy as np
from inputs import Inputs
from jobs import Job

GIB = 1024.0  # MiB

Facts = dict[str, Any]


@dataclass(frozen=True)
class Target:
    """What is asked: `ratio` to the plain way at least; anything else at most."""

    measure: Literal["ratio", "over_floor", "seconds", "peak_mib", "checkpoint_ratio"]
    limit: float
    size: str | None = None

    def met(self, value: float) -> bool:
        """Whether the value is good enough."""
        return value >= self.limit if self.measure == "ratio" else value <= self.limit


@dataclass(frozen=True)
class Stage:
    """One stage.

    Attributes:
        unit: what it has many of.
        sides: `product`, `plain`, and `floor` where that is measured, not computed.
        agree: whether the facts of product and plain are the same result, and in what words.
        targets: what is asked of it.
        bundle: whether it reads the bundle.
        sizes: those it is measured at; `None` for all.
    """

    unit: str
    sides: dict[str, Callable[[Inputs], Job]]
    agree: Callable[[Facts, Facts], tuple[bool, str]] | None = None
    targets: tuple[Target, ...] = ()
    bundle: bool = False
    sizes: tuple[str, ...] | None = None


def _vectors(product: Facts, plain: Facts) -> tuple[bool, str]:
    apart = float(np.abs(product["vectors"] - plain["vectors"]).max())
    return apart < 1e-3, f"vectors within {apart:.0e}"


def _pairs(product: Facts, plain: Facts) -> tuple[bool, str]:
    keys = [key for key in product if key.endswith("pairs")]
    equal = all(np.array_equal(product[key], plain[key]) for key in keys)
    return equal, f"{sum(len(product[key]) for key in keys):,} matches {'equal' if equal else 'differ'}"


def _error(product: Facts, plain: Facts) -> tuple[bool, str]:
    excess = float(product["error"] / plain["error"] - 1)
    return excess < 1e-3, f"error {float(product['error']):.4f}, exact {float(plain['error']):.4f}"


def _bundles(product: Facts, plain: Facts) -> tuple[bool, str]:
    both = _pairs(product, plain), _error(product, plain)
    return all(equal for equal, _ in both), "; ".join(text for _, text in both)


def _mixtures(product: Facts, plain: Facts) -> tuple[bool, str]:
    sure = plain["decided"]
    apart = float(np.abs(product["rows"][sure] - plain["rows"][sure]).max(initial=0))
    return apart < 1e-4, f"{int(sure.sum()):,} rows without ties within {apart:.0e}"


def _copies(product: Facts, plain: Facts) -> tuple[bool, str]:
    copied = plain["copied"]
    equal = (product["rows"][copied] == plain["rows"][copied]).all(1)
    return bool(equal.all()), f"{int(equal.sum()):,} of {len(equal):,} copied rows equal"


STAGES: dict[str, Stage] = {
    "conversion": Stage("words", {"product": data_jobs.convert, "plain": data_jobs.load_plain}, _vectors),
    "loading": Stage(
        "words", {"product": data_jobs.load, "plain": data_jobs.load_plain}, _vectors, (Target("ratio", 50),)
    ),
    "matching": Stage(
        "words",
        {
            "product": data_jobs.match,
            "plain": data_jobs.match_plain,
            "floor": lambda inputs: data_jobs.encode(inputs, inputs.model),
        },
        _pairs,
        (Target("ratio", 4), Target("over_floor", 1.1)),
    ),
    "factorisation": Stage(
        "tokens",
        {
            "product": partial(data_jobs.factorize, compute=data_jobs.product_factors),
            "plain": partial(data_jobs.factorize, compute=data_jobs.plain_factors),
        },
        _error,
        (Target("ratio", 15),),
    ),
    "prepare": Stage(
        "words",
        {
            "product": data_jobs.prepare,
            "plain": data_jobs.prepare_plain,
            "floor": lambda inputs: data_jobs.encode(inputs, inputs.model, inputs.target),
        },
        _bundles,
        (Target("seconds", 600, "full"), Target("peak_mib", 6 * GIB, "full")),
    ),
    "ofa": Stage(
        "tokens",
        {"product": net_jobs.ofa, "plain": net_jobs.ofa_plain},
        _mixtures,
        (Target("ratio", 15),),
        bundle=True,
    ),
    "epoch": Stage(
        "tokens",
        {"product": net_jobs.epoch, "plain": net_jobs.epoch_plain},
        targets=(Target("ratio", 10),),
        bundle=True,
    ),
    "prediction": Stage(
        "tokens",
        {"product": net_jobs.predict, "plain": net_jobs.predict_plain},
        targets=(Target("ratio", 50),),
        bundle=True,
    ),
    "checkpoint": Stage(
        "files",
        {"product": net_jobs.checkpoint},
        targets=(Target("checkpoint_ratio", 1.1),),
        bundle=True,
        sizes=("tiny", "small"),
    ),
    "export": Stage(
        "tokens",
        {"product": net_jobs.export, "plain": net_jobs.export_plain},
        _copies,
        (Target("seconds", 120, "full"), Target("peak_mib", 6 * GIB, "full")),
        bundle=True,
    ),
}
