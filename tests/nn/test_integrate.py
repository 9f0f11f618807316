"""Integration against the written-out sum, and in every way that a backward pass can go."""

from __future__ import annotations

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.checkpoint import checkpoint

from afi_search.nn import build
from afi_search.nn.ops.integrate import Reading, integrate, literal_sum
from afi_search.nn.ops.source import Source, global_average, pool
from afi_search.nn.ops.weighted_sum import WIDE, channel_dots, weighted_sum
from afi_search.space import Architecture

LAYOUTS = [torch.contiguous_format, torch.channels_last]
DTYPES = [torch.float64, torch.float32, torch.bfloat16]


def features(
    count: int, channels: int, dtype: torch.dtype, layout: torch.memory_format
) -> list[Tensor]:
    """Return features of which the first is a slice of a wider tensor's channels."""
    wider = torch.randn(3, 2 * channels, 4, 6).to(dtype).to(memory_format=layout)
    rest = [torch.randn(3, channels, 4, 6).to(dtype).to(memory_format=layout) for _ in range(count)]
    return [feature.requires_grad_() for feature in [wider[:, :channels], *rest[1:]]]


def weights_of(pooled: list[Tensor], reader: int) -> Tensor:
    return torch.softmax((1 + reader) * torch.stack(pooled, 1), dim=1)


def read(sources: list[Source], reader: int) -> Tensor:
    weights = weights_of([source.pooled for source in sources], reader)
    return integrate(Reading(tuple(source.lent for source in sources), weights))[0]


def in_one_pass(xs: list[Tensor]) -> list[Tensor]:
    sources = [pool(x) for x in xs]
    return [read(sources[: r + 1], r) for r in range(len(xs))]


def literally(xs: list[Tensor]) -> list[Tensor]:
    pooled = [global_average(x) for x in xs]
    return [literal_sum(xs[: r + 1], weights_of(pooled[: r + 1], r)) for r in range(len(xs))]


def tolerance(dtype: torch.dtype) -> dict[str, float]:
    return {"rtol": 0.1, "atol": 0.2} if dtype == torch.bfloat16 else {"rtol": 1e-4, "atol": 1e-5}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("channels", [3, 12, WIDE])
