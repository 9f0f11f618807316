"""Batch norm that passes over memory as seldom as it can."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from afi_search.nn.ops import cpu as native
from afi_search.nn.ops.rectify import rectify_
from afi_search.nn.ops.sums import at_least_float32

CEILINGS = {nn.ReLU: math.inf, nn.ReLU6: 6.0}
"""Where an activation ends."""


class BatchNorm2d(nn.BatchNorm2d):
    """nn.BatchNorm2d, whose training on a CPU is one native function together with what follows it.

    torch's own reads its input three times and, where there are fewer channels than a vector has
    numbers, takes as long for half of the channels as for all.
    """

    def forward(
        self, x: Tensor, ceiling: float | None = None, skip: Tensor | None = None
    ) -> Tensor:
        """Return the normalised x, and what follows it.

        Args:
            x: B x C x H x W.
            ceiling: the result is kept between 0 and this, which is infinite for ReLU and 6 for
                ReLU6; None leaves it as it is.
            skip: is added to what is normalised, before it is activated.
        """
        if self._natively(x, *([] if skip is None else [skip])):
            assert self.num_batches_tracked is not None
            self.num_batches_tracked.add_(1)
            y: Tensor = _BatchNorm.apply(x, skip, self.weight, self.bias, self, ceiling)
            return y
        return followed(super().forward(x), ceiling, skip)

    def _natively(self, *features: Tensor) -> bool:
        x = features[0]
        return (
            self.training
            and not torch.compiler.is_compiling()
            and self.track_running_stats
            and self.affine
            and self.momentum is not None
            and self.weight.dtype == at_least_float32(x.dtype)
            and self.weight.is_cpu
            and x.dim() == 4
            and x.shape[1] == self.num_features
            and x.numel() > self.num_features  # torch's own says what is wrong with less
            and all(feature.shape == x.shape for feature in features)
            and native.takes(*features)
        )


def normalised(
    norm: nn.Module, x: Tensor, ceiling: float | None = None, skip: Tensor | None = None
) -> Tensor:
    """Return what `BatchNorm2d` does, by any module that stands in its place."""
    if isinstance(norm, BatchNorm2d):
        y: Tensor = norm(x, ceiling, skip)
        return y
    return followed(norm(x), ceiling, skip)


class FusedSequential(nn.Sequential):
    """nn.Sequential, whose batch norms are one pass together with the activations after them."""

    def forward(self, x: Tensor) -> Tensor:
        """Run the layers one after the other."""
        return in_order(list(self), x)


def in_order(layers: Sequence[nn.Module], x: Tensor) -> Tensor:
    """Run layers one after the other, a batch norm together with the activation after it."""
    waiting = deque(layers)
    while waiting:
        layer = waiting.popleft()
        ceiling = CEILINGS.get(type(waiting[0])) if waiting else None
        if isinstance(layer, BatchNorm2d) and ceiling is not None:
            x = layer(x, ceiling)
            waiting.popleft()
        else:
            x = layer(x)
    return x


def followed(y: Tensor, ceiling: float | None, skip: Tensor | None) -> Tensor:
    """Return y, which is overwritten, after the sum and the activation that are asked for."""
    if skip is not None:
        y = y + skip
    if ceiling is None:
        return y
    return rectify_(y, ceiling)


class _BatchNorm(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        skip: Tensor | None,
        weight: Tensor,
        bias: Tensor,
        norm: nn.BatchNorm2d,
        ceiling: float | None,
    ) -> Tensor:
        out = torch.empty_like(x, memory_format=torch.channels_last)
        mean, inverse = torch.empty_like(weight), torch.empty_like(weight)
        native.normalise(x, norm, skip, ceiling, out, mean, inverse)
        told_by_out = ceiling is not None and skip is not None
        ctx.save_for_backward(x, weight, bias, mean, inverse, out if told_by_out else None)
        ctx.skips, ctx.ceiling = skip is not None, ceiling
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, given: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, bias, mean, inverse, out = ctx.saved_tensors
        given = given.contiguous(memory_format=torch.channels_last)
        d_x = torch.empty_like(x, memory_format=torch.channels_last)
        d_skip = torch.empty_like(d_x) if ctx.skips else None
        d_weight, d_bias = torch.empty_like(weight), torch.empty_like(bias)
        native.denormalise(
            *(given, x, weight, bias, out, ctx.ceiling, mean, inverse),
            *(d_x, d_skip, d_weight, d_bias),
        )
        return d_x, d_skip, d_weight, d_bias, None, None
