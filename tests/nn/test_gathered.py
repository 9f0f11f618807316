"""The gathered sums against torch's own, in every way that a backward pass can go."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.checkpoint import checkpoint

from afi_search.nn import build
from afi_search.nn.afi import AFI, Reading
from afi_search.nn.ops.gathered import (
    NARROW,
    GatheredReading,
    Source,
    channel_dots,
    joined,
    weighted_sum,
)
from afi_search.space import Architecture
from tests.nn.reference import on_a_cpu
from tests.typed import there

__all__ = ["on_a_cpu"]

pytestmark = pytest.mark.usefixtures("on_a_cpu")

LAYOUTS = [torch.contiguous_format, torch.channels_last]
DTYPES = [torch.float64, torch.float32, torch.bfloat16]
CHANNELS = [3, 12, NARROW]
CEILINGS = [math.inf, 1.0]
ROUNDING = {
    torch.float64: (1e-10, 1e-10),
    torch.float32: (1e-4, 1e-4),
    torch.bfloat16: (0.1, 0.3),
}


def features(
    count: int, channels: int, dtype: torch.dtype, layout: torch.memory_format
) -> list[Tensor]:
    """Return features of which the first is a slice of a wider tensor's channels."""
    wider = torch.randn(3, 2 * channels, 4, 6).to(dtype).to(memory_format=layout)
    rest = [torch.randn(3, channels, 4, 6).to(dtype).to(memory_format=layout) for _ in range(count)]
    return [feature.requires_grad_() for feature in [wider[:, :channels], *rest[1:]]]


def exactly(
    xs: list[Tensor], weights: Tensor, mean: Tensor | None = None, plus: Tensor | None = None
) -> Tensor:
    """Return the written-out sum in float64."""
    total = sum(
        x.double() * weight.double()[..., None, None]
        for x, weight in zip(xs, weights.unbind(), strict=True)
    )
    assert isinstance(total, Tensor)
    total = total if mean is None else total + mean[..., None, None].double() / (4 * 6)
    return total if plus is None else total + plus.double()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("channels", CHANNELS)
def test_the_contractions_are_the_written_out_sums(channels, dtype):
    xs = [x.detach() for x in features(3, channels, dtype, torch.channels_last)]
    weights = torch.rand(3, 3, channels).to(torch.promote_types(dtype, torch.float32))
    mean = 24 * torch.rand(3, channels).to(weights.dtype)
    wide = torch.randn(3, 2 * channels, 4, 6).to(dtype).to(memory_format=torch.channels_last)
    own = wide[:, channels:]
    rtol, atol = (2e-2, 2e-2) if dtype == torch.bfloat16 else ROUNDING[dtype]
    close = partial(torch.testing.assert_close, rtol=rtol, atol=atol)

    for first, plus in [(None, None), (mean, None), (None, own), (mean, own)]:
        total = weighted_sum(xs[0], xs, list(weights), first, plus, None, 0.0)
        close(total.double(), exactly(xs, weights, first, plus))
    gated = weighted_sum(xs[0], xs, list(weights), mean, own, xs[1], 1.0)
    between = (xs[1] > 0) & (xs[1] < 1)
    close(gated.double(), between * exactly(xs, weights, mean, own))
    dots = channel_dots(xs[1], xs)
    expected = torch.stack([(xs[1].double() * x.double()).sum((2, 3)) for x in xs])
    torch.testing.assert_close(dots.double(), expected, rtol=1e-4, atol=1e-4)


class Weighing(AFI):
    """Weighs by what is pooled; a block reads the R and X before it, or all features."""

    def __init__(self, channels: int, readers: int, rereads: bool) -> None:
        super().__init__(channels, 1, readers)
        self.rereads = rereads

    def note(self, pooled: Tensor) -> Tensor:
        return pooled

    def forward(self, reader: int, notes: Tensor) -> tuple[Tensor, Tensor]:
        weights = torch.softmax((1 + reader) * notes, dim=0)
        return weights, notes[-1:] - 1 if self.rereads else notes


class Pooled(Weighing):
    """Weighs by one more than what is pooled."""

    def forward(self, reader: int, notes: Tensor) -> tuple[Tensor, Tensor]:
        return 1 + notes, notes


def stage(
    kind: type[Reading], xs: list[Tensor], ceiling: float, rereads: bool = False
) -> list[Tensor]:
    """Return what blocks make of a first source and of their features before activation."""
    first, *before = xs
    reading = kind(Weighing(first.shape[1], len(before), rereads))
    reading.add(first)
    return [reading.join(x * 1, ceiling, nn.Identity()) for x in before]


