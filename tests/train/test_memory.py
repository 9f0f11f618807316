from __future__ import annotations

import subprocess
import sys

import pytest

STEPS = """
import resource, sys, torch
from afi_search.train import keep_freed_memory

torch.set_num_threads(1)
if sys.argv[1] == "kept":
    keep_freed_memory()

def step():
    features = [torch.ones(size, dtype=torch.uint8) for size in (5 << 20, 50 << 20, 20 << 20)]
    return sum(int(feature[-1]) for feature in features)

def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

for _ in range(3):
    step()
counts = []
for _ in range(4):
    before = faults()
    step()
    counts.append(faults() - before)
print(min(counts))  # the kernel may take pages back at any time
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="is for glibc")
def test_a_step_finds_the_memory_that_the_last_one_freed():
    def faults(how: str) -> int:
        command = [sys.executable, "-c", STEPS, how]
        return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)

    returned, kept = faults("returned"), faults("kept")
    assert returned > 5000  # pages of 4096 bytes; a step touches 19,200
    assert kept < returned / 20
