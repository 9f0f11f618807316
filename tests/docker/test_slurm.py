"""Slurm's script, with a stand-in for srun that starts each machine's process on this one."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from afi_search.study import Ledger

SCRIPT = Path(__file__).parents[2] / "docker" / "slurm.sh"
SRUN = """#!/bin/bash
for id in $(seq 0 $((SLURM_JOB_NUM_NODES - 1))); do SLURM_NODEID=$id "$@" & done
trap 'kill $(jobs -p)' TERM
wait
"""
SPACE = """
backbone: resnet20
stages: {all: {width: [off, base], ratio: [4]}}
data: {name: digits, train_subset: 64, validation_subset: 40}
recipe: {epochs: 300, batch_size: 32}
search: {trials: 2}
"""


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_job_of_two_machines_trains_on_both_and_ends_cleanly(tmp_path: Path) -> None:
    programs = tmp_path / "programs"
    programs.mkdir()
    (programs / "srun").write_text(SRUN)
    (programs / "srun").chmod(0o755)
    (tmp_path / "tiny.yaml").write_text(SPACE)
    environment = os.environ | {
        "PATH": os.pathsep.join(
            (str(programs), str(Path(sys.executable).parent), os.environ["PATH"])
        ),
        "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
        "SLURM_JOB_ID": str(os.getpid()),
        "SLURM_JOB_NUM_NODES": "2",
        "SLURM_CPUS_PER_TASK": "1",
    }
    log = tmp_path / "slurm.out"
    with log.open("w") as output:
        job = subprocess.Popen(
            ["bash", SCRIPT, "tiny.yaml"],
            cwd=tmp_path,
            env=environment,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        while not re.search(r"trial 1 .* epoch [2-9]/300", log.read_text()):
            assert job.poll() is None, log.read_text()
            time.sleep(0.5)
        job.terminate()
        assert job.wait(120) == 130, log.read_text()
    finally:
        os.killpg(job.pid, 15)  # as Slurm ends what a job has left

    assert "Trials at a time: 2, each with 1 CPU core" in log.read_text()
    assert set(Ledger.open(tmp_path / "studies" / "resnet20-digits").records()["state"]) == {
        "waiting"
    }
    assert not list(tmp_path.glob(".ray-token-*"))
