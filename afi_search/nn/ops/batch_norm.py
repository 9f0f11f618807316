"""Batch norm with the sum and the activation that follow it, in as few passes as it takes.

torch's own reads its input three times and, where there are fewer channels than a vector has
numbers, takes as long for half of the channels as for all; activation and sum are passes more.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from afi_search.nn.afi import rectify_
from afi_search.nn.ops import cpu
from afi_search.nn.ops.common import accelerates, at_least_float32, check

CEILINGS = {nn.ReLU: math.inf, nn.ReLU6: 6.0}
"""Where an activation ends."""

NO_ACTIVATION = 0.0
"""The ceiling that stands for none."""


class BatchNorm2d(nn.BatchNorm2d):
    """nn.BatchNorm2d, whose training is one operator together with what follows it."""

    def forward(
        self, x: Tensor, ceiling: float | None = None, skip: Tensor | None = None
    ) -> Tensor:
        """Return the normalised x, and what follows it.

        Args:
            x: B x C x H x W.
            ceiling: the result is kept between 0 and this, which is infinite for ReLU and 6 for
                ReLU6; None leaves it as it is.
            skip: B x C x H x W, added to what is normalised before it is activated.
        """
        if not self._takes(x, *([] if skip is None else [skip])):
            return followed(super().forward(x), ceiling, skip)
        y, mean, variance = batch_norm(
            x, skip, self.weight, self.bias, self.eps, NO_ACTIVATION if ceiling is None else ceiling
        )
        assert self.num_batches_tracked is not None
        assert self.running_mean is not None and self.running_var is not None
        assert self.momentum is not None
        count = x.numel() // x.shape[1]
        self.num_batches_tracked.add_(1)
        self.running_mean.lerp_(mean, self.momentum)
        self.running_var.lerp_(variance * (count / (count - 1)), self.momentum)
        return y

    def _takes(self, *features: Tensor) -> bool:
        x = features[0]
        return (
            self.training
            and accelerates("batch_norm", *features)
            and self.track_running_stats
            and self.affine
            and self.momentum is not None
            and self.weight.dtype == at_least_float32(x.dtype)
            and self.weight.is_cpu
            and x.dim() == 4
            and x.shape[1] == self.num_features
            and x.numel() > self.num_features  # torch's own says what is wrong with less
            and all(feature.shape == x.shape for feature in features)
            and cpu.takes(*features)
        )


@torch.library.custom_op("afi::batch_norm", mutates_args=())
def batch_norm(
    x: Tensor, skip: Tensor | None, weight: Tensor, bias: Tensor, epsilon: float, ceiling: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Normalise by the batch's own statistics; add, activate.

    Args:
        x: B x C x H x W on a CPU, lying as `cpu.takes` says.
        skip: the same, added to what is normalised.
        weight, bias: C, float32 or wider.
        epsilon: added to the variance.
        ceiling: the result is kept between 0 and this; 0 leaves it as it is.

    Returns:
        The result, channels last; mean and biased variance of x, C each, which get no gradient.

    Raises:
        ValueError, TypeError: shapes or dtypes do not match.
    """
    wide = at_least_float32(x.dtype)
    for name, of_channels in (("weight", weight), ("bias", bias)):
        check(f"afi::batch_norm: {name}", of_channels, x.shape[1:2], wide)
    if skip is not None:
        check("afi::batch_norm: skip", skip, x.shape, x.dtype)
    if not cpu.takes(*(feature for feature in (x, skip) if feature is not None)):
        raise TypeError(f"afi::batch_norm: x is {x.dtype} on {x.device}; see ops.cpu.takes")
    made = out, mean, variance = _outputs(x, skip, weight, bias, epsilon, ceiling)
    features = map(cpu.feature, (x, skip, out))
    arrays = map(cpu.array, (weight, bias, mean, variance))
    cpu.run("normalise", x, *features, *arrays, reals=[epsilon, ceiling])
    return made


@batch_norm.register_fake
def _outputs(
    x: Tensor, skip: Tensor | None, weight: Tensor, bias: Tensor, epsilon: float, ceiling: float
) -> tuple[Tensor, Tensor, Tensor]:
    out = torch.empty_like(x, memory_format=torch.channels_last)
    return out, torch.empty_like(weight), torch.empty_like(weight)


@torch.library.custom_op("afi::batch_norm_backward", mutates_args=())
def batch_norm_backward(
    given: Tensor,
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    mean: Tensor,
    variance: Tensor,
    out: Tensor | None,
    epsilon: float,
    ceiling: float,
    skips: bool,
) -> list[Tensor]:
    """Return the gradients of x, weight and bias, and of skip where there was one.

    Args:
        given: of `out`, B x C x H x W.
        out: what `batch_norm` returned, where there was both a skip and an activation.
        x, weight, bias, mean, variance, epsilon, ceiling: as there.
        skips: whether there was a skip.
    """
    given = given.contiguous(memory_format=torch.channels_last)
    d_x, d_weight, d_bias, *d_skip = _gradients(x, weight, bias, skips)
    features = map(cpu.feature, (given, x, out, d_skip[0] if skips else None, d_x))
    arrays = map(cpu.array, (weight, bias, mean, variance, d_weight, d_bias))
    cpu.run("denormalise", x, *features, *arrays, reals=[epsilon, ceiling])
    return [d_x, d_weight, d_bias, *d_skip]


@batch_norm_backward.register_fake
def _(
    given: Tensor,
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    mean: Tensor,
    variance: Tensor,
    out: Tensor | None,
    epsilon: float,
    ceiling: float,
    skips: bool,
) -> list[Tensor]:
    return _gradients(x, weight, bias, skips)


def _gradients(x: Tensor, weight: Tensor, bias: Tensor, skips: bool) -> list[Tensor]:
    like_x = [torch.empty_like(x, memory_format=torch.channels_last) for _ in range(1 + skips)]
    return [like_x[0], torch.empty_like(weight), torch.empty_like(bias), *like_x[1:]]


def _keep(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor, Tensor]) -> None:
    x, skip, weight, bias, ctx.epsilon, ctx.ceiling = inputs
    out, mean, variance = output
    ctx.skips = skip is not None
    told_by_out = ctx.skips and ctx.ceiling > 0
    ctx.save_for_backward(x, weight, bias, mean, variance, out if told_by_out else None)
    ctx.mark_non_differentiable(mean, variance)


def _backward(ctx: Any, given: Tensor, *_: Any) -> tuple[Tensor | None, ...]:
    d_x, d_weight, d_bias, *d_skip = batch_norm_backward(
        given, *ctx.saved_tensors, ctx.epsilon, ctx.ceiling, ctx.skips
    )
    return d_x, d_skip[0] if d_skip else None, d_weight, d_bias, None, None


batch_norm.register_autograd(_backward, setup_context=_keep)


def normalised(
    norm: nn.Module, x: Tensor, ceiling: float | None = None, skip: Tensor | None = None
) -> Tensor:
    """Return what `BatchNorm2d` does, by any module that stands in its place."""
    if isinstance(norm, BatchNorm2d):
        y: Tensor = norm(x, ceiling, skip)
        return y
    return followed(norm(x), ceiling, skip)


class FusedSequential(nn.Sequential):
    """nn.Sequential, whose batch norms are one operator with the activations after them."""

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
        y = y.add_(skip) if y.dtype == skip.dtype else y + skip
    return y if ceiling is None else rectify_(y, ceiling)