@pytest.mark.parametrize("rereads", [False, True])
@pytest.mark.parametrize("ceiling", CEILINGS)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("channels", CHANNELS)
def test_values_and_gradients_are_those_of_torchs_own(channels, dtype, layout, ceiling, rereads):
    xs = features(4, channels, dtype, layout)
    exact = [x.detach().double().requires_grad_() for x in xs]
    cotangents = [torch.randn(3, 2 * channels, 4, 6).to(dtype) for _ in xs[1:]]

    rtol, atol = ROUNDING[dtype]
    close = partial(torch.testing.assert_close, rtol=rtol, atol=atol)
    got = stage(GatheredReading, xs, ceiling, rereads)
    wanted = stage(Reading, exact, ceiling, rereads)

    for ours, theirs in zip(got, wanted, strict=True):
        assert ours.dtype == dtype and ours.is_contiguous(memory_format=torch.channels_last)
        close(ours.double(), theirs)
    gradients = torch.autograd.grad(got, xs, cotangents)
    expected = torch.autograd.grad(wanted, exact, [c.double() for c in cotangents])
    for ours, theirs in zip(gradients, expected, strict=True):
        assert ours.dtype == dtype
        assert (ours.double() - theirs).norm() <= rtol * theirs.norm()


@pytest.mark.parametrize("channels", [3, NARROW])
@pytest.mark.parametrize("rereads", [False, True])
def test_gradients_are_those_of_finite_differences(rereads, channels):
    xs = features(3, channels, torch.float64, torch.channels_last)

    def last(*given: Tensor) -> Tensor:
        return stage(GatheredReading, list(given), 1.0, rereads)[-1]

    assert torch.autograd.gradcheck(last, xs, fast_mode=True)


@pytest.mark.parametrize("channels", [3, NARROW])
def test_a_pass_that_stops_early_leaves_nothing_for_the_next(channels):
    xs = features(4, channels, torch.float64, LAYOUTS[0])
    got, wanted = (stage(kind, xs, math.inf) for kind in (GatheredReading, Reading))
    ones = torch.ones_like(got[0])

    torch.autograd.grad(got[2], xs[3], ones, retain_graph=True)
    for reader, x in ((1, 0), (2, 1), (1, 1), (2, 2), (1, 0)):
        ours = torch.autograd.grad(got[reader], xs[x], ones, retain_graph=True)
        theirs = torch.autograd.grad(wanted[reader], xs[x], ones, retain_graph=True)
        torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("channels", [5, 2 * NARROW])
def test_the_gradient_of_a_source_of_the_first_channels_lies_as_the_feature_does(layout, channels):
    wider = torch.randn(3, channels, 4, 6, dtype=torch.float64).to(memory_format=layout)
    wider.requires_grad_()
    half = channels // 2
    cotangent = torch.randn(3, half, 4, 6, dtype=torch.float64)
    gradients: list[Any] = []
    for kind in (GatheredReading, Reading):
        reading = kind(Pooled(half, readers=2, rereads=False))
        reading.add(wider)
        gradients += torch.autograd.grad(reading.integrate(), wider, cotangent)

    torch.testing.assert_close(gradients[0], gradients[1])
    assert gradients[0].is_contiguous(memory_format=torch.channels_last)


def test_a_wide_feature_is_kept_in_one_buffer_for_the_backward_pass():
    xs = features(3, NARROW, torch.float32, torch.channels_last)
    kept = set()

    def keep(tensor: Tensor) -> Tensor:
        kept.add(tensor.untyped_storage().data_ptr())
        return tensor

    before = [x * 1 for x in xs]
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        both, _, *sources = joined(before[1], math.inf, [Source(before[2])], None, 1, 1)
    assert kept == {both.untyped_storage().data_ptr()}
    for source in sources:
        assert source.feature.untyped_storage().data_ptr() == both.untyped_storage().data_ptr()


def test_without_gradients_the_feature_does_not_hold_the_whole_buffer():
    before, integrated = (x.detach() for x in features(2, NARROW, torch.float32, LAYOUTS[1]))
    with torch.no_grad():
        both, _, x, _ = joined(before, math.inf, [Source(integrated)], None, 1, 0)
    assert torch.equal(both, torch.cat((before.relu(), integrated), dim=1))
    assert x.feature.untyped_storage().nbytes() == 4 * x.feature.numel()


