"""R of the features before a block, by functions that leave a source's gradient with the source."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from afi_search.nn.contract import WIDE, channel_dots, readable, weighted_sum
from afi_search.nn.join import place_beside
from afi_search.nn.source import Owed, Source


def integrate(sources: Sequence[Source], weights: Tensor, beside: int = 0) -> Tensor:
    """Return R, B x C x H x W: the sum of the sources' features with those weights.

    Args:
        sources: one or more.
        weights: B x len(sources) x C, float32 or wider, made of the sources' `pooled`: see
            `afi_search.nn.source`.
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


def advance(integrated: Tensor, source: Source, weights: Tensor) -> Tensor:
    """Return R of one source more: the sum of R so far and the feature with those weights.

    Args:
        integrated: B x C x H x W.
        source: the next.
        weights: B x 2 x C, of `integrated` and of the source, otherwise as in `integrate`.
    """
    if torch.compiler.is_compiling():
        return literal_sum((integrated, source.feature), weights)
    return _Advance.apply(weights, source.owed, integrated, source.feature)


def literal_sum(features: Sequence[Tensor], weights: Tensor) -> Tensor:
    """Return what `weighted_sum` does, in operations that every exporter and autograd know."""
    columns = weights.to(features[0].dtype)[..., None, None].unbind(1)
    return sum(x * column for x, column in zip(features[1:], columns[1:], strict=True)) + (
        features[0] * columns[0]
    )


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


class _Advance(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, weights: Tensor, owed: Owed, integrated: Tensor, feature: Tensor
    ) -> Tensor:
        ctx.save_for_backward(weights, integrated, feature)
        ctx.owed = owed
        return weighted_sum((integrated, feature), weights)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_advanced: Tensor) -> tuple[Tensor | None, ...]:
        weights, integrated, feature = ctx.saved_tensors
        d_advanced = readable(d_advanced)
        ctx.owed.leave(d_advanced, weights[:, 1])
        d_integrated = weighted_sum([d_advanced], weights[:, :1])
        return channel_dots(d_advanced, (integrated, feature)), None, d_integrated, None
