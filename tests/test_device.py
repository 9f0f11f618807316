from __future__ import annotations

import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from afi_search import device
from afi_search.device import UnusableGpu, compute_device, require_usable_gpu, seed_everything


@pytest.fixture
def a_gpu_without_a_driver(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def fail() -> None:
        raise RuntimeError("The NVIDIA driver on your system is too old (found version 11040).\n..")

    (tmp_path / "nvidia0").touch()
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(device, "_DEVICES", tmp_path)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "init", fail)


def test_a_gpu_that_cannot_be_used_is_told_with_the_reason(a_gpu_without_a_driver: None) -> None:
    with pytest.raises(UnusableGpu, match=r"cannot use it: The NVIDIA driver .* \(found .*\)\.; "):
        require_usable_gpu()
    with pytest.raises(UnusableGpu, match="is booked and cannot be used: The NVIDIA driver"):
        compute_device(booked=True)


def test_what_is_hidden_or_not_there_is_not_missed(
    a_gpu_without_a_driver: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert compute_device() == torch.device("cpu")
    with monkeypatch.context() as hidden:
        hidden.setenv("CUDA_VISIBLE_DEVICES", "")
        require_usable_gpu()
    (tmp_path / "nvidia0").unlink()
    require_usable_gpu()


def draw() -> tuple[float, float, float]:
    return random.random(), float(np.random.rand()), torch.rand(()).item()


def test_the_seed_decides_all_three_generators():
    seed_everything(2**40 + 3)
    first = draw()
    seed_everything(2**40 + 3)
    assert draw() == first
    seed_everything(4)
    assert all(a != b for a, b in zip(draw(), first, strict=True))


STEPS = """
import resource, sys, torch
from afi_search.device import keep_freed_memory

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