@pytest.mark.parametrize("dtype", DTYPES)
def test_what_is_not_a_number_stays_so(dtype):
    _, before, integrated = (x.detach() for x in features(3, 16, dtype, torch.channels_last))
    before[0, 0, 0, 0] = math.nan

    both, pooled, *_ = joined(before, 6.0, [Source(integrated)], None, 1, 0)

    assert both[0, 0, 0, 0].isnan() and pooled[0, 0].isnan()
    assert both.isnan().sum() == 1


def test_operators_name_what_does_not_match():
    x, weight, rest = torch.randn(2, 8, 4, 5), torch.ones(2, 8), (None, None, None, 0.0)
    operators = torch.ops.afi

    with pytest.raises(ValueError, match=r"features\[1\] has shape .*4, 4\); it must be .*4, 5\)"):
        operators.weighted_sum(x, [x, x[..., :4]], [weight, weight], *rest)
    with pytest.raises(TypeError, match=r"features\[1\] is torch.float64; it must be .*32"):
        operators.weighted_sum(x, [x, x.double()], [weight, weight], *rest)
    with pytest.raises(ValueError, match=r"weights\[0\] has shape \(1, 8\); it must be \(2, 8\)"):
        operators.weighted_sum(x, [x], [weight[:1]], *rest)
    with pytest.raises(ValueError, match=r"has 2 weights for 1 features"):
        operators.weighted_sum(x, [x], [weight, weight], *rest)
    with pytest.raises(TypeError, match=r"weights\[1\] is torch.float64; it must be torch.float32"):
        operators.weighted_sum(x, [x, x], [weight, weight.double()], *rest)
    with pytest.raises(ValueError, match=r"features\[0\] has shape .*3, 5\); it must be .*4, 5\)"):
        operators.join(x, [x[:, :, :3]], [], 6.0, True)


def gradients_of(
    model: nn.Module, run: Callable[[Tensor], Tensor], images: Tensor
) -> dict[str, Tensor]:
    model.zero_grad()
    run(images).square().mean().backward()
    return {name: there(parameter.grad).clone() for name, parameter in model.named_parameters()}


@pytest.mark.parametrize("scorer", ["", "-shared"])
@pytest.mark.parametrize("reentrant", [False, True])
def test_a_checkpointed_stage_has_the_same_gradients(scorer, reentrant):
    model = build(
        Architecture.parse(f"resnet20(off, base-r4{scorer}, B-r8-se{scorer})"),
        num_classes=10,
        image_size=32,
    ).double()
    images = torch.randn(2, 3, 32, 32, dtype=torch.float64, requires_grad=True)
    wanted = gradients_of(model, model, images)

    for name in ("layer2", "layer3"):
        stage = model.get_submodule(name)
        forward = stage.forward
        stage.forward = lambda x, run=forward: checkpoint(run, x, use_reentrant=reentrant)
    got = gradients_of(model, model, images)

    for name, gradient in wanted.items():
        torch.testing.assert_close(got[name], gradient)


def network() -> nn.Module:
    torch.manual_seed(0)
    text = "resnet20(base-r4, base-r4-shared, B-r8-eca)"
    model = build(Architecture.parse(text), num_classes=10, image_size=32).double()
    return model.eval()  # batch norms of fixed statistics, so that halves add up to the whole


def batch() -> Tensor:
    return torch.randn(
        4, 3, 32, 32, dtype=torch.float64, generator=torch.Generator().manual_seed(1)
    )


def train_a_half(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    model = DistributedDataParallel(network())
    gradients = gradients_of(model, model, batch().chunk(2)[rank])
    if rank == 0:
        torch.save(gradients, f"{folder}/gradients.pt")
    dist.destroy_process_group()


@pytest.mark.slow
def test_two_processes_have_the_gradients_of_one(tmp_path):
    mp.spawn(  # type: ignore[attr-defined]
        train_a_half, args=(str(tmp_path),), nprocs=2
    )
    model = network()

    wanted = gradients_of(model, model, batch())

    for name, gradient in torch.load(tmp_path / "gradients.pt").items():
        torch.testing.assert_close(gradient, wanted[name.removeprefix("module.")])


@pytest.mark.parametrize("training", [False, True])
def test_a_network_compiles_in_one_graph_to_be_evaluated_and_to_be_trained(training):
    text = "resnet20(base-r4, B-r8-se, base-r4-shared)"
    model = build(Architecture.parse(text), num_classes=10, image_size=32).train(training)
    model = model.to(memory_format=torch.channels_last)
    images = batch().float().to(memory_format=torch.channels_last)
    compiled = torch.compile(copy.deepcopy(model), backend="aot_eager", fullgraph=True)

    with torch.set_grad_enabled(training):
        got, wanted = compiled(images), model(images)

    torch.testing.assert_close(got, wanted)
