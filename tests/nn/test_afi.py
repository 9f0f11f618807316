"""AFI against a literal transcription of the paper's equations (1) and (2)."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from afi_search.nn.afi import AFI, BlockAFI, Reading, Scorer, StageAFI
from afi_search.nn.ops.gathered import GatheredReading
from tests.nn.reference import on_a_cpu
from tests.typed import part, there

__all__ = ["on_a_cpu"]

KINDS = (BlockAFI, StageAFI)
READINGS = (Reading, GatheredReading)

pytestmark = pytest.mark.usefixtures("on_a_cpu")


def equations(sources: list[Tensor], w1: Tensor, w2: Tensor) -> Tensor:
    """z_j = GAP(X_j); s_j = W2 ReLU(W1 z_j); R^c = sum_j e^(s_j^c) / sum_k e^(s_k^c) X_j^c."""
    batch, channels, height, width = sources[0].shape
    images = []
    for b in range(batch):
        scores = []
        for source in sources:
            z = source[b].reshape(channels, height * width).sum(1) / (height * width)
            scores.append(w2 @ (w1 @ z).clamp(min=0))
        planes = []
        for c in range(channels):
            exponentials = [score[c].exp() for score in scores]
            total = torch.stack(exponentials).sum()
            weighted = zip(exponentials, sources, strict=True)
            planes.append(torch.stack([e / total * x[b, c] for e, x in weighted]).sum(0))
        images.append(torch.stack(planes))
    return torch.stack(images)


def integrate(afi: AFI, sources: list[Tensor], kind_of_reading: type[Reading]) -> list[Tensor]:
    """Return R of readers 0, 1, ... that read one source more each."""
    reading, results = kind_of_reading(afi), []
    for feature in sources:
        reading.add(feature)
        results.append(reading.integrate())
    return results


def scorer_of(afi: AFI, reader: int) -> tuple[Tensor, Tensor]:
    scorer = part(afi, "scorer" if isinstance(afi, StageAFI) else f"scorers.{reader}", Scorer)
    return scorer.reduce.weight, scorer.expand.weight


def make_sources(count: int, channels: int, dtype: torch.dtype = torch.float64) -> list[Tensor]:
    made = [torch.randn(2, channels, 3, 4, dtype=dtype) for _ in range(count)]
    return [x.to(memory_format=torch.channels_last).requires_grad_() for x in made]


@pytest.mark.parametrize("reading", READINGS)
@pytest.mark.parametrize("kind", KINDS)
def test_output_and_gradients_are_those_of_the_equations(kind, reading):
    count, channels = 4, 6
    afi = kind(channels, 3, readers=count).double()
    with torch.no_grad():
        for parameter in afi.parameters():
            parameter.mul_(4)
    sources = make_sources(count, channels)
    cotangents = [torch.randn(2, channels, 3, 4, dtype=torch.float64) for _ in range(count)]
    inputs = [*sources, *afi.parameters()]

    actual = integrate(afi, sources, reading)
    expected = [
        equations(sources[: reader + 1], *scorer_of(afi, reader)) for reader in range(count)
    ]

    for got, wanted in zip(actual, expected, strict=True):
        torch.testing.assert_close(got, wanted, rtol=1e-12, atol=1e-12)
    for got, wanted in zip(
        torch.autograd.grad(actual, inputs, cotangents),
        torch.autograd.grad(expected, inputs, cotangents),
        strict=True,
    ):
        torch.testing.assert_close(got, wanted, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("reading", READINGS)
@pytest.mark.parametrize("kind", KINDS)
def test_gradients_agree_with_finite_differences(kind, reading):
    afi = kind(4, 2, readers=3).double()
    sources = make_sources(3, 4)
    assert torch.autograd.gradcheck(lambda *xs: integrate(afi, list(xs), reading)[-1], sources)


@settings(deadline=None, max_examples=40)
@given(
    kind=st.sampled_from(KINDS),
    reading=st.sampled_from(READINGS),
    count=st.integers(1, 6),
    channels=st.integers(1, 8),
    gain=st.floats(0, 1000),
    seed=st.integers(0, 2**16),
)
def test_every_channel_is_a_convex_combination_of_the_sources(
    kind, reading, count, channels, gain, seed
):
    torch.manual_seed(seed)
    afi = kind(channels, 2, readers=count).double()
    with torch.no_grad():
        for parameter in afi.parameters():
            parameter.mul_(gain)
    # Sources that are constant in each channel: R shows the weights applied to the constants.
    constants = torch.randn(count, 2, channels, dtype=torch.float64)
    sources = [level[:, :, None, None].expand(2, channels, 2, 2) for level in constants]

    integrated = integrate(afi, sources, reading)[-1]

    assert integrated.isfinite().all()
    low, high = constants.amin(0)[..., None, None], constants.amax(0)[..., None, None]
    assert (integrated >= low - 1e-12).all()
    assert (integrated <= high + 1e-12).all()


@settings(deadline=None, max_examples=25)
@given(
    kind=st.sampled_from(KINDS),
    reading=st.sampled_from(READINGS),
    count=st.integers(1, 6),
    seed=st.integers(0, 2**16),
)
def test_weights_are_positive_sum_to_one_and_give_the_output(kind, reading, count, seed):
    torch.manual_seed(seed)
    afi = kind(5, 2, readers=count).double()
    sources = make_sources(count, 5)
    seen: list[Tensor] = []
    afi.watched(seen)

    integrated = integrate(afi, sources, reading)
    weights = [of.transpose(0, 1) for of in seen]

    assert [tuple(of.shape) for of in weights] == [(2, n, 5) for n in range(1, count + 1)]
    for reader, of in enumerate(weights):
        assert (of > 0).all()
        torch.testing.assert_close(of.sum(1), torch.ones(2, 5, dtype=torch.float64))
        total = sum(of[:, j, :, None, None] * x for j, x in enumerate(sources[: reader + 1]))
        torch.testing.assert_close(total, integrated[reader])


@pytest.mark.parametrize("reading", READINGS)
@pytest.mark.parametrize("kind", KINDS)
def test_a_single_source_is_passed_on_as_it_is_and_its_scorer_gets_no_gradient(kind, reading):
    afi = kind(4, 2, readers=1)
    (source,) = make_sources(1, 4, torch.float32)

    (integrated,) = integrate(afi, [source], reading)
    integrated.square().sum().backward()

    assert torch.equal(integrated, source)
    assert all(torch.all(parameter.grad == 0) for parameter in afi.parameters())


@pytest.mark.parametrize("reading", READINGS)
@pytest.mark.parametrize("kind", KINDS)
def test_scores_too_large_to_be_exponentiated_stay_finite(kind, reading):
    afi = kind(4, 2, readers=3)
    with torch.no_grad():
        for parameter in afi.parameters():
            parameter.mul_(1e6)
    sources = make_sources(3, 4, torch.float32)

    integrated = integrate(afi, sources, reading)[-1]
    integrated.sum().backward()

    assert integrated.isfinite().all()
    assert all(there(source.grad).isfinite().all() for source in sources)


@pytest.mark.parametrize("reading", READINGS)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
def test_output_has_the_dtype_and_memory_format_of_the_features(kind, reading, dtype):
    afi = kind(8, 2, readers=3).to(dtype)
    sources = [x.to(memory_format=torch.channels_last) for x in make_sources(3, 8, dtype)]

    for integrated in integrate(afi, sources, reading):
        assert integrated.dtype == dtype
        assert integrated.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("reading", READINGS)
@pytest.mark.parametrize("kind", KINDS)
def test_under_autocast_bfloat16_features_stay_bfloat16_and_close_to_float32(kind, reading):
    afi = kind(8, 2, readers=3)
    sources = make_sources(3, 8, torch.float32)
    wanted = integrate(afi, sources, reading)

    with torch.autocast("cpu", torch.bfloat16):
        results = integrate(afi, [source.bfloat16() for source in sources], reading)
    torch.stack(results).float().sum().backward()

    assert all(integrated.dtype == torch.bfloat16 for integrated in results)
    for integrated, expected in zip(results, wanted, strict=True):
        torch.testing.assert_close(integrated.float(), expected, rtol=0.03, atol=0.03)
    assert all(parameter.grad.isfinite().all() for parameter in afi.parameters())
