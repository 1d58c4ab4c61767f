"""How much memory a program has held."""

import resource
import sys
from pathlib import Path

_STATUS = Path("/proc/self/status")
_UNIT = 2**20 if sys.platform == "darwin" else 2**10  # per MiB, of what the system counts in


def peak_memory(children: bool = False) -> float:
    """MiB that this process has held at most, as the system counts it; memory of a GPU is not in it.

    Args:
        children: of the largest process that this one has started and that has ended, 0 for none; no less than this one
            held when it started it, which the system counts for both.
    """
    if not children and _STATUS.is_file():  # what `getrusage` says holds the memory of the one that started this one
        return int(_STATUS.read_text().partition("VmHWM:")[2].split()[0]) / 2**10
    who = resource.RUSAGE_CHILDREN if children else resource.RUSAGE_SELF
    return resource.getrusage(who).ru_maxrss / _UNIT
