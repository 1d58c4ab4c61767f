"""Work in processes forked from the tests' own, which has imported everything: to be killed, or to share a job."""

import faulthandler
import os
import random
import signal
import socket
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path

from tqdm.std import TqdmDefaultWriteLock

PATIENCE = 600
"""Seconds after which a process counts as stuck: on a machine that has much else to do, what is quick takes minutes."""


def start(work: Callable[[], object], folder: Path, **environment: str) -> int:
    """Fork a process that works in a folder; what it says goes to `said.txt` beside that. Its number."""
    sys.stdout.flush()
    child = os.fork()
    if child:
        return child
    status = 1
    try:
        os.chdir(folder)
        os.environ.update(environment)
        said = os.open(folder.with_name("said.txt"), os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        for number, name in ((1, "stdout"), (2, "stderr")):
            os.dup2(said, number)
            setattr(sys, name, os.fdopen(number, "w", encoding="utf-8", closefd=False))
        # The lock of bars is one of all processes, and one that is killed keeps it.
        TqdmDefaultWriteLock.acquire = TqdmDefaultWriteLock.release = lambda *_, **__: None
        faulthandler.dump_traceback_later(PATIENCE, exit=True)
        work()
        status = 0
    except SystemExit as end:
        status = end.code or 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def wait(child: int, seconds: float = PATIENCE + 60) -> int | None:
    """The exit status of a child, `None` if it had to be killed."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.002)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return None


def kill_when(made: Callable[[], object], child: int, folder: Path) -> None:
    """Kill a process as soon as something is made, which it must be before it ends by itself."""
    while not made():
        assert os.waitpid(child, os.WNOHANG)[0] == 0, folder.with_name("said.txt").read_text(encoding="utf-8")[-2000:]
        time.sleep(0.01)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)


def run(work: Callable[[], object], folder: Path, processes: int = 1) -> float:
    """Work in a folder to its end, in processes that know of each other as torchrun's do. Seconds that it took."""
    folder.mkdir(parents=True, exist_ok=True)
    begin = time.monotonic()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        group = {"TORCHELASTIC_RUN_ID": "test", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1])}
    ranks = [{"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(processes)} for rank in range(processes)]
    children = [start(work, folder, **({**group, **rank} if processes > 1 else {})) for rank in ranks]
    statuses = [wait(child) for child in children]
    assert statuses == [0] * processes, folder.with_name("said.txt").read_text(encoding="utf-8")[-2000:]
    return time.monotonic() - begin


def run_killed(
    work: Callable[[], object], folder: Path, made: Callable[[], bool], seconds: float, kills: int, seed: int
) -> int:
    """Work again and again, killed at random moments, the soonest first, until it ends by itself.

    Args:
        work: what each process does.
        folder: where.
        made: whether the work is done: a kill after that is its end.
        seconds: that it takes if left alone; the latest kill is then.
        kills: at most.
        seed: of their moments.

    Returns:
        How many processes were killed.
    """
    folder.mkdir(parents=True, exist_ok=True)
    draw = random.Random(seed)
    moments = sorted(seconds * 0.02 ** draw.random() for _ in range(kills))
    for number, moment in enumerate(moments):
        status = wait(start(work, folder), moment)
        if status is not None or made():
            assert not status, folder.with_name("said.txt").read_text(encoding="utf-8")[-2000:]
            return number + (status is None)
    run(work, folder)
    return kills
