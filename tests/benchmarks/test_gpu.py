"""The GPU's benchmark runs, with tiny sizes, where there is no GPU: loans are short."""

from __future__ import annotations

import pytest
import torch

from benchmarks import gpu


@pytest.mark.skipif(torch.cuda.is_available(), reason="takes minutes on a GPU")
@pytest.mark.parametrize(
    "part",
    [pytest.param(part, marks=[pytest.mark.slow] * (part == "promotion")) for part in gpu.PARTS],
)
def test_every_part_runs_where_there_is_no_gpu(part, monkeypatch):
    told = []
    monkeypatch.setattr(gpu, "tell", lambda *what, **of: told.append(what))

    gpu.PARTS[part](2 if part == "steps" else 1)

    assert all(value >= 0 for _, _, value, *_ in told)
    assert told or part in ("compiling", "sharing")
