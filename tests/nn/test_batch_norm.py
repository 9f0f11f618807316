"""Batch norm against torch's own, in float64, and with what follows it."""

from __future__ import annotations

import copy
import math
from functools import partial

import pytest
import torch
from torch import Tensor, nn

from afi_search.nn import build
from afi_search.nn.ops.batch_norm import BatchNorm2d, FusedSequential
from afi_search.space import Architecture
from tests.typed import there

DTYPES = [torch.float64, torch.float32, torch.bfloat16]
LAYOUTS = [torch.channels_last, torch.contiguous_format]
TOLERANCE = {torch.float64: 1e-10, torch.float32: 1e-4, torch.bfloat16: 0.05}
FOLLOWED_BY = {
    "nothing": {},
    "an activation": {"ceiling": math.inf},
    "a clipped activation": {"ceiling": 1.0},
    "a sum and an activation": {"ceiling": math.inf, "skip": True},
}


def pair(channels: int, dtype: torch.dtype) -> tuple[BatchNorm2d, nn.BatchNorm2d]:
    """Return one of ours with statistics and weights of its own, and torch's in float64."""
    wide = torch.promote_types(dtype, torch.float32)
    ours, exact = BatchNorm2d(channels).to(wide), nn.BatchNorm2d(channels).double()
    with torch.no_grad():
        ours.weight.uniform_(-2, 2)
        ours.bias.uniform_(-1, 1)
        there(ours.running_mean).uniform_(-1, 1)
    exact.load_state_dict(ours.state_dict())
    return ours, exact


def followed(norm: nn.Module, x: Tensor, skip: Tensor | None, ceiling: float | None) -> Tensor:
    y = norm(x) if skip is None else norm(x) + skip
    return y if ceiling is None else y.clamp(0, ceiling)


def inputs(
    channels: int, dtype: torch.dtype, layout: torch.memory_format, mean: float = 1.0
) -> tuple[Tensor, Tensor]:
    made = [mean + 2 * torch.randn(3, channels, 9, 8, dtype=torch.float64) for _ in range(2)]
    x, skip = (one.to(dtype).to(memory_format=layout).requires_grad_() for one in made)
    return x, skip


@pytest.mark.parametrize("follows", FOLLOWED_BY)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("channels", [3, 8, 29, 48])
def test_training_is_that_of_torchs_own(channels, layout, dtype, follows):
    ours, exact = pair(channels, dtype)
    x, skip = inputs(channels, dtype, layout)
    options = FOLLOWED_BY[follows]
    ceiling, used = options.get("ceiling"), [x, *([skip] if "skip" in options else [])]
    wide = [one.detach().double().requires_grad_() for one in used]
    cotangent = torch.randn_like(x)

    got = ours(x, ceiling, skip if "skip" in options else None)
    wanted = followed(exact, wide[0], wide[1] if len(wide) > 1 else None, ceiling)

    close = partial(torch.testing.assert_close, rtol=TOLERANCE[dtype], atol=TOLERANCE[dtype])
    assert got.dtype == dtype
    close(got.double(), wanted)
    gradients = torch.autograd.grad(got, [*used, ours.weight, ours.bias], cotangent)
    expected = torch.autograd.grad(wanted, [*wide, exact.weight, exact.bias], cotangent.double())
    # As a whole: rounded to bf16, a number may lie on the other side of where the activation ends.
    for one, other in zip(gradients, expected, strict=True):
        assert (one.double() - other).norm() <= 3 * TOLERANCE[dtype] * other.norm()
    for name, value in exact.state_dict().items():
        close(ours.state_dict()[name].to(value.dtype), value)


@pytest.mark.parametrize("follows", FOLLOWED_BY)
def test_gradients_are_those_of_finite_differences(follows):
    options = FOLLOWED_BY[follows]
    norm, _ = pair(5, torch.float64)
    x, skip = inputs(5, torch.float64, torch.channels_last)
    given_ = [x, *([skip] if "skip" in options else [])]

    def run(*features: Tensor) -> Tensor:
        return norm(features[0], options.get("ceiling"), *features[1:])

    assert torch.autograd.gradcheck(run, given_, fast_mode=True)


