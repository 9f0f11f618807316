"""A feature that later blocks read, and how its gradient comes together in one pass.

A feature X_j is read by every later block i: R_i = sum_j w_ij X_j; and it lies beside R_j in what
its own block's second convolution reads. Left to autograd, each of these readers makes a gradient
of X_j, as large as the feature, and adds it to the others. Here they give back the gradients of
their weights only and leave dR_i with X_j (`Owed`). Every weight w_ij depends on the pooled X_j,
so all readers have been run when the backward pass comes to the pooling, which makes
dX_j = dz_j / HW + sum_i w_ij dR_i, and what the block itself gives, in one go.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from afi_search.nn.contract import at_least_float32, readable, weighted_sum


class Source(NamedTuple):
    """A feature that later blocks read.

    Attributes:
        feature: B x C x H x W. Its gradient flows through `pooled` alone, so no other operation
            may read it from here.
        pooled: its mean over the pixels, B x C, float32 or wider.
        owed: what its readers leave with it in a backward pass.
    """

    feature: Tensor
    pooled: Tensor
    owed: Owed


class Owed:
    """Gradients of what was read of a feature, and with which weight, in one backward pass.

    A pass that did not come as far as the feature leaves its entries behind; the next one begins
    without them.
    """

    def __init__(self) -> None:
        self._pass: int | None = None
        self._entries: list[tuple[Tensor, Tensor]] = []

    def leave(self, gradient: Tensor, weight: Tensor) -> None:
        """Add a reader's dR, B x C x H x W, and its weight of the feature, B x C."""
        self._begin()
        self._entries.append((gradient, weight))

    def gather(
        self, d_pooled: Tensor, shape: torch.Size, dtype: torch.dtype, own: Tensor | None = None
    ) -> Tensor:
        """Return the feature's gradient, and forget this pass's entries.

        Args:
            d_pooled: the gradient of its mean, B x C.
            shape, dtype: the feature's.
            own: what the feature's own block gives it, of that shape; it may be a slice.
        """
        self._begin()
        entries, self._entries = self._entries, []
        share = d_pooled / (shape[2] * shape[3])
        if not entries:
            spread = share[:, :, None, None].expand(shape).to(dtype)
            return spread if own is None else own + spread
        gradients, weights = zip(*entries, strict=True)
        return weighted_sum(gradients, torch.stack(weights, dim=1), start=share, plus=own)

    def _begin(self) -> None:
        current = torch._C._current_graph_task_id()
        if current != self._pass:
            self._pass, self._entries = current, []


def pool(feature: Tensor) -> Source:
    """Make a source of a feature, B x C x H x W; nothing may change it in place afterwards."""
    owed = Owed()
    if torch.compiler.is_compiling():
        return Source(feature, global_average(feature), owed)
    return Source(readable(feature.detach()), _Pool.apply(feature, owed), owed)


def global_average(feature: Tensor) -> Tensor:
    """GAP: B x C x H x W to B x C, float32 or wider."""
    return feature.mean(dim=(2, 3), dtype=at_least_float32(feature.dtype))


class _Pool(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, feature: Tensor, owed: Owed) -> Tensor:
        ctx.owed, ctx.shape, ctx.dtype = owed, feature.shape, feature.dtype
        return global_average(feature)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_pooled: Tensor) -> tuple[Tensor, None]:
        return ctx.owed.gather(d_pooled, ctx.shape, ctx.dtype), None
