"""What this machine can do at most: matrix products and memory traffic a second, measured."""

from collections.abc import Callable
from time import perf_counter
from typing import Any

import torch

SIDE = 2048
TRAFFIC = 2**28  # bytes: eight times the last cache of a server
REPEATS = 3


def measure_rates() -> dict[str, float]:
    """Operations a second of the best of a few square matrix products by type, bytes a second read and copied."""
    rates = {}
    for dtype in (torch.float32, torch.float64, torch.bfloat16):
        one, other, product = (torch.randn(SIDE, SIDE).to(dtype) for _ in range(3))
        rates[str(dtype).removeprefix("torch.")] = 2 * SIDE**3 / _best(torch.mm, one, other, out=product)
    numbers, copy = torch.ones(2, TRAFFIC // 4)
    rates["read"] = TRAFFIC / _best(torch.sum, numbers)
    rates["copied"] = TRAFFIC / _best(copy.copy_, numbers)
    return rates


def _best(work: Callable[..., Any], *arguments: Any, **named: Any) -> float:
    seconds = []
    for _ in range(REPEATS):
        start = perf_counter()
        work(*arguments, **named)
        seconds.append(perf_counter() - start)
    return min(seconds)
