"""Processes: who is the first of a job, and who ends with whom."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from hyperofa.runtime.processes import is_first_process, tied_to_this_process
from tests.conftest import CONFIGS, contents

PARENT = """
import subprocess, sys, time
from hyperofa.runtime.processes import tied_to_this_process
child = subprocess.Popen(tied_to_this_process(["sleep", "60"]))
print(child.pid, flush=True)
time.sleep(60)
"""


def program_of(pid: int) -> str:
    """What a process runs; empty if it has ended, also if nobody has asked for how it ended."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().partition(b"\0")[0].decode()
    except (FileNotFoundError, ProcessLookupError):
        return ""


def wait_for(condition) -> bool:
    return any(condition() or time.sleep(0.05) for _ in range(200))


@pytest.mark.skipif(sys.platform != "linux", reason="other systems make no such promise")
def test_a_child_ends_with_its_parent_however_that_ends():
    parent = subprocess.Popen([sys.executable, "-c", PARENT], stdout=subprocess.PIPE, text=True)
    child = int(parent.stdout.readline())
    assert wait_for(lambda: program_of(child) == "sleep")
    os.kill(parent.pid, signal.SIGKILL)
    parent.wait()
    assert wait_for(lambda: program_of(child) == "")
    parent.stdout.close()


def test_a_tied_command_runs_as_it_would_alone(tmp_path):
    command = [sys.executable, "-c", "import sys; print(sys.argv[1:], flush=True); sys.exit(3)", "a b", "--c"]
    done = subprocess.run(tied_to_this_process(command), stdout=subprocess.PIPE, text=True)
    assert (done.returncode, done.stdout) == (3, "['a b', '--c']\n")


def test_the_first_process_of_a_job(monkeypatch):
    for name in ("RANK", "LOCAL_RANK", "SLURM_PROCID", "JSM_NAMESPACE_RANK"):
        monkeypatch.delenv(name, raising=False)
    assert is_first_process()
    monkeypatch.setenv("SLURM_PROCID", "1")
    assert not is_first_process()
    monkeypatch.setenv("RANK", "0")
    assert is_first_process()


@pytest.mark.slow
def test_torchrun_makes_a_group(tmp_path):
    script = tmp_path / "group.py"
    script.write_text(
        "from pathlib import Path\n"
        "from hyperofa.runtime.processes import process_group\n"
        "with process_group() as group:\n"
        "    Path(f'{group.rank} of {group.size}').touch()\n",
        encoding="utf-8",
    )
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", str(script)]
    environment = os.environ | {"PYTHONPATH": str(CONFIGS.parent), "OMP_NUM_THREADS": "1"}
    subprocess.run(launch, check=True, cwd=tmp_path, env=environment, timeout=120, capture_output=True)
    assert contents(tmp_path) == ["0 of 2", "1 of 2", "group.py"]
