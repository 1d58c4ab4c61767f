"""A piece of work to measure, the clock it is measured with and the processor that it runs on."""

import platform
import resource
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

Seconds = np.ndarray
"""Wall and CPU seconds."""


@dataclass(frozen=True)
class Job:
    """A piece of work, ready to run.

    Attributes:
        run: does it.
        items: units of the whole work.
        share: part of the whole that `run` does; the rest is taken to cost as much a unit.
        estimate: seconds of the whole from the result, where the share does not say it.
        check: facts (numbers, arrays) from the result, to compare and to report; not measured.
        operations: the fewest floating-point operations of the whole; a fact of this name goes before it.
        searched: operations of exact searches beside these, for which products of bytes are enough.
        traffic: the fewest bytes that the whole moves.
    """

    run: Callable[[], Any]
    items: int
    share: float = 1.0
    estimate: Callable[[Any], Seconds] | None = None
    check: Callable[[Any], dict[str, Any]] = lambda _: {}
    operations: float = 0.0
    searched: float = 0.0
    traffic: float = 0.0


def now() -> Seconds:
    """Wall and CPU seconds of this process and its ended children, from some start on."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return np.array([perf_counter(), sum(one.ru_utime + one.ru_stime for one in used)])


def sampled(count: int, most: int) -> np.ndarray:
    """At most so many of `count` positions, evenly spread."""
    return np.linspace(0, count - 1, min(count, most)).astype(np.int64)


def processor() -> str:
    """The processor's name."""
    described = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    return next((line.split(":")[1].strip() for line in described if line.startswith("model name")), platform.machine())
