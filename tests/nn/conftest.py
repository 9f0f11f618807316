import pytest
import torch

from afi_search.nn.ops import cpu


@pytest.fixture(autouse=True)
def fixed_seed() -> None:
    torch.manual_seed(0)


@pytest.fixture(params=["native", "vectorised"])
def way(request, monkeypatch) -> str:
    """By which functions a CPU does what AFI adds: those of cpu.cpp, or torch's own."""
    if request.param == "vectorised":
        monkeypatch.setattr(cpu, "library", lambda: None)
    elif cpu.library() is None:
        pytest.skip("needs a C++ compiler")
    return request.param
