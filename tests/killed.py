"""Run a command of the package again and again, killed at random moments, until it ends by itself.

    python killed.py SEED KILLS LONGEST MADE COMMAND...

Each attempt is a process forked from this one, which has imported everything, and dies by SIGKILL within LONGEST
seconds, the first ones soonest. MADE is there when the command has done its work, and not before: a kill after that
is its end. Shards and the distance between two notes of progress are small, so that there is
something to go on from. Says for each kill after how many seconds it came.
"""

import os
import random
import signal
import sys
import time
from pathlib import Path

import hyperofa.bundle.pooling
import hyperofa.export.prediction
import hyperofa.methods.baselines
import hyperofa.vectors.store
from hyperofa.cli import main

hyperofa.bundle.pooling.SHARD = 300
hyperofa.vectors.store.CHECKPOINT = 500
hyperofa.export.prediction.SHARD = hyperofa.methods.baselines.SHARD = 32


def attempt(command: list[str]) -> int:
    sys.stdout.flush()
    child = os.fork()
    if child == 0:
        sys.argv = ["hyperofa", *command]
        main()
        os._exit(0)
    return child


def patient(child: int, seconds: float) -> int | None:
    """The exit status of a child, `None` if it had to be killed."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.005)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return None


def run(seed: int, kills: int, longest: float, made: Path, command: list[str]) -> int:
    draw = random.Random(seed)
    for seconds in sorted(longest * 0.02 ** draw.random() for _ in range(kills)):
        status = patient(attempt(command), seconds)
        if status is not None:
            sys.stdout.write(f"ended before {seconds:.2f} s\n")
            return status
        sys.stdout.write(f"killed after {seconds:.2f} s\n")
        if made.exists():
            return 0
    status = patient(attempt(command), 300)
    return -1 if status is None else status


if __name__ == "__main__":
    sys.exit(run(int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]), Path(sys.argv[4]), sys.argv[5:]))
