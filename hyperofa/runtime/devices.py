"""The devices that work is done on, and what they are good at."""

from functools import cache

import torch


def best_device() -> torch.device:
    """The GPU if there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def has_fast_bfloat16(device: torch.device) -> bool:
    """Whether a device multiplies matrices in bfloat16 faster than in single precision."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported()
    return _has("amx_bf16", "avx512_bf16")


@cache
def has_fast_bytes() -> bool:
    """Whether the CPU multiplies matrices of 8-bit integers faster than any others, and rightly.

    Without instructions for it (VNNI), sums saturate: PyTorch issue 136746.
    """
    if not (hasattr(torch, "_int_mm") and _has("amx_int8", "avx512_vnni")):
        return False
    largest = torch.full((32, 64), 127, dtype=torch.int8)
    return bool((torch._int_mm(largest, -largest.T) == -64 * 127**2).all())


def _has(*instructions: str) -> bool:
    """Whether the CPU has any of these instructions, as far as torch can say."""
    flags = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    return any(flags.get(name) for name in instructions)
