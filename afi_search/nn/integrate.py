"""Integration with a backward pass that gathers the gradient of each feature once.

A feature X_j is read by every later block i: R_i = sum_j w_ij X_j. Left to autograd, each of these
products makes a gradient of X_j, as large as the feature, and adds it to the others. Here X_j is
pooled by a function of its own (`pool`), and the readers' functions (`integrate`) give back the
gradients of their weights only. They leave dR_i with X_j; and since every weight w_ij depends on
the pooled X_j, all of them have been run when the backward pass comes to `pool`, which makes
dX_j = dz_j / HW + sum_i w_ij dR_i in one go.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from afi_search.nn.contract import (
    WIDE,
    at_least_float32,
    channel_dots,
    readable,
    weighted_sum,
)
from afi_search.nn.join import place_beside


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

    def collect(self) -> list[tuple[Tensor, Tensor]]:
        """Return this pass's entries, and forget them."""
        self._begin()
        entries, self._entries = self._entries, []
        return entries

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


def integrate(sources: Sequence[Source], weights: Tensor, beside: int = 0) -> Tensor:
    """Return R, B x C x H x W: the sum of the sources' features with those weights.

    Args:
        sources: one or more.
        weights: B x len(sources) x C, float32 or wider, made of the sources' `pooled`: see above.
        beside: channels of the feature that R is to be joined with. R is written where it lies in
            the joined tensor, so that `activate_and_join` need not copy it; wide features only.
    """
    features = [source.feature for source in sources]
    if torch.compiler.is_compiling():
        return literal_sum(features, weights)
    if features[0].shape[1] < WIDE or not torch.is_grad_enabled():
        beside = 0
    owed = tuple(source.owed for source in sources)
    return _Integrate.apply(weights, owed, beside, *features)


def blend(weights: Tensor, *features: Tensor) -> Tensor:
    """Return the weighted sum of features that nobody else reads; weights as in `integrate`."""
    if torch.compiler.is_compiling():
        return literal_sum(features, weights)
    return _Blend.apply(weights, *features)


def literal_sum(features: Sequence[Tensor], weights: Tensor) -> Tensor:
    """Return what `weighted_sum` does, in operations that every exporter and autograd know."""
    columns = weights.to(features[0].dtype)[..., None, None].unbind(1)
    return sum(x * column for x, column in zip(features[1:], columns[1:], strict=True)) + (
        features[0] * columns[0]
    )


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
        height, width = ctx.shape[2:]
        share = d_pooled / (height * width)
        entries = ctx.owed.collect()
        if not entries:
            return share[:, :, None, None].expand(ctx.shape).to(ctx.dtype), None
        gradients, weights = zip(*entries, strict=True)
        return weighted_sum(gradients, torch.stack(weights, dim=1), start=share), None


class _Integrate(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, weights: Tensor, owed: tuple[Owed, ...], beside: int, *features: Tensor
    ) -> Tensor:
        ctx.save_for_backward(weights, *features)
        ctx.owed = owed
        place = place_beside(features[0], beside) if beside else None
        return weighted_sum(features, weights, out=place)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_integrated: Tensor) -> tuple[Tensor | None, ...]:
        weights, *features = ctx.saved_tensors
        d_integrated = readable(d_integrated)
        for owed, weight in zip(ctx.owed, weights.unbind(1), strict=True):
            owed.leave(d_integrated, weight)
        return (channel_dots(d_integrated, features), None, None, *(None for _ in features))


class _Blend(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, weights: Tensor, *features: Tensor) -> Tensor:
        ctx.save_for_backward(weights, *features)
        return weighted_sum(features, weights)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_blended: Tensor) -> tuple[Tensor, ...]:
        weights, *features = ctx.saved_tensors
        d_blended = readable(d_blended)
        d_features = (weighted_sum([d_blended], weight) for weight in weights.split(1, dim=1))
        return (channel_dots(d_blended, features), *d_features)
