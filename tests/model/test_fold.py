from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from afi_search.model.fold import fold_batch_norms
from afi_search.model.model import load
from tests.pictures import noise, trained
from tests.typed import part, there


@pytest.mark.parametrize(
    "text",
    [
        "resnet20(base-r4, off, B-r16-cbam)",
        "mobilenetv2(B-r16)",
        "shufflenetv2(base-r4)",
        "resnext29(base-r4-ge)",
    ],
)
def test_folding_changes_the_modules_and_not_the_logits(text: str) -> None:
    module = trained(text).module
    folded = fold_batch_norms(module, 32)
    with torch.no_grad():
        expected, got = (part.double()(noise(2, 32).double()) for part in (module, folded))

    assert torch.allclose(got, expected, rtol=1e-4, atol=1e-4 * expected.abs().max().item())
    assert not any(isinstance(part, nn.BatchNorm2d) for part in folded.modules())
    assert any(isinstance(part, nn.BatchNorm2d) for part in module.modules())


def test_a_folded_model_is_saved_and_loaded_as_such(tmp_path: Path) -> None:
    folded = trained("resnet20(base-r4)").folded()
    folded.save(tmp_path)
    loaded = load(tmp_path)

    assert loaded.facts.batch_norms == "folded"
    assert torch.equal(loaded(noise(2, 32)), folded(noise(2, 32)))
    assert loaded.folded() is loaded


def test_a_norm_without_a_convolution_before_it_stays() -> None:
    module = nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU(), nn.BatchNorm2d(4), nn.Conv2d(4, 4, 1))
    nn.init.normal_(there(part(module, "2", nn.BatchNorm2d).running_mean))
    folded = fold_batch_norms(module, 4)

    assert isinstance(folded.get_submodule("2"), nn.BatchNorm2d)
    assert torch.equal(folded(noise(2, 4)), module.eval()(noise(2, 4)))


def test_a_convolution_that_runs_twice_stays() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 3, 1)
            self.norms = nn.ModuleList((nn.BatchNorm2d(3), nn.BatchNorm2d(3)))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            for norm in self.norms:
                x = norm(self.conv(x))
            return x

    module = Twice()
    folded = fold_batch_norms(module, 4)

    assert all(isinstance(norm, nn.BatchNorm2d) for norm in part(folded, "norms", nn.ModuleList))
    assert torch.equal(folded(noise(2, 4)), module.eval()(noise(2, 4)))
