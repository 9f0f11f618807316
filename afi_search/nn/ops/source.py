"""A feature that later blocks read, and how its gradient comes together in one pass.

A feature X_j is read by every later block i: R_i = sum_j w_ij X_j; and it lies beside R_j in what
its own block's second convolution reads. Left to autograd, each of these readers makes a gradient
of X_j, as large as the feature, and adds it to the others. Here they give back the gradients of
their weights only and leave dR_i with X_j (`Owed`). Every weight w_ij depends on the pooled X_j,
so all readers have been run when the backward pass comes to the pooling, which makes
dX_j = dz_j / HW + sum_i w_ij dR_i, and what the block itself gives, in one go.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from afi_search.nn.ops.sums import at_least_float32
from afi_search.nn.ops.weighted_sum import memory_format, readable, weighted_sum


class Lent(NamedTuple):
    """A tensor that later blocks read, and what they leave for it.

    Attributes:
        feature: B x C x H x W. Its gradient flows through `owed`, so no operation but those of
            `integrate` and `join` may read it from here. Either it is
            part of autograd's graph, or what its readers are given besides depends on it: so the
            backward pass comes to it after them.
        owed: what its readers leave with it in a backward pass.
    """

    feature: Tensor
    owed: Owed


class Source(NamedTuple):
    """A feature X_j that later blocks read, and score.

    Attributes:
        lent: the feature.
        pooled: its mean over the pixels, B x C, float32 or wider.
    """

    lent: Lent
    pooled: Tensor


class Owed:
    """Gradients of what was read of a tensor, and with which weight, in one backward pass.

    A pass that did not come as far as the tensor leaves its entries behind; the next one begins
    without them.
    """

    def __init__(self) -> None:
        self._pass: int | None = None
        self._entries: list[tuple[Tensor, Tensor]] = []

    def leave(self, gradient: Tensor, weight: Tensor) -> None:
        """Add a reader's dR, B x C x H x W, and its weight of the tensor, B x C."""
        self._begin()
        self._entries.append((gradient, weight))

    def take(self) -> list[tuple[Tensor, Tensor]]:
        """Return this pass's entries, and forget them."""
        self._begin()
        entries, self._entries = self._entries, []
        return entries

    def _begin(self) -> None:
        current = torch._C._current_graph_task_id()
        if current != self._pass:
            self._pass, self._entries = current, []


def gathered(
    entries: Sequence[tuple[Tensor, Tensor]],
    own: Tensor | None = None,
    everywhere: Tensor | None = None,
    out: Tensor | None = None,
) -> Tensor:
    """Return own + everywhere + the sum of the entries' gradients with their weights.

    Args:
        entries: one or more, or none where there is `own`.
        own: B x C x H x W; it may be a slice of channels.
        everywhere: B x C, the same in every pixel.
        out: what the sum is written to, where there are entries; a new tensor where None.
    """
    if entries:
        gradients, weights = zip(*entries, strict=True)
        return weighted_sum(
            gradients, torch.stack(weights, dim=1), start=everywhere, out=out, plus=own
        )
    assert own is not None
    return own if everywhere is None else own + everywhere[:, :, None, None].to(own.dtype)


def pool(feature: Tensor, channels: int | None = None) -> Source:
    """Make a source of a feature; nothing may change it in place afterwards.

    Args:
        feature: B x C x H x W.
        channels: of which so many are the source, the first ones; all where None.
    """
    channels = feature.shape[1] if channels is None else channels
    source, owed = feature[:, :channels], Owed()
    if torch.compiler.is_compiling():
        return Source(Lent(source, owed), global_average(source))
    return Source(Lent(readable(source.detach()), owed), _Pool.apply(feature, channels, owed))


def global_average(feature: Tensor) -> Tensor:
    """GAP: B x C x H x W to B x C, float32 or wider."""
    return feature.mean(dim=(2, 3), dtype=at_least_float32(feature.dtype))


class _Pool(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, feature: Tensor, channels: int, owed: Owed) -> Tensor:
        ctx.owed, ctx.channels = owed, channels
        ctx.shape, ctx.layout, ctx.dtype = feature.shape, memory_format(feature), feature.dtype
        return global_average(feature[:, :channels])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_pooled: Tensor) -> tuple[Tensor, None, None]:
        share = d_pooled / math.prod(ctx.shape[2:])
        # As the feature lies: to add up gradients that lie differently takes many times as long.
        d_feature = torch.empty(
            ctx.shape, dtype=ctx.dtype, device=d_pooled.device, memory_format=ctx.layout
        )
        d_source = d_feature[:, : ctx.channels]
        d_feature[:, ctx.channels :] = 0
        entries = ctx.owed.take()
        if entries:
            gathered(entries, everywhere=share, out=d_source)
        else:
            d_source[:] = share[:, :, None, None]
        return d_feature, None, None
