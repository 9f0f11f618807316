"""X_i and R in one buffer: the same figures as by separate operations, and less kept."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from afi_search.nn.contract import WIDE
from afi_search.nn.join import activate_and_join

CEILINGS = [math.inf, 6.0]
CHANNELS = [WIDE - 1, WIDE]


def apart(before: Tensor, integrated: Tensor, ceiling: float) -> tuple[Tensor, Tensor]:
    feature = before.clamp(0, ceiling)
    return torch.cat((feature, integrated), dim=1), feature


def inputs(dtype: torch.dtype, channels: int = WIDE) -> tuple[Tensor, Tensor]:
    before = (4 * torch.randn(2, channels, 3, 2, dtype=dtype)).requires_grad_()
    return before, torch.rand(2, 6, 3, 2, dtype=dtype).requires_grad_()


@pytest.mark.parametrize("ceiling", CEILINGS)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("used", ["both", "joined", "feature"])
@pytest.mark.parametrize("channels", CHANNELS)
def test_values_and_gradients_are_those_of_separate_operations(ceiling, dtype, used, channels):
    before, integrated = inputs(dtype, channels)
    results = []
    for operation in (activate_and_join, apart):
        outputs = operation(before * 1, integrated, ceiling)
        chosen = {"both": outputs, "joined": outputs[:1], "feature": outputs[1:]}[used]
        loss = sum((output * output).sum() for output in chosen)
        gradients = torch.autograd.grad(loss, (before, integrated), allow_unused=True)
        results.append((*outputs, *gradients))
    for ours, theirs in zip(*results, strict=True):
        if ours is None or theirs is None:
            assert theirs is None or not theirs.any()
        else:
            torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("ceiling", CEILINGS)
def test_gradients_are_those_of_finite_differences(ceiling):
    before, integrated = inputs(torch.float64)
    assert torch.autograd.gradcheck(
        lambda y, r: activate_and_join(y * 1, r, ceiling), (before, integrated)
    )


def test_one_buffer_is_kept_for_the_backward_pass():
    before, integrated = inputs(torch.float32)
    kept = []

    def keep(tensor: Tensor) -> Tensor:
        kept.append(tensor.untyped_storage().data_ptr())
        return tensor

    before, integrated = before * 1, integrated * 1
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        joined, feature = activate_and_join(before, integrated, math.inf)
        (feature * feature).sum()
    assert set(kept) == {joined.untyped_storage().data_ptr()}


def test_without_gradients_the_feature_does_not_hold_the_whole_buffer():
    before, integrated = inputs(torch.float32)
    with torch.no_grad():
        joined, feature = activate_and_join(before.detach().clone(), integrated, math.inf)
    assert torch.equal(joined, apart(before, integrated, math.inf)[0])
    assert feature.untyped_storage().nbytes() == 4 * feature.numel()
