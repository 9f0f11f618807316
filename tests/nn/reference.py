"""The kernels of AFI's sums in plain torch, so that a CPU runs what is gathered around them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from types import ModuleType
from unittest.mock import patch

import pytest
import torch
from torch import Tensor

from afi_search.nn.ops import common


def weighted_sum(
    out: Tensor,
    _like: Tensor,
    features: Sequence[Tensor],
    weights: Sequence[Tensor],
    mean: Tensor | None,
    plus: Tensor | None,
    gate: Tensor | None,
    ceiling: float,
) -> None:
    wide = common.at_least_float32(out.dtype)
    total = torch.zeros(out.shape, dtype=wide)
    if mean is not None:
        total += mean[..., None, None] / math.prod(out.shape[2:])
    if plus is not None:
        total += plus
    for weight, feature in zip(weights, features, strict=True):
        total += weight[..., None, None] * feature.to(wide)
    if gate is not None:
        total = torch.where((gate > 0) & (gate < ceiling), total, 0.0)
    out.copy_(total)


def channel_dots(out: Tensor, gradient: Tensor, features: Sequence[Tensor]) -> None:
    for dots, feature in zip(out, features, strict=True):
        dots.copy_((gradient.to(out.dtype) * feature.to(out.dtype)).sum((2, 3)))


def join(
    both: Tensor,
    means: Tensor,
    also: Tensor,
    before: Tensor,
    features: Sequence[Tensor],
    weights: Sequence[Tensor],
    ceiling: float,
    apart: bool,
) -> None:
    x, beside = both.tensor_split([before.shape[1]], dim=1)
    x.copy_(before.clamp(0, ceiling))
    means.copy_(x.mean(dim=(2, 3), dtype=means.dtype))
    if apart:
        also.copy_(x)
    if weights:
        weighted_sum(beside, beside, features, weights, None, None, None, 0.0)
    else:
        beside.copy_(features[0])


@pytest.fixture
def on_a_cpu() -> Iterator[None]:
    """Within it, the operators of AFI's sums run on a CPU, and networks use them."""
    made = ModuleType("made")
    made.__dict__.update(weighted_sum=weighted_sum, channel_dots=channel_dots, join=join)
    with patch.object(common, "kernels", lambda device: made):
        yield
