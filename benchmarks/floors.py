"""What this machine can do at most: matrix products and memory traffic a second, measured."""

from collections.abc import Callable
from time import perf_counter, process_time
from typing import Any

import torch

from hyperofa.runtime.devices import has_fast_bfloat16, has_fast_bytes

SIDE = {"cpu": 2048, "cuda": 8192}
EMULATED_SIDE = 256  # a CPU without instructions for a type takes minutes for what takes others a second
TRAFFIC = {"cpu": 2**28, "cuda": 2**31}  # bytes: many times the last cache
REPEATS = 3


def measure_rates(device: str = "cpu") -> dict[str, float]:
    """Operations a second of the best of a few square matrix products by type, bytes a second read and copied."""
    rates, traffic = {}, TRAFFIC[device]
    for dtype in (torch.float32, torch.float64, torch.bfloat16):
        emulated = dtype == torch.bfloat16 and not has_fast_bfloat16(torch.device(device))
        side = EMULATED_SIDE if emulated else SIDE[device]
        one, other, product = (torch.randn(side, side, device=device).to(dtype) for _ in range(3))
        rates[str(dtype).removeprefix("torch.")] = 2 * side**3 / _best(torch.mm, one, other, out=product)
    if device == "cpu" and has_fast_bytes():
        side = SIDE[device]
        one, other = (torch.randint(-127, 128, (side, side), dtype=torch.int8) for _ in range(2))
        product = torch.empty(side, side, dtype=torch.int32)
        rates["int8"] = 2 * side**3 / _best(torch._int_mm, one, other, out=product)
    numbers, copy = torch.ones(2, traffic // 4, device=device)
    rates["read"] = traffic / _best(torch.sum, numbers)
    rates["copied"] = traffic / _best(copy.copy_, numbers)
    return rates


def clock() -> float:
    """Seconds of the wall clock; of one thread its own, of which other work on the machine takes nothing."""
    one = torch.get_num_threads() == 1 and not torch.cuda.is_available()
    return process_time() if one else perf_counter()


def wait() -> None:
    """Until a GPU, if there is one, has done all it was given."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def _best(work: Callable[..., Any], *arguments: Any, **named: Any) -> float:
    seconds = []
    for _ in range(REPEATS):
        wait()
        start = clock()
        work(*arguments, **named)
        wait()
        seconds.append(clock() - start)
    return min(seconds)
