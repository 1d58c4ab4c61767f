"""The word vectors that a stage needs, on the device that the net runs on: a batch then brings their indices alone."""

from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor

from hyperofa.errors import InputError
from hyperofa.training.word_sets import WordSetTable

Placement = Literal["auto", "device", "stream"]
SHARE = 0.5
"""Of the device's free memory, what word vectors may take of it."""

_BLOCK = 65_536  # words read at a time


def load_table(
    tables: Sequence[WordSetTable], residence: Placement, device: torch.device, dtype: torch.dtype = torch.float16
) -> Tensor:
    """Lay the vectors of all words that the tokens show on a device; the tables then give indices in it.

    Half precision, since a gather costs what it reads. float16, not bfloat16: numbers of vectors of length 1 lie in the
    range of both, and float16 keeps three more bits of them. Vectors beyond its range stay in the bundle.

    Args:
        tables: of the sides that a stage reads; of one bundle, and with the same choice of words.
        residence: `device`: lay them there; `auto`: where that is a GPU with room (`SHARE`); `stream`: read
            them from the bundle, batch by batch.
        device: of the net.
        dtype: of the vectors.

    Returns:
        `(R + 1, d)`: a zero row for padding, then the R words. R is 0 where the vectors stay in the bundle.

    Raises:
        InputError: no room for them where `device` is what was asked for.
    """
    width = tables[0].word_dim
    nothing = torch.zeros((1, width), dtype=dtype)
    if residence == "stream" or (residence == "auto" and device.type != "cuda"):
        return nothing
    needed = np.logical_or.reduce([table.needed() for table in tables])
    words = np.flatnonzero(needed)
    size, free = (1 + len(words)) * width * dtype.itemsize, free_memory(device)
    if residence == "device" and size > free:
        raise InputError(
            f"--data.word_table device: expected {size / 2**30:.1f} GiB of free memory on {device}, found "
            f"{free / 2**30:.1f}; give auto or stream"
        )
    if residence == "auto" and size > SHARE * free:
        _say(f"{size / 2**30:.1f} GiB would take more than {SHARE:.0%} of the free memory of {device}")
        return nothing
    vectors = torch.empty((1 + len(words), width), dtype=dtype, device=device)
    vectors[0] = 0
    for start in range(0, len(words), _BLOCK):
        block = tables[0].read(words[start : start + _BLOCK])
        if np.abs(block).max() > torch.finfo(dtype).max:
            _say(f"some are beyond the range of {dtype}")
            return nothing
        vectors[1 + start : 1 + start + len(block)] = torch.from_numpy(block).to(dtype)
    indices = np.cumsum(needed, dtype=np.int32)
    for table in tables:
        table.use_table(indices)
    return vectors


def free_memory(device: torch.device) -> float:
    """Bytes that are free on a GPU; no limit elsewhere."""
    return float(torch.cuda.mem_get_info(device)[0]) if device.type == "cuda" else float("inf")


def _say(reason: str) -> None:
    rank_zero_info(f"Word vectors are read from the bundle batch by batch: {reason}.")