def test_a_constant_channel_and_a_channel_that_is_not_a_number():
    x = torch.randn(2, 8, 4, 4).to(memory_format=torch.channels_last)
    x[:, 0] = 3.0
    x[0, 1, 0, 0] = math.nan
    norm = BatchNorm2d(8)

    y = norm(x, math.inf)

    assert torch.all(y[:, 0].abs() < 1e-3)
    assert y[:, 1].isnan().all() and there(norm.running_mean)[1].isnan()
    assert y[:, 2:].isfinite().all()


@pytest.mark.parametrize(
    "options", [{"affine": False}, {"momentum": None}, {"track_running_stats": False}]
)
def test_what_torchs_own_can_do_besides(options):
    ours, theirs = BatchNorm2d(4, **options), nn.BatchNorm2d(4, **options)
    x = torch.randn(2, 4, 3, 3).to(memory_format=torch.channels_last)

    for _ in range(2):
        torch.testing.assert_close(ours(x), theirs(x))
    torch.testing.assert_close(ours.eval()(x), theirs.eval()(x))


def test_one_number_a_channel_is_refused_as_by_torchs_own():
    with pytest.raises(ValueError, match="more than 1 value per channel"):
        BatchNorm2d(4)(torch.randn(1, 4, 1, 1))


def test_what_does_not_fit_is_refused_as_by_torchs_own():
    x = torch.randn(2, 6, 4, 4).to(memory_format=torch.channels_last)
    with pytest.raises(RuntimeError, match="running_mean should contain 6 elements not 4"):
        BatchNorm2d(4)(x)
    with pytest.raises(ValueError, match="4D input"):
        BatchNorm2d(6)(x[0])
    torch.testing.assert_close(BatchNorm2d(6)(x, None, x[:1]), nn.BatchNorm2d(6)(x) + x[:1])


def test_evaluation_uses_the_running_statistics():
    ours, exact = pair(7, torch.float32)
    x, skip = inputs(7, torch.float32, torch.channels_last)
    before = copy.deepcopy(ours.state_dict())

    y = ours.eval()(x, math.inf, skip)

    wanted = followed(exact.eval(), x.double(), skip.double(), math.inf)
    torch.testing.assert_close(y.double(), wanted, rtol=1e-4, atol=1e-4)
    assert all(torch.equal(value, before[name]) for name, value in ours.state_dict().items())


def test_networks_run_with_other_norms_in_their_place():
    model = build(Architecture.parse("resnet50(base-r4)"), num_classes=4, image_size=32).eval()
    images = torch.randn(2, 3, 32, 32)

    synchronised = nn.SyncBatchNorm.convert_sync_batchnorm(copy.deepcopy(model))

    assert not any(isinstance(part, BatchNorm2d) for part in synchronised.modules())
    torch.testing.assert_close(synchronised(images), model(images))


@pytest.mark.parametrize("activation", [nn.ReLU, nn.ReLU6, nn.SiLU])
def test_a_fused_sequence_computes_what_the_plain_one_does(activation):
    def layers(norm: type[nn.Module]) -> list[nn.Module]:
        convolution = nn.Conv2d(3, 8, 1, bias=False)
        return [norm(3), convolution, norm(8), activation(inplace=True), norm(8), norm(8)]

    ours = FusedSequential(*layers(BatchNorm2d)).double()
    exact = nn.Sequential(*layers(nn.BatchNorm2d)).double()
    exact.load_state_dict(ours.state_dict())
    x, _ = inputs(3, torch.float64, torch.channels_last)
    for train in (True, False):
        found, expected = (
            torch.autograd.grad(net.train(train)(x).square().sum(), [x, *net.parameters()])
            for net in (ours, exact)
        )
        for own, other in zip(found, expected, strict=True):
            torch.testing.assert_close(own, other, rtol=1e-8, atol=1e-8)
    for name, kept in exact.state_dict().items():
        torch.testing.assert_close(ours.state_dict()[name], kept)
