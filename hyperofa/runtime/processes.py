"""One job in several processes: which of them this is, what it does, and how they wait for each other.

`torchrun --nproc-per-node N -m hyperofa prepare …` starts N on one machine; more machines share the output folder.
"""

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeVar

T = TypeVar("T")
_RANK_VARIABLES = ("RANK", "LOCAL_RANK", "SLURM_PROCID", "JSM_NAMESPACE_RANK")  # in the order that Lightning asks them
_NO_BARS = "TQDM_DISABLE"
_PATIENCE = timedelta(days=1)  # one process may work alone for hours while the others wait


@dataclass(frozen=True)
class ProcessGroup:
    """This process among `size` processes; a process of its own is the first of one."""

    rank: int = 0
    size: int = 1

    @property
    def first(self) -> bool:
        """Whether this process does what only one may do."""
        return self.rank == 0

    def mine(self, parts: Sequence[T]) -> Sequence[T]:
        """Every `size`-th part; all of them over the processes, none twice."""
        return parts[self.rank :: self.size]

    def wait(self) -> None:
        """Until all processes are here."""
        if self.size > 1:
            from torch import distributed

            distributed.barrier()


SINGLE_PROCESS = ProcessGroup()


@contextmanager
def process_group() -> Iterator[ProcessGroup]:
    """The processes that `torchrun` started together; this one alone where it did not.

    Each takes the GPU of its number on its machine, if there are GPUs.
    """
    if "TORCHELASTIC_RUN_ID" not in os.environ or int(os.environ["WORLD_SIZE"]) == 1:
        yield SINGLE_PROCESS
        return

    import torch
    from torch import distributed

    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]) % torch.cuda.device_count())
    distributed.init_process_group("gloo", timeout=_PATIENCE)
    try:
        yield ProcessGroup(distributed.get_rank(), distributed.get_world_size())
    finally:
        distributed.destroy_process_group()


def is_first_process() -> bool:
    """Whether this is the first process of its job, whoever started the job; known before a trainer is made."""
    ranks = (os.environ.get(name) for name in _RANK_VARIABLES)
    return int(next((rank for rank in ranks if rank is not None), 0)) == 0


@contextmanager
def bars_on_terminals() -> Iterator[None]:
    """Within this block, draw progress bars on a terminal alone: in a log file each step of them would be a line.

    TQDM_DISABLE=0 draws them all the same. Libraries look at it when they are first imported.
    """
    if sys.stderr.isatty() or _NO_BARS in os.environ:
        yield
        return
    os.environ[_NO_BARS] = "1"
    try:
        yield
    finally:
        os.environ.pop(_NO_BARS, None)


def bar_hidden(silent: bool = False) -> bool:
    """Whether to show no progress bar; tqdm heeds TQDM_DISABLE only where nothing else is said.

    Args:
        silent: show none in any case.
    """
    return silent or os.environ.get(_NO_BARS, "0") not in ("", "0")


# The child asks for itself: code that runs between fork and exec in a parent with threads may never end.
_TIE = """
import ctypes, os, signal, sys
ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG, which stays when another program takes over
if os.getppid() == int(sys.argv[1]):  # else it was too late
    os.execvp(sys.argv[2], sys.argv[2:])
"""


def tied_to_this_process(command: Sequence[str]) -> list[str]:
    """A command whose process the system kills when the thread that starts it ends; where that is not Linux, as it is.

    Args:
        command: program and arguments.
    """
    if sys.platform != "linux":
        return list(command)
    return [sys.executable, "-I", "-S", "-c", _TIE, str(os.getpid()), *command]
