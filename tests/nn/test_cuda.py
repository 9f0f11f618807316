"""The Triton kernels: by the interpreter anywhere, against the CPU's path where there is CUDA."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from afi_search.nn.ops import contractions
from afi_search.nn.ops.contractions import channel_dots, weighted_sum

ROOT = Path(__file__).parents[2]


def test_interpreted_kernels_are_the_written_out_sums():
    pytest.importorskip("triton")
    environment = {**os.environ, "TRITON_INTERPRET": "1", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "tests.nn.interpreted"]

    done = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True)

    assert done.returncode == 0, done.stderr


def test_where_triton_cannot_run_one_warning_says_so(monkeypatch):
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("Failed to find C compiler")

    monkeypatch.setattr(torch, "ones", fail)
    contractions._cuda.cache_clear()
    with pytest.warns(UserWarning, match="needs gcc .*Failed to find C compiler") as told:
        assert contractions._cuda() is None
        assert contractions._cuda() is None

    assert len(told) == 1
    contractions._cuda.cache_clear()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("count", [1, 3, 17])
@pytest.mark.parametrize("channels", [8, 32, 256])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
def test_on_cuda_the_contractions_are_those_of_the_cpu(count, channels, dtype):
    made = [torch.randn(4, channels, 8, 8, dtype=torch.float64).to(dtype) for _ in range(count)]
    xs = [x.to(memory_format=torch.channels_last) for x in made]
    weights = torch.rand(4, count, channels, dtype=torch.promote_types(dtype, torch.float32))
    there = [x.cuda() for x in xs]

    total = weighted_sum(there, weights.cuda().unbind(1))
    dots = channel_dots(there[0], there)

    torch.testing.assert_close(total.cpu(), weighted_sum(xs, weights.unbind(1)))
    torch.testing.assert_close(dots.cpu(), channel_dots(xs[0], xs), rtol=1e-4, atol=1e-4)
