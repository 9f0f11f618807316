from __future__ import annotations

from pathlib import Path

import pytest
import torch

from afi_search import device
from afi_search.device import UnusableGpu, compute_device, require_usable_gpu


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
