"""X_i and R in one buffer: the same figures as by separate operations, and less kept."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from afi_search.nn.contract import WIDE
from afi_search.nn.integrate import integrate, literal_sum
from afi_search.nn.join import activate_and_join
from afi_search.nn.source import global_average

CEILINGS = [math.inf, 6.0]
CHANNELS = [WIDE - 1, WIDE]


def ours(before: Tensor, integrated: Tensor, ceiling: float) -> tuple[Tensor, Tensor]:
    joined, source = activate_and_join(before * 1, integrated, ceiling, read_later=True)
    return joined, integrate([source], source.pooled[:, None].sigmoid())


def apart(before: Tensor, integrated: Tensor, ceiling: float) -> tuple[Tensor, Tensor]:
    feature = before.clamp(0, ceiling)
    read = literal_sum([feature], global_average(feature)[:, None].sigmoid())
    return torch.cat((feature, integrated), dim=1), read


def inputs(dtype: torch.dtype, channels: int = WIDE) -> tuple[Tensor, Tensor]:
    before = (4 * torch.randn(2, channels, 3, 2, dtype=dtype)).requires_grad_()
    return before, torch.rand(2, 6, 3, 2, dtype=dtype).requires_grad_()


@pytest.mark.parametrize("ceiling", CEILINGS)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("used", ["both", "joined", "read"])
@pytest.mark.parametrize("channels", CHANNELS)
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_values_and_gradients_are_those_of_separate_operations(
    ceiling, dtype, used, channels, layout
):
    before, integrated = (
        x.detach().to(memory_format=layout).requires_grad_() for x in inputs(dtype, channels)
    )
    results = []
    for operation in (ours, apart):
        outputs = operation(before, integrated, ceiling)
        chosen = {"both": outputs, "joined": outputs[:1], "read": outputs[1:]}[used]
        loss = sum((output * output).sum() for output in chosen)
        gradients = torch.autograd.grad(
            loss, (before, integrated), allow_unused=True, materialize_grads=True
        )
        results.append((*outputs, *gradients))
    rounding = {"rtol": 2e-2, "atol": 5e-2} if dtype == torch.bfloat16 else {}
    for got, wanted in zip(*results, strict=True):
        torch.testing.assert_close(got, wanted, **rounding)


@pytest.mark.parametrize("channels", CHANNELS)
@pytest.mark.parametrize("ceiling", CEILINGS)
def test_gradients_are_those_of_finite_differences(ceiling, channels):
    assert torch.autograd.gradcheck(
        lambda y, r: ours(y, r, ceiling), inputs(torch.float64, channels), fast_mode=True
    )


@pytest.mark.parametrize("channels", CHANNELS)
def test_a_feature_that_nobody_reads_later_has_the_gradient_of_its_own_block(channels):
    before, integrated = inputs(torch.float64, channels)
    joined, source = activate_and_join(before * 1, integrated, 6.0, read_later=False)
    expected, _ = apart(before, integrated, 6.0)
    cotangent = torch.randn_like(expected)

    got = torch.autograd.grad(joined, (before, integrated), cotangent)

    assert source is None
    for one, other in zip(
        got, torch.autograd.grad(expected, (before, integrated), cotangent), strict=True
    ):
        torch.testing.assert_close(one, other)


def test_one_buffer_is_kept_for_the_backward_pass():
    before, integrated = inputs(torch.float32)
    kept = []

    def keep(tensor: Tensor) -> Tensor:
        kept.append(tensor.untyped_storage().data_ptr())
        return tensor

    before, integrated = before * 1, integrated * 1
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        joined, _ = activate_and_join(before, integrated, math.inf, read_later=True)
    assert set(kept) == {joined.untyped_storage().data_ptr()}


def test_without_gradients_the_feature_does_not_hold_the_whole_buffer():
    before, integrated = inputs(torch.float32)
    with torch.no_grad():
        joined, source = activate_and_join(
            before.detach().clone(), integrated, math.inf, read_later=True
        )
    assert torch.equal(joined, apart(before, integrated, math.inf)[0])
    feature = source.feature
    assert feature.untyped_storage().nbytes() == 4 * feature.numel()
