"""A feature and what AFI adds to it, in one buffer that serves both as activation and as input.

The second convolution reads X_i and R side by side, and later blocks read X_i again. Where the
activation, the concatenation and the views are operations of their own, training keeps X_i twice:
in the buffer, for the convolution, and by itself, for the activation and for later blocks. Here
the activation is made inside the buffer and everybody keeps that.

That is not for narrow features: with channels last, every pixel's few channels are a run of their
own in the buffer, and what runs over them takes two to thirty times as long (8 channels, on a CPU).
There X_i is kept by itself too.

The activation's function is also the one that pools X_i, so that its backward pass has all that
X_i's gradient is made of: from the buffer, and what the later blocks left (`afi_search.nn.source`).
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from afi_search.nn.contract import WIDE, readable
from afi_search.nn.source import Owed, Source, global_average, pool


def activate_and_join(
    before: Tensor, integrated: Tensor, ceiling: float, read_later: bool
) -> tuple[Tensor, Source | None]:
    """Return (X, R) as one tensor, and X as a source for later blocks.

    Args:
        before: the feature before its activation, B x C x H x W; it may be overwritten.
        integrated: R, B x C' x H x W.
        ceiling: X is `before`, kept between 0 and this.
        read_later: whether there are later blocks that read X; the source is None otherwise.

    Returns:
        B x (C + C') x H x W and the source. They may share their memory, so neither may be changed
        in place.
    """
    if torch.is_grad_enabled() and not torch.compiler.is_compiling():
        owed = Owed() if read_later else None
        joined, pooled = _ActivateAndJoin.apply(before, integrated, ceiling, owed)
        channels = before.shape[1]
        feature = (joined[:, :channels] if channels >= WIDE else before).detach()
        return joined, None if owed is None else Source(feature, pooled, owed)
    feature = rectify_(before, ceiling)
    return join(feature, integrated), pool(feature) if read_later else None


def join(feature: Tensor, integrated: Tensor) -> Tensor:
    """Return (X, R) as one tensor, B x (C + C') x H x W."""
    if torch.compiler.is_compiling():
        return torch.cat((feature, integrated), dim=1)
    joined: Tensor = _Join.apply(feature, integrated)
    return joined


def place_beside(integrated: Tensor, channels: int) -> Tensor:
    """Return an uninitialised tensor like `integrated` that lies in a joined tensor, in its place.

    Args:
        integrated: R, or a feature of its shape.
        channels: of the feature that lies before it.
    """
    batch, own, height, width = integrated.shape
    joined = torch.empty(
        (batch, channels + own, height, width),
        dtype=integrated.dtype,
        device=integrated.device,
        memory_format=torch.channels_last if integrated.stride(1) == 1 else torch.contiguous_format,
    )
    return joined[:, channels:]


def joined_around(integrated: Tensor, channels: int) -> Tensor | None:
    """Return the joined tensor that `place_beside` made this one in, or None where it did not."""
    batch, own, height, width = integrated.shape
    shape = (batch, channels + own, height, width)
    storage = integrated.untyped_storage()
    begins = integrated.storage_offset() == channels * (
        1 if integrated.stride(1) == 1 else height * width
    )
    whole = storage.nbytes() == integrated.element_size() * math.prod(shape)
    if channels == 0 or not (begins and whole):
        return None
    return integrated.new_empty(0).set_(storage, 0, shape, integrated.stride())


def rectify_(y: Tensor, ceiling: float) -> Tensor:
    """Cut off what is below zero or above the ceiling, in place; return the same tensor."""
    return F.relu_(y) if ceiling == math.inf else F.hardtanh_(y, 0.0, ceiling)


class _Join(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, feature: Tensor, integrated: Tensor) -> Tensor:
        ctx.channels = feature.shape[1]
        return torch.cat((feature, integrated), dim=1)

    @staticmethod
    def backward(ctx: Any, d_joined: Tensor) -> tuple[Tensor, Tensor]:
        own, other = d_joined[:, : ctx.channels], d_joined[:, ctx.channels :]
        return readable(own), readable(other)


class _ActivateAndJoin(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, before: Tensor, integrated: Tensor, ceiling: float, owed: Owed | None
    ) -> tuple[Tensor, Tensor | None]:
        channels = before.shape[1]
        if channels >= WIDE:
            joined = joined_around(integrated, channels)
            if joined is None:
                joined = torch.cat((before, integrated), dim=1)
            else:
                joined[:, :channels] = before
            feature = rectify_(joined[:, :channels], ceiling)
            ctx.save_for_backward(joined)
        else:
            feature = rectify_(before.detach(), ceiling)
            joined = torch.cat((feature, integrated), dim=1)
            ctx.save_for_backward(feature)
        ctx.channels, ctx.ceiling, ctx.owed = channels, ceiling, owed
        return joined, None if owed is None else global_average(feature)

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any, d_joined: Tensor, d_pooled: Tensor | None
    ) -> tuple[Tensor, Tensor, None, None]:
        (kept,) = ctx.saved_tensors
        feature = kept[:, : ctx.channels]
        d_feature, d_integrated = d_joined[:, : ctx.channels], d_joined[:, ctx.channels :]
        if ctx.owed is not None:
            d_feature = ctx.owed.gather(d_pooled, feature.shape, feature.dtype, own=d_feature)
        # Of the activation's output it tells as much as of its input: where it is not cut off.
        d_before = torch.ops.aten.hardtanh_backward(d_feature, feature, 0.0, ctx.ceiling)
        return d_before, readable(d_integrated), None, None
