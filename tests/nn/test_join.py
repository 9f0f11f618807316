"""X_i and R in one buffer: the same figures as by separate operations, and less kept."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from afi_search.nn.ops.integrate import Reading, integrate, literal_sum
from afi_search.nn.ops.join import Joined, activate_and_join, integrate_and_join
from afi_search.nn.ops.source import global_average, pool
from afi_search.nn.ops.weighted_sum import WIDE

CEILINGS = [math.inf, 6.0]
CHANNELS = [3, 16, WIDE]
LAYOUTS = [torch.contiguous_format, torch.channels_last]
DTYPES = [torch.float64, torch.float32, torch.bfloat16]


def inputs(dtype: torch.dtype, channels: int, layout: torch.memory_format) -> list[Tensor]:
    """Return X_2 before its activation, X_1, and R or what becomes of it by attention."""
    made = [4 * torch.randn(2, channels, 9, 8, dtype=torch.float64) for _ in range(3)]
    return [x.to(dtype).to(memory_format=layout).requires_grad_() for x in made]


def scale(pooled: Tensor) -> Tensor:
    return pooled[:, None].sigmoid()


def read_again(joined: Joined) -> Tensor:
    """Return what a later block reads of X and of R."""
    assert joined.source is not None
    weights = torch.cat((scale(joined.source.pooled), scale(joined.source.pooled + 1)), dim=1)
    return integrate(Reading((joined.source.lent, joined.integrated), weights))[0]


def ours(before: Tensor, first: Tensor, ceiling: float) -> tuple[Tensor, Tensor]:
    source = pool(first)
    reading = Reading((source.lent,), scale(source.pooled))
    joined = integrate_and_join(before * 1, reading, ceiling, read_later=True)
    return joined.both, read_again(joined)


def apart(before: Tensor, first: Tensor, ceiling: float) -> tuple[Tensor, Tensor]:
    feature = before.clamp(0, ceiling)
    integrated = literal_sum([first], scale(global_average(first)))
    pooled = global_average(feature)
    weights = torch.cat((scale(pooled), scale(pooled + 1)), dim=1)
    return torch.cat((feature, integrated), dim=1), literal_sum([feature, integrated], weights)


def ours_with_attention(before: Tensor, given: Tensor, ceiling: float) -> tuple[Tensor, Tensor]:
    joined = activate_and_join(before * 1, given * 1, ceiling, read_later=True)
    assert joined.source is not None
    weights = scale(joined.source.pooled)
    return joined.both, integrate(Reading((joined.source.lent,), weights))[0]


def apart_with_attention(before: Tensor, given: Tensor, ceiling: float) -> tuple[Tensor, Tensor]:
    feature = before.clamp(0, ceiling)
    read = literal_sum([feature], scale(global_average(feature)))
    return torch.cat((feature, given), dim=1), read


WAYS_TO_JOIN = {
    "integrated": (ours, apart),
    "attended": (ours_with_attention, apart_with_attention),
}


@pytest.mark.parametrize("ceiling", CEILINGS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("used", ["both", "joined", "read"])
@pytest.mark.parametrize("channels", CHANNELS)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("kind", WAYS_TO_JOIN)
def test_values_and_gradients_are_those_of_separate_operations(
    ceiling, dtype, used, channels, layout, kind, way
):
    xs = inputs(dtype, channels, layout)[:2]
    exact = [x.detach().double().requires_grad_() for x in xs]
    results = []
    for operation, given in zip(WAYS_TO_JOIN[kind], (xs, exact), strict=True):
        outputs = operation(*given, ceiling)
        chosen = {"both": outputs, "joined": outputs[:1], "read": outputs[1:]}[used]
        loss = sum((output.double() * output.double()).sum() for output in chosen)
        gradients = torch.autograd.grad(loss, given, allow_unused=True, materialize_grads=True)
        results.append((*outputs, *gradients))
    rounding = {
        torch.float64: {"rtol": 1e-10, "atol": 1e-10},
        torch.float32: {"rtol": 1e-4, "atol": 1e-4},
        torch.bfloat16: {"rtol": 5e-2, "atol": 0.5},
    }[dtype]
    for got, wanted in zip(*results, strict=True):
        assert got.dtype == dtype
        torch.testing.assert_close(got.double(), wanted, **rounding)


@pytest.mark.parametrize("channels", CHANNELS)
@pytest.mark.parametrize("ceiling", CEILINGS)
def test_gradients_are_those_of_finite_differences(ceiling, channels, way):
    xs = inputs(torch.float64, channels, torch.channels_last)[:2]
    assert torch.autograd.gradcheck(lambda y, x: ours(y, x, ceiling), xs, fast_mode=True)


@pytest.mark.parametrize("channels", CHANNELS)
def test_a_feature_that_nobody_reads_later_has_the_gradient_of_its_own_block(channels, way):
    before, integrated, _ = inputs(torch.float64, channels, torch.channels_last)
    joined = activate_and_join(before * 1, integrated * 1, 6.0, read_later=False)
    expected, _ = apart_with_attention(before, integrated, 6.0)
    cotangent = torch.randn_like(expected)

    got = torch.autograd.grad(joined.both, (before, integrated), cotangent)

    assert joined.source is None
    for one, other in zip(
        got, torch.autograd.grad(expected, (before, integrated), cotangent), strict=True
    ):
        torch.testing.assert_close(one, other)


def test_a_wide_feature_is_kept_in_one_buffer_for_the_backward_pass(way):
    before, first, _ = (x * 1 for x in inputs(torch.float32, WIDE, torch.channels_last))
    source = pool(first)
    reading = Reading((source.lent,), scale(source.pooled))
    kept = []

    def keep(tensor: Tensor) -> Tensor:
        kept.append(tensor.untyped_storage().data_ptr())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        joined = integrate_and_join(before, reading, math.inf, read_later=True)
    others = {source.lent.feature, reading.weights}
    assert set(kept) == {x.untyped_storage().data_ptr() for x in (joined.both, *others)}


def test_without_gradients_the_feature_does_not_hold_the_whole_buffer(way):
    before, integrated, _ = (x.detach() for x in inputs(torch.float32, WIDE, torch.channels_last))
    with torch.no_grad():
        joined = activate_and_join(before.clone(), integrated, math.inf, read_later=True)
    assert torch.equal(joined.both, apart_with_attention(before, integrated, math.inf)[0])
    feature = joined.source.lent.feature
    assert feature.untyped_storage().nbytes() == 4 * feature.numel()


@pytest.mark.parametrize("dtype", DTYPES)
def test_what_is_not_a_number_stays_so(dtype, way):
    before, integrated, _ = (x.detach() for x in inputs(dtype, 16, torch.channels_last))
    before[0, 0, 0, 0] = math.nan

    joined = activate_and_join(before, integrated, 6.0, read_later=True)

    assert joined.both[0, 0, 0, 0].isnan() and joined.source.pooled[0, 0].isnan()
    assert joined.both.isnan().sum() == 1


def test_whoever_kept_what_is_overwritten_is_told(way):
    before = torch.randn(2, 8, 4, 4).to(memory_format=torch.channels_last).requires_grad_()
    kept = before.exp()  # Its gradient is made of its result.

    joined = activate_and_join(kept, torch.randn(2, 8, 4, 4), math.inf, read_later=False)

    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        joined.both.sum().backward()
