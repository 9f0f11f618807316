"""A feature and what AFI adds to it, in one buffer that serves both as activation and as input.

The second convolution reads X_i and R side by side, and later blocks read X_i again. Where the
activation, the concatenation and the views are operations of their own, training keeps X_i twice:
in the buffer, for the convolution, and by itself, for the activation and for later blocks. Here
the activation is made inside the buffer and everybody keeps that.

That is not for narrow features: with channels last, every pixel's few channels are a run of their
own in the buffer, and what runs over them takes two to thirty times as long (8 channels, on a CPU).
There X_i is kept by itself too, and the gradient of the buffer is taken apart before anything else
reads it.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from afi_search.nn.contract import WIDE, readable


def activate_and_join(before: Tensor, integrated: Tensor, ceiling: float) -> tuple[Tensor, Tensor]:
    """Return (X, R) as one tensor, and X by itself.

    Args:
        before: the feature before its activation, B x C x H x W; it may be overwritten.
        integrated: R, B x C' x H x W.
        ceiling: X is `before`, kept between 0 and this.

    Returns:
        B x (C + C') x H x W and B x C x H x W. They may share their memory, so neither may be
        changed in place.
    """
    shares = before.shape[1] >= WIDE and torch.is_grad_enabled()
    if shares and not torch.compiler.is_exporting():
        joined, feature = _ActivateAndJoin.apply(before, integrated, ceiling)
        return joined, feature
    feature = rectify_(before, ceiling)
    return join(feature, integrated), feature


def join(feature: Tensor, integrated: Tensor) -> Tensor:
    """Return (X, R) as one tensor, B x (C + C') x H x W."""
    if torch.compiler.is_exporting():
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
    def forward(before: Tensor, integrated: Tensor, ceiling: float) -> tuple[Tensor, Tensor]:
        channels = before.shape[1]
        joined = joined_around(integrated, channels)
        if joined is None:
            joined = torch.cat((before, integrated), dim=1)
        else:
            joined[:, :channels] = before
        return joined, rectify_(joined[:, :channels], ceiling)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
        before, _, ctx.ceiling = inputs
        ctx.channels = before.shape[1]
        ctx.save_for_backward(output[0])
        ctx.set_materialize_grads(False)

    @staticmethod
    def backward(
        ctx: Any, d_joined: Tensor | None, d_feature: Tensor | None
    ) -> tuple[Tensor | None, Tensor | None, None]:
        (joined,) = ctx.saved_tensors
        feature = joined[:, : ctx.channels]
        d_integrated = None
        if d_joined is not None:
            d_integrated = d_joined[:, ctx.channels :]
            own = d_joined[:, : ctx.channels]
            d_feature = own if d_feature is None else d_feature + own
        if d_feature is None:
            return None, None, None
        # Of the activation's output it tells as much as of its input: where it is not cut off.
        d_before = torch.ops.aten.hardtanh_backward(d_feature, feature, 0.0, ctx.ceiling)
        return d_before, d_integrated, None
