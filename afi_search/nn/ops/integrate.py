"""R of the features before a block; a feature's gradient is left with the feature."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from afi_search.nn.ops.source import Lent, Owed, gathered
from afi_search.nn.ops.weighted_sum import channel_dots, readable, weighted_sum


class Reading(NamedTuple):
    """What a block integrates: R is the sum of these tensors with these weights.

    Attributes:
        lent: one or more, of C channels.
        weights: B x len(lent) x C, float32 or wider, made of the `pooled` of the sources.
    """

    lent: tuple[Lent, ...]
    weights: Tensor

    @property
    def features(self) -> list[Tensor]:
        """Return the tensors, B x C x H x W each."""
        return [of.feature for of in self.lent]

    @property
    def owed(self) -> tuple[Owed, ...]:
        """Return what is owed for each."""
        return tuple(of.owed for of in self.lent)


def integrate(reading: Reading) -> tuple[Tensor, Lent]:
    """Return R, B x C x H x W, and R as something that can be read again."""
    if torch.compiler.is_compiling():
        integrated = literal_sum(reading.features, reading.weights)
        return integrated, Lent(integrated, Owed())
    owed = Owed()
    integrated = _Integrate.apply(reading.weights, owed, reading.owed, *reading.features)
    return integrated, Lent(integrated, owed)


def literal_sum(features: Sequence[Tensor], weights: Tensor) -> Tensor:
    """Return what `weighted_sum` does, in operations that every exporter and autograd know."""
    columns = weights.to(features[0].dtype)[..., None, None].unbind(1)
    return sum(x * column for x, column in zip(features[1:], columns[1:], strict=True)) + (
        features[0] * columns[0]
    )


class _Integrate(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, weights: Tensor, owed: Owed, readings: tuple[Owed, ...], *features: Tensor
    ) -> Tensor:
        ctx.save_for_backward(weights, *features)
        ctx.owed, ctx.readings = owed, readings
        return weighted_sum(features, weights)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_integrated: Tensor) -> tuple[Tensor | None, ...]:
        weights, *features = ctx.saved_tensors
        d_integrated = readable(gathered(ctx.owed.take(), own=d_integrated))
        for owed, weight in zip(ctx.readings, weights.unbind(1), strict=True):
            owed.leave(d_integrated, weight)
        return (channel_dots(d_integrated, features), None, None, *(None for _ in features))
