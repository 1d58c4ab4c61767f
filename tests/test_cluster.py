"""The SLURM script: what each of its steps asks srun for, and that a finished stage is left alone."""

import os
import shlex
import subprocess
from itertools import pairwise
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / "configs" / "cluster.sbatch"
# As srun, it says what it is given, and makes what the command would write.
SRUN = """#!/usr/bin/env bash
printf '%q ' "$@" >> "$STEPS"; echo >> "$STEPS"
for word; do
  [ "$before" != --output ] || mkdir -p "$word"
  if [ "$before" = --trainer.logger.init_args.save_dir ]; then
    mkdir -p "$word/fit/run/checkpoints"
    touch "$word/fit/run/checkpoints/best.ckpt"
  fi
  before=$word
done
"""


@pytest.fixture
def submit(tmp_path):
    """Run the script as a job of two nodes with four tasks of eight CPUs each; the words of its steps."""
    for name, text in {"srun": SRUN, "scontrol": "#!/bin/sh\necho first\nseq 100000\n"}.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
        (tmp_path / name).chmod(0o755)
    variables = {
        "PATH": f"{tmp_path}:{os.environ['PATH']}", "STEPS": str(tmp_path / "steps"), "OUTPUT": str(tmp_path / "out"),
        "SLURM_JOB_ID": "7", "SLURM_JOB_NODELIST": "n[1-2]", "SLURM_NNODES": "2", "SLURM_NTASKS_PER_NODE": "4",
        "SLURM_CPUS_PER_TASK": "8",
    }  # fmt: skip

    def run() -> list[list[str]]:
        steps = tmp_path / "steps"
        steps.write_text("", encoding="utf-8")
        subprocess.run(["bash", SCRIPT], env=os.environ | variables, check=True, timeout=60)
        return [shlex.split(line) for line in steps.read_text(encoding="utf-8").splitlines()]

    return run


def test_each_step_has_the_tasks_and_cpus_that_it_needs(submit):
    prepare, fit, hyperofa, ofa = submit()
    for step, command in ((prepare, "prepare"), (hyperofa, "export"), (ofa, "export")):
        # A torchrun a node, which has all of its CPUs: SLURM would otherwise start one for each of the job's tasks.
        assert step[:6] == ["--ntasks", "2", "--ntasks-per-node", "1", "--cpus-per-task", "32"]
        assert step[step.index("hyperofa") + 1] == command
        assert {"--nnodes 2", "--nproc-per-node 4", "--rdzv-endpoint first:29500"} <= {
            " ".join(pair) for pair in pairwise(step)
        }
    assert fit[:4] == ["--cpus-per-task", "8", "hyperofa", "fit"]
    assert ofa[ofa.index("--method") + 1] == "ofa_tuned"
    assert hyperofa[hyperofa.index("--checkpoint") + 1].endswith("fit/run/checkpoints/best.ckpt")


def test_submitted_again_it_does_what_is_left(submit, tmp_path):
    submit()
    assert submit() == []
    (tmp_path / "out" / "ofa_tuned").rmdir()
    (tmp_path / "out" / "fit" / "run" / ".unfinished").touch()
    assert [step[step.index("hyperofa") + 1] for step in submit()] == ["fit", "export"]
