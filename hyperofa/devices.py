"""The devices that work is done on, and what they are good at."""

import torch


def best_device() -> torch.device:
    """The GPU if there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def has_fast_bfloat16(device: torch.device) -> bool:
    """Whether a device multiplies matrices in bfloat16 faster than in single precision."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported()
    flags = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    return bool(flags.get("amx_bf16") or flags.get("avx512_bf16"))
