"""A feature and what AFI adds to it, in one buffer that serves both as activation and as input.

The second convolution reads X_i and R side by side, and later blocks read X_i again. As operations
of their own, the weighted sum, the activation, the concatenation, the pooling and the views pass
over memory again and again, and training keeps X_i and R twice. Here they are one function, which
writes X_i and R where the convolution reads them, and whose backward pass has all that their
gradients are made of: from the buffer, and what the later blocks left (`afi_search.nn.ops.source`).

Everybody keeps X_i inside the buffer, unless it is narrow: with channels last, every pixel's few
channels are a run of their own there, of which a cache line holds twice as much, and later blocks
take far longer to read it. There X_i is kept by itself too.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from afi_search.nn.ops import cpu as native
from afi_search.nn.ops.integrate import Reading, literal_sum
from afi_search.nn.ops.rectify import rectify_
from afi_search.nn.ops.source import Lent, Owed, Source, gathered, global_average, pool
from afi_search.nn.ops.sums import at_least_float32
from afi_search.nn.ops.weighted_sum import (
    WIDE,
    channel_dots,
    memory_format,
    readable,
    weighted_sum,
)


class Joined(NamedTuple):
    """X and R in one buffer, and what later blocks read of them.

    They may share their memory, so nothing may be changed in place.

    Attributes:
        both: X and R, B x (C + C') x H x W.
        source: X; None where no later block reads it.
        integrated: R.
    """

    both: Tensor
    source: Source | None
    integrated: Lent


def integrate_and_join(
    before: Tensor, reading: Reading, ceiling: float, read_later: bool
) -> Joined:
    """Return X and R, given X before its activation and what R is to be made of.

    Args:
        before: the feature before its activation, B x C x H x W; it is overwritten.
        reading: of C' channels.
        ceiling: X is `before`, kept between 0 and this.
        read_later: whether there are later blocks that read X.
    """
    if torch.compiler.is_compiling():
        integrated = literal_sum(reading.features, reading.weights)
        return _literally(before, integrated, ceiling, read_later)
    return _join(before, reading.features, reading.weights, reading.owed, ceiling, read_later)


def activate_and_join(
    before: Tensor, integrated: Tensor, ceiling: float, read_later: bool
) -> Joined:
    """Return X and R, given X before its activation and R, otherwise as `integrate_and_join`."""
    if torch.compiler.is_compiling():
        return _literally(before, integrated, ceiling, read_later)
    return _join(before, [integrated], None, (), ceiling, read_later)


def join(feature: Tensor, integrated: Tensor) -> Tensor:
    """Return (X, R) as one tensor, B x (C + C') x H x W."""
    if torch.compiler.is_compiling():
        return torch.cat((feature, integrated), dim=1)
    joined: Tensor = _Concatenate.apply(feature, integrated)
    return joined


def _literally(before: Tensor, integrated: Tensor, ceiling: float, read_later: bool) -> Joined:
    feature = rectify_(before, ceiling)
    both = torch.cat((feature, integrated), dim=1)
    return Joined(both, pool(feature) if read_later else None, Lent(integrated, Owed()))


def _join(
    before: Tensor,
    features: Sequence[Tensor],
    weights: Tensor | None,
    readings: tuple[Owed, ...],
    ceiling: float,
    read_later: bool,
) -> Joined:
    channels = before.shape[1]
    # Where nothing is kept for a backward pass, X by itself lets the buffer go.
    apart = channels < WIDE or not torch.is_grad_enabled()
    own, carried = Owed() if read_later else None, Owed()
    both, pooled = _Join.apply(before, ceiling, apart, own, carried, readings, weights, *features)
    feature = before if apart else both[:, :channels]
    source = None if own is None else Source(Lent(feature.detach(), own), pooled)
    return Joined(both, source, Lent(both[:, channels:], carried))


class _Join(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        before: Tensor,
        ceiling: float,
        apart: bool,
        own: Owed | None,
        carried: Owed,
        readings: tuple[Owed, ...],
        weights: Tensor | None,
        *features: Tensor,
    ) -> tuple[Tensor, Tensor | None]:
        before = before.detach()
        both, pooled = _written(before, features, weights, ceiling, apart, own is not None)
        ctx.save_for_backward(before if apart else both, weights, *features)
        ctx.channels, ctx.ceiling = before.shape[1], ceiling
        ctx.own, ctx.carried, ctx.readings = own, carried, readings
        return both, pooled

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_both: Tensor, d_pooled: Tensor | None) -> tuple[Tensor | None, ...]:
        kept, weights, *features = ctx.saved_tensors
        d_before, d_integrated, d_weights = _parted(
            d_both,
            feature=kept[:, : ctx.channels],
            ceiling=ctx.ceiling,
            everywhere=None if d_pooled is None else d_pooled / math.prod(kept.shape[2:]),
            later=[] if ctx.own is None else ctx.own.take(),
            carried=ctx.carried.take(),
            features=[] if weights is None else features,
        )
        settings = None, None, None, None, None
        if weights is None:
            return d_before, *settings, None, d_integrated
        for owed, weight in zip(ctx.readings, weights.unbind(1), strict=True):
            owed.leave(d_integrated, weight)
        return d_before, *settings, d_weights, *(None for _ in features)


def _written(
    before: Tensor,
    features: Sequence[Tensor],
    weights: Tensor | None,
    ceiling: float,
    apart: bool,
    pooling: bool,
) -> tuple[Tensor, Tensor | None]:
    """Return X and R, and the means of X if there is to be pooling.

    Where X is to be kept apart, `before` becomes X; otherwise it is left as it is.
    """
    channels = before.shape[1]
    integrated = features[0].shape[1]
    if native.takes(before, *features):
        both = _empty(before, channels + integrated)
        pooled = _per_channel(before) if pooling else None
        columns = [None] if weights is None else weights.unbind(1)
        entries = list(zip(features, columns, strict=True))
        native.join(before, entries, ceiling, both, before if apart else None, pooled)
        return both, pooled
    if apart:
        feature = rectify_(before, ceiling)
        beside = features[0] if weights is None else weighted_sum(features, weights)
        both = torch.cat((feature, beside), dim=1)
    else:
        both = _empty(before, channels + integrated)
        both[:, :channels] = before
        feature = rectify_(both[:, :channels], ceiling)
        if weights is None:
            both[:, channels:] = features[0]
        else:
            weighted_sum(features, weights, out=both[:, channels:])
    return both, global_average(feature) if pooling else None


def _parted(
    d_both: Tensor,
    feature: Tensor,
    ceiling: float,
    everywhere: Tensor | None,
    later: Sequence[tuple[Tensor, Tensor]],
    carried: Sequence[tuple[Tensor, Tensor]],
    features: Sequence[Tensor],
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Return the gradients of X before its activation, of R, and of the weights of the features.

    Args:
        d_both: of X and R.
        feature: X, after its activation.
        ceiling: of the activation.
        everywhere: what is added to X's gradient in every pixel.
        later: X's gradients in the blocks that read it, and with which weights they did.
        carried: the same of R.
        features: what R is the weighted sum of; none where no weights need a gradient.
    """
    channels = feature.shape[1]
    if native.takes(feature, *features, *(gradient for gradient, _ in (*later, *carried))):
        d_both = d_both.contiguous(memory_format=torch.channels_last)
        d_before = _empty(feature, channels)
        d_integrated = _empty(feature, d_both.shape[1] - channels)
        d_weights = _per_channel(d_integrated, len(features))
        native.part(
            *(d_both, everywhere, later, feature, ceiling, d_before),
            *(carried, d_integrated, features, d_weights),
        )
        return d_before, d_integrated, d_weights
    d_feature = gathered(later, own=d_both[:, :channels], everywhere=everywhere)
    # Of the activation's output it tells as much as of its input: where it is not cut off.
    d_before = torch.ops.aten.hardtanh_backward(d_feature, feature, 0.0, ceiling)
    d_integrated = readable(gathered(carried, own=d_both[:, channels:]))
    return d_before, d_integrated, channel_dots(d_integrated, features) if features else None


def _empty(like: Tensor, channels: int) -> Tensor:
    """Return an uninitialised feature of that many channels, otherwise like the one given."""
    shape = (like.shape[0], channels, *like.shape[2:])
    return torch.empty(
        shape, dtype=like.dtype, device=like.device, memory_format=memory_format(like)
    )


def _per_channel(like: Tensor, *count: int) -> Tensor:
    """Return an uninitialised number, or several, for every channel of every image."""
    shape = (like.shape[0], *count, like.shape[1])
    return torch.empty(shape, dtype=at_least_float32(like.dtype), device=like.device)


class _Concatenate(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, feature: Tensor, integrated: Tensor) -> Tensor:
        ctx.channels = feature.shape[1]
        return torch.cat((feature, integrated), dim=1)

    @staticmethod
    def backward(ctx: Any, d_joined: Tensor) -> tuple[Tensor, Tensor]:
        own, other = d_joined[:, : ctx.channels], d_joined[:, ctx.channels :]
        return readable(own), readable(other)