def test_the_contractions_are_the_written_out_sums(channels, dtype, layout, way, monkeypatch):
    monkeypatch.setattr("afi_search.nn.ops.weighted_sum.BLOCK", 2 * channels * 24)
    xs = [x.detach() for x in features(3, channels, dtype, layout)]
    weights = torch.rand(3, 3, channels).to(torch.promote_types(dtype, torch.float32))
    start = torch.rand(3, channels).to(weights.dtype)
    exact = literal_sum([x.double() for x in xs], weights.double())

    total = weighted_sum(xs, weights)
    from_start = weighted_sum(xs, weights, start)
    own = torch.randn(3, 2 * channels, 4, 6).to(dtype).to(memory_format=layout)[:, channels:]
    with_own = weighted_sum(xs, weights, start, plus=own)
    without_start = weighted_sum(xs, weights, plus=own)
    dots = channel_dots(xs[1], xs)

    rounding = {"rtol": 2e-2, "atol": 2e-2} if dtype == torch.bfloat16 else tolerance(dtype)
    assert total.dtype == dtype and dots.dtype == weights.dtype
    assert total.is_contiguous(memory_format=layout)
    torch.testing.assert_close(total.double(), exact, **rounding)
    torch.testing.assert_close(from_start.double(), exact + start[..., None, None], **rounding)
    torch.testing.assert_close(
        with_own.double(), exact + start[..., None, None] + own.double(), **rounding
    )
    torch.testing.assert_close(without_start.double(), exact + own.double(), **rounding)
    expected = torch.stack([(xs[1].double() * x.double()).sum((2, 3)) for x in xs], 1)
    torch.testing.assert_close(dots.double(), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("channels", [3, 12, WIDE])
def test_values_and_gradients_are_those_of_the_literal_form(channels, dtype, layout, way):
    xs = features(4, channels, dtype, layout)
    exact = [x.detach().double().requires_grad_() for x in xs]
    cotangents = [torch.randn_like(x) for x in xs]

    got, wanted = in_one_pass(xs), literally(exact)

    for ours, theirs in zip(got, wanted, strict=True):
        torch.testing.assert_close(ours.double(), theirs, **tolerance(dtype))
    gradients = torch.autograd.grad(got, xs, cotangents)
    expected = torch.autograd.grad(wanted, exact, [c.double() for c in cotangents])
    for ours, theirs in zip(gradients, expected, strict=True):
        torch.testing.assert_close(ours.double(), theirs, **tolerance(dtype))


@pytest.mark.parametrize("used", ["both", "last"])
def test_an_r_that_is_read_again_has_the_gradients_of_the_literal_form(used, way):
    xs = features(2, 5, torch.float64, LAYOUTS[1])
    cotangent = torch.randn_like(xs[1])

    def gains(pooled: Tensor) -> Tensor:
        return torch.stack((torch.sigmoid(-pooled), torch.sigmoid(pooled)), dim=1)

    first, second = (pool(x) for x in xs)
    mean, lent = integrate(Reading((first.lent,), first.pooled[:, None].exp()))
    got = [mean, integrate(Reading((lent, second.lent), gains(second.pooled)))[0]]
    wanted = [literal_sum(xs[:1], global_average(xs[0])[:, None].exp())]
    wanted.append(literal_sum((wanted[0], xs[1]), gains(global_average(xs[1]))))

    chosen = slice(None) if used == "both" else slice(1, None)
    cotangents = [cotangent, 2 * cotangent][chosen]
    for ours, theirs in zip(
        (*got, *torch.autograd.grad(got[chosen], xs, cotangents)),
        (*wanted, *torch.autograd.grad(wanted[chosen], xs, cotangents)),
        strict=True,
    ):
        torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("channels", [5, 2 * WIDE])
def test_the_gradient_of_a_source_of_the_first_channels_lies_as_the_feature_does(
    layout, channels, way
):
    wider, other = (
        torch.randn(3, channels, 4, 6, dtype=torch.float64).to(memory_format=layout)
        for _ in range(2)
    )
    wider.requires_grad_()
    half = channels // 2
    source = pool(wider, half)
    got = read([source], 0) * other[:, :half]
    wanted = literal_sum([wider[:, :half]], weights_of([global_average(wider[:, :half])], 0))

    (ours,) = torch.autograd.grad(got.sum(), wider)
    (theirs,) = torch.autograd.grad((wanted * other[:, :half]).sum(), wider)

    torch.testing.assert_close(ours, theirs)
    assert ours.is_contiguous(memory_format=layout)


def test_a_pass_that_stops_early_leaves_nothing_for_the_next(way):
    xs = features(3, 4, torch.float64, LAYOUTS[0])
    got, wanted = in_one_pass(xs), literally(xs)
    ones = torch.ones_like(got[0])

    torch.autograd.grad(got[2], xs[2], ones, retain_graph=True)
    for reader in (1, 2, 1):
        ours = torch.autograd.grad(got[reader], xs[0], ones, retain_graph=True)
        theirs = torch.autograd.grad(wanted[reader], xs[0], ones, retain_graph=True)
        torch.testing.assert_close(ours, theirs)


def gradients_of(model: nn.Module, run: object, images: Tensor) -> dict[str, Tensor]:
    model.zero_grad()
    run(images).square().mean().backward()
    return {name: parameter.grad.clone() for name, parameter in model.named_parameters()}


@pytest.mark.parametrize("scorer", ["", "-shared"])
@pytest.mark.parametrize("reentrant", [False, True])
def test_a_checkpointed_stage_has_the_same_gradients(scorer, reentrant, way):
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
    mp.spawn(train_a_half, args=(str(tmp_path),), nprocs=2)
    model = network()

    wanted = gradients_of(model, model, batch())

    for name, gradient in torch.load(tmp_path / "gradients.pt").items():
        torch.testing.assert_close(gradient, wanted[name.removeprefix("module.")])
