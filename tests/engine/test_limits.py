from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from afi_search.engine.limits import CONTEXT, NoRoom, as_limit, left_to_tensors, limit_gpu

TRIAL = """
import sys
from afi_search.data import load, split
from afi_search.data.tensor_source import padded
from afi_search.engine.capacity import Capacity
from afi_search.engine.trial_worker import TrialConfig, TrialWorker
from afi_search.space import Recipe, SpaceFile
recipe = Recipe(epochs=2, batch_size=int(sys.argv[2]), precision="fp32")
data = padded(split(load("digits"), validation_subset=20), recipe.pad)
worker = TrialWorker.__new__(TrialWorker)
config = {"number": 0, "architecture": "resnet20(B-r16)", "seed": 0}
capacity = Capacity(1, threads=1, gpus=0.0, memory=150_000_000)
worker.setup(config, TrialConfig(SpaceFile(recipe=recipe), sys.argv[1], capacity), data)
print(worker.step())
worker.reset_config(config)
print(bytearray(10) and "the worker lives")
"""


def train(folder: Path, batch: int) -> str:
    done = subprocess.run(
        [sys.executable, "-c", TRIAL, str(folder), str(batch)],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux keeps the limit")
def test_a_trial_that_takes_more_memory_than_its_cap_fails_with_the_reason(tmp_path: Path) -> None:
    said = train(tmp_path, 1000)

    assert "took more than search.memory_per_trial allows (150,000,000 bytes)" in said
    assert "the worker lives" in said


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux keeps the limit")
def test_a_trial_within_its_cap_trains(tmp_path: Path) -> None:
    assert "'accuracies': [" in train(tmp_path, 4)


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 1 byte"),
        RuntimeError("could not create a primitive"),
    ],
)
def test_memory_that_is_refused_is_the_caps_doing_where_there_is_one(error: Exception) -> None:
    assert as_limit(error, None) is None
    assert as_limit(ValueError("another"), 1000) is None
    assert as_limit(error, 1000) == "took more than search.memory_per_trial allows (1,000 bytes)"


@pytest.mark.parametrize(("share", "set_to"), [(0.5, [0.4]), (1.0, []), (0.0, [])])
def test_a_share_of_a_gpu_is_a_share_of_its_memory_with_the_context_in_it(
    monkeypatch: pytest.MonkeyPatch, share: float, set_to: list[float]
) -> None:
    asked: list[float] = []
    gpu = SimpleNamespace(total_memory=10 * CONTEXT)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda index: gpu)
    monkeypatch.setattr(torch.cuda, "set_per_process_memory_fraction", asked.append)
    limit_gpu(share)

    assert asked == pytest.approx(set_to)


def test_a_share_that_a_context_fills_is_told() -> None:
    with pytest.raises(NoRoom, match=r"search.gpus_per_trial: 0.1 of a GPU of 8,000,000,000 bytes"):
        left_to_tensors(0.1, 8 * CONTEXT)
